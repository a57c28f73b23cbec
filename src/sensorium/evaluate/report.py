"""The report page: one HTML file that needs nothing else, drawn from evaluations and training logs.

Drawings are SVG and CSS of our own (`charts`, ``templates/``) rather than pictures of a plotting library: they follow
the reader's light or dark page, stay sharp and legible on a phone, and add nothing to install but Jinja. Everything
that comes from data is escaped by Jinja; the page's own policy forbids scripts and network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sensorium.evaluate import charts, wording
from sensorium.evaluate.curves import loss_curves
from sensorium.evaluate.evaluation import LOWER_IS_BETTER, SHARES, Comparison, Evaluation
from sensorium.evaluate.pages import TEMPLATES, page_templates
from sensorium.evaluate.statistics import Estimate, holm
from sensorium.storage import write_text


@dataclass(frozen=True)
class ForestRow:
    """A result and its interval on a shared axis; positions in per cent of its width."""

    name: str
    said: str
    title: str
    value: float
    low: float
    high: float
    own: bool


@dataclass(frozen=True)
class Forest:
    """Results under each other, on one axis."""

    rows: tuple[ForestRow, ...]
    ticks: tuple[charts.Tick, ...]


@dataclass(frozen=True)
class _Training:
    name: str
    charts: list[charts.LineChart]


@dataclass(frozen=True)
class _ComparisonRow:
    comparison: Comparison
    p_value: float
    reading: str


def write_report(
    path: str | Path,
    evaluations: Sequence[Evaluation] = (),
    *,
    training_logs: Mapping[str, Iterable[Mapping[str, Any]]] | None = None,
    comparisons: Sequence[Comparison] = (),
    title: str = "Evaluation",
) -> Path:
    """Write the page and return its path; whatever part is not given is left out.

    ``training_logs``: a name for each training, and the entries of its ``train.jsonl``. ``comparisons``: what
    `compare` gives, of whichever metrics are to be shown; their p-values are corrected together.

    Raises ``UsageError`` when Jinja is not installed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, render_report(evaluations, training_logs=training_logs, comparisons=comparisons, title=title))
    return path


def render_report(
    evaluations: Sequence[Evaluation] = (),
    *,
    training_logs: Mapping[str, Iterable[Mapping[str, Any]]] | None = None,
    comparisons: Sequence[Comparison] = (),
    title: str = "Evaluation",
) -> str:
    """The page as text; see `write_report`."""
    corrected = holm([comparison.p_value for comparison in comparisons])
    rows = [
        _ComparisonRow(comparison, probability, wording.reading(comparison, probability))
        for comparison, probability in zip(comparisons, corrected, strict=True)
    ]
    logs = (training_logs or {}).items()
    page: str = (
        _environment()
        .get_template("report.html")
        .render(
            title=title,
            meta=_meta(evaluations),
            evaluations=evaluations,
            comparisons=comparisons,
            comparison_rows=rows,
            trainings=[_Training(name, charts.loss_charts(loss_curves(log))) for name, log in logs],
            resamples=" or ".join(f"{count:,}" for count in sorted({one.provenance.resamples for one in evaluations})),
            any_calibration=any(evaluation.calibration for evaluation in evaluations),
        )
    )
    return page


def forest(evaluation: Evaluation) -> Forest:
    """The headline metric of the model and of each baseline."""
    metric = evaluation.headline
    results = [(evaluation.model, evaluation.headline_estimate, True)]
    results += [(one.name, one.metrics[metric], False) for one in evaluation.baselines if metric in one.metrics]
    lows, highs = [one.low for _, one, _ in results], [one.high for _, one, _ in results]
    ticks = charts.nice_ticks(min(lows), max(highs), about=4)
    start, end = ticks[0], ticks[-1]

    def place(amount: float) -> float:
        return round(100 * (amount - start) / (end - start), 2)

    rows = [
        ForestRow(
            name=name,
            said=wording.value(one, metric),
            title=wording.interval_words(one, metric),
            value=place(one.value),
            low=place(one.low),
            high=place(one.high),
            own=own,
        )
        for name, one, own in results
    ]
    return Forest(tuple(rows), tuple(charts.Tick(place(tick), _tick_text(tick, metric)) for tick in ticks))


# --- details ---------------------------------------------------------------------------------------------------------


def _environment() -> Any:
    environment = page_templates(TEMPLATES / "report.css")
    environment.globals["lower_is_better"] = LOWER_IS_BETTER
    environment.filters.update(
        {
            "amount": wording.amount,
            "big": _big,
            "breakable": _breakable,
            "confusions": charts.confusions,
            "difference": wording.difference,
            "difference_interval": wording.difference_interval,
            "duration": wording.duration,
            "forest": forest,
            "heatmap": charts.heatmap,
            "interval": wording.interval,
            "interval_words": wording.interval_words,
            "leakage_words": wording.leakage_words,
            "metric_title": wording.metric_title,
            "p_value": wording.p_value,
            "reliability": charts.reliability,
            "smallest": lambda comparison: wording.amount(comparison.difference.smallest, comparison.metric),
            "value": wording.value,
            "verdict": wording.verdict,
        }
    )
    return environment


def _meta(evaluations: Sequence[Evaluation]) -> str:
    if not evaluations:
        return ""
    days = sorted({evaluation.provenance.created[:10] for evaluation in evaluations})
    machines = sorted({evaluation.provenance.machine for evaluation in evaluations})
    return " · ".join([" – ".join(dict.fromkeys((days[0], days[-1]))), *machines])


def _big(estimate: Estimate, metric: str) -> Any:
    from markupsafe import Markup

    unit = Markup("<small>%</small>") if metric in SHARES else ""
    return Markup("{}{}").format(wording.number(estimate.value, metric), unit)


def _breakable(label: str) -> Any:
    """A label that may break after its underscores, hyphens, dots and slashes."""
    from markupsafe import Markup

    return Markup("<wbr>").join(part for part in re.split(r"(?<=[_./-])", label))


def _tick_text(tick: float, metric: str) -> str:
    return (f"{tick * 100:g}%" if metric in SHARES else f"{tick:g}").replace("-", "−")
