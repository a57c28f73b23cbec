"""Inputs of any length → token-budget batches → results in input order, streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from sensorium.data.batching import token_budget_batches
from sensorium.errors import DataError, UsageError
from sensorium.machine import usable_cores
from sensorium.packed import Packed
from sensorium.text import Encoding

Key = TypeVar("Key")
Result = TypeVar("Result")
Run = Callable[[Packed, Sequence[Encoding]], Sequence[Result]]
"""A batch and the windows in it → one result a window."""
BATCH_TOKENS = 8192
OVERLAP_CORES = 4
"""Tokenising beside computing takes a core from it: on two cores that was 5 % slower than one after the other."""


def pack_encodings(encodings: Sequence[Encoding]) -> Packed:
    """Encodings end to end, with their segment ids."""
    segments = [encoding.segment_ids for encoding in encodings] if any(any(e.segment_ids) for e in encodings) else None
    return Packed.from_sequences([encoding.token_ids for encoding in encodings], segment_ids=segments)


def run_stream(
    windows: Iterable[tuple[Key, Encoding]], run: Run[Result], *, batch_tokens: int = BATCH_TOKENS
) -> Iterator[tuple[Key, Encoding, Result]]:
    """Each window with its key → the same with its result, in the same order.

    Reads the windows of one batch at a time: packed batches hold no padding, so reading further, to sort by length,
    would buy nothing, and memory would grow until so much was read. On ``OVERLAP_CORES`` or more, a batch is computed
    in another thread while the next one is read, and so tokenised, in this one. When reading fails, what was read
    before is answered first.
    """
    overlap = usable_cores() >= OVERLAP_CORES
    read = iter(windows)
    waiting: list[tuple[Key, Encoding]] = []
    computing: Future[list[tuple[Key, Encoding, Result]]] | None = None
    failure: Exception | None = None
    total = 0
    with ThreadPoolExecutor(1, "sensorium") as other:  # its thread starts with the first batch that is not the last
        while True:
            try:
                window = next(read)
            except StopIteration:
                break
            except Exception as error:
                failure = error
                break
            waiting.append(window)
            total += len(window[1])
            if computing is not None and (computing.done() or total >= batch_tokens):
                yield from computing.result()
                computing = None
            if total >= batch_tokens:
                if overlap:
                    computing = other.submit(_answered, waiting, run, batch_tokens)
                else:
                    yield from _answered(waiting, run, batch_tokens)
                waiting, total = [], 0
        if computing is not None:
            yield from computing.result()
        if waiting:
            yield from _answered(waiting, run, batch_tokens)
    if failure is not None:
        raise failure


def _answered(
    waiting: Sequence[tuple[Key, Encoding]], run: Run[Result], batch_tokens: int
) -> list[tuple[Key, Encoding, Result]]:
    results = _run([window for _, window in waiting], run, batch_tokens)
    return [(key, window, result) for (key, window), result in zip(waiting, results, strict=True)]


def run_windows(
    items: Iterable[Sequence[Encoding]], run: Run[Result], *, batch_tokens: int = BATCH_TOKENS
) -> Iterator[list[Result]]:
    """Each item is the windows of one input: yield the results of each item in turn, a result a window.

    All windows of an item are held at once; ``run_stream`` holds a few batches.
    """
    for waiting in _ahead(items, lambda windows: sum(map(len, windows)), batch_tokens):
        results = iter(_run([window for windows in waiting for window in windows], run, batch_tokens))
        yield from ([next(results) for _ in windows] for windows in waiting)


Item = TypeVar("Item")


def _ahead(items: Iterable[Item], size: Callable[[Item], int], batch_tokens: int) -> Iterator[list[Item]]:
    """Runs of items that reach one batch together."""
    waiting: list[Item] = []
    total = 0
    for item in items:
        waiting.append(item)
        total += size(item)
        if total >= batch_tokens:
            yield waiting
            waiting, total = [], 0
    if waiting:
        yield waiting


def within(items: Iterable[Item], size: Callable[[Item], int], most: int) -> Iterator[list[Item]]:
    """Runs of items whose sizes add up to ``most``, an item that is larger alone. Items before a broken one come first.

    >>> list(within([2, 2, 1, 9], lambda item: item, 4))
    [[2, 2], [1], [9]]
    """
    waiting: list[Item] = []
    total = 0
    try:
        for item in items:
            own = size(item)
            if waiting and total + own > most:
                yield waiting
                waiting, total = [], 0
            waiting.append(item)
            total += own
    except DataError:
        if waiting:
            yield waiting
        raise
    if waiting:
        yield waiting


@torch.inference_mode()
def _run(windows: Sequence[Encoding], run: Run[Result], batch_tokens: int) -> list[Result]:
    """One result a window, in order; the batches are of similar length."""
    lengths = np.asarray([len(window) for window in windows], dtype=np.int64)
    order = np.argsort(lengths, kind="stable")
    found: dict[int, Result] = {}
    for indices in token_budget_batches(lengths, order, batch_tokens=batch_tokens, window=0):
        chosen = [windows[i] for i in indices]
        try:
            results = run(pack_encodings(chosen), chosen)
        except RuntimeError as error:  # torch has no error of its own for a processor's memory
            if "allocate memory" not in str(error) and "out of memory" not in str(error):
                raise
            tokens = int(lengths[indices].sum())
            advice = f"set batch_tokens below {batch_tokens:,}" if len(chosen) > 1 else "that is one text: shorten it"
            raise UsageError(f"a batch of {tokens:,} tokens does not fit in memory; {advice}") from error
        found.update(zip(indices.tolist(), results, strict=True))
    return [found[i] for i in range(len(windows))]
