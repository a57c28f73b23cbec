"""Examples and batches: in which order, and which ones together.

The order is a pure function of (seed, epoch), so a resumed run needs three integers to go on where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sensorium.errors import UsageError


@dataclass(frozen=True)
class Example:
    """One tokenised training example."""

    token_ids: np.ndarray
    """[L] int32."""
    segment_ids: np.ndarray | None = None
    """[L] int8; ``None``: all 0."""
    labels: dict[str, Any] = field(default_factory=dict)
    target_ids: np.ndarray | None = None
    """[M] int32, what a model that reads one text and writes another is to write; ``None``: it only reads."""
    pixels: np.ndarray | None = None
    """[H, W, 3] uint8, the image that goes with the text; ``None``: there is none."""
    image_length: int = 0
    """Patches of the image, and its class token."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens to read; patches where there is an image; tokens to write where there are any."""
        image = () if self.pixels is None else (self.image_length,)
        written = () if self.target_ids is None else (len(self.target_ids),)
        return (len(self.token_ids), *image, *written)

    def __len__(self) -> int:
        return len(self.token_ids)


WINDOW = 50
"""Batches within which examples of similar length are brought together."""


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """[size] a permutation, the same for the same (seed, epoch).

    >>> epoch_order(1, 0, 4).tolist() == epoch_order(1, 0, 4).tolist()
    True
    """
    return np.random.default_rng((seed, epoch)).permutation(size)


def token_budget_batches(
    lengths: Sequence[int] | Sequence[tuple[int, ...]] | np.ndarray,
    order: np.ndarray,
    *,
    batch_tokens: int | None = None,
    batch_size: int | None = None,
    window: int = WINDOW,
    seed: int = 0,
) -> list[np.ndarray]:
    """Cut an order of examples into batches of at most ``batch_tokens`` tokens and ``batch_size`` examples.

    Within windows of about ``window`` batches, examples of similar length come together (attention is fastest on equal
    lengths) and the batches are then shuffled again; ``window=0`` keeps the order. Within a batch, examples stand by
    length. An example of several texts has a length for each: the budget is for their sum, the order goes by the first
    and among equal ones by the next. An example longer than the budget is a batch alone. Raises ``UsageError`` without
    any limit.

    >>> [batch.tolist() for batch in token_budget_batches([3, 1, 2], np.array([2, 0, 1]), batch_tokens=4, window=0)]
    [[2], [1, 0]]
    """
    if batch_tokens is None and batch_size is None:
        raise UsageError("a batch needs a limit: batch_tokens, batch_size, or both")
    sides = _sides(lengths)  # [N, texts]
    sizes = sides.sum(axis=1)
    batches: list[np.ndarray] = []
    for part in _windows(sizes, order, batch_tokens, batch_size, window):
        if window:
            part = part[_by_length(sides[part])]
        cut = _cut(sizes, part, batch_tokens, batch_size)
        if window:
            shuffle = np.random.default_rng((seed, len(batches))).permutation(len(cut))
            cut = [cut[i] for i in shuffle]
        batches += cut
    return [batch[_by_length(sides[batch])] for batch in batches]


def _sides(lengths: Sequence[int] | Sequence[tuple[int, ...]] | np.ndarray) -> np.ndarray:
    """[N, texts] the lengths of examples; one that has fewer texts than another has texts of no length.

    >>> _sides([(3, 1), (2,)]).tolist()
    [[3, 1], [2, 0]]
    """
    several = [one for one in lengths if isinstance(one, tuple)]
    if not several:
        return np.asarray(lengths).reshape(len(lengths), -1)
    most = max(map(len, several))
    return np.array([(*one, *[0] * (most - len(one))) for one in several])


def _by_length(sides: np.ndarray) -> np.ndarray:
    """[n] the order of examples with lengths [n, texts]; equal ones stay as they stood."""
    return np.lexsort(sides.T[::-1])


def _windows(
    sizes: np.ndarray, order: np.ndarray, batch_tokens: int | None, batch_size: int | None, window: int
) -> list[np.ndarray]:
    """The order in runs of about ``window`` batches."""
    if not window or not len(order):
        return [order] if len(order) else []
    by_tokens = np.inf if batch_tokens is None else batch_tokens / max(1.0, float(sizes[order].mean()))
    per_batch = min(by_tokens, np.inf if batch_size is None else batch_size)
    run = max(1, int(per_batch * window))
    return [order[start : start + run] for start in range(0, len(order), run)]


def _cut(sizes: np.ndarray, part: np.ndarray, batch_tokens: int | None, batch_size: int | None) -> list[np.ndarray]:
    """Consecutive examples until a limit is reached."""
    batches, start, tokens = [], 0, 0
    for place, index in enumerate(part):
        size = int(sizes[index])
        full = batch_tokens is not None and tokens + size > batch_tokens
        full = full or (batch_size is not None and place - start >= batch_size)
        if full and place > start:
            batches.append(part[start:place])
            start, tokens = place, 0
        tokens += size
    if start < len(part):
        batches.append(part[start:])
    return batches
