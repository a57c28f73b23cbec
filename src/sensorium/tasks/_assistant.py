"""A smaller model that guesses ahead for a task's own (``infer.speculate``): opened once, and of its kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sensorium.checkpoint import Checkpoint, open_checkpoint
from sensorium.errors import UsageError
from sensorium.infer.engine import fast


def open_assistant(given: str | Path | Checkpoint, checkpoint: Checkpoint, dtype: str) -> Checkpoint:
    """The assistant of a folder, a hub id or an opened checkpoint, which runs as it is.

    Raises ``UsageError`` as ``assistant_of`` does, and for one whose tokens are others.
    """
    opened = open_checkpoint(given) if isinstance(given, str | Path) else given
    assistant_of(opened, checkpoint)
    own, other = (None if one.tokenizer is None else one.tokenizer.target for one in (checkpoint, opened))
    if own is not None and other is not None and own.backend.get_vocab() != other.backend.get_vocab():
        raise UsageError(
            f"assistant_model {opened.folder} has other tokens than {checkpoint.folder}; it can only guess for a model "
            "of its own vocabulary"
        )
    return opened if opened is given else replace(opened, model=fast(opened.model, dtype))


def assistant_of(given: Checkpoint | None, checkpoint: Checkpoint) -> Any:
    """The model of an opened assistant, ``None`` where there is none. Raises ``UsageError`` for one of another kind."""
    if given is None:
        return None
    if not isinstance(given, Checkpoint):
        raise UsageError(
            f"assistant_model is {given!r}; a call takes an opened Checkpoint: give a name to pipeline(…), which opens "
            "it once"
        )
    kind = type(checkpoint.model)
    if not isinstance(given.model, kind):
        raise UsageError(
            f"assistant_model {given.folder} is a {given.family}, which can't guess for a {checkpoint.family}: both "
            "must be decoders, or both encoder–decoders"
        )
    return given.model
