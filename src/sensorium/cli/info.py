"""``sensorium info``: what a checkpoint is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sensorium.cli._options import Json

if TYPE_CHECKING:
    from sensorium.checkpoint import Checkpoint
    from sensorium.config import ModelConfig


def info(
    model: Annotated[str, typer.Argument(help="Checkpoint: a folder, a GGUF file, or a name on the hub.")],
    json: Json = False,
) -> None:
    """Open a checkpoint, check every weight and setting, and say what it is."""
    from json import dumps

    from sensorium.checkpoint import open_checkpoint

    facts = describe(open_checkpoint(model))
    if json:
        typer.echo(dumps(facts, ensure_ascii=False, indent=2))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        typer.echo(f"{name.replace('_', ' '):<{width}}  {_readable(value)}")


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """The facts of a checkpoint, ready for JSON."""
    config, tokenizer, sentence = checkpoint.config, checkpoint.tokenizer, checkpoint.sentence
    parameters = list(checkpoint.model.parameters())
    facts = {
        "folder": str(checkpoint.folder),
        "family": checkpoint.family,
        "parameters": sum(parameter.numel() for parameter in parameters),
        "bytes_on_disk": sum(file.stat().st_size for file in _weights(checkpoint.folder)),
        **_sizes(config),
        **_reads(config),
        "heads": list(config.head_names),
        "labels": {
            name: list(head.labels) for name in config.head_names if hasattr(head := getattr(config, name), "labels")
        },
        "tokenizer": None if tokenizer is None else f"{tokenizer.vocabulary_size:,} tokens",
        "sentence": None if sentence is None else f"{sentence.pooling} pooling" + ", normalised" * sentence.normalize,
        "chat_template": None if checkpoint.chat_template is None else f"{len(checkpoint.chat_template):,} characters",
        "evidence": _file_name(checkpoint.folder / "EVIDENCE.md"),
    }
    return facts


def _sizes(config: ModelConfig) -> dict[str, int]:
    """Of the stack, or of the levels of a codec."""
    from sensorium.config import ImageCodecConfig

    if isinstance(config, ImageCodecConfig):
        return {"num_levels": len(config.levels), "num_codes": config.num_codes, "code_size": config.code_size}
    names = ("num_layers", "hidden_size", "num_heads", "mlp_size")
    return {name: getattr(config.stack, name) for name in names}


def _reads(config: ModelConfig) -> dict[str, int]:
    """How much a model can take in."""
    from sensorium.config import ImageCodecConfig, ImageEncoderConfig

    if isinstance(config, ImageCodecConfig):
        return {"image_size": config.image_size, "patch_size": config.patch_size}
    images = getattr(config, "image", config)
    facts = {}
    if isinstance(images, ImageEncoderConfig):
        facts = {"image_size": images.stem.image_size, "patch_size": images.stem.patch_size}
    if isinstance(config, ImageEncoderConfig):
        return facts
    return {"vocabulary_size": config.stem.vocabulary_size, "max_length": config.max_length, **facts}


def _weights(path: Path) -> list[Path]:
    """The files that hold the weights: a GGUF file is its own."""
    return [path] if path.is_file() else sorted(path.glob("*.safetensors"))


def _file_name(path: Path) -> str | None:
    return path.name if path.is_file() else None


def _readable(value: Any) -> str:
    if value is None or value == [] or value == {}:
        return "none"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(value)
    if isinstance(value, dict):
        return "; ".join(f"{name}: {', '.join(labels)}" for name, labels in value.items())
    return str(value)
