"""How a checkpoint turns tokens into one sentence vector: the modules that sentence-transformers saves beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sensorium.errors import CheckpointError
from sensorium.storage import inside, read_json, read_object, write_json

Pooling = Literal["mean", "cls", "max", "lasttoken"]
MODULE_KINDS = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True)
class SentenceSettings:
    """Pool the token vectors, then perhaps scale to length 1."""

    pooling: Pooling = "mean"
    normalize: bool = True
    max_length: int | None = None
    """Tokens read of a text, special ones included; ``None``: as many as the model reads."""
    lowercase: bool = False
    """Lower the text before it is tokenised."""


def read_sentence_settings(folder: Path) -> SentenceSettings | None:
    """The settings in ``modules.json`` and the files it names; ``None`` when there is no such file.

    Raises ``CheckpointError`` for a module or a pooling that is not supported.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return None
    modules = read_json(path)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise CheckpointError(f"{path}: expected a list of modules")
    pooling: Pooling | None = None
    normalize = False
    for module in modules:
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind not in MODULE_KINDS:
            raise CheckpointError(f"{path}: module {kind!r} is not supported; known are {', '.join(MODULE_KINDS)}")
        if kind == "Pooling":
            pooling = read_pooling(inside(folder, str(module.get("path", "")), source=path) / "config.json")
        normalize = normalize or kind == "Normalize"
    if pooling is None:
        raise CheckpointError(f"{path}: no Pooling module; a sentence vector needs one")
    bert = folder / "sentence_bert_config.json"
    settings = read_object(bert) if bert.is_file() else {}
    max_length = settings.get("max_seq_length")
    if max_length is not None and (isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < 1):
        raise CheckpointError(f"{bert}: max_seq_length is {max_length!r}; a whole number is expected")
    return SentenceSettings(pooling, normalize, max_length, bool(settings.get("do_lower_case", False)))


def write_sentence_settings(folder: Path, settings: SentenceSettings, *, hidden_size: int) -> None:
    """Write ``modules.json`` and its files, so that sentence-transformers opens the folder."""
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), *([("2_Normalize", "Normalize")] * settings.normalize)]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    for path, _ in kinds[1:]:
        (folder / path).mkdir(exist_ok=True)
    write_pooling(folder / "1_Pooling", settings.pooling, hidden_size=hidden_size)
    write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": settings.max_length, "do_lower_case": settings.lowercase},
    )
    write_json(folder / "modules.json", modules)


def write_pooling(folder: Path, pooling: Pooling, *, hidden_size: int) -> None:
    """Write the settings of a pooling in the form that every version of sentence-transformers reads."""
    names = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens", "lasttoken": "lasttoken"}
    flags = {f"pooling_mode_{name}": kind == pooling for kind, name in names.items()}
    write_json(folder / "config.json", {"word_embedding_dimension": hidden_size, **flags})


def read_pooling(path: Path) -> Pooling:
    """The one pooling that a file names. Raises ``CheckpointError`` for several, or one that is not known."""
    config: dict[str, Any] = read_object(path)
    named = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "cls",
        "pooling_mode_max_tokens": "max",
        "pooling_mode_lasttoken": "lasttoken",
    }
    chosen = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    mode = config.get("pooling_mode")  # newer files name the mode in one key
    if isinstance(mode, str) and mode in named.values():
        return mode  # type: ignore[return-value]
    if len(chosen) != 1 or chosen[0] not in named:
        raise CheckpointError(f"{path}: poolings {chosen or 'none'}; exactly one of {', '.join(named)} is supported")
    return named[chosen[0]]  # type: ignore[return-value]
