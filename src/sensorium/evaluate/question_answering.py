"""Evaluate a reader that answers questions with a span of a given text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sensorium.errors import DataError, UsageError
from sensorium.evaluate import _shared, baselines, metrics, spans
from sensorium.evaluate._shared import Settings
from sensorium.evaluate.classification import CALIBRATION_METRICS, calibration, calibration_note
from sensorium.evaluate.evaluation import Evaluation, Measured, Mistake
from sensorium.evaluate.leakage import find_leakage


def evaluate_question_answering(
    predict: Callable[[list[dict[str, str]]], Iterable[Mapping[str, Any]]],
    records: Sequence[Mapping[str, Any]],
    *,
    train: Sequence[Mapping[str, Any]] | None = None,
    model: str = "model",
    dataset: str = "data",
    language: spans.Language | None = None,
    settings: Settings = Settings(),  # noqa: B008
) -> Evaluation:
    """Measure exact match and token F1 on records ``{"question", "context", "answers": [text, …]}``.

    ``predict`` gets ``{"question", "context"}`` dicts and gives what the question-answering task gives: ``{"answer",
    "score", …}``. No accepted answer means that the right answer is the empty one. Where answers have a
    ``no_answer_score``, no answer takes the place of one that scores less, and the threshold that makes most of the
    model is told, as SQuAD 2.0 does. ``language`` None: Chinese when the contexts are (answers are then compared by
    character). Leakage is looked for among the contexts of ``train``.
    """
    asked = [_question(record, number) for number, record in enumerate(records, 1)]
    accepted = [_answers(record) for record in records]
    chosen = language or spans.language_of([question["context"] for question in asked])
    started = time.perf_counter()
    given = _shared.answers_for(asked, predict([dict(question) for question in asked]), "questions")
    seconds = time.perf_counter() - started
    answers, scores = zip(*(_answer(answer) for answer in given), strict=True) if given else ((), ())

    parts = (*_measure(answers, scores, accepted, chosen), *_tuned(given, accepted, chosen))
    by_metric = _shared.estimate_all(parts, settings)
    trivial = [baselines.likeliest_sentence(question["question"], question["context"]) for question in asked]
    rivals = {"sentence most like the question": _measure(trivial, [None] * len(trivial), accepted, chosen)}
    results, comparisons = _shared.against_baselines(model, parts, rivals, settings)
    contexts = None if train is None else sorted({_question(record, n)["context"] for n, record in enumerate(train, 1)})
    note = "Answers are compared " + ("by character (Chinese)." if chosen == "zh" else "by word, articles left out.")
    return Evaluation(
        task="question-answering",
        model=model,
        dataset=dataset,
        headline="f1",
        metrics=by_metric,
        baselines=results,
        comparisons=comparisons,
        leakage=find_leakage(contexts, [question["context"] for question in asked], parts[0], settings, metric=1),
        smallest_difference=_shared.smallest_differences(by_metric, settings),
        provenance=_shared.provenance(model, dataset, records, settings, seconds),
        notes=(note, *_threshold_note(given, accepted, chosen), *calibration_note(scores, settings)),
        calibration=calibration(parts[1]) if len(parts) > 1 and parts[1].names == tuple(CALIBRATION_METRICS) else (),
        mistakes=_mistakes(asked, accepted, answers, scores, chosen, settings.examples),
        measured=parts,
    )


# --- details ---------------------------------------------------------------------------------------------------------


def _question(record: Mapping[str, Any], number: int) -> dict[str, str]:
    question, context = record.get("question"), record.get("context")
    for name, value in (("question", question), ("context", context)):
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"record {number}: no text in its column {name!r}; remove it or map the column")
    return {"question": str(question), "context": str(context)}


def _answers(record: Mapping[str, Any]) -> list[str]:
    answers = record.get("answers", ())
    return [answers] if isinstance(answers, str) else [str(answer) for answer in answers]


def _answer(given: Mapping[str, Any]) -> tuple[str, float | None]:
    if "answer" not in given:
        raise UsageError(f"the model's answers have no 'answer': {sorted(given)}; is it a question-answering task?")
    score = given.get("score")
    none = given.get("no_answer_score")
    if none is not None and score is not None and none > score:
        return "", float(none)
    return str(given["answer"]), None if score is None else float(score)


def _tuned(
    given: Sequence[Mapping[str, Any]], accepted: Sequence[Sequence[str]], language: spans.Language
) -> tuple[Measured, ...]:
    """Exact match and F1 at the best threshold, where some questions have no answer and the model may give none."""
    found = _best_threshold(given, accepted, language)
    if found is None:
        return ()
    answers = [str(one["answer"]) if _margin(one) <= found else "" for one in given]
    return (
        Measured(("best_exact_match", "best_f1"), spans.span_outcomes(answers, accepted, language), spans.span_scores),
    )


def _threshold_note(
    given: Sequence[Mapping[str, Any]], accepted: Sequence[Sequence[str]], language: spans.Language
) -> tuple[str, ...]:
    found = _best_threshold(given, accepted, language)
    if found is None:
        return ()
    return (f"Best F1 is at no_answer_threshold={found:.4g}, chosen on these very questions, as SQuAD 2.0 does.",)


def _best_threshold(
    given: Sequence[Mapping[str, Any]], accepted: Sequence[Sequence[str]], language: spans.Language
) -> float | None:
    if not given or all(accepted) or any(one.get("no_answer_score") is None for one in given):
        return None

    def f1(answer: str, references: Sequence[str]) -> float:
        return max(spans.token_f1(answer, reference, language) for reference in (references or ("",)))

    answered = [f1(str(one["answer"]), references) for one, references in zip(given, accepted, strict=True)]
    empty = [f1("", references) for references in accepted]
    return spans.best_threshold([_margin(one) for one in given], answered, empty)[0]


def _margin(given: Mapping[str, Any]) -> float:
    """How much better no answer scores than the best span."""
    return float(given["no_answer_score"]) - float(given["score"])


def _measure(
    answers: Sequence[str],
    scores: Sequence[float | None],
    accepted: Sequence[Sequence[str]],
    language: spans.Language,
) -> tuple[Measured, ...]:
    items = spans.span_outcomes(answers, accepted, language)
    correct = items.rows[items.index, 0] == 1  # [n]
    matched = Measured(("exact_match", "f1"), items, spans.span_scores, correct)
    if any(score is None for score in scores):
        return (matched,)
    sure = metrics.calibration_outcomes(np.array(scores, dtype=np.float64), correct)
    statistic = _shared.statistics_of(*CALIBRATION_METRICS.values())
    return matched, Measured(tuple(CALIBRATION_METRICS), sure, statistic)


def _mistakes(
    asked: Sequence[Mapping[str, str]],
    accepted: Sequence[Sequence[str]],
    answers: Sequence[str],
    scores: Sequence[float | None],
    language: spans.Language,
    limit: int,
) -> tuple[Mistake, ...]:
    def found(n: int) -> float:
        return max(spans.token_f1(answers[n], reference, language) for reference in (accepted[n] or ("",)))

    wrong = sorted((n for n in range(len(asked)) if found(n) == 0), key=lambda n: -(scores[n] or 0.0))[:limit]
    return tuple(
        Mistake(
            _shared.shown(asked[n]["question"]),
            _shared.shown(" / ".join(dict.fromkeys(accepted[n])) or "no answer"),
            _shared.shown(answers[n] or "no answer"),
            scores[n],
        )
        for n in wrong
    )
