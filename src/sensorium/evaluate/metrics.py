"""Metrics as functions of sums over items, so that one resampling serves them all (see `statistics`).

Each kind of answer has a function that turns items into `Outcomes` and statistics that read their sums:

    label_outcomes(labels, predictions, C)   → accuracy, MCC, precision, recall and F1: macro, micro, per class
    calibration_outcomes(scores, correct)    → expected calibration error, Brier score
    entity_outcomes(gold, predicted, C)      → micro and per-type precision/recall/F1 of whole entities
    span_outcomes(predictions, references)   → exact match, F1 of tokens
    likelihood_outcomes(nll, num_tokens)     → perplexity
    pair_outcomes(scores, gold)              → Pearson; `spearman` is the rank version

    >>> sums = label_outcomes([0, 0, 1, 1], [0, 1, 1, 1], 2).totals()
    >>> float(accuracy(sums)), round(float(macro_f1(sums)), 4)
    (0.75, 0.7333)

Legend: C classes, n items, B bins, ``...`` any leading dimensions (resamples).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sensorium.errors import DataError
from sensorium.evaluate.statistics import Array, Outcomes, outcomes

NUM_BINS = 15
"""Bins of equal width over confidence, as in Guo et al. 2017."""

# --- classification: sums are hits | support | predicted, [..., 3C] --------------------------------------------------


def label_outcomes(labels: npt.ArrayLike, predictions: npt.ArrayLike, num_labels: int) -> Outcomes:
    """Class numbers [n] and [n] → rows of ``hits | support | predicted`` per class, [K, 3C]."""
    truth, guess = np.asarray(labels, dtype=np.int64), np.asarray(predictions, dtype=np.int64)  # [n] each
    if truth.shape != guess.shape or truth.ndim != 1:
        raise DataError(f"labels and predictions must be two lists of one length; got {truth.shape} and {guess.shape}")
    if truth.size == 0:
        raise DataError("nothing to measure: the data holds no items")
    if min(truth.min(), guess.min()) < 0 or max(truth.max(), guess.max()) >= num_labels:
        raise DataError(f"a label or prediction is outside 0…{num_labels - 1}; check the label map")
    cells, index = np.unique(truth * num_labels + guess, return_inverse=True)
    one_hot = np.eye(num_labels)
    support, predicted = one_hot[cells // num_labels], one_hot[cells % num_labels]  # [K, C] each
    return Outcomes(np.concatenate([support * predicted, support, predicted], axis=1), index.reshape(-1))


def confusion_matrix(labels: npt.ArrayLike, predictions: npt.ArrayLike, num_labels: int) -> npt.NDArray[np.int64]:
    """How often each class (row) was predicted as each (column), [C, C]."""
    cells = np.asarray(labels, dtype=np.int64) * num_labels + np.asarray(predictions, dtype=np.int64)  # [n]
    return np.bincount(cells, minlength=num_labels**2).reshape(num_labels, num_labels)


def accuracy(sums: Array) -> Array:
    """Share of items whose class is right, [...]."""
    hits, support, _ = _thirds(sums)
    return _ratio(hits.sum(-1), support.sum(-1))


def class_precision(sums: Array) -> Array:
    """Of the items called a class, the share that are: [..., C]; 0 where none was called so."""
    hits, _, predicted = _thirds(sums)
    return _ratio(hits, predicted)


def class_recall(sums: Array) -> Array:
    """Of a class's items, the share found: [..., C]; 0 where there are none."""
    hits, support, _ = _thirds(sums)
    return _ratio(hits, support)


def class_f1(sums: Array) -> Array:
    """Harmonic mean of precision and recall, [..., C]."""
    hits, support, predicted = _thirds(sums)
    return _ratio(2 * hits, support + predicted)


def macro_precision(sums: Array) -> Array:
    """Mean of `class_precision` over the classes that occur, [...]."""
    return _macro(class_precision(sums), sums)


def macro_recall(sums: Array) -> Array:
    """Mean of `class_recall` over the classes that occur (as label or as prediction), [...]."""
    return _macro(class_recall(sums), sums)


def macro_f1(sums: Array) -> Array:
    """Mean of `class_f1` over the classes that occur: every class counts the same, however rare. [...]."""
    return _macro(class_f1(sums), sums)


def micro_precision(sums: Array) -> Array:
    """Hits over predictions, all classes together, [...]; equals accuracy when every item has one label."""
    hits, _, predicted = _thirds(sums)
    return _ratio(hits.sum(-1), predicted.sum(-1))


def micro_recall(sums: Array) -> Array:
    """Hits over labels, all classes together, [...]."""
    hits, support, _ = _thirds(sums)
    return _ratio(hits.sum(-1), support.sum(-1))


def micro_f1(sums: Array) -> Array:
    """Harmonic mean of `micro_precision` and `micro_recall`, [...]."""
    hits, support, predicted = _thirds(sums)
    return _ratio(2 * hits.sum(-1), support.sum(-1) + predicted.sum(-1))


def matthews_correlation(sums: Array) -> Array:
    """Correlation of prediction and truth for any number of classes, -1 … 1 (Gorodkin 2004), [...]."""
    hits, support, predicted = _thirds(sums)
    n = support.sum(-1)  # [...]
    covariance = hits.sum(-1) * n - (support * predicted).sum(-1)
    spread = (n * n - (predicted**2).sum(-1)) * (n * n - (support**2).sum(-1))
    return _ratio(covariance, np.sqrt(np.maximum(spread, 0)))


# --- calibration: sums are (items, right, score) per bin | Brier | n -------------------------------------------------


def calibration_outcomes(scores: npt.ArrayLike, correct: npt.ArrayLike, num_bins: int = NUM_BINS) -> Outcomes:
    """The score of each prediction (0 … 1) and whether it was right, [n] each → rows [K, 3B + 2]."""
    score, right = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=np.float64)  # [n] each
    if score.size == 0 or score.shape != right.shape:
        raise DataError(f"calibration needs a score for every prediction; got {score.size} for {right.size}")
    if not ((score >= 0) & (score <= 1 + 1e-6)).all():
        raise DataError("a score is outside 0 … 1; calibration needs probabilities, not logits")
    score = np.minimum(score, 1.0)
    bins = np.eye(num_bins)[_bin_of(score, num_bins)]  # [n, B]
    squared = (score - right) ** 2  # [n]
    rows = [bins, bins * right[:, None], bins * score[:, None], squared[:, None], np.ones((len(score), 1))]
    return outcomes(np.concatenate(rows, axis=1))


def calibration_bins(sums: Array) -> Array:
    """Items, right ones and summed scores of each bin: [..., 3, B]."""
    bins = sums[..., :-2]
    return bins.reshape(*bins.shape[:-1], 3, bins.shape[-1] // 3)


def calibration_error(sums: Array) -> Array:
    """Expected calibration error: mean gap between score and accuracy, by bins (Guo et al. 2017), [...]."""
    bins = calibration_bins(sums)  # [..., 3, B]
    return _ratio(np.abs(bins[..., 1, :] - bins[..., 2, :]).sum(-1), sums[..., -1])


def calibration_noise(scores: npt.ArrayLike, *, seed: int = 0, draws: int = 500, num_bins: int = NUM_BINS) -> float:
    """The calibration error that a *perfectly* calibrated model with these scores stays below 95 times in 100.

    Binning finds gaps in pure chance, so the error of few items is never 0 (Bröcker & Smith 2007); an error below
    this says nothing against the model. An interval around the error does not show it.
    """
    score = np.asarray(scores, dtype=np.float64)  # [n]
    random = np.random.default_rng(seed)
    bins = _bin_of(score, num_bins)  # [n]
    expected = np.bincount(bins, weights=score, minlength=num_bins)  # [B]
    errors = []
    for _ in range(draws):
        right = np.bincount(bins, weights=random.random(len(score)) < score, minlength=num_bins)  # [B]
        errors.append(np.abs(right - expected).sum() / len(score))
    return float(np.quantile(errors, 0.95))


def brier_score(sums: Array) -> Array:
    """Mean squared gap between the score of the predicted class and whether it was right (Brier 1950), [...]."""
    return _ratio(sums[..., -2], sums[..., -1])


# --- entities: the sums of classification, counted per sentence ------------------------------------------------------

Entity = tuple[int, int, int]
"""(class, start, end) in the sentence's words."""


def entity_outcomes(
    gold: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]], num_classes: int
) -> Outcomes:
    """Entities of n sentences → rows [n, 3C]; one counts as found only with both borders and class right.

    The sentence is what is resampled, since entities of one sentence are not independent.
    """
    if len(gold) != len(predicted):
        raise DataError(f"{len(gold):,} sentences have labels and {len(predicted):,} have predictions")
    rows = np.zeros((len(gold), 3, num_classes))
    for number, (truth, guess) in enumerate(zip(gold, predicted, strict=True)):
        for part, entities in enumerate((set(truth) & set(guess), set(truth), set(guess))):
            np.add.at(rows[number, part], [entity[0] for entity in entities], 1)
    return outcomes(rows.reshape(len(gold), -1))


# --- language models -------------------------------------------------------------------------------------------------


def likelihood_outcomes(nll: npt.ArrayLike, num_tokens: npt.ArrayLike) -> Outcomes:
    """Summed negative log-likelihood (nats) and number of predicted tokens of each text, [n] each → rows [K, 2]."""
    rows = np.stack([np.asarray(nll, dtype=np.float64), np.asarray(num_tokens, dtype=np.float64)], axis=1)  # [n, 2]
    if not rows[:, 1].any():
        raise DataError("perplexity needs texts with at least one predicted token")
    return outcomes(rows)


def perplexity(sums: Array) -> Array:
    """exp of the mean negative log-likelihood per token, [...].

    >>> round(float(perplexity(likelihood_outcomes([2 * np.log(8)], [2]).totals())), 6)
    8.0
    """
    return np.asarray(np.exp(np.minimum(_ratio(sums[..., 0], sums[..., 1]), 700.0)))  # exp(700) still is a number


# --- similarity ------------------------------------------------------------------------------------------------------


def cosine(a: npt.ArrayLike, b: npt.ArrayLike) -> Array:
    """Cosine of the vectors of each pair, [n, D] and [n, D] → [n]; 0 where a vector is 0."""
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return _ratio((left * right).sum(-1), np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1))


def pair_outcomes(scores: npt.ArrayLike, gold: npt.ArrayLike) -> Outcomes:
    """Two numbers for each pair of texts, [n] each → rows (x, y, x², y², xy, 1), both standardised first."""
    x, y = _standardised(scores), _standardised(gold)  # [n] each; correlation does not see the change of units
    return outcomes(np.stack([x, y, x * x, y * y, x * y, np.ones_like(x)], axis=1))


def pearson(sums: Array) -> Array:
    """Linear correlation, [...]; 0 where one side does not vary."""
    x, y, xx, yy, xy = np.moveaxis(sums[..., :5] / sums[..., 5:], -1, 0)  # [...] each
    spread = np.maximum(xx - x * x, 0) * np.maximum(yy - y * y, 0)  # [...]
    return _ratio(xy - x * y, np.sqrt(np.where(spread < 1e-18, 0, spread)))


def ranks(values: npt.ArrayLike) -> Array:
    """Ranks from 1, ties sharing their mean rank, [n]. `pearson` of ranks is Spearman's correlation.

    >>> ranks([30, 10, 10]).tolist()
    [3.0, 1.5, 1.5]
    """
    _, index, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[index.reshape(-1)], dtype=np.float64)


# --- details ---------------------------------------------------------------------------------------------------------


def _bin_of(score: Array, num_bins: int) -> npt.NDArray[np.int64]:
    """The bin (low, high] of each score; 0 falls in the first."""
    bins: npt.NDArray[np.int64] = np.clip(np.ceil(score * num_bins) - 1, 0, num_bins - 1).astype(np.int64)
    return bins


def _thirds(sums: Array) -> tuple[Array, Array, Array]:
    hits, support, predicted = np.split(sums, 3, axis=-1)
    return hits, support, predicted


def _ratio(top: Array, bottom: Array) -> Array:
    """``top / bottom``, 0 where ``bottom`` is 0."""
    quotient: Array = np.zeros(np.broadcast(top, bottom).shape)
    np.divide(top, bottom, out=quotient, where=np.asarray(bottom) != 0)
    return quotient


def _macro(per_class: Array, sums: Array) -> Array:
    _, support, predicted = _thirds(sums)
    occurs = (support + predicted) > 0  # [..., C]
    return _ratio((per_class * occurs).sum(-1), occurs.sum(-1).astype(np.float64))


def _standardised(values: npt.ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64)
    spread = float(array.std()) or 1.0
    standardised: Array = (array - array.mean()) / spread
    return standardised
