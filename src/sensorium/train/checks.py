"""What can be known to fail before a run has cost hours: each gives one sentence."""

from __future__ import annotations

from pathlib import Path

import torch

from sensorium.checkpoint import Checkpoint
from sensorium.errors import UsageError
from sensorium.families import _table, get_family
from sensorium.models.build import Model, build
from sensorium.objectives._base import Objective
from sensorium.text import Tokenizer


def check_output(output: Path) -> None:
    """Raise ``UsageError`` when a checkpoint could not be written there, as ``save_checkpoint`` would at the end."""
    if output.exists() and not (output / "config.json").is_file() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output}: holds something else than a checkpoint; choose another train.output")


def check_heads(source: Checkpoint, objective: Objective) -> None:
    """Raise ``UsageError`` when an opened model is not of the kind that takes an objective's heads."""
    strange = [name for name in objective.heads() if not hasattr(source.config, name)]
    if strange:
        raise UsageError(
            f"{source.folder}: a {source.family} model cannot be trained for this objective; it has no place for a "
            f"{strange[0].replace('_', '-')} head"
        )


def check_fit(model: Model, tokenizer: Tokenizer, family: str, *, max_length: int) -> None:
    """Raise ``UsageError`` or ``CheckpointError`` when model, tokenizer, family and objective do not fit together."""
    config = model.config
    if max_length > config.max_length:
        raise UsageError(
            f"objective.max_length is {max_length}; this model reads at most {config.max_length} tokens at a time"
        )
    if tokenizer.vocabulary_size > config.stem.vocabulary_size:
        raise UsageError(
            f"the tokenizer has {tokenizer.vocabulary_size:,} tokens, the model's table {config.stem.vocabulary_size:,}"
            " rows; use the model's own tokenizer, or train a new model"
        )
    table = get_family(family, where="this model")
    table.write_config(config)
    with torch.device("meta"):  # names and shapes without memory
        parameters = dict(build(config).named_parameters())
    _table.save(table, parameters, config.stack.num_layers, headless=False)
