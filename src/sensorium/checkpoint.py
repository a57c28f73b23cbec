"""Open and save checkpoints in the published form: the only room where families meet models.

A folder holds ``config.json``, ``model.safetensors`` (or shards), and the tokenizer's files. What Sensorium saves,
``transformers`` opens. A checkpoint is untrusted: it is checked whole before anything of its size is allocated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sensorium.config import EncoderConfig, EncoderDecoderConfig, ModelConfig, num_layers
from sensorium.errors import CheckpointError, UsageError
from sensorium.families import _table, get_family
from sensorium.families._table import Family
from sensorium.models.build import Model, build, initialise
from sensorium.sentence import SentenceSettings, read_sentence_settings, write_sentence_settings
from sensorium.storage import atomic_folder, read_object, read_tensors, write_json, write_weights
from sensorium.text import Tokenizer, open_tokenizer

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json")
HUB_FILES = ("*.json", "*.txt", "*.safetensors", "*/config.json")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass
class Checkpoint:
    """A model with everything that lay beside it."""

    model: Model
    tokenizer: Tokenizer | None
    family: str
    folder: Path
    untrained: frozenset[str] = frozenset()
    """Heads that were not in the checkpoint and hold fresh weights."""
    sentence: SentenceSettings | None = None
    raw_config: dict[str, Any] = field(default_factory=dict)
    """``config.json`` as it was read."""

    @property
    def config(self) -> ModelConfig:
        """The model's config."""
        return self.model.config

    def require_tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises ``CheckpointError`` when the folder has none."""
        if self.tokenizer is None:
            raise CheckpointError(f"{self.folder}: no tokenizer ({', '.join(TOKENIZER_FILES)}); this needs one")
        return self.tokenizer


def open_checkpoint(
    name_or_path: str | Path,
    *,
    add_heads: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Checkpoint:
    """Open a checkpoint from a local folder or, when there is none of that name, from the Hugging Face hub.

    ``add_heads`` maps head names to their configs (``{"sequence": SequenceHeadConfig(labels=("no", "yes"))}``): each is
    added, or takes the place of one that is there, with fresh weights drawn from ``seed``. The model comes back in
    ``dtype`` and in evaluation mode. Raises ``CheckpointError`` with the file and what is wrong in it.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype} is not one of {', '.join(map(str, DTYPES))}")
    folder = find_folder(name_or_path)
    path = folder / "config.json"
    raw = read_object(path)
    family = get_family(raw.get("model_type"), where=str(path))
    _table.check_config(family, raw, where=str(path))
    tensors = read_tensors(folder)
    config = _read_config(family, raw, tensors, path)
    model, untrained = _load_model(family, config, tensors, add_heads or {}, dtype, seed, folder)
    tokenizer = open_tokenizer(folder) if any((folder / name).is_file() for name in TOKENIZER_FILES) else None
    if tokenizer is not None and tokenizer.vocabulary_size > config.stem.vocabulary_size:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.vocabulary_size:,} tokens, the model's table only "
            f"{config.stem.vocabulary_size:,}; they do not belong together"
        )
    return Checkpoint(model, tokenizer, family.name, folder, untrained, read_sentence_settings(folder), raw)


def save_checkpoint(
    folder: str | Path,
    model: Model,
    tokenizer: Tokenizer | None,
    *,
    family: str,
    sentence: SentenceSettings | None = None,
) -> None:
    """Save a model in its family's published form, whole or not at all.

    An older checkpoint in the folder is replaced; a folder that holds anything else is refused with ``UsageError``.
    """
    folder = Path(folder)
    check_destination(folder)
    config, weights = published_form(model, family)
    if tokenizer is not None and "language_model" in model.config.head_names:
        config.update(_ends(tokenizer, model.config))
    with atomic_folder(folder) as temporary:
        write_weights(temporary, weights)
        write_json(temporary / "config.json", config)
        if tokenizer is not None:
            tokenizer.save(temporary)
        if sentence is not None:
            write_sentence_settings(temporary, sentence, hidden_size=model.config.stack.hidden_size)


def _ends(tokenizer: Tokenizer, config: ModelConfig) -> dict[str, int]:
    """The tokens that a text begins and ends with, as others' generation looks for them in ``config.json``."""
    found = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    if isinstance(config, EncoderDecoderConfig):
        found["forced_eos_token_id"] = tokenizer.eos_id
    return {key: token_id for key, token_id in found.items() if token_id is not None}


def check_destination(folder: Path) -> None:
    """Raise ``UsageError`` when a checkpoint cannot be put there without losing something else."""
    if folder.exists() and not (folder / "config.json").is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: holds something else than a checkpoint; choose another folder")


def published_form(model: Model, family: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """``config.json`` and the weights by their published names.

    Raises ``CheckpointError`` when the family has no name for a part of the model.
    """
    table = get_family(family, where="this model")
    heads = model.config.head_names
    architecture = _table.architecture(table, heads)
    config = {
        "model_type": table.name,
        "architectures": [architecture],
        **table.write_config(model.config),
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
    }
    headless = not table.architectures[architecture] and not heads
    parameters = dict(model.named_parameters())
    weights = _table.save(table, parameters, model.config, headless=headless)
    return config, weights


def find_folder(name_or_path: str | Path) -> Path:
    """A local folder, or the hub's snapshot of that name, downloaded if need be. Raises ``CheckpointError``."""
    local = Path(name_or_path).expanduser()
    if local.is_dir():
        return local
    name = str(name_or_path)
    if local.exists() or isinstance(name_or_path, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise CheckpointError(f"{name}: there is no such checkpoint folder")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES)))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise CheckpointError(
            f"{name}: no local folder of that name, and the hub did not give it ({type(error).__name__}); check the "
            "name and the connection, or pass the path of a downloaded folder"
        ) from error


def _read_config(family: Family, raw: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path) -> ModelConfig:
    parts = _table.find_parts(family, raw, tensors)
    try:
        config = family.read_config(raw, parts)
    except (UsageError, CheckpointError) as error:
        raise CheckpointError(f"{path}: {str(error).removeprefix('config.json: ')}") from error
    layers = sum(num_layers(config).values())
    if layers > len(tensors):
        raise CheckpointError(f"{path}: claims {layers:,} layers, the weights are {len(tensors):,} tensors")
    return config


def _load_model(
    family: Family,
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    add_heads: Mapping[str, Any],
    dtype: torch.dtype,
    seed: int,
    folder: Path,
) -> tuple[Model, frozenset[str]]:
    """The model on no memory, its weights put in place, added heads initialised."""
    with torch.device("meta"):
        shapes = {name: parameter.shape for name, parameter in build(config).named_parameters()}
    ours = _table.load(family, tensors, shapes, config, where=str(folder))
    if not add_heads:
        wanted = config
    elif isinstance(config, EncoderConfig) and all(hasattr(config, name) for name in add_heads):
        wanted = config.with_heads(**add_heads)
    else:
        raise UsageError(f"{folder}: a {family.name} model cannot take the heads {', '.join(add_heads)}")
    with torch.device("meta"):
        model = build(wanted)
    kept = {name: tensor for name, tensor in ours.items() if name.partition(".")[0] not in add_heads}
    fresh = {
        name: torch.empty_like(parameter, device="cpu")
        for name, parameter in model.named_parameters()
        if name not in kept
    }
    # Assigning keeps tied weights tied: a tied matrix is one module under two names.
    model.load_state_dict({**kept, **fresh}, strict=False, assign=True)
    initialise(model, seed=seed, only=fresh)
    return model.to(dtype).eval(), frozenset(name.partition(".")[0] for name in fresh)
