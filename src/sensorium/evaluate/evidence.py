"""The evidence that travels with a checkpoint: ``evidence.json`` for programs, ``EVIDENCE.md`` for people.

Both say what the model was trained on, how good it is and how sure that is, what it must beat, what leaked, what it
cost and what is not known. They are written from the evaluations themselves, never by hand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sensorium.errors import UsageError
from sensorium.evaluate import wording
from sensorium.evaluate.evaluation import Comparison, Evaluation
from sensorium.storage import write_json, write_text

FORMAT = 1
"""Of ``evidence.json``; a reader refuses a newer one."""


@dataclass(frozen=True)
class TrainingSource:
    """A set of data the model was trained on."""

    name: str
    num_items: int
    licence: str = "not stated"
    origin: str = "not stated"


@dataclass(frozen=True)
class TrainingEvidence:
    """How a model came to be. ``recipe``: the settings of the run, as plain data."""

    sources: tuple[TrainingSource, ...]
    started_from: str = "random weights"
    steps: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    machine: str | None = None
    recipe: Mapping[str, Any] | None = None


def write_evidence(
    folder: str | Path,
    evaluations: Sequence[Evaluation],
    *,
    training: TrainingEvidence | None = None,
    comparisons: Sequence[Comparison] = (),
    limits: Sequence[str] = (),
) -> Path:
    """Write both files into a checkpoint's folder and return the path of ``EVIDENCE.md``.

    ``limits``: what the model should not be used for, or is known to do badly, a sentence each. What is not given is
    said to be unknown. Raises ``UsageError`` when the folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; evidence is written beside a saved checkpoint")
    value = {
        "format": FORMAT,
        "training": None if training is None else asdict(training),
        "evaluations": [evaluation.to_json() for evaluation in evaluations],
        "comparisons": [asdict(comparison) for comparison in comparisons],
        "limits": list(limits),
    }
    write_json(folder / "evidence.json", value)
    page = folder / "EVIDENCE.md"
    write_text(page, evidence_page(evaluations, training=training, comparisons=comparisons, limits=limits))
    return page


def evidence_page(
    evaluations: Sequence[Evaluation],
    *,
    training: TrainingEvidence | None = None,
    comparisons: Sequence[Comparison] = (),
    limits: Sequence[str] = (),
) -> str:
    """The text of ``EVIDENCE.md``; see `write_evidence`."""
    parts = ["# Evidence", _training_part(training)]
    parts += [_evaluation_part(evaluation) for evaluation in evaluations] or ["## Quality\n\nNot measured."]
    if comparisons:
        parts.append(_comparison_part(comparisons))
    parts.append("## Limits\n\n" + ("\n".join(f"- {_plain(limit)}" for limit in limits) or "None were stated."))
    parts.append(
        "Intervals are bootstrap intervals over the items measured; they do not cover other kinds of text, nor "
        "another training run. The same figures for programs: `evidence.json`."
    )
    return "\n\n".join(parts) + "\n"


# --- details ---------------------------------------------------------------------------------------------------------


def _training_part(training: TrainingEvidence | None) -> str:
    if training is None:
        return "## Training\n\nWhat this model was trained on was not recorded."
    facts = [f"- Started from {_plain(training.started_from)}."]
    if training.steps is not None:
        facts.append(f"- {training.steps:,} steps" + (f", {training.tokens:,} tokens." if training.tokens else "."))
    if training.seconds is not None:
        where = f" on {_plain(training.machine)}" if training.machine else ""
        facts.append(f"- Took {wording.duration(training.seconds)}{where}.")
    rows = [[source.name, f"{source.num_items:,}", source.licence, source.origin] for source in training.sources]
    table = _table(["Data", "Items", "Licence", "Origin"], rows) if rows else "The data was not stated."
    return "\n\n".join(["## Training", "\n".join(facts), table])


def _evaluation_part(evaluation: Evaluation) -> str:
    names = [baseline.name for baseline in evaluation.baselines]
    rows = [
        [
            wording.metric_title(metric),
            wording.value(estimate, metric),
            wording.interval(estimate, metric),
            *(
                wording.value(baseline.metrics[metric], metric) if metric in baseline.metrics else "–"
                for baseline in evaluation.baselines
            ),
            wording.amount(evaluation.smallest_difference[metric], metric),
        ]
        for metric, estimate in evaluation.metrics.items()
    ]
    source = evaluation.provenance
    facts = [
        wording.verdict(evaluation).sentence,
        *(sentence for _, sentence in wording.leakage_words(evaluation)),
        *evaluation.notes,
        f"{source.num_items:,} items (SHA-256 {source.data_sha256[:16]}…), answered in "
        f"{wording.duration(source.seconds)} on {source.machine}, {source.created[:10]}.",
    ]
    confidence = f"{evaluation.headline_estimate.confidence:.0%} interval"
    return "\n\n".join(
        [
            f"## {_plain(evaluation.model)} on {_plain(evaluation.dataset)}",
            _table(["Metric", "This model", confidence, *names, "Smallest difference"], rows),
            "\n".join(f"- {_plain(fact)}" for fact in facts),
        ]
    )


def _comparison_part(comparisons: Sequence[Comparison]) -> str:
    rows = [
        [
            wording.metric_title(one.metric), one.a, one.b, wording.difference(one), wording.difference_interval(one),
            wording.p_value(one.p_value),
        ]
        for one in comparisons
    ]  # fmt: skip
    header = ["Metric", "First", "Second", "First − second", "Interval", "p"]
    return "## Against other models\n\nPaired tests on the same items.\n\n" + _table(header, rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [[_plain(cell) for cell in row] for row in (header, *rows)]
    lines = [cells[0], ["---"] * len(header), *cells[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _plain(text: str) -> str:
    """Text that comes from data, so that Markdown shows it as it is: one line, nothing in it active.

    >>> print(_plain("<b>[x](y)</b> | z"))
    &lt;b&gt;\\[x\\](y)&lt;/b&gt; \\| z
    """
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|#]|(?<!\w)_|_(?!\w))", r"\\\1", flat)
