"""Open and save checkpoints in the published form: the only room where families meet models.

A folder holds ``config.json``, ``model.safetensors`` (or shards), and the tokenizer's files; a GGUF file holds all of
that in a form of its own, and is read as if it were such a folder. What Sensorium saves, ``transformers`` opens. A
checkpoint is untrusted: it is checked whole before anything of its size is allocated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sensorium.adapters import is_adapter, put_on, read_adapter, write_adapter
from sensorium.calibration import Calibration, read_calibration, write_calibration
from sensorium.config import (
    DualEncoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    ImageCodecConfig,
    ImageEncoderConfig,
    LanguageConfig,
    ModelConfig,
    TokenStemConfig,
    num_layers,
)
from sensorium.errors import CheckpointError, UsageError
from sensorium.families import _table, get_family
from sensorium.families._table import Family
from sensorium.families.gguf import PublishedTensors, published_config
from sensorium.finding import find_folder, find_gguf
from sensorium.gguf import read_gguf
from sensorium.image.settings import FILE as IMAGE_SETTINGS
from sensorium.image.settings import ImageSettings, read_image_settings, write_image_settings
from sensorium.models.build import Model, build, initialise
from sensorium.models.dual_encoder import DualEncoder
from sensorium.models.image_codec import ImageCodec
from sensorium.models.image_encoder import ImageEncoder
from sensorium.nn.lora import merge_lora
from sensorium.sentence import SentenceSettings, read_sentence_settings, write_sentence_settings
from sensorium.storage import atomic_folder, read_object, read_tensors, write_json, write_text, write_weights
from sensorium.text import TOKENIZER_FILES, Tokenizer, open_tokenizer
from sensorium.text.chat import JINJA_FILE, chosen_template, read_chat_template
from sensorium.text.gguf import tokenizer_from_gguf
from sensorium.towers import is_router, join, published_parts, read_router, write_router

GENERATION_FILE = "generation_config.json"
GENERATION_KEYS = (
    "eos_token_id", "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id", "bad_words_ids",
    "max_length", "min_length", "do_sample", "temperature", "top_k", "top_p", "num_beams", "length_penalty",
    "early_stopping", "repetition_penalty", "no_repeat_ngram_size", "suppress_tokens", "begin_suppress_tokens",
)  # fmt: skip
"""What older checkpoints say of their writing, in ``config.json``."""
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass
class Checkpoint:
    """A model with everything that lay beside it."""

    model: Model
    tokenizer: Tokenizer | None
    family: str
    folder: Path
    """Where it lies; for a GGUF file, the file."""
    untrained: frozenset[str] = frozenset()
    """Heads that were not in the checkpoint and hold fresh weights."""
    sentence: SentenceSettings | None = None
    raw_config: dict[str, Any] = field(default_factory=dict)
    """``config.json`` as it was read, or as a GGUF file's metadata says it."""
    generation: Mapping[str, Any] = field(default_factory=dict)
    """``generation_config.json`` as it was read: how its makers would have it write (``infer.settings``)."""
    chat_template: str | None = None
    """How a chat is written for this model: a Jinja template (``text.chat``)."""
    images: ImageSettings | None = None
    """How images are made ready for this model."""
    calibration: Calibration | None = None
    """What makes probabilities of how well it matches images with texts."""

    @property
    def config(self) -> ModelConfig:
        """The model's config."""
        return self.model.config

    @property
    def language_config(self) -> LanguageConfig:
        """The config of a model that reads text and nothing else. Raises ``CheckpointError`` for others."""
        if not isinstance(self.config, LanguageConfig):
            raise CheckpointError(
                f"{self.folder}: a {self.family} model looks at images; this is for one that reads text alone"
            )
        return self.config

    def require_image_settings(self) -> ImageSettings:
        """How images are made ready. Raises ``CheckpointError`` when the folder does not say it."""
        if self.images is None:
            raise CheckpointError(f"{self.folder}: no {IMAGE_SETTINGS}, which says how images are made ready")
        return self.images

    def require_chat_template(self) -> str:
        """The chat template. Raises ``CheckpointError`` when there is none."""
        if self.chat_template is None:
            raise CheckpointError(
                f"{self.folder}: no chat template ({JINJA_FILE}, or in tokenizer_config.json); give it a text to go on "
                "from instead of messages"
            )
        return self.chat_template

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
    """Open a checkpoint from a local folder, a GGUF file or, when there is none of that name, the Hugging Face hub.

    ``add_heads`` maps head names to their configs (``{"sequence": SequenceHeadConfig(labels=("no", "yes"))}``): each is
    added, or takes the place of one that is there, with fresh weights drawn from ``seed``. The model comes back in
    ``dtype`` and in evaluation mode. An adapter (LoRA) is put into the weights of the model that it names; two towers
    in folders of their own come as one model; a folder without safetensors that holds one GGUF file is that file.
    Raises ``CheckpointError`` with the file and what is wrong in it.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype} is not one of {', '.join(map(str, DTYPES))}")
    folder = find_folder(name_or_path)
    if is_adapter(folder):
        return _open_adapted(folder, add_heads, dtype, seed)
    if is_router(folder):
        return _open_towers(folder, add_heads, dtype)
    file = find_gguf(folder)
    found = _read_folder(folder) if file is None else _read_gguf(file, dtype)
    family = get_family(found.raw.get("model_type"), where=str(found.path))
    _table.check_config(family, found.raw, where=str(found.path))
    tensors = found.tensors()
    config = _read_config(family, found.raw, tensors, found.path)
    where = found.path if file is not None else folder
    model, untrained = _load_model(family, config, tensors, add_heads or {}, dtype, seed, where)
    tokenizer = found.tokenizer()
    if tokenizer is not None and not isinstance(config, ImageEncoderConfig | ImageCodecConfig):
        _check_vocabulary(tokenizer, config.stem, where)
        _check_vocabulary(tokenizer.target, getattr(config, "decoder_stem", config.stem), where)
    generation = _read_generation(folder if file is None else None, found.raw)
    images = read_image_settings(folder) if family.processor else None
    return Checkpoint(
        model, tokenizer, family.name, where, untrained, found.sentence, found.raw, generation, found.chat_template,
        images, read_calibration(folder) if isinstance(config, DualEncoderConfig) else None,
    )  # fmt: skip


def _check_vocabulary(tokenizer: Tokenizer, stem: TokenStemConfig, where: Path) -> None:
    if tokenizer.vocabulary_size > stem.vocabulary_size:
        raise CheckpointError(
            f"{where}: the tokenizer has {tokenizer.vocabulary_size:,} tokens, the model's table only "
            f"{stem.vocabulary_size:,}; they do not belong together"
        )


def save_checkpoint(
    folder: str | Path,
    model: Model,
    tokenizer: Tokenizer | None,
    *,
    family: str,
    sentence: SentenceSettings | None = None,
    generation: Mapping[str, Any] | None = None,
    chat_template: str | None = None,
    images: ImageSettings | None = None,
    calibration: Calibration | None = None,
) -> None:
    """Save a model in its family's published form, whole or not at all.

    An older checkpoint in the folder is replaced; a folder that holds anything else is refused with ``UsageError``.
    """
    folder = Path(folder)
    check_destination(folder)
    parts = published_parts(model, family)
    published = {place: published_form(*part) for place, part in parts.items()}
    with atomic_folder(folder) as temporary:
        for place, (part, name) in parts.items():
            (temporary / place).mkdir(exist_ok=True)
            _write(temporary / place, part, name, *published[place], tokenizer, images)
        if isinstance(model, DualEncoder) and len(parts) > 1:
            write_router(temporary, model)
        if chat_template is not None:
            write_text(temporary / JINJA_FILE, chat_template)
        if sentence is not None and not isinstance(model, ImageCodec):
            write_sentence_settings(temporary, sentence, hidden_size=model.config.stack.hidden_size)
        if calibration is not None:
            write_calibration(temporary, calibration)
        if generation:
            write_json(temporary / GENERATION_FILE, dict(generation))


def _write(
    folder: Path, model: Model, family: str, config: dict[str, Any], weights: Mapping[str, Tensor],
    tokenizer: Tokenizer | None, images: ImageSettings | None,
) -> None:  # fmt: skip
    """One model in its published form, with what makes texts and images ready for it."""
    if tokenizer is not None and "language_model" in model.config.head_names:
        config = {**config, **_ends(tokenizer, model.config)}
    write_weights(folder, weights)
    write_json(folder / "config.json", config)
    if tokenizer is not None and not isinstance(model, ImageEncoder | ImageCodec):
        tokenizer.save(folder)
    processor = get_family(family, where="this model").processor
    if images is not None and processor:
        write_image_settings(folder, images, processor=processor)


def _ends(tokenizer: Tokenizer, config: ModelConfig) -> dict[str, int]:
    """The tokens that a text begins and ends with, as others' generation looks for them in ``config.json``."""
    found = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    if isinstance(config, EncoderDecoderConfig):
        found["forced_eos_token_id"] = tokenizer.eos_id
    return {key: token_id for key, token_id in found.items() if token_id is not None}


def save_adapter(
    folder: str | Path,
    model: Model,
    tokenizer: Tokenizer | None,
    *,
    family: str,
    base: str,
    chat_template: str | None = None,
) -> None:
    """Save the adapters of a model (``adapters.adapt``), whole or not at all, in the form that ``peft`` publishes.

    ``base`` is the name or path of the model without them. Raises ``UsageError`` as ``save_checkpoint`` does.
    """
    folder = Path(folder)
    check_destination(folder)
    with atomic_folder(folder) as temporary:
        write_adapter(temporary, model, family, base=base)
        if tokenizer is not None:
            tokenizer.save(temporary)
        if chat_template is not None:
            write_text(temporary / JINJA_FILE, chat_template)


def _open_adapted(folder: Path, add_heads: Mapping[str, Any] | None, dtype: torch.dtype, seed: int) -> Checkpoint:
    """A base model with an adapter in its weights. Raises ``CheckpointError`` when the base is an adapter as well."""
    adapter = read_adapter(folder)
    base = find_folder(adapter.base)
    if is_adapter(base):
        raise CheckpointError(f"{folder}: is made for {adapter.base}, which is an adapter itself; merge that one first")
    checkpoint = open_checkpoint(base, add_heads=add_heads, dtype=dtype, seed=seed)
    put_on(adapter, checkpoint.model, checkpoint.family, where=str(folder))
    merge_lora(checkpoint.model)
    own = open_tokenizer(folder) if any((folder / name).is_file() for name in TOKENIZER_FILES) else None
    template = read_chat_template(folder, {}) or checkpoint.chat_template
    return replace(checkpoint, folder=folder, tokenizer=own or checkpoint.tokenizer, chat_template=template)


def _open_towers(folder: Path, add_heads: Mapping[str, Any] | None, dtype: torch.dtype) -> Checkpoint:
    """Two towers, each of a family of its own, as one model."""
    towers = read_router(folder)
    image, text = (open_checkpoint(route.folder, dtype=dtype) for route in (towers.image, towers.text))
    family = f"{image.family}+{text.family}"
    if add_heads:
        raise UsageError(f"{folder}: a {family} model cannot take the heads {', '.join(add_heads)}")
    model = join(towers, image.model, text.model, where=folder)
    calibration = read_calibration(folder)
    return Checkpoint(model, text.tokenizer, family, folder, images=image.images, calibration=calibration)


def check_destination(folder: Path) -> None:
    """Raise ``UsageError`` when a checkpoint cannot be put there without losing something else."""
    known = (folder / "config.json").is_file() or is_adapter(folder) or is_router(folder)
    if folder.exists() and not known and (not folder.is_dir() or any(folder.iterdir())):
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


@dataclass(frozen=True)
class _Found:
    """A checkpoint in its published form, before its weights are read."""

    path: Path
    """The file that says the config."""
    raw: dict[str, Any]
    tensors: Callable[[], Mapping[str, Tensor]]
    tokenizer: Callable[[], Tokenizer | None]
    sentence: SentenceSettings | None = None
    chat_template: str | None = None


def _read_folder(folder: Path) -> _Found:
    there = any((folder / name).is_file() for name in TOKENIZER_FILES)
    path = folder / "tokenizer_config.json"
    return _Found(
        path=folder / "config.json",
        raw=read_object(folder / "config.json"),
        tensors=lambda: read_tensors(folder),
        tokenizer=lambda: open_tokenizer(folder) if there else None,
        sentence=read_sentence_settings(folder),
        chat_template=read_chat_template(folder, read_object(path) if path.is_file() else {}),
    )


def _read_gguf(path: Path, dtype: torch.dtype) -> _Found:
    file = read_gguf(path)
    config = published_config(file)
    has_tokenizer = "tokenizer.ggml.model" in file.metadata
    return _Found(
        path=path,
        raw=config,
        tensors=lambda: PublishedTensors(file, config, dtype),
        tokenizer=lambda: tokenizer_from_gguf(file.metadata, where=path) if has_tokenizer else None,
        chat_template=chosen_template(file.metadata.get("tokenizer.chat_template"), where=path),
    )


def _read_generation(folder: Path | None, raw: Mapping[str, Any]) -> dict[str, Any]:
    """``generation_config.json``; where there is none, what ``config.json`` says of writing, as older ones did."""
    if folder is not None and (folder / GENERATION_FILE).is_file():
        return read_object(folder / GENERATION_FILE)
    return {name: raw[name] for name in GENERATION_KEYS if raw.get(name) is not None}


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
