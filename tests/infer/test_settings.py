"""Settings: each in its range, none against another, and a checkpoint's own where the caller gives none."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest

from sensorium.errors import CheckpointError, UsageError
from sensorium.infer.setting_checks import CHECKS
from sensorium.infer.settings import GenerationSettings, settings_of


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0; it must be 1 or more"),
        ({"max_new_tokens": 2.5}, "max_new_tokens is 2.5; it must be 1 or more"),
        ({"max_new_tokens": True}, "max_new_tokens is True; it must be 1 or more"),
        ({"temperature": 0.0, "do_sample": True}, "temperature is 0.0; it must be above 0"),
        ({"temperature": "hot", "do_sample": True}, "temperature is 'hot'; it must be above 0"),
        ({"temperature": math.nan, "do_sample": True}, "temperature is nan"),
        ({"top_p": 0.0, "do_sample": True}, "top_p is 0.0; it must be above 0 and at most 1"),
        ({"top_k": -1, "do_sample": True}, "top_k is -1; it must be 0 or more"),
        ({"min_p": 1.5, "do_sample": True}, "min_p is 1.5; it must be from 0 to 1"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0; it must be above 0"),
        ({"seed": -1}, "seed is -1; it must be 0 or more"),
        ({"num_beams": 0}, "num_beams is 0; it must be from 1 to 1,000"),
        ({"num_beams": 2, "length_penalty": math.nan}, "length_penalty is nan; it must be from -10.0 to 10.0"),
        ({"num_beams": 2, "length_penalty": 11}, "length_penalty is 11"),
        ({"num_beams": 2, "early_stopping": "always"}, "early_stopping is 'always'; it must be True, False or 'never'"),
        ({"num_beams": 2, "early_stopping": 1}, "early_stopping is 1"),
        ({"num_return_sequences": 0}, "num_return_sequences is 0; it must be from 1 to 10,000"),
        ({"stop_strings": ["a", ""]}, "stop_strings is .* at most 64 texts that are not empty"),
        ({"bad_words_ids": [[1, -2]]}, "bad_words_ids is .* a list of lists of token ids"),
        ({"bad_words_ids": [3]}, "bad_words_ids is .* a list of lists of token ids"),
        ({"suppress_tokens": 7}, "suppress_tokens is 7; it must be a list of token ids"),
        ({"eos_token_id": "end"}, "eos_token_id is 'end'; it must be a token id, or a list of them"),
        ({"log_probs": 101}, "log_probs is 101; it must be from 0 to 100"),
    ],
)
def test_a_setting_out_of_range_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        GenerationSettings(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 2, "do_sample": True}, "sampling within a beam search is not supported"),
        ({"num_beams": 2, "num_return_sequences": 3}, "a search with 2 beams gives at least 1 answer and at most 2"),
        ({"num_return_sequences": 2}, "needs do_sample=True or num_beams above 1: greedy has one answer"),
        ({"temperature": 0.7}, "temperature=0.7 does nothing without do_sample=True; give both, or neither"),
        ({"top_p": 0.9, "num_beams": 3}, "top_p=0.9 does nothing without do_sample=True"),
        ({"length_penalty": 2.0}, "length_penalty=2.0 does nothing without num_beams above 1"),
        ({"early_stopping": True, "do_sample": True}, "early_stopping=True does nothing without num_beams above 1"),
        ({"max_new_tokens": 3, "min_new_tokens": 4}, "min_new_tokens is 4, and max_new_tokens only 3"),
        ({"max_length": 3, "min_length": 4}, "min_length is 4, and max_length only 3"),
        ({"forced_bos_token_id": 3, "suppress_tokens": [3]}, "forced_bos_token_id is 3, and suppress_tokens forbids"),
        ({"forced_eos_token_id": [3], "suppress_tokens": [3]}, "forced_eos_token_id is 3, and suppress_tokens"),
    ],
)
def test_settings_that_contradict_each_other_are_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        GenerationSettings(**options)


def test_every_setting_is_checked() -> None:
    assert list(CHECKS) == [field.name for field in fields(GenerationSettings)]


def test_how_many_tokens_are_written_at_most() -> None:
    assert GenerationSettings().most_new_tokens(7) == 20
    assert GenerationSettings(max_length=10).most_new_tokens(7) == 3
    assert GenerationSettings(max_length=10, max_new_tokens=5).most_new_tokens(7) == 5
    with pytest.raises(UsageError, match="has 10 tokens, and max_length, which counts them, is 10; give max_new_token"):
        GenerationSettings(max_length=10).most_new_tokens(10)


MARIAN = {"num_beams": 6, "max_length": 512, "bad_words_ids": [[58100]], "forced_eos_token_id": 0, "eos_token_id": 0}
CHAT = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "eos_token_id": [128001, 128009], "_from": 1}


@pytest.mark.parametrize(
    ("options", "defaults", "expected"),
    [
        ({}, {}, {}),
        ({"top_k": None}, {}, {}),
        ({}, MARIAN, MARIAN),
        ({}, CHAT, {name: value for name, value in CHAT.items() if name != "_from"}),
        ({"do_sample": False}, CHAT, {"do_sample": False, "eos_token_id": [128001, 128009]}),
        ({"num_beams": 2}, CHAT, {"num_beams": 2, "eos_token_id": [128001, 128009]}),
        ({"temperature": 1.5, "do_sample": True}, CHAT, {**CHAT, "temperature": 1.5}),
        ({"do_sample": True}, {"num_beams": 4, "length_penalty": 2.0}, {"do_sample": True}),
        ({"num_beams": 1}, {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True}, {"num_beams": 1}),
        ({}, {"num_beams": 4, "do_sample": True, "temperature": 0.5}, {"num_beams": 4}),
        ({}, {"num_beams": 1, "length_penalty": 2.0}, {}),
        ({"max_length": 9}, {"max_new_tokens": 5}, {"max_length": 9}),
        ({"max_length": 30}, {"min_length": 56, "max_length": 142}, {"max_length": 30}),
        ({"min_length": 80}, {"max_length": 62}, {"min_length": 80}),
        ({"num_beams": 2}, {"num_return_sequences": 3}, {"num_beams": 2}),
        ({"num_return_sequences": 2}, {"num_beams": 3}, {"num_return_sequences": 2, "num_beams": 3}),
        ({"temperature": 1.5}, CHAT, {**CHAT, "temperature": 1.5}),
    ],
)
def test_what_a_checkpoint_says_holds_where_the_caller_says_nothing(
    options: dict[str, Any], defaults: dict[str, Any], expected: dict[str, Any]
) -> None:
    expected = {name: value for name, value in expected.items() if name != "_from"}
    assert settings_of(options, defaults) == GenerationSettings(**expected)


@pytest.mark.parametrize(
    ("defaults", "message"),
    [
        ({"temperature": "hot"}, "generation_config.json: temperature is 'hot'; it must be above 0"),
        ({"eos_token_id": {"a": 1}}, "generation_config.json: eos_token_id is {'a': 1}; it must be a token id"),
        ({"bad_words_ids": 7}, "generation_config.json: bad_words_ids is 7; it must be a list of lists"),
        ({"min_length": 9, "max_length": 8}, "generation_config.json contradicts itself: min_length is 9"),
    ],
)
def test_a_checkpoint_that_says_nonsense_is_named(defaults: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        settings_of({}, defaults)


def test_an_unknown_option_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="no option 'temprature'; did you mean 'temperature'"):
        settings_of({"temprature": 1.0})


def test_what_a_checkpoint_asks_for_and_is_not_supported_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="asks for typical_p, which is not supported"):
        settings_of({}, {"typical_p": 0.9, "epsilon_cutoff": 0.0})
