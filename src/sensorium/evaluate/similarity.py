"""Evaluate a measure of how alike two texts are, against what people said."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sensorium.errors import DataError
from sensorium.evaluate import _shared, baselines
from sensorium.evaluate._shared import Settings
from sensorium.evaluate.evaluation import Evaluation, Measured
from sensorium.evaluate.leakage import find_leakage
from sensorium.evaluate.metrics import pair_outcomes, pearson, ranks


def evaluate_similarity(
    predict: Callable[[list[tuple[str, str]]], Iterable[float]],
    records: Sequence[Mapping[str, Any]],
    *,
    train: Sequence[Mapping[str, Any]] | None = None,
    model: str = "model",
    dataset: str = "data",
    settings: Settings = Settings(),  # noqa: B008
) -> Evaluation:
    """Measure Spearman's and Pearson's correlation on records ``{"text", "pair", "score"}``.

    The interval of Spearman's resamples pairs with the ranks they have in the whole data.
    """
    pairs, gold = [], []
    for number, record in enumerate(records, 1):
        pairs.append(_pair(record, number))
        try:
            gold.append(float(record["score"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"record {number}: its 'score' is {record.get('score')!r}, not a number") from error
    started = time.perf_counter()
    scores = [float(score) for score in _shared.answers_for(pairs, predict(list(pairs)), "pairs")]
    seconds = time.perf_counter() - started
    parts = _measure(scores, gold)
    by_metric = _shared.estimate_all(parts, settings)
    rivals = {"tokens shared": _measure(baselines.shared_tokens(pairs), gold)}
    results, comparisons = _shared.against_baselines(model, parts, rivals, settings)
    training = None if train is None else [_pair(record, number) for number, record in enumerate(train, 1)]
    return Evaluation(
        task="sentence-similarity",
        model=model,
        dataset=dataset,
        headline="spearman",
        metrics=by_metric,
        baselines=results,
        comparisons=comparisons,
        leakage=find_leakage(training, pairs, parts[0], settings),
        smallest_difference=_shared.smallest_differences(by_metric, settings),
        provenance=_shared.provenance(model, dataset, records, settings, seconds),
        measured=parts,
    )


def _pair(record: Mapping[str, Any], number: int) -> tuple[str, str]:
    text = _shared.text_of(record, number)
    if isinstance(text, str):
        raise DataError(f"record {number}: no second text in its column 'pair'")
    return text


def _measure(scores: Sequence[float], gold: Sequence[float]) -> tuple[Measured, ...]:
    statistic = _shared.statistics_of(pearson)
    ranked = Measured(("spearman",), pair_outcomes(ranks(scores), ranks(gold)), statistic)
    return ranked, Measured(("pearson",), pair_outcomes(scores, gold), statistic)
