"""Everything Sensorium raises on purpose.

    SensoriumError                one sentence: what is wrong, where, what to do
    ├── UsageError                an argument, a recipe or a command line
    ├── CheckpointError           a checkpoint, its weights, its config or its tokenizer
    ├── DataError                 the user's data: a file, a row, a label
    └── TrainingError             a run that cannot go on (NaN loss, a state that does not fit)

The command line prints the message of any of these alone, without a traceback, and exits with 2.
"""

from __future__ import annotations

from collections.abc import Iterable


class SensoriumError(Exception):
    """Base of all errors raised on purpose."""


class UsageError(SensoriumError):
    """An argument, a recipe or a command line that cannot be meant."""


class CheckpointError(SensoriumError):
    """A checkpoint that cannot be opened or saved as it stands."""


class DataError(SensoriumError):
    """Data that cannot be read or does not fit."""


class TrainingError(SensoriumError):
    """A training run that cannot go on."""


def missing_extra(package: str, extra: str) -> UsageError:
    """The error for an optional dependency that is not installed.

    >>> str(missing_extra("matplotlib", "report"))
    "matplotlib is not installed; install it with: pip install 'sensorium[report]'"
    """
    return UsageError(f"{package} is not installed; install it with: pip install 'sensorium[{extra}]'")


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the nearest known word, or nothing.

    >>> nearest("learning_rat", ["learning_rate", "seed"])
    "; did you mean 'learning_rate'?"
    >>> nearest("zzz", ["learning_rate"])
    ''
    """
    import difflib

    matches = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{matches[0]}'?" if matches else ""
