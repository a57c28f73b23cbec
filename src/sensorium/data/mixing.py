"""Several sources in one stream, by weight.

The stream is a pure function of (sizes, weights, seed, index): a resumed run asks for the index where it stopped, and
nothing has to be saved. It is laid out in blocks of ``BLOCK`` places; every block holds the same number of records of
each source, in an order of its own, so that the shares are kept over any long stretch and not only on average.
A source that runs out begins again in a new order (an epoch of its own), whatever the others do.

S: sources.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sensorium.errors import UsageError

BLOCK = 1000
"""Places of a block: weights count to a thousandth."""


def mixed_order(
    sizes: Mapping[str, int], weights: Mapping[str, float], *, seed: int, start: int, count: int
) -> list[tuple[str, int]]:
    """(source, number of the record in it) for the places ``start`` to ``start + count`` of the stream.

    ``sizes`` says how many records each source holds; ``weights`` need not sum to one. Raises ``UsageError`` for a
    weight without a source or the reverse, an empty source, and weights that are not positive.

    >>> mixed_order({"en": 3, "zh": 2}, {"en": 0.5, "zh": 0.5}, seed=0, start=7, count=3) == mixed_order(
    ...     {"en": 3, "zh": 2}, {"en": 0.5, "zh": 0.5}, seed=0, start=0, count=10)[7:]
    True
    """
    if start < 0 or count < 0:
        raise UsageError(f"a stream begins at place 0: start={start}, count={count}")
    names = list(sizes)
    quotas = _quotas(sizes, weights)  # [S]
    places: list[tuple[str, int]] = []
    orders: dict[tuple[int, int], np.ndarray] = {}
    for block in range(start // BLOCK, -(-(start + count) // BLOCK)):
        first = max(start - block * BLOCK, 0)
        last = min(start + count - block * BLOCK, BLOCK)
        sources = np.random.default_rng((seed, 0, block)).permutation(
            np.repeat(np.arange(len(names)), quotas)
        )  # [BLOCK]
        used = block * quotas + np.bincount(sources[:first], minlength=len(names))  # [S] records taken so far
        for source in sources[first:last].tolist():
            epoch, place = divmod(int(used[source]), sizes[names[source]])
            if (source, epoch) not in orders:
                orders[source, epoch] = _order(seed, source, epoch, sizes[names[source]])
                orders.pop((source, epoch - 1), None)  # an epoch that ended is not asked for again
            places.append((names[source], int(orders[source, epoch][place])))
            used[source] += 1
    return places


def _order(seed: int, source: int, epoch: int, size: int) -> np.ndarray:
    """[size] the order of a source in one of its epochs; source 0's keys differ from the blocks' own."""
    return np.random.default_rng((seed, source + 1, epoch)).permutation(size)


def _quotas(sizes: Mapping[str, int], weights: Mapping[str, float]) -> np.ndarray:
    """[S] places of each source in a block: at least one each, ``BLOCK`` in all, by largest remainder."""
    if not sizes or sizes.keys() != weights.keys():
        raise UsageError(f"sources {sorted(sizes)} and weights {sorted(weights)} must name the same, at least one")
    if len(sizes) > BLOCK:
        raise UsageError(f"{len(sizes)} sources; at most {BLOCK} can be mixed")
    for name, size in sizes.items():
        if size < 1:
            raise UsageError(f"source {name!r} holds no records")
        if not 0 < weights[name] < float("inf"):
            raise UsageError(f"the weight of {name!r} is {weights[name]}; weights are positive numbers")
    shares = np.array([weights[name] for name in sizes], dtype=np.float64)  # [S]
    shares /= shares.max()  # so that the sum of huge weights stays finite
    # One place each first; the rest is shared out so that the whole comes as near the weights as it can.
    wanted = np.maximum(shares / shares.sum() * BLOCK - 1, 0)
    spare = BLOCK - len(shares)
    exact = wanted * (spare / wanted.sum()) if wanted.any() else np.full(len(shares), spare / len(shares))
    quotas = np.floor(exact).astype(np.int64)
    for source in np.argsort(quotas - exact, kind="stable")[: spare - int(quotas.sum())]:
        quotas[source] += 1
    result: np.ndarray = quotas + 1
    return result
