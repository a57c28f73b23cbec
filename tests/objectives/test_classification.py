"""Labels stand where they belong, for texts and for words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers

from sensorium.errors import DataError
from sensorium.evaluate.token_classification import tagged
from sensorium.objectives.sequence import SequenceClassification
from sensorium.objectives.token import TokenClassification, record_tags
from sensorium.text import Tokenizer
from tests.objectives.test_parity import collated

WORDS = ["Fishermen", "remembered", "unforgettable", "storms", "and", "manuscripts"]


def test_texts_and_pairs_are_what_the_tokenizer_makes_of_them_cut_to_length(tokenizer: Tokenizer) -> None:
    records = [
        {"text": " ".join(WORDS * 5), "label": "b"},
        {"text": "The storm", "pair": "The letter", "label": "a"},
        {"text": "A", "pair": "", "label": 7},
    ]
    examples = SequenceClassification(("7", "a", "b"), max_length=20).prepare(records, tokenizer)
    assert [example.labels["sequence"] for example in examples] == [2, 1, 0]
    assert len(examples[0]) == 20
    pair = tokenizer.encode("The storm", "The letter")
    assert examples[1].token_ids.tolist() == pair.token_ids
    assert examples[1].segment_ids is not None
    assert examples[1].segment_ids.tolist() == pair.segment_ids
    assert examples[2].segment_ids is None


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": "A", "label": "c"}, "record 2 has the label 'c', which is not one of a, b"),
        ({"text": "", "label": "a"}, "record 2: its 'text' is empty"),
        ({"text": "A"}, "record 2 has no 'label'; it has 'text'"),
    ],
)
def test_a_record_that_cannot_be_learned_from_is_named(
    tokenizer: Tokenizer, record: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        SequenceClassification(("a", "b")).prepare([{"text": "A", "label": "a"}, record], tokenizer)


def test_the_first_token_of_each_word_carries_its_label_as_transformers_aligns_them(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    tokenizer.save(tmp_path)
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    tags = ["A", "O", "B", "O", "A", "B"]
    objective = TokenClassification(("O", "A", "B"), max_length=24)
    [example] = objective.prepare([{"tokens": WORDS, "tags": tags}], tokenizer)
    encoding = peer(WORDS, is_split_into_words=True, truncation=True, max_length=24)
    assert example.token_ids.tolist() == encoding["input_ids"]
    expected, seen = {}, set()
    for row, word in enumerate(encoding.word_ids()):
        if word is not None and word not in seen:
            seen.add(word)
            expected[row] = ("O", "A", "B").index(tags[word])
    assert dict(zip(example.labels["rows"].tolist(), example.labels["token"].tolist(), strict=True)) == expected
    assert len(expected) < len(WORDS)  # the last ones were cut off


def test_the_token_head_runs_on_labelled_tokens_only(tokenizer: Tokenizer, model: Any) -> None:
    objective = TokenClassification(("O", "PER"))
    batch = collated(objective, [{"tokens": WORDS, "tags": ["O"] * 6}] * 2, tokenizer)
    rows: list[int] = []
    model.token.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    objective.losses(model, batch)
    assert rows == [12]
    assert batch.packed.num_tokens > 24


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "record 1 has 2 tokens and 1 tags"),
        ({"tokens": ["a"], "tags": ["LOC"]}, "record 1 has the label 'LOC', which is not one of O, PER"),
    ],
)
def test_words_and_tags_that_do_not_match_are_named(tokenizer: Tokenizer, record: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        TokenClassification(("O", "PER")).prepare([record], tokenizer)


def test_every_token_of_an_entity_carries_its_label_as_its_borders_say(tokenizer: Tokenizer) -> None:
    text = "Two fishermen, unforgettable Anna Rainwaters at 8."
    spans = [("Anna", "first"), ("Rainwaters", "last"), ("unforgettable Anna Rainwaters", "whole"), ("8", "time")]
    entities = [{"entity_group": g, "start": text.index(s), "end": text.index(s) + len(s)} for s, g in spans]
    record = {"text": text, "entities": entities}
    labels = tuple(sorted(record_tags(record)))
    [example] = TokenClassification(labels).prepare([record], tokenizer)
    encoding = tokenizer.encode(text)
    assert example.labels["rows"].tolist() == [r for r, s in enumerate(encoding.sequence_ids) if s is not None]
    found = [
        (text[slice(*encoding.offsets[row])], labels[label])
        for row, label in zip(example.labels["rows"].tolist(), example.labels["token"].tolist(), strict=True)
        if labels[label] != "O"
    ]
    whole = [(piece, tag) for piece, tag in found if "whole" in tag]  # the longer one counts
    assert "".join(piece for piece, _ in whole) == "unforgettableAnnaRainwaters"
    assert [tag[0] for _, tag in whole] == ["B", *"I" * (len(whole) - 1)]
    assert found[len(whole) :] == [("8", "B-time")]


def test_what_is_labelled_is_what_evaluation_reads_back(tokenizer: Tokenizer) -> None:
    words, tags = ["Keepers", "met", "Bob", "Mc", ",", "then", "Eve"], ["O", "O", "B-PER", "I-PER", "O", "O", "B-PER"]
    by_entities = tagged(words, tags)
    labels = ("B-PER", "I-PER", "O")
    [one], [other] = (
        TokenClassification(labels).prepare([record], tokenizer)
        for record in ({"tokens": words, "tags": tags}, by_entities)
    )
    at = dict(zip(other.labels["rows"].tolist(), other.labels["token"].tolist(), strict=True))
    assert one.token_ids.tolist() == other.token_ids.tolist()
    assert [at[row] for row in one.labels["rows"].tolist()] == one.labels["token"].tolist()


@pytest.mark.parametrize(
    ("entity", "message"),
    [
        ({"entity_group": "PER", "start": 3, "end": 3}, "record 1: the entity 3–3 is no stretch of its 4 characters"),
        ({"entity_group": "PER", "start": 0, "end": 9}, "record 1: the entity 0–9 is no stretch of its 4 characters"),
        ({"entity_group": "LOC", "start": 0, "end": 4}, "record 1 has the label 'B-LOC', which is not one of B-PER"),
        ({"start": 0, "end": 4}, "record 1: the entity .* needs 'entity_group', 'start' and 'end'"),
    ],
)
def test_an_entity_that_does_not_fit_its_text_is_named(
    tokenizer: Tokenizer, entity: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        TokenClassification(("B-PER", "I-PER", "O")).prepare([{"text": "Anna", "entities": [entity]}], tokenizer)
