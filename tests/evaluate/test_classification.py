"""A classifier evaluated: its metrics, its baselines, what is compared and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sensorium.errors import DataError, UsageError
from sensorium.evaluate import Evaluation, Settings, compare, evaluate_classification

QUICK = Settings(resamples=200)
Evaluated = Callable[..., Evaluation]
Reviews = Callable[..., list[dict[str, str]]]


def test_metrics_are_those_of_scikit_learn(reviews: Reviews) -> None:
    oracle = pytest.importorskip("sklearn.metrics")
    records = reviews()
    said = ["positive" if number % 4 else "negative" for number in range(60)]
    evaluation = evaluate_classification(
        lambda texts: [{"label": label, "score": 0.9} for label in said],
        records,
        labels=["negative", "positive"],
        settings=QUICK,
    )
    truth = [record["label"] for record in records]
    assert evaluation.headline_estimate.value == pytest.approx(oracle.accuracy_score(truth, said))
    assert evaluation.metrics["macro_f1"].value == pytest.approx(oracle.f1_score(truth, said, average="macro"))
    assert evaluation.metrics["brier_score"].value == pytest.approx(
        sum((0.9 - (a == b)) ** 2 for a, b in zip(truth, said, strict=True)) / 60
    )
    for scores in evaluation.classes:
        expected = oracle.precision_recall_fscore_support(truth, said, labels=[scores.label])
        found = (scores.precision.value, scores.recall.value, scores.f1.value, scores.support)
        assert found == pytest.approx([column[0] for column in expected])
        assert scores.recall.n == scores.support
        assert scores.precision.n == scores.predicted
    assert evaluation.confusion is not None
    matrix = oracle.confusion_matrix(truth, said, labels=["negative", "positive"])
    assert [list(row) for row in evaluation.confusion.counts] == matrix.tolist()


def test_every_metric_lies_in_its_interval_and_tells_its_smallest_difference(evaluated: Evaluated) -> None:
    evaluation = evaluated()
    for name, estimate in evaluation.metrics.items():
        assert estimate.low <= estimate.value <= estimate.high, name
        assert estimate.low < estimate.high, name
        assert evaluation.smallest_difference[name] == pytest.approx(2.801585 * 2**0.5 * estimate.standard_error)


def test_a_list_of_ranked_labels_counts_as_its_best(evaluated: Evaluated, reviews: Reviews) -> None:
    records = reviews(6)
    both = [
        [{"label": "negative", "score": 0.3}, {"label": "positive", "score": 0.7}],
        [{"label": "negative", "score": 0.6}, {"label": "positive", "score": 0.4}],
    ]
    evaluation = evaluate_classification(
        lambda texts: [both[0]] * 3 + [both[1]] * 3, records, labels=["negative", "positive"], settings=QUICK
    )
    assert [scores.predicted for scores in evaluation.classes] == [3, 3]


def test_pairs_reach_the_model_as_pairs() -> None:
    seen: list[Any] = []

    def predict(texts: list[Any]) -> list[dict[str, Any]]:
        seen.extend(texts)
        return [{"label": "yes", "score": 1.0}] * len(texts)

    records = [{"text": "It rains.", "pair": "It is wet.", "label": "yes"}, {"text": "Alone.", "label": "no"}]
    evaluate_classification(predict, records, labels=["yes", "no"], settings=QUICK)
    assert seen == [("It rains.", "It is wet."), "Alone."]


def test_a_trivial_baseline_is_always_there(evaluated: Evaluated) -> None:
    evaluation = evaluated()
    (baseline,) = evaluation.baselines
    assert baseline.name == "most frequent class (of this data)"
    assert baseline.metrics["accuracy"].value == pytest.approx(40 / 60)
    assert evaluation.leakage is None
    assert any("TF-IDF + logistic regression was not run" in note for note in evaluation.notes)
    (test,) = [one for one in evaluation.comparisons if one.metric == "accuracy"]
    assert test.difference.value == pytest.approx(evaluation.headline_estimate.value - 40 / 60)
    assert test.mcnemar is not None


def test_with_training_data_a_linear_model_is_trained_beside(evaluated: Evaluated, reviews: Reviews) -> None:
    pytest.importorskip("sklearn")
    evaluation = evaluated(train=reviews(90, first=1000))
    by_name = {baseline.name: baseline for baseline in evaluation.baselines}
    assert set(by_name) == {"most frequent class", "TF-IDF + logistic regression"}
    assert by_name["TF-IDF + logistic regression"].metrics["accuracy"].value == 1.0
    assert by_name["TF-IDF + logistic regression"].metrics["accuracy"].method == "wilson"


def test_a_baseline_that_cannot_run_is_said_and_does_not_stop_the_rest(evaluated: Evaluated, reviews: Reviews) -> None:
    evaluation = evaluated(train=[one for one in reviews(9, first=500) if one["label"] == "negative"])
    assert [baseline.name for baseline in evaluation.baselines] == ["most frequent class"]
    assert any("a single label" in note for note in evaluation.notes)


def test_mistakes_are_the_surest_ones_and_all_wrong(evaluated: Evaluated) -> None:
    evaluation = evaluated(0.7)
    scores = [mistake.score for mistake in evaluation.mistakes]
    assert scores == sorted(scores, reverse=True)
    assert all(mistake.expected != mistake.predicted for mistake in evaluation.mistakes)


def test_without_scores_nothing_is_said_of_calibration(reviews: Reviews) -> None:
    records = reviews(6)
    evaluation = evaluate_classification(
        lambda texts: [{"label": "positive"}] * 6, records, labels=["negative", "positive"], settings=QUICK
    )
    assert evaluation.calibration == ()
    assert "calibration_error" not in evaluation.metrics


def test_the_json_holds_finite_numbers_and_no_arrays(evaluated: Evaluated) -> None:
    value = json.loads(json.dumps(evaluated().to_json(), allow_nan=False))
    assert value["metrics"]["accuracy"]["n"] == 60
    assert "measured" not in value
    assert len(value["provenance"]["data_sha256"]) == 64


def test_two_models_on_the_same_items_are_compared_and_others_are_not(evaluated: Evaluated) -> None:
    good, poor = evaluated(0.95, model="good"), evaluated(0.6, model="poor")
    by_metric = {one.metric: one for one in compare(good, poor, QUICK)}
    accuracy = by_metric["accuracy"]
    assert (accuracy.a, accuracy.b) == ("good", "poor")
    assert accuracy.difference.shown
    assert accuracy.p_value == accuracy.mcnemar
    assert set(by_metric) == set(good.metrics)
    other = replace(poor, provenance=replace(poor.provenance, data_sha256="0" * 64))
    with pytest.raises(UsageError, match="the same items"):
        compare(good, other)


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"text": "  ", "label": "positive"}, "record 2: no text"),
        ({"label": "positive"}, "record 2: no text"),
        ({"text": "Fine.", "label": "positiv"}, "record 2.*'positiv'.*did you mean 'positive'"),
        ({"text": "Fine."}, "record 2.*None"),
    ],
)
def test_a_record_that_cannot_be_measured_is_named(record: dict[str, str], sentence: str, reviews: Reviews) -> None:
    records = [reviews(1)[0], record]
    with pytest.raises(DataError, match=sentence):
        evaluate_classification(lambda texts: [{"label": "positive"}] * 2, records, labels=["negative", "positive"])


def test_an_empty_data_set_is_refused() -> None:
    with pytest.raises(DataError, match="no items"):
        evaluate_classification(lambda texts: [], [], labels=["a", "b"])


@pytest.mark.parametrize(
    ("said", "error", "sentence"),
    [
        ([{"label": "positive"}], UsageError, "1 answers for 2 texts"),
        ({"label": "positive"}, UsageError, "one answer for a list"),
        ([{"label": "LABEL_1"}] * 2, DataError, "model's answer to record 1.*LABEL_1"),
        ([{"score": 0.5}] * 2, UsageError, "no 'label'"),
        ([{"label": "positive", "score": float("nan")}] * 2, DataError, "0 … 1"),
    ],
)
def test_answers_that_do_not_fit_are_refused(
    said: Any, error: type[Exception], sentence: str, reviews: Reviews
) -> None:
    with pytest.raises(error, match=sentence):
        evaluate_classification(lambda texts: said, reviews(2), labels=["negative", "positive"], settings=QUICK)


def test_without_scikit_learn_the_evaluation_says_what_it_could_not_run(
    evaluated: Evaluated, reviews: Reviews, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    evaluation = evaluated(train=reviews(30, first=700))
    assert [baseline.name for baseline in evaluation.baselines] == ["most frequent class"]
    assert any("pip install 'sensorium[metrics]'" in note for note in evaluation.notes)


def test_measuring_loads_no_torch_and_no_optional_library() -> None:
    code = "import sys, sensorium.evaluate; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"torch", "sklearn", "scipy", "jinja2", "markupsafe", "transformers"}
