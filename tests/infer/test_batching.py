"""Batches of a bounded size, results in input order, inputs read a bounded way ahead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium.errors import UsageError
from sensorium.infer import batching
from sensorium.infer.batching import run_stream, run_windows
from sensorium.packed import Packed
from sensorium.text import Encoding

LENGTHS = st.lists(st.integers(1, 30), max_size=60)


def window(first: int, length: int, segment: int = 0) -> Encoding:
    count = range(length)
    return Encoding([first] * length, [segment] * length, [(0, 1)] * length, [0] * length, [*count])


@given(lengths=LENGTHS, batch_tokens=st.integers(1, 80), overlap=st.booleans())
def test_results_come_in_order_from_batches_within_the_budget(
    lengths: list[int], batch_tokens: int, overlap: bool
) -> None:
    def run(batch: Packed, windows: Sequence[Encoding]) -> list[int]:
        assert batch.num_tokens <= batch_tokens or batch.num_sequences == 1
        assert list(batch.lengths) == [len(one) for one in windows]
        return batch.values[batch.first].tolist()

    given_windows = [("key", window(i, length)) for i, length in enumerate(lengths)]
    with patch.object(batching, "OVERLAP_CORES", 0 if overlap else 10**6):
        results = list(run_stream(given_windows, run, batch_tokens=batch_tokens))
    assert [(key, one) for key, one, _ in results] == given_windows
    assert [result for _, _, result in results] == [*range(len(lengths))]


@given(counts=st.lists(st.integers(1, 5), max_size=20), batch_tokens=st.integers(1, 80))
def test_windows_of_an_item_stay_together(counts: list[int], batch_tokens: int) -> None:
    ends = np.cumsum([0, *counts])
    items = [[window(int(i), 3) for i in range(*pair)] for pair in pairwise(ends)]
    results = run_windows(items, lambda batch, _: batch.values[batch.first].tolist(), batch_tokens=batch_tokens)
    assert list(results) == [[one.token_ids[0] for one in item] for item in items]


@pytest.mark.parametrize("overlap", [False, True])
def test_an_endless_stream_is_read_a_few_batches_ahead(overlap: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "OVERLAP_CORES", 0 if overlap else 10**6)
    read = 0

    def endless() -> Iterator[tuple[int, Encoding]]:
        nonlocal read
        while True:
            read += 1
            yield read, window(read, 10)

    stream = run_stream(endless(), lambda batch, windows: batch.values[batch.first].tolist(), batch_tokens=100)
    assert [next(stream)[2] for _ in range(3)] == [1, 2, 3]
    assert 10 < read <= 30 if overlap else read == 10  # one batch, and what was read while it was computed
    given_out = 3
    for _, _, number in stream:
        given_out += 1
        assert number == given_out
        assert read - given_out <= 10 * (2 if overlap else 1)
        if given_out == 1000:
            break


def test_out_of_memory_names_the_budget_to_set() -> None:
    def full(batch: Packed, windows: Sequence[Encoding]) -> list[None]:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    with pytest.raises(UsageError, match="a batch of 20 tokens does not fit in memory; set batch_tokens below 25"):
        list(run_stream([(n, window(n, 10)) for n in range(4)], full, batch_tokens=25))
    with pytest.raises(UsageError, match="that is one text: shorten it"):
        list(run_stream([(0, window(0, 30))], full, batch_tokens=25))


def test_segment_ids_reach_the_batch_when_any_window_has_them() -> None:
    seen = []

    def run(batch: Packed, windows: Sequence[Encoding]) -> list[None]:
        seen.append(batch.segment_ids)
        return [None] * len(windows)

    list(run_stream([(0, window(1, 2)), (1, window(1, 2, segment=1))], run, batch_tokens=10))
    list(run_stream([(0, window(1, 2))], run, batch_tokens=10))
    assert seen[0].tolist() == [0, 0, 1, 1]
    assert seen[1] is None


@pytest.mark.parametrize("overlap", [False, True])
def test_what_was_read_before_a_failure_is_answered_first(overlap: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "OVERLAP_CORES", 0 if overlap else 10**6)

    def failing() -> Iterator[tuple[int, Encoding]]:
        yield from ((n, window(n, 10)) for n in range(25))
        raise ValueError("the file ends in the middle of a line")

    answered = []
    with pytest.raises(ValueError, match="in the middle of a line"):
        for _, _, result in run_stream(failing(), lambda b, _: b.values[b.first].tolist(), batch_tokens=100):
            answered.append(result)
    assert answered == [*range(25)]
