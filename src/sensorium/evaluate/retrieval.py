"""Evaluate how well images and texts find each other: recall among the first k, both ways.

Shapes: N images, M distinct texts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sensorium.errors import UsageError
from sensorium.evaluate import _shared
from sensorium.evaluate._shared import Settings
from sensorium.evaluate.evaluation import Evaluation, Measured, Mistake
from sensorium.evaluate.leakage import find_leakage
from sensorium.evaluate.statistics import mean, outcomes

FIRST = (1, 5, 10)
Scores = npt.NDArray[np.floating[Any]]


def evaluate_retrieval(
    score: Callable[[Sequence[Any], Sequence[str]], Scores],
    records: Sequence[Mapping[str, Any]],
    *,
    train: Sequence[Mapping[str, Any]] | None = None,
    first: Sequence[int] = FIRST,
    model: str = "model",
    dataset: str = "data",
    settings: Settings = Settings(),  # noqa: B008
) -> Evaluation:
    """Measure how often a text's image is among the ``first`` ones it finds, and an image's text likewise.

    Records have ``image`` and ``text``; images that share a text are all right for it, and one of them is enough.
    ``score`` gives [N, M] how well each image and each distinct text match. Images that match equally well are all
    counted before the right one, so that a model that tells nothing apart finds nothing. Beside it: chance.
    """
    texts, places = np.unique([str(_shared.text_of(r, n)) for n, r in enumerate(records, 1)], return_inverse=True)
    started = time.perf_counter()
    scores = np.asarray(score([record["image"] for record in records], texts.tolist()), dtype=np.float64)  # [N, M]
    seconds = time.perf_counter() - started
    if scores.shape != (len(records), len(texts)):
        pairs = f"{len(records):,} images and {len(texts):,} texts"
        raise UsageError(f"the model gave scores {list(scores.shape)} for {pairs}")
    relevant = places[:, None] == np.arange(len(texts))  # [N, M]
    parts = (
        _measured("text_to_image", ranks(scores.T, relevant.T), first),
        _measured("image_to_text", ranks(scores, relevant), first),
    )
    by_metric = _shared.estimate_all(parts, settings)
    results, comparisons = _shared.against_baselines(model, parts, {"chance": _chance(relevant, first)}, settings)
    known = None if train is None else [_shared.text_of(record, n) for n, record in enumerate(train, 1)]
    return Evaluation(
        task="image-text-retrieval",
        model=model,
        dataset=dataset,
        headline=f"text_to_image_recall_{first[-1]}",
        metrics=by_metric,
        baselines=results,
        comparisons=comparisons,
        leakage=find_leakage(known, texts.tolist(), parts[0], settings),
        smallest_difference=_shared.smallest_differences(by_metric, settings),
        provenance=_shared.provenance(model, dataset, [{"text": t} for t in texts[places]], settings, seconds),
        notes=(f"{len(records):,} images, {len(texts):,} texts.",),
        mistakes=_mistakes(scores, relevant, texts, places, settings.examples),
        measured=parts,
    )


def ranks(scores: Scores, relevant: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """[Q, C] scores of what Q queries may find → [Q] the place of the first right one, from 1; ties count against it.

    >>> ranks(np.array([[0.9, 0.5, 0.5], [0.1, 0.3, 0.2]]), np.array([[False, True, False], [True, True, False]]))
    array([3, 1])
    """
    best = np.where(relevant, scores, -np.inf).max(axis=1)  # [Q]
    before: npt.NDArray[np.int64] = ((scores >= best[:, None]) & ~relevant).sum(axis=1)
    return before + 1


def _measured(way: str, places: npt.NDArray[np.int64], first: Sequence[int]) -> Measured:
    hits = [places <= k for k in first]
    rows = np.stack([*hits, np.ones(len(places))], axis=1)  # [Q, K + 1]
    return Measured(tuple(f"{way}_recall_{k}" for k in first), outcomes(rows), mean)


def _chance(relevant: npt.NDArray[np.bool_], first: Sequence[int]) -> tuple[Measured, ...]:
    """What an order drawn at random finds, for each query."""
    found = []
    for way, table in (("text_to_image", relevant.T), ("image_to_text", relevant)):
        count, right = table.shape[1], table.sum(axis=1)
        within = [min(k, count) for k in first]
        missed = [[math.comb(count - r, k) / math.comb(count, k) for r in right.tolist()] for k in within]
        rows = np.stack([*(1 - np.array(missed)), np.ones(len(right))], axis=1)
        found.append(Measured(tuple(f"{way}_recall_{k}" for k in first), outcomes(rows), mean))
    return tuple(found)


def _mistakes(
    scores: Scores, relevant: npt.NDArray[np.bool_], texts: npt.NDArray[Any], places: npt.NDArray[np.int64], limit: int
) -> tuple[Mistake, ...]:
    """Texts that did not find their image first, with the text of the one they found."""
    likeliest = scores.argmax(axis=0)  # [M]
    wrong = [m for m in range(len(texts)) if not relevant[likeliest[m], m]][:limit]
    return tuple(Mistake(str(texts[m]), str(texts[m]), str(texts[places[likeliest[m]]])) for m in wrong)
