"""Sensorium: the whole life of a language model, on the machine you have.

    from sensorium import pipeline
    classifier = pipeline("text-classification", model="bert-base-uncased")
    classifier("This is a positive sentence.")

The public names below are loaded when they are first used (PEP 562), so that ``import sensorium`` is instant and
loads no torch. Everything else is reached through its module: ``sensorium.train``, ``sensorium.evaluate``, …
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sensorium.checkpoint import open_checkpoint as open_checkpoint
    from sensorium.checkpoint import save_checkpoint as save_checkpoint
    from sensorium.errors import CheckpointError as CheckpointError
    from sensorium.errors import DataError as DataError
    from sensorium.errors import SensoriumError as SensoriumError
    from sensorium.errors import TrainingError as TrainingError
    from sensorium.errors import UsageError as UsageError
    from sensorium.packed import Packed as Packed
    from sensorium.tasks import pipeline as pipeline

__version__ = "0.1.0"

_HOMES = {
    "CheckpointError": "sensorium.errors",
    "DataError": "sensorium.errors",
    "Packed": "sensorium.packed",
    "SensoriumError": "sensorium.errors",
    "TrainingError": "sensorium.errors",
    "UsageError": "sensorium.errors",
    "open_checkpoint": "sensorium.checkpoint",
    "pipeline": "sensorium.tasks",
    "save_checkpoint": "sensorium.checkpoint",
}
"""Where each public name lives."""

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'sensorium' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
