"""The trainings of the demo: each is done once, and kept for the next demo of the same data and settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sensorium
from sensorium.data.records import read_records
from sensorium.errors import CheckpointError, TrainingError
from sensorium.evaluate import Comparison, Evaluation, TrainingEvidence, TrainingSource, write_evidence
from sensorium.storage import read_object, write_json
from sensorium.train.loop import Outcome
from sensorium.train.recipe import Recipe, check_recipe
from sensorium.train.run import run_recipe
from sensorium.train.state import Position, fingerprint

MADE = "made.json"
"""Beside a run's log: what the model was made by, and where training ended."""


@dataclass(frozen=True)
class Trained:
    """A training run of the demo."""

    folder: Path
    outcome: Outcome
    recipe: dict[str, Any]
    made_by: str
    """A hash of data and settings, and of those of the model it began with: they decide every weight."""
    kept: bool
    """It was trained by an earlier demo."""


def train(
    tables: dict[str, Any], *, start: Trained | None = None, codec: Trained | None = None, quiet: bool
) -> Trained:  # fmt: skip
    """Train as a recipe says, unless the same was done before. ``start``: the run whose model it begins with, ``codec``
    the one in whose tokens it draws.

    Raises ``TrainingError`` when it was interrupted.
    """
    recipe = check_recipe(tables, where="demo")
    output = Path(recipe.train.output)
    note = output.with_name(output.name + ".training") / MADE
    made_by = _made_by(recipe, start, codec)
    position = _where_it_ended(note, made_by) if output.is_dir() else None
    if position is not None:
        log = note.with_name("train.jsonl")
        return Trained(output, Outcome(position, True, log), recipe.model_dump(), made_by, kept=True)
    note.unlink(missing_ok=True)
    outcome = run_recipe(recipe, quiet=quiet)
    if not outcome.finished:
        raise TrainingError(f"{output}: training was interrupted; run the demo again: what was trained before is kept")
    write_json(note, {"made_by": made_by, "position": asdict(outcome.position)})
    return Trained(output, outcome, recipe.model_dump(), made_by, kept=False)


def write_run_evidence(
    run: Trained, evaluation: Evaluation | None = None, comparisons: Sequence[Comparison] = ()
) -> None:  # fmt: skip
    """What a model was trained on and how good it is, as far as it was measured, beside its weights."""
    position, data = run.outcome.position, Path(run.recipe["data"]["train"])
    training = TrainingEvidence(
        sources=(TrainingSource(data.name, len(read_records(data)), origin="pip packages, see data/"),),
        started_from=str(run.recipe["model"]["open"] or "random weights"),
        steps=position.step,
        tokens=position.tokens,
        seconds=position.seconds,
        recipe=run.recipe,
    )
    write_evidence(
        run.folder, [] if evaluation is None else [evaluation], training=training, comparisons=comparisons,
        limits=("A demonstration: trained for minutes on little text.",),
    )  # fmt: skip


def log_of(run: Trained) -> list[dict[str, Any]]:
    """The entries of a run's log."""
    return [json.loads(line) for line in run.outcome.log.read_text("utf-8").splitlines()]


# --- details ---------------------------------------------------------------------------------------------------------


def _made_by(recipe: Recipe, start: Trained | None, codec: Trained | None) -> str:
    """Folders do not count, so that a demo can be moved."""
    settings = recipe.model_dump()
    del settings["train"]["output"]
    data = hashlib.sha256(Path(settings["data"].pop("train")).read_bytes()).hexdigest()
    settings["data"].pop("validation")  # what is measured on decides no weight here
    if start is not None:
        settings["model"]["open"] = start.made_by
    if codec is not None:
        settings["model"]["codec"] = codec.made_by
    return fingerprint((sensorium.__version__, settings, data))


def _where_it_ended(note: Path, made_by: str) -> Position | None:
    """``None`` for a run that was made by anything else, or did not end."""
    if not note.is_file():
        return None
    try:
        kept = read_object(note)
        return Position(**kept["position"]) if kept["made_by"] == made_by else None
    except (CheckpointError, KeyError, TypeError):
        return None
