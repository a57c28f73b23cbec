"""Every metric against scikit-learn, scipy or its definition written out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium.errors import DataError
from sensorium.evaluate import metrics

oracle = pytest.importorskip("sklearn.metrics", reason="the oracle of these tests is scikit-learn")
NUM_LABELS = 5

pairs_of_labels = st.lists(st.tuples(st.integers(0, NUM_LABELS - 1), st.integers(0, NUM_LABELS - 1)), min_size=1)


@pytest.mark.filterwarnings("ignore:A single label was found")  # scikit-learn, within its own matthews_corrcoef
@given(pairs_of_labels)
def test_classification_metrics_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    truth, guess = map(list, zip(*pairs, strict=True))
    sums = metrics.label_outcomes(truth, guess, NUM_LABELS).totals()
    assert metrics.accuracy(sums) == pytest.approx(oracle.accuracy_score(truth, guess))
    for average in ("macro", "micro"):
        ours = [getattr(metrics, f"{average}_{name}")(sums) for name in ("precision", "recall", "f1")]
        theirs = oracle.precision_recall_fscore_support(truth, guess, average=average, zero_division=0)[:3]
        assert ours == pytest.approx(theirs)
    per_class = oracle.precision_recall_fscore_support(truth, guess, labels=range(NUM_LABELS), zero_division=0)
    ours = [metrics.class_precision(sums), metrics.class_recall(sums), metrics.class_f1(sums)]
    np.testing.assert_allclose(ours, per_class[:3])
    expected = oracle.matthews_corrcoef(truth, guess)
    assert metrics.matthews_correlation(sums) == pytest.approx(expected, abs=1e-12)
    matrix = oracle.confusion_matrix(truth, guess, labels=range(NUM_LABELS))
    np.testing.assert_array_equal(metrics.confusion_matrix(truth, guess, NUM_LABELS), matrix)


def test_equal_outcomes_are_kept_once() -> None:
    outcomes = metrics.label_outcomes([0, 1, 0, 1, 1], [0, 1, 0, 0, 1], 2)
    assert outcomes.rows.shape == (3, 6)
    assert outcomes.counts.tolist() == [2, 1, 2]


@pytest.mark.parametrize(
    ("truth", "guess", "sentence"),
    [([], [], "no items"), ([0, 1], [0], "one length"), ([0, 2], [0, 1], "label map"), ([0, -1], [0, 1], "label map")],
)
def test_labels_that_do_not_fit_are_refused(truth: list[int], guess: list[int], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        metrics.label_outcomes(truth, guess, 2)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_calibration_error_is_its_definition(items: list[tuple[float, bool]]) -> None:
    scores, correct = (np.array(column, dtype=float) for column in zip(*items, strict=True))
    expected = 0.0
    edges = np.linspace(0, 1, metrics.NUM_BINS + 1)
    for number, (low, high) in enumerate(pairwise(edges)):
        inside = (scores * metrics.NUM_BINS > number) & (scores * metrics.NUM_BINS <= number + 1)
        inside |= (number == 0) & (scores == 0)
        assert np.all((scores[inside] >= low - 1e-9) & (scores[inside] <= high + 1e-9))
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - scores[inside].mean())
    sums = metrics.calibration_outcomes(scores, correct).totals()
    assert metrics.calibration_error(sums) == pytest.approx(expected, abs=1e-9)
    assert metrics.brier_score(sums) == pytest.approx(((scores - correct) ** 2).mean())
    assert metrics.calibration_bins(sums)[0].sum() == len(items)


def test_a_model_as_sure_as_it_is_right_has_no_calibration_error() -> None:
    sums = metrics.calibration_outcomes([0.75] * 4 + [1.0] * 3, [1, 1, 1, 0, 1, 1, 1]).totals()
    assert metrics.calibration_error(sums) == pytest.approx(0)


def test_the_noise_of_calibration_is_what_a_calibrated_model_shows() -> None:
    random = np.random.default_rng(11)
    scores = random.uniform(0.5, 1, size=200)
    noise = metrics.calibration_noise(scores)
    drawn = [metrics.calibration_outcomes(scores, random.random(200) < scores) for _ in range(200)]
    below = np.mean([metrics.calibration_error(items.totals()) <= noise for items in drawn])
    assert 0.9 < below < 0.99
    surer = [metrics.calibration_outcomes(scores, random.random(200) < scores - 0.2) for _ in range(50)]
    assert np.mean([metrics.calibration_error(items.totals()) > noise for items in surer]) > 0.9


@pytest.mark.parametrize(("scores", "sentence"), [([2.5, 0.1], "not logits"), ([0.5], "for every prediction")])
def test_scores_that_are_no_probabilities_are_refused(scores: list[float], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        metrics.calibration_outcomes(scores, [1, 0])


def test_a_nan_score_is_refused() -> None:
    with pytest.raises(DataError, match="0 … 1"):
        metrics.calibration_outcomes([float("nan"), 0.5], [1, 0])


def test_entities_count_only_with_class_and_both_borders() -> None:
    gold = [[(0, 0, 2), (1, 3, 4)], [(0, 1, 2)], []]
    predicted = [[(0, 0, 2), (0, 3, 4)], [(0, 1, 3)], [(1, 0, 1)]]
    sums = metrics.entity_outcomes(gold, predicted, 2).totals()
    assert sums.tolist() == [1, 0, 2, 1, 3, 1]  # hits | support | predicted
    assert metrics.micro_precision(sums) == pytest.approx(1 / 4)
    assert metrics.micro_recall(sums) == pytest.approx(1 / 3)
    assert metrics.micro_f1(sums) == pytest.approx(2 / 7)


def test_perplexity_weighs_texts_by_their_tokens() -> None:
    sums = metrics.likelihood_outcomes([10 * np.log(2), 30 * np.log(4)], [10, 30]).totals()
    assert metrics.perplexity(sums) == pytest.approx(2 ** ((10 * 1 + 30 * 2) / 40))


def test_perplexity_of_texts_without_tokens_is_refused() -> None:
    with pytest.raises(DataError, match="at least one predicted token"):
        metrics.perplexity(metrics.likelihood_outcomes([0.0], [0]).totals())


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=3, max_size=40))
def test_correlations_are_those_of_scipy(pairs: list[tuple[int, int]]) -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    x, y = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    varies = np.ptp(x) > 0 and np.ptp(y) > 0
    expected = scipy_stats.pearsonr(x, y).statistic if varies else 0.0
    assert metrics.pearson(metrics.pair_outcomes(x, y).totals()) == pytest.approx(expected, abs=1e-9)
    expected = scipy_stats.spearmanr(x, y).statistic if varies else 0.0
    ranked = metrics.pair_outcomes(metrics.ranks(x), metrics.ranks(y))
    assert metrics.pearson(ranked.totals()) == pytest.approx(expected, abs=1e-9)


def test_cosine_is_that_of_scikit_learn_and_zero_for_a_zero_vector() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 6, 4))
    pairwise = pytest.importorskip("sklearn.metrics.pairwise")
    np.testing.assert_allclose(metrics.cosine(a, b), np.diag(pairwise.cosine_similarity(a, b)))
    assert metrics.cosine([[0.0, 0.0]], [[1.0, 2.0]]).tolist() == [0.0]
