"""The state of a run on disk: enough to go on bit for bit, written whole or not at all.

A state is a folder ``state-00000120`` with ``tensors.safetensors`` and ``state.json``, which holds the hash of the
former. The last two are kept; opening takes the newest whose hash is right.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sensorium.errors import CheckpointError, TrainingError
from sensorium.storage import atomic_folder, read_object, read_tensor_file, write_json, write_tensors

TENSORS, MANIFEST = "tensors.safetensors", "state.json"
KEPT = 2


@dataclass(frozen=True)
class Position:
    """Where a run stands. Together with the recipe it decides everything that follows."""

    step: int = 0
    """Updates made."""
    epoch: int = 0
    batch: int = 0
    """Batches of this epoch that are done."""
    tokens: int = 0
    seconds: float = 0.0
    average_count: int = 0
    """Updates in the moving average."""
    best: float | None = None
    """Best validation score so far."""
    best_step: int = 0
    bad_rounds: int = 0
    """Validations since then."""


def save_state(folder: Path, position: Position, tensors: dict[str, Tensor], fingerprint: str) -> None:
    """Write the state of a run aside, rename it, and remove states older than the last two."""
    with atomic_folder(folder / f"state-{position.step:08d}") as temporary:
        write_tensors(temporary / TENSORS, tensors)
        manifest = {"position": asdict(position), "recipe": fingerprint, "sha256": _hash(temporary / TENSORS)}
        write_json(temporary / MANIFEST, manifest)
    for old in _states(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def discard_states(folder: Path) -> None:
    """Remove the states of an earlier run: a new one counts its steps from 0."""
    for old in _states(folder):
        shutil.rmtree(old)


def load_state(folder: Path, fingerprint: str) -> tuple[Position, dict[str, Tensor]] | None:
    """The newest whole state of a run, ``None`` when there is none.

    Raises ``TrainingError`` when it belongs to another recipe, or when states are there and none is whole.
    """
    states = _states(folder)
    problems = []
    for path in reversed(states):
        try:
            manifest = read_object(path / MANIFEST)
            if manifest.get("sha256") != _hash(path / TENSORS):
                raise CheckpointError(f"{path}: {TENSORS} is not what {MANIFEST} says; it is damaged")
            position = Position(**manifest["position"])
            tensors = read_tensor_file(path / TENSORS)
        except (CheckpointError, OSError, TypeError, KeyError) as error:
            problems.append(str(error))
            continue
        if manifest.get("recipe") != fingerprint:
            raise TrainingError(
                f"{path}: belongs to another recipe or other data; resume with the same, or choose another output"
            )
        return position, tensors
    if states:
        raise TrainingError(f"{folder}: no state can be read: {problems[0]}")
    return None


def fingerprint(value: Any) -> str:
    """A short hash of everything that decides a run."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def _states(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("state-*") if path.is_dir())


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
