"""Packed: sequences in, the same sequences out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sensorium.errors import UsageError
from sensorium.packed import Packed

SEQUENCES = st.lists(st.lists(st.integers(0, 999), min_size=1, max_size=12), min_size=1, max_size=8)


@given(sequences=SEQUENCES)
def test_splitting_gives_back_what_was_packed(sequences: list[list[int]]) -> None:
    batch = Packed.from_sequences(sequences)
    assert [part.tolist() for part in batch.split(batch.values)] == sequences
    assert [part.tolist() for part in batch.split(batch.positions)] == [list(range(len(s))) for s in sequences]
    assert batch.values[batch.first].tolist() == [s[0] for s in sequences]
    assert batch.values[batch.last].tolist() == [s[-1] for s in sequences]
    assert batch.sequence_ids.tolist() == [n for n, s in enumerate(sequences) for _ in s]
    assert (batch.num_sequences, batch.num_tokens) == (len(sequences), sum(map(len, sequences)))


def test_lists_arrays_and_tensors_pack_alike() -> None:
    lists = [[1, 2], [3]]
    for kind in (list, np.array, torch.tensor):
        assert Packed.from_sequences([kind(s) for s in lists]).values.tolist() == [1, 2, 3]


def test_decoding_goes_on_at_the_position_after_the_cache() -> None:
    assert Packed.from_sequences([[7], [8, 9]], start_positions=[4, 0]).positions.tolist() == [4, 0, 1]


@pytest.mark.parametrize("sequences", [[], [[1], []]])
def test_an_empty_batch_or_sequence_is_refused(sequences: list[list[int]]) -> None:
    with pytest.raises(UsageError, match="at least one"):
        Packed.from_sequences(sequences)
