"""What an evaluation says, as frozen data: the same tree for every task, for JSON, the report and the evidence."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sensorium.evaluate.statistics import Difference, Estimate, Outcomes, Statistic

Task = Literal[
    "text-classification",
    "token-classification",
    "question-answering",
    "language-modelling",
    "sentence-similarity",
    "few-shot",
    "translation",
    "summarization",
    "text2text-generation",
    "image-text-retrieval",
]

TITLES: Mapping[str, str] = {
    "accuracy": "Accuracy",
    "accuracy_norm": "Accuracy, by length",
    "macro_f1": "F1, macro",
    "macro_precision": "Precision, macro",
    "macro_recall": "Recall, macro",
    "micro_f1": "F1, micro",
    "micro_precision": "Precision, micro",
    "micro_recall": "Recall, micro",
    "matthews_correlation": "Matthews correlation",
    "calibration_error": "Calibration error",
    "brier_score": "Brier score",
    "exact_match": "Exact match",
    "f1": "F1 of tokens",
    "best_exact_match": "Exact match, best threshold",
    "best_f1": "F1, best threshold",
    "perplexity": "Perplexity",
    "bits_per_character": "Bits per character",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rougeLsum": "ROUGE-Lsum",
    "number_errors": "Numbers lost",
    "term_errors": "Terms lost",
    **{f"text_to_image_recall_{k}": f"Text → image, first {k}" for k in (1, 5, 10)},
    **{f"image_to_text_recall_{k}": f"Image → text, first {k}" for k in (1, 5, 10)},
}
"""How a metric is called on a page."""

LOWER_IS_BETTER = frozenset(
    {"calibration_error", "brier_score", "perplexity", "bits_per_character", "number_errors", "term_errors"}
)
SHARES = frozenset(TITLES) - {
    "matthews_correlation", "brier_score", "perplexity", "bits_per_character", "pearson", "spearman",
    "bleu", "chrf",
}  # fmt: skip
"""Metrics shown as per cent."""


@dataclass(frozen=True)
class Measured:
    """Several metrics of one model's outcomes: what is resampled, and the function from sums to metrics."""

    names: tuple[str, ...]
    items: Outcomes
    statistic: Statistic
    correct: npt.NDArray[np.bool_] | None = None
    """Whether each item was right, [n], where an item is right or wrong: McNemar's test needs it."""
    best: float = 1.0
    """A perfect score."""


@dataclass(frozen=True)
class ClassScores:
    """One class: how many items have it, how many were called it, and how well the two agree."""

    label: str
    support: int
    predicted: int
    precision: Estimate
    recall: Estimate
    f1: Estimate


@dataclass(frozen=True)
class Confusion:
    """How often each label (row) was predicted as each (column)."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class CalibrationBin:
    """The predictions whose score lies in (low, high]: how many, how sure on average, how often right."""

    low: float
    high: float
    n: int
    score: float
    accuracy: float


@dataclass(frozen=True)
class Baseline:
    """The same metrics for something trivial; what a model must beat."""

    name: str
    metrics: Mapping[str, Estimate]


@dataclass(frozen=True)
class Comparison:
    """Model a minus model b on the same items. ``mcnemar`` is the exact p-value where items are right or wrong."""

    metric: str
    a: str
    b: str
    difference: Difference
    mcnemar: float | None = None

    @property
    def p_value(self) -> float:
        """The exact test's where there is one, else the bootstrap's."""
        return self.difference.p_value if self.mcnemar is None else self.mcnemar


@dataclass(frozen=True)
class Leakage:
    """Evaluation texts that also stand in the training data: ``exact`` after normalising, ``near`` by shared shingles.

    ``clean`` is the headline metric on the other items; None when nothing leaked or nothing else is left.
    """

    num_training: int
    num_items: int
    exact: int
    near: int
    examples: tuple[tuple[str, str], ...] = ()
    """Pairs (evaluation text, training text), shortened."""
    clean: Estimate | None = None


@dataclass(frozen=True)
class Mistake:
    """An item the model got wrong, shortened; the surest first."""

    text: str
    expected: str
    predicted: str
    score: float | None = None


@dataclass(frozen=True)
class Provenance:
    """Where the figures come from, so that they can be had again."""

    created: str
    model: str
    dataset: str
    num_items: int
    data_sha256: str
    seed: int
    resamples: int
    seconds: float
    machine: str
    software: Mapping[str, str]


@dataclass(frozen=True)
class Evaluation:
    """One model on one data set.

    ``smallest_difference``: for each metric, the difference another model, measured on as many items but independent
    of this one, would need for a test to find it four times in five; a paired comparison sees smaller ones.
    """

    task: Task
    model: str
    dataset: str
    headline: str
    metrics: Mapping[str, Estimate]
    baselines: tuple[Baseline, ...]
    comparisons: tuple[Comparison, ...]
    leakage: Leakage | None
    smallest_difference: Mapping[str, float]
    provenance: Provenance
    notes: tuple[str, ...] = ()
    classes: tuple[ClassScores, ...] = ()
    confusion: Confusion | None = None
    calibration: tuple[CalibrationBin, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    measured: tuple[Measured, ...] = field(default=(), repr=False, compare=False)
    """What `compare` needs; not part of the JSON."""

    @property
    def headline_estimate(self) -> Estimate:
        """The metric to quote first."""
        return self.metrics[self.headline]

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and finite numbers."""
        rest = dataclasses.replace(self, measured=())
        value: dict[str, Any] = dataclasses.asdict(rest)
        del value["measured"]
        return value
