"""Whatever a random model would write, it writes what the grammar allows: every text parses and validates."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.errors import UsageError
from sensorium.infer.engine import fast
from sensorium.infer.settings import GenerationSettings
from sensorium.infer.write import write, write_stream
from sensorium.text import Tokenizer
from sensorium.text.training import train_byte_level_bpe, train_wordpiece
from tests.infer.random_models import random_decoder

pytest.importorskip("llguidance")
TEXTS = ('{"name": "Anna", "age": 3, "tags": ["red", "blue"]}', "今天天气很好，我们去公园玩。", "yes no maybe 好 不好")
TOKENIZER = train_byte_level_bpe(TEXTS * 3, 330)
PROMPTS = [TOKENIZER.encode_plain(text) for text in ("yes", "今天天气", '{"name')]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "心情": {"enum": ["好", "不好", None]},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{1,4}$"}, "maxItems": 2},
        "exact": {"type": "boolean"},
    },
    "required": ["name", "心情", "tags"],
    "additionalProperties": False,
}
SCHEMAS: list[Any] = [
    SCHEMA,
    {"type": "array", "items": SCHEMA, "minItems": 1, "maxItems": 1},
    {"type": "string", "pattern": "^[天气好]{2,5}$"},
    {"anyOf": [{"const": {"a": [1, 2]}}, {"type": "null"}]},
]
HOW: list[dict[str, Any]] = [
    {},
    {"do_sample": True, "temperature": 2.0, "top_k": 0},
    {"do_sample": True, "num_return_sequences": 2},
    {"num_beams": 3, "num_return_sequences": 2},
]


def random_model(seed: int, vocabulary_size: int = TOKENIZER.vocabulary_size) -> Any:
    """It has more tokens than the tokenizer, as many published ones do."""
    return random_decoder(seed, vocabulary_size=vocabulary_size + 5, positions=300, spread=0.4)


@settings(max_examples=25)
@given(seed=st.integers(0, 999), schema=st.sampled_from(SCHEMAS), how=st.sampled_from(HOW))
def test_every_text_parses_and_validates(seed: int, schema: Any, how: dict[str, Any]) -> None:
    chance = {"seed": seed} if how.get("do_sample") else {}
    options = GenerationSettings(max_new_tokens=200, json_schema=schema, **how, **chance)
    for answers in write(random_model(seed), PROMPTS, options, TOKENIZER):
        for one in answers:
            assert one.finish_reason == "stop"
            jsonschema.validate(json.loads(str(one.text)), schema)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 999),
    regex=st.sampled_from(["(yes|no){1,3}!?", "[0-9]{4}-[0-9]{2}", "[今天气]{3}，[a-c]*d", "a?"]),
    how=st.sampled_from(HOW),
)
def test_every_text_matches_whole(seed: int, regex: str, how: dict[str, Any]) -> None:
    chance = {"seed": seed} if how.get("do_sample") else {}
    options = GenerationSettings(max_new_tokens=80, regex=regex, **how, **chance)
    for answers in write(random_model(seed), PROMPTS, options, TOKENIZER):
        for one in answers:
            assert one.finish_reason == "length" or re.fullmatch(regex, str(one.text))


@pytest.mark.parametrize("size", [TOKENIZER.vocabulary_size, 345, 352, 353])
def test_every_size_of_a_vocabulary_has_its_mask(size: int) -> None:
    model = random_model(1, size - 5)
    ((one,),) = write(model, PROMPTS[:1], GenerationSettings(max_new_tokens=9, choices=("好", "no")), TOKENIZER)
    assert one.text in ("好", "no")


def test_one_of_the_choices_is_written_the_likeliest_by_beams() -> None:
    choices = ("yes", "no", "maybe", "好", "不好", 'a "quoted"\nline')
    seen = set()
    for seed in range(6):
        for how in HOW:
            chance = {"seed": seed} if how.get("do_sample") else {}
            options = GenerationSettings(max_new_tokens=30, choices=choices, **how, **chance)
            seen |= {one.text for found in write(random_model(seed), PROMPTS, options, TOKENIZER) for one in found}
    assert seen <= set(choices)
    assert len(seen) > 3


def test_a_constrained_text_is_the_same_alone_in_a_stream_and_on_the_kernels() -> None:
    model = random_model(3)
    options = GenerationSettings(max_new_tokens=200, json_schema=SCHEMA)
    together = [one.text for (one,) in write(model, PROMPTS, options, TOKENIZER)]
    assert together == ["".join(write_stream(model, prompt, options, TOKENIZER)) for prompt in PROMPTS]
    assert together == [one.text for (one,) in write(fast(model, "fp32"), PROMPTS, options, TOKENIZER)]


def test_the_likeliest_allowed_token_is_taken_and_no_other() -> None:
    model = random_model(5)
    ((free,),) = write(model, PROMPTS[:1], GenerationSettings(max_new_tokens=4), TOKENIZER)
    anything = GenerationSettings(max_new_tokens=4, regex="(.|\\n)*")
    ((same,),) = write(model, PROMPTS[:1], anything, TOKENIZER)
    assert "\ufffd" in str(free.text) or same.token_ids == free.token_ids


def test_a_text_that_is_cut_is_said_to_be() -> None:
    options = GenerationSettings(max_new_tokens=3, regex="[a-z]{200}")
    ((one,),) = write(random_model(0), PROMPTS[:1], options, TOKENIZER)
    assert one.finish_reason == "length"
    assert re.fullmatch("[a-z]+", str(one.text))
    forced = GenerationSettings(max_new_tokens=3, regex="[a-z]{200}", forced_eos_token_id=TOKENIZER.eos_id)
    ((one,),) = write(random_model(0), PROMPTS[:1], forced, TOKENIZER)
    assert one.finish_reason == "length"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"json_schema": '{"type": '}, "json_schema can't be followed: "),
        ({"json_schema": {"type": "tuple"}}, "json_schema can't be followed: Invalid type: tuple"),
        (
            {"json_schema": {"type": "string", "minLength": 3, "maxLength": 2}},
            "followed: Unsatisfiable schema: minLength",
        ),
        ({"json_schema": False}, "json_schema is False; it must be a JSON schema, an object"),
        ({"json_schema": {"not": {"type": "null"}}}, 'Unimplemented keys: \\["not"\\]'),
        ({"json_schema": {"a": {1, 2}}}, "json_schema can't be written as JSON"),
        ({"json_schema": "7"}, "json_schema can't be followed: Expecting object"),
        ({"regex": "a{3"}, "regex can't be followed: .*unclosed counted repetition"),
        ({"regex": "[^\\s\\S]"}, "regex: there is no text that satisfies it"),
        ({"regex": "a", "choices": ["a"]}, "regex and choices were given; a text can follow one of them"),
        ({"choices": ["yes"], "suppress_tokens": range(330)}, "leave no token to choose after 0 new ones"),
    ],
)
def test_a_grammar_that_nothing_can_follow_is_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        write(random_model(0), PROMPTS, GenerationSettings(**options), TOKENIZER)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_the_library_does_not_read_is_named() -> None:
    wordpiece: Tokenizer = train_wordpiece(TEXTS * 3, 100)
    model = random_model(0, wordpiece.vocabulary_size)
    with pytest.raises(UsageError, match=r"with this tokenizer \(WordPiece\).*byte-level and SentencePiece"):
        write(model, [[1]], GenerationSettings(regex="a", eos_token_id=3), wordpiece)


def test_a_grammar_without_an_end_token_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="regex needs a tokenizer and an end token"):
        write(random_model(0), [[1]], GenerationSettings(regex="a", eos_token_id=3))
