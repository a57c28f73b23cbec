"""Inputs of any length → token-budget batches → results in input order, streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch

from sensorium.data.batching import token_budget_batches
from sensorium.packed import Packed
from sensorium.text import Encoding

Result = TypeVar("Result")
BATCH_TOKENS = 4096
AHEAD = 16
"""How many batches' worth of inputs are read before computing: enough to sort them well, few enough to stream."""


def pack_encodings(encodings: Sequence[Encoding]) -> Packed:
    """Encodings end to end, with their segment ids."""
    segments = [encoding.segment_ids for encoding in encodings] if any(any(e.segment_ids) for e in encodings) else None
    return Packed.from_sequences([encoding.token_ids for encoding in encodings], segment_ids=segments)


def run_windows(
    items: Iterable[Sequence[Encoding]],
    run: Callable[[Packed, Sequence[Encoding]], Sequence[Result]],
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> Iterator[list[Result]]:
    """Each item is the windows of one input; ``run`` gives one result a window; yield the results of each item in turn.

    Windows of several inputs share batches, sorted by length. Reads about ``AHEAD`` batches of inputs at a time.
    """
    waiting: list[Sequence[Encoding]] = []
    tokens = 0
    for windows in items:
        waiting.append(windows)
        tokens += sum(map(len, windows))
        if tokens >= AHEAD * batch_tokens:
            yield from _run(waiting, run, batch_tokens)
            waiting, tokens = [], 0
    if waiting:
        yield from _run(waiting, run, batch_tokens)


@torch.inference_mode()
def _run(
    items: Sequence[Sequence[Encoding]],
    run: Callable[[Packed, Sequence[Encoding]], Sequence[Result]],
    batch_tokens: int,
) -> list[list[Result]]:
    windows = [window for item in items for window in item]
    lengths = np.asarray([len(window) for window in windows])
    order = np.argsort(lengths, kind="stable")
    found: dict[int, Result] = {}
    for indices in token_budget_batches(lengths, order, batch_tokens=batch_tokens, window=0):
        chosen = [windows[i] for i in indices]
        found.update(zip(indices.tolist(), run(pack_encodings(chosen), chosen), strict=True))
    results, next_window = [], 0
    for item in items:
        results.append([found[next_window + i] for i in range(len(item))])
        next_window += len(item)
    return results
