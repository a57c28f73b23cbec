"""What every evaluation does alike: measure, compare with the baselines, look for leakage, say where it comes from."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sensorium.errors import DataError, UsageError
from sensorium.evaluate.evaluation import Baseline, Comparison, Evaluation, Measured, Provenance
from sensorium.evaluate.statistics import (
    Array,
    Estimate,
    Outcomes,
    bootstrap_intervals,
    detectable,
    mcnemar,
    paired_difference,
)

Text = str | tuple[str, str]
"""A text or a pair of texts."""
Answer = TypeVar("Answer")

SHOWN_CHARACTERS = 280
_SOFTWARE = ("sensorium", "torch", "tokenizers", "numpy", "scikit-learn", "sacrebleu", "rouge-score")


@dataclass(frozen=True)
class Settings:
    """How intervals are made. ``examples``: mistakes and leaked pairs kept for the report."""

    seed: int = 0
    resamples: int = 2000
    confidence: float = 0.95
    examples: int = 20


def estimate(measured: Measured, settings: Settings, sizes: Sequence[int] | None = None) -> dict[str, Estimate]:
    """Each of the metrics with its interval."""
    estimates = bootstrap_intervals(
        measured.items,
        measured.statistic,
        sizes=sizes,
        seed=settings.seed,
        resamples=settings.resamples,
        confidence=settings.confidence,
        best=measured.best,
    )
    return dict(zip(measured.names, estimates, strict=True))


def estimate_all(parts: Iterable[Measured], settings: Settings) -> dict[str, Estimate]:
    """The metrics of several sets of outcomes together."""
    return {name: value for part in parts for name, value in estimate(part, settings).items()}


def smallest_differences(metrics: Mapping[str, Estimate], settings: Settings) -> dict[str, float]:
    """What two independent models measured like this one must differ by to be told apart."""
    return {
        name: float(detectable(np.sqrt(2) * value.standard_error, confidence=settings.confidence))
        for name, value in metrics.items()
    }


def against_baselines(
    model: str, parts: Sequence[Measured], baselines: Mapping[str, Sequence[Measured]], settings: Settings
) -> tuple[tuple[Baseline, ...], tuple[Comparison, ...]]:
    """Each baseline's metrics, and the paired differences of the model to it."""
    results = tuple(Baseline(name, estimate_all(other, settings)) for name, other in baselines.items())
    comparisons = tuple(
        comparison
        for name, other in baselines.items()
        for comparison in _compare_parts(model, name, parts, other, settings)
    )
    return results, comparisons


def compare(a: Evaluation, b: Evaluation, settings: Settings = Settings()) -> tuple[Comparison, ...]:
    """Paired tests of two models evaluated on the same items, a comparison for each metric both have.

    Raises ``UsageError`` when the two were not measured on the same data.
    """
    if a.provenance.data_sha256 != b.provenance.data_sha256:
        raise UsageError(
            f"{a.model!r} was measured on {a.dataset!r} and {b.model!r} on {b.dataset!r}, whose items differ; "
            "a paired test needs the same items in the same order"
        )
    return tuple(_compare_parts(a.model, b.model, a.measured, b.measured, settings))


def _compare_parts(
    a: str, b: str, of_a: Sequence[Measured], of_b: Sequence[Measured], settings: Settings
) -> Iterable[Comparison]:
    others = {part.names: part for part in of_b}
    for part in of_a:
        other = others.get(part.names)
        if other is None:
            continue
        differences = paired_difference(
            part.items,
            other.items,
            part.statistic,
            seed=settings.seed,
            resamples=settings.resamples,
            confidence=settings.confidence,
        )
        exact = None
        if part.correct is not None and other.correct is not None:
            exact = mcnemar(part.correct, other.correct)
        for name, difference in zip(part.names, differences, strict=True):
            tested = exact if name in ("accuracy", "exact_match") else None
            yield Comparison(name, a, b, difference, tested)


def subset(items: Outcomes, keep: Sequence[bool]) -> Outcomes:
    """The outcomes of some of the items."""
    return Outcomes(items.rows, items.index[np.asarray(keep, dtype=bool)])


def statistics_of(*functions: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """One statistic that gives several: sums ``[..., W]`` → ``[..., M]``."""

    def together(sums: Array) -> Array:
        return np.stack([function(sums) for function in functions], axis=-1)

    return together


def answers_for(inputs: Sequence[Any], answers: Iterable[Answer], what: str) -> list[Answer]:
    """The model's answers as a list, one for every input, else ``DataError``."""
    if isinstance(answers, Mapping):
        raise UsageError(f"the model gave one answer for a list of {len(inputs):,} {what}; it must give a list")
    given = list(answers)
    if len(given) != len(inputs):
        raise UsageError(f"the model gave {len(given):,} answers for {len(inputs):,} {what}")
    return given


def text_of(record: Mapping[str, Any], number: int) -> Text:
    """The text, or the pair of texts, of a record with the columns "text" and perhaps "pair"."""
    text, pair = record.get("text"), record.get("pair")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"record {number}: no text in its column 'text'; remove it or map the column")
    return (text, pair) if isinstance(pair, str) else text


def shown(text: Text) -> str:
    """A text cut to what a page can carry; pairs one under the other."""
    whole = text if isinstance(text, str) else "\n".join(text)
    return whole if len(whole) <= SHOWN_CHARACTERS else whole[: SHOWN_CHARACTERS - 1].rstrip() + "…"


def provenance(model: str, dataset: str, records: Sequence[Any], settings: Settings, seconds: float) -> Provenance:
    """When, with what and on which data (by a hash of its contents) something was measured."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps(record, ensure_ascii=False, sort_keys=True, default=str).encode("utf-8") + b"\n")
    return Provenance(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=model,
        dataset=dataset,
        num_items=len(records),
        data_sha256=digest.hexdigest(),
        seed=settings.seed,
        resamples=settings.resamples,
        seconds=round(seconds, 3),
        machine=machine(),
        software={"python": platform.python_version()} | {name: found for name in _SOFTWARE if (found := _found(name))},
    )


def machine() -> str:
    """The processor and its cores, in words."""
    name = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.is_file():
        lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{name}, {cores} {'core' if cores == 1 else 'cores'}, {platform.system()}"


def _found(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
