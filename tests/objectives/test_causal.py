"""Causal language modelling: every token is predicted from those before it."""

from __future__ import annotations

import numpy as np
import pytest

from sensorium.errors import DataError
from sensorium.objectives.causal import CausalLanguageModel
from sensorium.text.training import train_byte_level_bpe
from tests.objectives.conftest import ENGLISH

TOKENIZER = train_byte_level_bpe(ENGLISH, 300)
RECORDS = [{"text": text} for text in ENGLISH]


def test_texts_are_joined_by_the_end_token() -> None:
    stream = CausalLanguageModel().prepare(RECORDS, TOKENIZER)
    expected = [i for text in ENGLISH for i in [*TOKENIZER.encode_plain(text), TOKENIZER.eos_id]]
    assert stream.tolist() == expected


def test_targets_are_the_next_tokens_within_each_run() -> None:
    objective = CausalLanguageModel(max_length=16)
    generator = np.random.default_rng(0)
    examples = objective.examples(objective.prepare(RECORDS, TOKENIZER), generator)
    batch = objective.collate(examples, TOKENIZER, generator)
    expected = [i for example in examples for i in example.token_ids[1:].tolist()]
    assert batch.targets["next"].tolist() == expected
    before = [i for example in examples for i in example.token_ids[:-1].tolist()]
    assert batch.packed.values[batch.targets["rows"]].tolist() == before


def test_each_epoch_cuts_elsewhere_and_loses_less_than_a_run() -> None:
    objective = CausalLanguageModel(max_length=16)
    stream = objective.prepare(RECORDS, TOKENIZER)
    starts = set()
    for epoch in range(8):
        examples = objective.examples(stream, np.random.default_rng(epoch))
        joined = np.concatenate([example.token_ids for example in examples])
        start = len(stream) - len(joined)
        assert start <= 16
        starts.add(examples[0].token_ids[:4].tobytes())
    assert len(starts) > 3


def test_texts_too_short_to_predict_anything_are_named() -> None:
    objective = CausalLanguageModel()
    with pytest.raises(DataError, match="fewer than two tokens"):
        objective.prepare([], TOKENIZER)
