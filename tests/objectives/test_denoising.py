"""Denoising: what is not hidden stays in order, as much is hidden as was asked for, and the text is written whole."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium.config import EncoderDecoderConfig
from sensorium.errors import DataError, UsageError
from sensorium.models.build import new_model
from sensorium.objectives.denoising import Denoising, hide_spans
from sensorium.text.pieces import train_pieces
from sensorium.text.training import train_byte_level_bpe
from sensorium.train.new_models import new_config
from sensorium.train.recipe import ModelSection
from tests.objectives.conftest import CHINESE, ENGLISH

TOKENIZER = train_byte_level_bpe([*ENGLISH, CHINESE], 400, family="roberta")
START = TOKENIZER.eos_id or 0
RECORDS = [{"text": text} for text in (*ENGLISH, CHINESE)]
MASK = -1


@given(
    st.integers(1, 300), st.floats(0.01, 0.99), st.floats(1.0, 8.0), st.integers(0, 2**32 - 1)
)  # fmt: skip
def test_what_is_not_hidden_stays_in_order_and_no_two_masks_touch(
    size: int, probability: float, span_length: float, seed: int
) -> None:
    text = np.arange(size)
    damaged = hide_spans(text, MASK, probability, span_length, np.random.default_rng(seed))
    kept = damaged[damaged != MASK]
    assert len(kept) == size - round(size * probability)
    assert (np.diff(kept) > 0).all()
    assert not ((damaged[1:] == MASK) & (damaged[:-1] == MASK)).any()
    for before, after in pairwise(kept):  # what is missing is behind a mask
        between = damaged[np.flatnonzero(damaged == before)[0] + 1]
        assert after == before + 1 or between == MASK


def test_a_mask_hides_as_many_tokens_as_its_mean_says() -> None:
    damaged = hide_spans(np.arange(100_000), MASK, 0.3, 3.0, np.random.default_rng(0))
    assert 30_000 / (damaged == MASK).sum() == pytest.approx(3.0, rel=0.03)


def test_long_texts_are_cut_into_pieces_of_which_none_is_lost() -> None:
    objective = Denoising(START, max_length=12)
    prepared = objective.prepare(RECORDS, TOKENIZER)
    examples = objective.examples(prepared, np.random.default_rng(0))
    assert max(len(example.target_ids) for example in examples if example.target_ids is not None) == 12
    written = [
        ids for example in examples if example.target_ids is not None for ids in example.target_ids[1:-1].tolist()
    ]
    assert written == [ids for record in RECORDS for ids in TOKENIZER.encode_plain(record["text"])]
    for example in examples:
        assert example.target_ids is not None
        frames = {(ids[0], ids[-1]) for ids in (example.token_ids.tolist(), example.target_ids.tolist())}
        assert frames == {(TOKENIZER.bos_id, TOKENIZER.eos_id)}


def test_every_epoch_hides_others_and_a_seed_draws_them_again() -> None:
    objective = Denoising(START)
    prepared = objective.prepare(RECORDS, TOKENIZER)
    first, other, again = (
        [example.token_ids.tolist() for example in objective.examples(prepared, np.random.default_rng(seed))]
        for seed in (0, 1, 0)
    )
    assert first == again != other


def test_a_new_bart_learns_to_write_a_damaged_text_whole() -> None:
    objective = Denoising(START, max_length=32)
    sizes = ModelSection(family="bart", hidden_size=32, num_layers=1, num_heads=2, max_length=64)
    config = new_config(sizes, objective.heads(), TOKENIZER)
    assert isinstance(config, EncoderDecoderConfig)
    model, generator = new_model(config, seed=0).eval(), np.random.default_rng(0)
    batch = objective.collate(
        objective.examples(objective.prepare(RECORDS, TOKENIZER), generator), TOKENIZER, generator
    )
    assert batch.sources is not None
    assert batch.packed.values[0] == START
    loss = objective.losses(model, batch)["language_model"]
    assert loss.count == batch.counts["language_model"] == batch.packed.num_tokens
    loss.total.backward()
    assert all(parameter.grad is not None for parameter in model.encoder.parameters())


def test_what_is_missing_is_named() -> None:
    with pytest.raises(DataError, match="record 1 has no 'text'"):
        Denoising(START).prepare([{"target": "a"}], TOKENIZER)
    with pytest.raises(UsageError, match="denoising needs a tokenizer with a mask token"):
        Denoising(START).prepare(RECORDS, train_pieces([*ENGLISH, CHINESE], 400))
