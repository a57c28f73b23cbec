"""Evaluate a text classifier."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sensorium.errors import DataError, SensoriumError, UsageError, nearest
from sensorium.evaluate import _shared, baselines, metrics
from sensorium.evaluate._shared import Settings, Text
from sensorium.evaluate.evaluation import CalibrationBin, ClassScores, Confusion, Evaluation, Measured, Mistake
from sensorium.evaluate.leakage import find_leakage
from sensorium.evaluate.statistics import Array

Prediction = Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""What the text-classification task gives for one text: ``{"label", "score"}``, or a list of them."""
BaselineName = Literal["majority", "tfidf"]

LABEL_METRICS: Mapping[str, Callable[[Array], Array]] = {
    "accuracy": metrics.accuracy,
    "macro_f1": metrics.macro_f1,
    "macro_precision": metrics.macro_precision,
    "macro_recall": metrics.macro_recall,
    "micro_f1": metrics.micro_f1,
    "micro_precision": metrics.micro_precision,
    "micro_recall": metrics.micro_recall,
    "matthews_correlation": metrics.matthews_correlation,
}
CALIBRATION_METRICS: Mapping[str, Callable[[Array], Array]] = {
    "calibration_error": metrics.calibration_error,
    "brier_score": metrics.brier_score,
}


def evaluate_classification(
    predict: Callable[[list[Text]], Iterable[Prediction]],
    records: Sequence[Mapping[str, Any]],
    *,
    labels: Sequence[str],
    train: Sequence[Mapping[str, Any]] | None = None,
    model: str = "model",
    dataset: str = "data",
    compare_with: Sequence[BaselineName] = ("majority", "tfidf"),
    settings: Settings = Settings(),  # noqa: B008
) -> Evaluation:
    """Measure a classifier on records with the columns "text", "label" and, for pairs, "pair".

    ``predict`` gets all texts in order (pairs as tuples) and gives for each what the text-classification task gives;
    with a list of labels the first-ranked counts. ``labels`` are all labels the model knows, in the order to show.
    ``train`` (same columns) is what the baselines learn from and what leakage is looked for in; without it both are
    limited, and the evaluation's notes say so.

    Raises ``DataError`` for an empty text or a label outside ``labels``, naming the record.
    """
    texts = [_shared.text_of(record, number) for number, record in enumerate(records, 1)]
    known = {label: number for number, label in enumerate(labels)}
    truth = _label_numbers([record.get("label") for record in records], known, "record")
    started = time.perf_counter()
    answers = _shared.answers_for(texts, predict(texts), "texts")
    seconds = time.perf_counter() - started
    guessed, scores = zip(*(_first(answer) for answer in answers), strict=True) if answers else ((), ())
    guesses = _label_numbers(guessed, known, "the model's answer to record")
    parts = _measure(truth, guesses, scores, len(known))
    by_metric = _shared.estimate_all(parts, settings)

    rivals, notes = _rivals(texts, truth, known, train, compare_with)
    results, comparisons = _shared.against_baselines(model, parts, rivals, settings)
    training_texts = None if train is None else [_shared.text_of(record, n) for n, record in enumerate(train, 1)]
    leakage = find_leakage(training_texts, texts, parts[0], settings)
    return Evaluation(
        task="text-classification",
        model=model,
        dataset=dataset,
        headline="accuracy",
        metrics=by_metric,
        baselines=results,
        comparisons=comparisons,
        leakage=leakage,
        smallest_difference=_shared.smallest_differences(by_metric, settings),
        provenance=_shared.provenance(model, dataset, records, settings, seconds),
        notes=(*notes, *calibration_note(scores, settings)),
        classes=class_scores(parts[0], labels, settings),
        confusion=_confusion(truth, guesses, labels),
        calibration=calibration(parts[1]) if len(parts) > 1 else (),
        mistakes=_mistakes(texts, labels, truth, guesses, scores, settings.examples),
        measured=parts,
    )


def class_scores(part: Measured, labels: Sequence[str], settings: Settings) -> tuple[ClassScores, ...]:
    """Precision, recall and F1 of each class with intervals, from outcomes of `metrics.label_outcomes` kind."""
    _, support, predicted = part.items.totals().reshape(3, len(labels)).astype(int)  # [C] each

    def per_class(sums: Array) -> Array:
        scores = metrics.class_precision(sums), metrics.class_recall(sums), metrics.class_f1(sums)
        return np.concatenate(scores, axis=-1)  # [..., 3C]

    names = tuple(str(number) for number in range(3 * len(labels)))
    sizes = [*predicted.tolist(), *support.tolist(), *np.maximum(support, predicted).tolist()]
    found = list(_shared.estimate(Measured(names, part.items, per_class), settings, sizes).values())
    count = len(labels)
    return tuple(
        ClassScores(label, int(support[k]), int(predicted[k]), found[k], found[count + k], found[2 * count + k])
        for k, label in enumerate(labels)
    )


def calibration_note(scores: Sequence[float | None], settings: Settings) -> tuple[str, ...]:
    """A sentence on how much calibration error is chance, where there are scores."""
    if any(score is None for score in scores):
        return ()
    noise = metrics.calibration_noise(np.array(scores, dtype=np.float64), seed=settings.seed)
    return (f"A perfectly calibrated model with these scores would show a calibration error of up to {noise:.1%}.",)


def calibration(part: Measured) -> tuple[CalibrationBin, ...]:
    """The bins of the reliability diagram that hold predictions."""
    counts, right, score = metrics.calibration_bins(part.items.totals())  # [B] each
    width = 1 / len(counts)
    return tuple(
        CalibrationBin(k * width, (k + 1) * width, int(n), float(score[k] / n), float(right[k] / n))
        for k, n in enumerate(counts)
        if n
    )


# --- details ---------------------------------------------------------------------------------------------------------


def _label_numbers(given: Sequence[object], known: Mapping[str, int], where: str) -> npt.NDArray[np.int64]:
    for number, label in enumerate(given, 1):
        if label not in known:
            shown = ", ".join(list(known)[:10]) + (", …" if len(known) > 10 else "")
            hint = nearest(str(label), known)
            raise DataError(
                f"{where} {number}: the label {label!r} is not one of the {len(known)} known: {shown}{hint}"
            )
    return np.array([known[str(label)] for label in given], dtype=np.int64)  # [n]


def _first(answer: Prediction) -> tuple[str, float | None]:
    """The first-ranked label and its score."""
    best = answer if isinstance(answer, Mapping) else max(answer, key=lambda choice: float(choice["score"]))
    if "label" not in best:
        raise UsageError(f"the model's answers have no 'label': {sorted(best)}; is it a text classifier?")
    score = best.get("score")
    return str(best["label"]), None if score is None else float(score)


def _measure(
    truth: npt.NDArray[np.int64], guesses: npt.NDArray[np.int64], scores: Sequence[float | None], num_labels: int
) -> tuple[Measured, ...]:
    items = metrics.label_outcomes(truth, guesses, num_labels)
    correct = truth == guesses  # [n]
    by_label = Measured(tuple(LABEL_METRICS), items, _shared.statistics_of(*LABEL_METRICS.values()), correct)
    if any(score is None for score in scores):
        return (by_label,)
    sure = metrics.calibration_outcomes(np.array(scores, dtype=np.float64), correct)
    statistic = _shared.statistics_of(*CALIBRATION_METRICS.values())
    return by_label, Measured(tuple(CALIBRATION_METRICS), sure, statistic)


def _rivals(
    texts: Sequence[Text],
    truth: npt.NDArray[np.int64],
    known: Mapping[str, int],
    train: Sequence[Mapping[str, Any]] | None,
    wanted: Sequence[BaselineName],
) -> tuple[dict[str, tuple[Measured, ...]], tuple[str, ...]]:
    """The baselines' outcomes by name, and a note for each that could not be had."""
    names, notes = list(known), []
    found: dict[str, baselines.Guesses] = {}
    if train is None:
        notes.append("TF-IDF + logistic regression was not run: it learns from training data, and none was given.")
        found["most frequent class (of this data)"] = baselines.majority([names[k] for k in truth], len(texts))
    else:
        train_labels = [names[k] for k in _label_numbers([r.get("label") for r in train], known, "training record")]
        if "majority" in wanted:
            found["most frequent class"] = baselines.majority(train_labels, len(texts))
        if "tfidf" in wanted:
            train_texts = [_shared.text_of(record, number) for number, record in enumerate(train, 1)]
            try:
                found["TF-IDF + logistic regression"] = baselines.tfidf_regression(train_texts, train_labels, texts)
            except SensoriumError as error:  # scikit-learn is missing, or the training data has one label
                notes.append(f"TF-IDF + logistic regression was not run: {error}.")
    rivals = {
        name: _measure(truth, np.array([known[label] for label in guesses], dtype=np.int64), scores, len(known))
        for name, (guesses, scores) in found.items()
    }
    return rivals, tuple(notes)


def _confusion(truth: npt.NDArray[np.int64], guesses: npt.NDArray[np.int64], labels: Sequence[str]) -> Confusion:
    counts = metrics.confusion_matrix(truth, guesses, len(labels))  # [C, C]
    return Confusion(tuple(labels), tuple(tuple(int(cell) for cell in row) for row in counts))


def _mistakes(
    texts: Sequence[Text],
    labels: Sequence[str],
    truth: npt.NDArray[np.int64],
    guesses: npt.NDArray[np.int64],
    scores: Sequence[float | None],
    limit: int,
) -> tuple[Mistake, ...]:
    wrong = sorted(np.flatnonzero(truth != guesses).tolist(), key=lambda n: -(scores[n] or 0.0))[:limit]
    return tuple(Mistake(_shared.shown(texts[n]), labels[truth[n]], labels[guesses[n]], scores[n]) for n in wrong)
