"""How sure a measurement is: bootstrap intervals, paired tests, the smallest difference the data can show.

One idea carries the room. Nearly every metric is a function of *sums over items*: accuracy of (hits, items), macro F1
of (hits, support, predicted) per class, perplexity of (negative log-likelihood, tokens), calibration error of sums per
bin. So an item is a row of numbers, equal rows are kept once with their number, and drawing ``n`` items with
replacement is one multinomial draw over the distinct rows: the same distribution as calling the metric on each
resample, without the calls.

Legend: n items, K distinct rows, W numbers in a row, R resamples, M metrics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sensorium.errors import DataError, UsageError

Array = npt.NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""Sums ``[..., W]`` → metrics ``[..., M]``."""
IntervalMethod = Literal["bca", "percentile"]

_CHUNK_ITEMS = 2**21  # weights of this many (resample, row) pairs at a time: 16 MB


@dataclass(frozen=True)
class Outcomes:
    """What happened to each of n items, as rows that metrics sum: ``rows`` [K, W] float64, ``index`` [n] item → row."""

    rows: Array
    index: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if len(self.index) == 0:
            raise DataError("nothing to measure: the data holds no items")
        if not np.isfinite(self.rows).all():
            raise DataError("an item's outcome is NaN or infinite; the model gave a number that cannot be measured")

    @property
    def num_items(self) -> int:
        """n."""
        return len(self.index)

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """How many items share each row, [K]."""
        return np.bincount(self.index, minlength=len(self.rows))  # [K]

    def totals(self) -> Array:
        """Sums over all items, [W]."""
        return self.counts @ self.rows  # [W]


def outcomes(rows: npt.ArrayLike) -> Outcomes:
    """One row of numbers an item, [n, W] (or [n]); equal rows are kept once.

    >>> outcomes([[1, 1], [0, 1], [1, 1]]).totals()
    array([2., 3.])
    """
    array = np.asarray(rows, dtype=np.float64)  # [n, W]
    if array.ndim == 1:
        array = array[:, None]
    if array.size == 0:
        raise DataError("nothing to measure: the data holds no items")
    distinct, index = np.unique(array, axis=0, return_inverse=True)
    return Outcomes(distinct, index.reshape(-1).astype(np.int64))


def mean(sums: Array) -> Array:
    """The statistic of rows ``(value …, 1)``: each value's mean, ``[..., W - 1]``."""
    return sums[..., :-1] / sums[..., -1:]


@dataclass(frozen=True)
class Estimate:
    """A metric with its interval: ``value`` in [``low``, ``high``] at ``confidence``, from ``n`` items.

    ``method`` says where the interval comes from: "bca" or "percentile" (bootstrap), "wilson" (every resample agreed,
    so the bootstrap sees no spread: Wilson's bound for a rate of 0 or 1 in n), "none" (a single item, or no spread).
    """

    value: float
    low: float
    high: float
    n: int
    standard_error: float
    confidence: float = 0.95
    method: Literal["bca", "percentile", "wilson", "none"] = "bca"


@dataclass(frozen=True)
class Difference:
    """Model a minus model b on the same items, paired. ``p_value`` is two-sided; ``smallest`` see `detectable`."""

    value: float
    low: float
    high: float
    n: int
    p_value: float
    smallest: float
    confidence: float = 0.95

    @property
    def shown(self) -> bool:
        """Whether the data show a difference at all: the test rejects equality at the interval's confidence."""
        return self.p_value < 1 - self.confidence


def bootstrap_intervals(
    items: Outcomes,
    statistic: Statistic,
    *,
    sizes: Sequence[int] | None = None,
    seed: int = 0,
    resamples: int = 2000,
    confidence: float = 0.95,
    method: IntervalMethod = "bca",
    best: float = 1.0,
) -> list[Estimate]:
    """M metrics of the same items, each with a bootstrap interval.

    ``sizes`` [M]: the number of items behind each metric when it is not all of them (a class's support). ``best``: what
    a perfect score is. The default interval is bias-corrected and accelerated (Efron 1987, as in
    ``scipy.stats.bootstrap``), because the plain percentiles of macro F1 lie too low.
    """
    _check(resamples, confidence)
    values = np.atleast_1d(statistic(items.totals()))  # [M]
    drawn = np.concatenate(
        [np.atleast_2d(statistic(sums)) for sums in _resampled_sums(items, seed, resamples)]
    )  # [R, M]
    drawn = drawn.reshape(resamples, len(values))
    levels = np.tile([(1 - confidence) / 2, (1 + confidence) / 2], (len(values), 1))  # [M, 2]
    if method == "bca" and len(items.rows) > 1:
        levels = _bca_levels(items, statistic, values, drawn, levels)
    estimates = []
    for number, value in enumerate(values):
        size = items.num_items if sizes is None else sizes[number]
        column = drawn[:, number]  # [R]
        if np.ptp(column) <= 1e-12 * best:
            estimates.append(_without_spread(float(value), size, confidence, best))
            continue
        low, high = np.quantile(column, levels[number])
        low, high = min(low, value), max(high, value)  # a strong bias correction may move past the value itself
        error = float(column.std(ddof=1))
        estimates.append(Estimate(float(value), float(low), float(high), size, error, confidence, method))
    return estimates


def paired_difference(
    a: Outcomes,
    b: Outcomes,
    statistic: Statistic,
    *,
    seed: int = 0,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> list[Difference]:
    """Paired bootstrap test of M metrics: model a against model b on the same items in the same order.

    Both models see the same resample, so what makes an item easy or hard cancels. The p-value is the share of
    resamples whose difference, centred on the observed one, is at least as large as it (Efron & Tibshirani 1993,
    §16.4; Koehn 2004), never below 1 / (resamples + 1).
    """
    _check(resamples, confidence)
    pairs = _paired(a, b)
    width = a.rows.shape[1]

    def difference(sums: Array) -> Array:
        return np.atleast_1d(statistic(sums[..., :width]) - statistic(sums[..., width:]))

    observed = difference(pairs.totals())  # [M]
    drawn = np.concatenate([difference(sums) for sums in _resampled_sums(pairs, seed, resamples)])
    drawn = drawn.reshape(resamples, len(observed))  # [R, M]
    extreme = np.abs(drawn - observed) >= np.abs(observed) - 1e-12  # [R, M]; float sums that should tie do
    p_values = (1 + extreme.sum(axis=0)) / (resamples + 1)  # [M]
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)  # [M] each
    smallest = detectable(drawn.std(axis=0, ddof=1), confidence=confidence)  # [M]
    return [
        Difference(
            float(observed[m]),
            float(low[m]),
            float(high[m]),
            a.num_items,
            float(p_values[m]),
            float(smallest[m]),
            confidence,
        )
        for m in range(len(observed))
    ]


def mcnemar(correct_a: npt.ArrayLike, correct_b: npt.ArrayLike) -> float:
    """McNemar's exact test: the two-sided p-value that two models are right equally often (McNemar 1947).

    Only items where exactly one of them is right speak; under equality each falls to either side like a coin.

    >>> mcnemar([1, 1, 1, 1, 1, 1, 0, 1], [0, 0, 0, 0, 0, 0, 0, 1])
    0.03125
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)  # [n] each
    if a.shape != b.shape or a.ndim != 1 or a.size == 0:
        raise UsageError(f"McNemar's test pairs two models on the same items; got shapes {a.shape} and {b.shape}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    tosses, fewer = only_a + only_b, min(only_a, only_b)
    log_terms = [math.lgamma(tosses + 1) - math.lgamma(k + 1) - math.lgamma(tosses - k + 1) for k in range(fewer + 1)]
    tail = math.fsum(math.exp(term - tosses * math.log(2)) for term in log_terms)
    return round(min(1.0, 2 * tail), 12)


def detectable(standard_error: Any, *, confidence: float = 0.95, power: float = 0.8) -> Any:
    """The smallest true difference that a two-sided test would find with the given power (Cohen 1988).

    ``standard_error`` is that of the *difference*; of two models measured apart it is the root of the sum of squares.
    A smaller difference than this may exist; this much data would usually miss it.

    >>> round(detectable(0.01), 4)
    0.028
    """
    normal = NormalDist()
    return (normal.inv_cdf((1 + confidence) / 2) + normal.inv_cdf(power)) * standard_error


def wilson(hits: float, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval for a rate of ``hits`` in ``n`` (Wilson 1927); it keeps its width where the rate is 0 or 1.

    >>> low, high = wilson(20, 20)
    >>> round(low, 3), high
    (0.839, 1.0)
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate, spread = hits / n, z * z / n
    centre = (rate + spread / 2) / (1 + spread)
    half = z * math.sqrt(rate * (1 - rate) / n + spread / (4 * n)) / (1 + spread)
    low = 0.0 if hits <= 0 else max(0.0, centre - half)
    high = 1.0 if hits >= n else min(1.0, centre + half)
    return low, high


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for having asked several questions at once (Holm 1979), in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[position]))
        corrected[position] = highest
    return corrected


# --- details ---------------------------------------------------------------------------------------------------------


def _check(resamples: int, confidence: float) -> None:
    if resamples < 100:
        raise UsageError(f"resamples={resamples}: a 95 % interval needs at least 100, better 2000")
    if not 0.5 <= confidence < 1:
        raise UsageError(f"confidence={confidence}: must be at least 0.5 and below 1")


def _resampled_sums(items: Outcomes, seed: int, resamples: int) -> Iterator[Array]:
    """Sums of n items drawn with replacement, a chunk of resamples at a time: [chunk, W]."""
    random = np.random.default_rng(seed)
    shares = items.counts / items.num_items  # [K]
    chunk = max(1, _CHUNK_ITEMS // len(items.rows))
    for start in range(0, resamples, chunk):
        weights = random.multinomial(items.num_items, shares, size=min(chunk, resamples - start))  # [chunk, K]
        yield weights.astype(np.float64) @ items.rows  # [chunk, W]


def _bca_levels(items: Outcomes, statistic: Statistic, values: Array, drawn: Array, levels: Array) -> Array:
    """The quantiles that correct for bias and skew, [M, 2]; the plain ones where they cannot be computed."""
    normal = NormalDist()
    counts = items.counts[:, None].astype(np.float64)  # [K, 1]
    left_out = statistic(items.totals() - items.rows).reshape(len(items.rows), len(values))  # [K, M] jackknife
    centred = (counts * left_out).sum(axis=0) / items.num_items - left_out  # [K, M]
    squares = (counts * centred**2).sum(axis=0)  # [M]
    cubes = (counts * centred**3).sum(axis=0)  # [M]
    below = ((drawn < values).mean(axis=0) + (drawn <= values).mean(axis=0)) / 2  # [M]; ties count half
    corrected = levels.copy()
    for m in range(len(values)):
        if not 0 < below[m] < 1 or not squares[m] > 0:
            continue
        bias, acceleration = normal.inv_cdf(float(below[m])), cubes[m] / (6 * squares[m] ** 1.5)
        for side in range(2):
            shifted = bias + normal.inv_cdf(float(levels[m, side]))
            corrected[m, side] = normal.cdf(bias + shifted / (1 - acceleration * shifted))
    return corrected


def _without_spread(value: float, size: int, confidence: float, best: float) -> Estimate:
    share = round(value / best, 12)  # a product of logarithms may miss 1 by the last bit
    if share in (0.0, 1.0) and size > 1:
        low, high = (best * bound for bound in wilson(share * size, size, confidence=confidence))
        error = (high - low) / (2 * NormalDist().inv_cdf((1 + confidence) / 2))
        return Estimate(value, low, high, size, error, confidence, "wilson")
    return Estimate(value, value, value, size, 0.0, confidence, "none")


def _paired(a: Outcomes, b: Outcomes) -> Outcomes:
    """Items of both models side by side, [K', 2 W]; equal pairs kept once."""
    if a.num_items != b.num_items or a.rows.shape[1] != b.rows.shape[1]:
        raise UsageError(
            f"a paired test needs the same items for both models; one was measured on {a.num_items:,}, "
            f"the other on {b.num_items:,}"
        )
    code = a.index * len(b.rows) + b.index  # [n]
    distinct, index = np.unique(code, return_inverse=True)
    rows = np.concatenate([a.rows[distinct // len(b.rows)], b.rows[distinct % len(b.rows)]], axis=1)  # [K', 2 W]
    return Outcomes(rows, index.reshape(-1).astype(np.int64))
