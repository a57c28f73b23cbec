"""Intervals and tests against scipy, and by simulation where no oracle says what must hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium.errors import DataError, UsageError
from sensorium.evaluate import metrics
from sensorium.evaluate.statistics import (
    bootstrap_intervals,
    detectable,
    mcnemar,
    mean,
    outcomes,
    paired_difference,
    wilson,
)

scipy_stats = pytest.importorskip("scipy.stats", reason="the oracle of these tests is scipy")


def values_and_ones(values: np.ndarray) -> np.ndarray:
    return np.stack([values, np.ones_like(values)], axis=1)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_the_interval_of_a_skewed_mean_is_that_of_scipy(method: str) -> None:
    values = np.random.default_rng(1).lognormal(0, 1, size=60)
    (ours,) = bootstrap_intervals(outcomes(values_and_ones(values)), mean, resamples=20_000, method=method)
    scipy_method = {"bca": "BCa"}.get(method, method)
    theirs = scipy_stats.bootstrap((values,), np.mean, n_resamples=20_000, method=scipy_method, rng=2)
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.confidence_interval.low, rel=0.02)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, rel=0.02)
    assert ours.standard_error == pytest.approx(theirs.standard_error, rel=0.03)


def test_the_interval_of_macro_f1_is_that_of_scipy_with_scikit_learn() -> None:
    f1_score = pytest.importorskip("sklearn.metrics").f1_score
    random = np.random.default_rng(3)
    truth = random.integers(3, size=80)
    guess = np.where(random.random(80) < 0.7, truth, random.integers(3, size=80))
    items = metrics.label_outcomes(truth, guess, 3)
    (ours,) = bootstrap_intervals(items, metrics.macro_f1, resamples=4000)
    theirs = scipy_stats.bootstrap(
        (truth, guess),
        lambda y, p: f1_score(y, p, average="macro"),
        paired=True,
        vectorized=False,
        n_resamples=1500,
        method="BCa",
        rng=4,
    )
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.015)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.015)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    random = np.random.default_rng(5)
    covered = 0
    for trial in range(300):
        hits = (random.random(100) < 0.8).astype(float)
        (estimate,) = bootstrap_intervals(outcomes(values_and_ones(hits)), mean, seed=trial, resamples=400)
        covered += estimate.low <= 0.8 <= estimate.high
    assert 0.90 < covered / 300 < 0.985


def test_the_same_seed_gives_the_same_interval_and_many_metrics_share_one_resampling() -> None:
    items = metrics.label_outcomes([0, 1, 2, 0, 1, 2, 0, 1], [0, 1, 2, 0, 2, 2, 1, 1], 3)

    def both(sums: np.ndarray) -> np.ndarray:
        return np.stack([metrics.accuracy(sums), metrics.macro_f1(sums)], axis=-1)

    first, second = bootstrap_intervals(items, both, seed=7), bootstrap_intervals(items, both, seed=7)
    assert first == second
    assert first[0] == bootstrap_intervals(items, metrics.accuracy, seed=7)[0]


def test_resampling_in_chunks_uses_every_resample(monkeypatch: pytest.MonkeyPatch) -> None:
    items = outcomes(values_and_ones(np.arange(50.0)))
    (whole,) = bootstrap_intervals(items, mean, resamples=500)
    monkeypatch.setattr("sensorium.evaluate.statistics._CHUNK_ITEMS", 50 * 7)
    assert bootstrap_intervals(items, mean, resamples=500) == [whole]


def test_a_perfect_score_gets_wilsons_bound_instead_of_an_interval_without_width() -> None:
    items = metrics.label_outcomes([0, 1] * 10, [0, 1] * 10, 2)
    (estimate,) = bootstrap_intervals(items, metrics.accuracy)
    assert (estimate.value, estimate.high, estimate.method) == (1.0, 1.0, "wilson")
    assert estimate.low == pytest.approx(wilson(20, 20)[0])
    (shifted,) = bootstrap_intervals(items, metrics.accuracy, sizes=[5])
    assert shifted.low < estimate.low


def test_a_single_item_has_no_interval() -> None:
    (estimate,) = bootstrap_intervals(outcomes([[3.0, 1.0]]), mean)
    assert (estimate.low, estimate.value, estimate.high, estimate.method) == (3.0, 3.0, 3.0, "none")


@given(st.integers(1, 400), st.data())
def test_wilson_is_that_of_scipy(n: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n))
    theirs = scipy_stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200))
def test_mcnemar_is_the_binomial_test_of_scipy(pairs: list[tuple[bool, bool]]) -> None:
    a, b = zip(*pairs, strict=True)
    only_a, only_b = sum(x and not y for x, y in pairs), sum(y and not x for x, y in pairs)
    expected = scipy_stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected, abs=1e-9)


def test_mcnemar_holds_for_a_hundred_thousand_items() -> None:
    a = np.arange(100_000) % 3 == 0
    assert mcnemar(a, ~a) < 1e-9
    assert mcnemar(a, a) == 1.0


def test_the_paired_test_sees_what_two_intervals_apart_do_not() -> None:
    random = np.random.default_rng(8)
    truth = random.integers(2, size=400)
    b = np.where(random.random(400) < 0.80, truth, 1 - truth)
    a = b.copy()
    wrong = np.flatnonzero(b != truth)[:12]
    a[wrong] = truth[wrong]  # the same answers but for twelve errors mended
    items = [metrics.label_outcomes(truth, guess, 2) for guess in (a, b)]
    (difference,) = paired_difference(*items, metrics.accuracy)
    apart = [bootstrap_intervals(one, metrics.accuracy)[0] for one in items]
    assert difference.value == pytest.approx(12 / 400)
    assert difference.shown
    assert 0 < difference.low < difference.high
    assert apart[0].low < apart[1].high, "the intervals overlap"
    assert difference.smallest < detectable(np.hypot(apart[0].standard_error, apart[1].standard_error))


def test_equal_models_show_no_difference() -> None:
    items = metrics.label_outcomes([0, 1, 1, 0], [0, 1, 0, 0], 2)
    (difference,) = paired_difference(items, items, metrics.accuracy)
    assert (difference.value, difference.p_value, difference.shown) == (0.0, 1.0, False)


def test_the_paired_test_errs_no_more_often_than_it_says() -> None:
    random = np.random.default_rng(9)
    rejected = 0
    for trial in range(300):
        a, b = (outcomes(values_and_ones((random.random(150) < 0.7).astype(float))) for _ in range(2))
        rejected += paired_difference(a, b, mean, seed=trial, resamples=300)[0].shown
    assert rejected / 300 < 0.085


def test_a_difference_of_the_detectable_size_is_found_in_four_of_five_trials() -> None:
    random = np.random.default_rng(10)
    n, rate = 300, 0.7
    true_difference = detectable(np.sqrt(2 * rate * (1 - rate) / n))
    found = 0
    for trial in range(200):
        a, b = (
            outcomes(values_and_ones((random.random(n) < share).astype(float)))
            for share in (rate + true_difference, rate)
        )
        found += paired_difference(a, b, mean, seed=trial, resamples=300)[0].shown
    assert 0.7 < found / 200 < 0.93


def test_models_measured_on_different_items_are_not_compared() -> None:
    a, b = (outcomes(values_and_ones(np.arange(size, dtype=float))) for size in (4, 5))
    with pytest.raises(UsageError, match="the same items"):
        paired_difference(a, b, mean)


def test_a_nan_outcome_and_no_outcome_are_refused() -> None:
    with pytest.raises(DataError, match="NaN"):
        outcomes([[float("nan"), 1.0]])
    with pytest.raises(DataError, match="no items"):
        outcomes([])
    with pytest.raises(UsageError, match="resamples=10"):
        bootstrap_intervals(outcomes([[1.0, 1.0]]), mean, resamples=10)
