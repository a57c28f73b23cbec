"""Adapters on disk, in the form ``peft`` publishes: ``adapter_config.json`` and ``adapter_model.safetensors``.

Only the small differences are stored; the model they were made for is named and opened beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sensorium.config import EncoderDecoderConfig
from sensorium.errors import CheckpointError, UsageError, nearest
from sensorium.families import get_family
from sensorium.families._linear import LinearMap, linear_maps
from sensorium.models.build import Model
from sensorium.models.image_codec import ImageCodec
from sensorium.nn.lora import LoRASettings, adapted_maps, add_lora
from sensorium.storage import read_object, read_tensor_file, write_json, write_tensors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
READ = frozenset(["peft_type", "r", "lora_alpha", "lora_dropout", "base_model_name_or_path", "bias"])
# How it was trained, and which maps were asked for: those that were adapted are in the weights.
INERT = frozenset(
    [
        "task_type", "target_modules", "exclude_modules", "inference_mode", "init_lora_weights", "revision",
        "auto_mapping", "peft_version", "fan_in_fan_out", "layers_to_transform", "layers_pattern", "loftq_config",
        "runtime_config", "megatron_core", "ensure_weight_tying", "qalora_group_size", "eva_config", "corda_config",
        "lora_ga_config",
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Adapter:
    """What an adapter folder holds."""

    base: str
    """Name or path of the model it was made for."""
    settings: LoRASettings
    tensors: Mapping[str, Tensor]
    """By published names."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no whole model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def adapt(model: Model, family: str, settings: LoRASettings, targets: Sequence[str] = (), *, seed: int) -> None:
    """Give the linear maps of a model's blocks adapters and freeze the rest.

    ``targets`` are the published names of maps (``q_proj``, ``v_proj``); none: all of them. Raises ``UsageError`` for
    one that no map has, and for a model without such blocks.
    """
    maps = _maps(model, family)
    if not maps:
        raise UsageError(f"lora: a {family} model has no blocks of linear maps, which adapters are for")
    known = list(dict.fromkeys(one.target for one in maps))
    for target in targets:
        if target not in known:
            raise UsageError(
                f"lora.targets: no linear map is called {target!r}{nearest(target, known)}; "
                f"there are {', '.join(known)}"
            )
    add_lora(model, _parts(one for one in maps if not targets or one.target in targets), settings, seed=seed)


def write_adapter(folder: Path, model: Model, family: str, *, base: str) -> None:
    """Write the adapters of a model; ``base`` is the name or path of what it was without them."""
    adapted = adapted_maps(model)
    settings = next(iter(adapted.values())).settings
    published = {(one.ours, one.rows.start): one for one in _maps(model, family)}
    tensors: dict[str, Tensor] = {}
    targets: dict[str, LinearMap] = {}
    for name, module in adapted.items():
        for part, a, b in zip(module.parts, module.lora_a.split(settings.rank), module.lora_b, strict=True):
            one = published[name, part.start]
            targets.setdefault(one.target, one)
            tensors[f"{PREFIX}{one.theirs}.lora_A.weight"] = a.detach().clone()
            tensors[f"{PREFIX}{one.theirs}.lora_B.weight"] = b.detach().clone()
    write_tensors(folder / WEIGHTS, tensors)
    config = {
        "peft_type": "LORA",
        "task_type": "SEQ_2_SEQ_LM" if isinstance(model.config, EncoderDecoderConfig) else "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "target_modules": sorted(targets),
        "bias": "none",
        "fan_in_fan_out": all(one.is_transposed for one in targets.values()),
        "inference_mode": True,
    }
    write_json(folder / CONFIG, config)


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter folder. Raises ``CheckpointError`` for a kind of adapter that is not LoRA as it was published."""
    path = folder / CONFIG
    raw = read_object(path)
    if raw.get("peft_type") != "LORA" or raw.get("bias", "none") != "none":
        raise CheckpointError(
            f"{path}: an adapter of the type {raw.get('peft_type')!r} with bias {raw.get('bias', 'none')!r}; only LORA "
            "without biases can be opened"
        )
    # Everything else changes the arithmetic, unless it is switched off.
    strange = [key for key, value in raw.items() if value and key not in READ | INERT]
    if strange:
        raise CheckpointError(f"{path}: {strange[0]} is {raw[strange[0]]!r}; it is not supported here")
    base, rank = raw.get("base_model_name_or_path"), raw.get("r", 8)
    numbers = [raw.get("lora_alpha", 8), raw.get("lora_dropout", 0.0)]
    if not isinstance(base, str) or not base:
        raise CheckpointError(f"{path}: base_model_name_or_path does not say which model it was made for")
    if type(rank) is not int or any(isinstance(value, bool) or not isinstance(value, int | float) for value in numbers):
        raise CheckpointError(f"{path}: r, lora_alpha and lora_dropout must be numbers")
    try:
        settings = LoRASettings(rank, *map(float, numbers))
    except UsageError as problem:
        raise CheckpointError(f"{path}: {problem}") from problem
    return Adapter(base, settings, read_tensor_file(folder / WEIGHTS))


def put_on(adapter: Adapter, model: Model, family: str, *, where: str) -> None:
    """Give a model what an adapter holds, every tensor of it. Raises ``CheckpointError`` where it does not fit."""
    maps = {one.theirs: one for one in _maps(model, family)}
    rank, wanted = adapter.settings.rank, {}
    for name in adapter.tensors:
        theirs = name.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")[0]
        if theirs not in maps:
            raise CheckpointError(f"{where}: {name!r} is no adapter of a linear map of this {family} model")
        wanted[theirs] = maps[theirs]
    shapes = {f"{PREFIX}{theirs}.lora_A.weight": (rank, one.inputs) for theirs, one in wanted.items()}
    shapes |= {f"{PREFIX}{theirs}.lora_B.weight": (one.outputs, rank) for theirs, one in wanted.items()}
    for name in shapes.keys() | adapter.tensors.keys():
        tensor, shape = adapter.tensors.get(name), shapes.get(name)
        if tensor is None or shape is None or tuple(tensor.shape) != shape:
            found = "not there" if tensor is None else f"of the shape {list(tensor.shape)}"
            raise CheckpointError(f"{where}: {name} is {found}; the model asks for {shape and list(shape)}")
    if not wanted:
        raise CheckpointError(f"{where}: holds no adapter")
    add_lora(model, _parts(wanted.values()), adapter.settings, seed=0)
    published = {(one.ours, one.rows.start): theirs for theirs, one in wanted.items()}
    for ours, module in adapted_maps(model).items():
        for part, a, b in zip(module.parts, module.lora_a.split(rank), module.lora_b, strict=True):
            theirs = published[ours, part.start]
            a.data.copy_(adapter.tensors[f"{PREFIX}{theirs}.lora_A.weight"])
            b.data.copy_(adapter.tensors[f"{PREFIX}{theirs}.lora_B.weight"])


def _maps(model: Model, family: str) -> list[LinearMap]:
    """What an adapter can be made for: nothing of a codec, which is made of convolutions."""
    if isinstance(model, ImageCodec):
        return []
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    return linear_maps(get_family(family, where="this model"), shapes, model.config)


def _parts(maps: Any) -> dict[str, list[slice]]:
    """The rows to adapt, by the name of our map."""
    parts: dict[str, list[slice]] = {}
    for one in sorted(maps, key=lambda one: (one.ours, one.rows.start)):
        parts.setdefault(one.ours, []).append(one.rows)
    return parts
