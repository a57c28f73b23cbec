"""GGUF files of the decoder families, said in their published form: ``config.json``'s keys and the published names.

llama.cpp keeps Llama's queries and keys in another order (it turns channels 2i and 2i + 1, the published form i and
i + Dh/2); here they go back. What the files say and we do not compute is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from sensorium.errors import CheckpointError
from sensorium.gguf import GGUFFile

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
"""``general.architecture`` → published class. Mistral and SmolLM are written as llama."""
PERMUTED = frozenset(["llama"])
"""Architectures whose queries and keys llama.cpp keeps in its own order."""

NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "blk.{i}.attn_norm": "model.layers.{i}.input_layernorm",
    "blk.{i}.attn_q": "model.layers.{i}.self_attn.q_proj",
    "blk.{i}.attn_k": "model.layers.{i}.self_attn.k_proj",
    "blk.{i}.attn_v": "model.layers.{i}.self_attn.v_proj",
    "blk.{i}.attn_output": "model.layers.{i}.self_attn.o_proj",
    "blk.{i}.attn_q_norm": "model.layers.{i}.self_attn.q_norm",
    "blk.{i}.attn_k_norm": "model.layers.{i}.self_attn.k_norm",
    "blk.{i}.ffn_norm": "model.layers.{i}.post_attention_layernorm",
    "blk.{i}.ffn_gate": "model.layers.{i}.mlp.gate_proj",
    "blk.{i}.ffn_up": "model.layers.{i}.mlp.up_proj",
    "blk.{i}.ffn_down": "model.layers.{i}.mlp.down_proj",
}
"""Names without their ending (``.weight``, ``.bias``), GGUF's → the published ones."""
ROPE_FACTORS = "rope_freqs.weight"
"""Llama 3.1's scaling, worked out: a divisor for each frequency."""
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""The settings of every published model with this scaling; only ``factor`` differs (8 or 32)."""

READ = frozenset(
    [
        "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size",
        "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
        "attention.layer_norm_rms_epsilon", "rope.dimension_count", "rope.freq_base", "rope.scaling.type",
        "rope.scaling.factor", "rope.scale_linear", "rope.scaling.original_context_length", "rope.scaling.attn_factor",
        "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow",
    ]
)  # fmt: skip
REQUIRES: dict[str, Any] = {
    "expert_count": 0, "expert_used_count": 0, "attention.sliding_window": 0, "attention.causal": True,
    "use_parallel_residual": False, "tensor_data_layout": "Meta AI original pth", "rope.scaling.yarn_ext_factor": 1.0,
    "rope.scaling.yarn_attn_factor": 1.0,
}  # fmt: skip
"""Keys of an architecture that would change the arithmetic: they must hold this value."""
INERT = frozenset(["rope.scaling.finetuned"])
"""What says how a model was made."""
OTHER_ROOMS = ("general.", "tokenizer.", "quantize.")
"""Bookkeeping, the tokenizer (``text.gguf`` reads it), and how the weights were quantised."""


def published_config(file: GGUFFile) -> dict[str, Any]:
    """The metadata as ``config.json`` would say it.

    Raises ``CheckpointError`` for an architecture that is not known, a key that would change the arithmetic in a way
    not implemented, one that is unknown or missing, and numbers that contradict the tensors.
    """
    architecture = _check_keys(file)
    own = {key.removeprefix(f"{architecture}."): value for key, value in file.metadata.items()}
    where = f"{file.path}: {architecture}"
    heads, size = _count(own, "attention.head_count", where), _count(own, "embedding_length", where)
    head_size = _count(own, "attention.key_length", where, size // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if _count(own, key, where, head_size) != head_size:
            raise CheckpointError(f"{where}.{key} is {own[key]}; only the size of a head, {head_size}, is supported")
    table = file.tensors.get("token_embd.weight")
    if table is None:
        raise CheckpointError(f"{file.path}: there is no tensor 'token_embd.weight'")
    if _count(own, "vocab_size", where, table.shape[0]) != table.shape[0]:
        raise CheckpointError(f"{where}.vocab_size is {own['vocab_size']}, token_embd has {table.shape[0]:,} rows")
    config = {
        "model_type": architecture,
        "architectures": [ARCHITECTURES[architecture]],
        "vocab_size": table.shape[0],
        "hidden_size": size,
        "intermediate_size": _count(own, "feed_forward_length", where),
        "num_hidden_layers": _count(own, "block_count", where),
        "num_attention_heads": heads,
        "num_key_value_heads": _count(own, "attention.head_count_kv", where, heads),
        "head_dim": head_size,
        "hidden_act": "silu",
        "max_position_embeddings": _count(own, "context_length", where),
        "rms_norm_eps": _number(own, "attention.layer_norm_rms_epsilon", where),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "rope_theta": _number(own, "rope.freq_base", where, 10_000.0),
        "rope_scaling": _scaling(file, own, where, head_size),
    }
    if architecture != "qwen2":
        config["attention_bias"] = "blk.0.attn_q.bias" in file.tensors
    if architecture == "llama":
        config["mlp_bias"] = "blk.0.ffn_up.bias" in file.tensors
    else:
        config["use_sliding_window"] = False
    return {**config, **_ends(file.metadata, table.shape[0])}


class PublishedTensors(Mapping[str, Tensor]):
    """The tensors by their published names, in ``dtype``: each is read and dequantised when it is asked for.

    ``config`` is what ``published_config`` gave. Raises ``CheckpointError`` for a tensor that has no published name.
    """

    def __init__(self, file: GGUFFile, config: Mapping[str, Any], dtype: torch.dtype) -> None:
        self.file, self.config, self.dtype = file, config, dtype
        self.heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
        self.names: dict[str, str] = {}
        for name in file.tensors:
            published = published_name(name)
            if published is not None:
                self.names[published] = name
            elif name != ROPE_FACTORS:
                raise CheckpointError(f"{file.path}: the tensor {name!r} is not known for {config['model_type']}")

    def __getitem__(self, published: str) -> Tensor:
        name = self.names[published]
        tensor, part = self.file.tensor(name), name.split(".")[-2]
        if self.config["model_type"] in PERMUTED and part in self.heads:
            heads, size = self.heads[part], self.config["head_dim"]
            if tensor.shape[0] != heads * size:
                raise CheckpointError(
                    f"{self.file.path}: {name!r} has {tensor.shape[0]} rows; {heads} heads of {size} were announced"
                )
            tensor = unpermuted(tensor, heads)
        return tensor.to(self.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def published_name(name: str) -> str | None:
    """A tensor's published name, ``None`` where it has none.

    >>> published_name("blk.12.attn_q.weight")
    'model.layers.12.self_attn.q_proj.weight'
    """
    stem, _, ending = name.rpartition(".")
    parts = stem.split(".")
    layer = parts[1] if len(parts) == 3 and parts[0] == "blk" and parts[1].isdecimal() else None
    pattern = stem if layer is None else f"blk.{{i}}.{parts[2]}"
    if ending not in ("weight", "bias") or pattern not in NAMES or (layer is not None and str(int(layer)) != layer):
        return None
    return f"{NAMES[pattern].replace('{i}', layer or '')}.{ending}"


def unpermuted(tensor: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys, [heads · Dh, …]: pairs (2i, 2i + 1) of a head back to (i, i + Dh/2).

    >>> unpermuted(torch.tensor([0, 2, 1, 3]), 1).tolist()
    [0, 1, 2, 3]
    """
    return tensor.view(heads, -1, 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


# --- details ---------------------------------------------------------------------------------------------------------


def _check_keys(file: GGUFFile) -> str:
    """The architecture, after every key was accounted for."""
    metadata = file.metadata
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise CheckpointError(
            f"{file.path}: general.architecture is {architecture!r}; known are {', '.join(ARCHITECTURES)}"
        )
    if metadata.get("general.type", "model") != "model":
        raise CheckpointError(f"{file.path}: general.type is {metadata['general.type']!r}; only a model can be opened")
    if metadata.get("split.count", 1) not in (0, 1):
        raise CheckpointError(
            f"{file.path}: one of {metadata['split.count']} parts of a model; join them with llama-gguf-split --merge"
        )
    for key, value in metadata.items():
        own = key.removeprefix(f"{architecture}.")
        if own in REQUIRES and own != key:
            if value != REQUIRES[own]:
                raise CheckpointError(f"{file.path}: {key} is {value!r}; only {REQUIRES[own]!r} is supported")
        elif key.startswith((*OTHER_ROOMS, "split.")) or (own != key and own in READ | INERT):
            continue
        else:
            raise CheckpointError(
                f"{file.path}: the metadata key {key!r} is not known for {architecture}, and it might change what the "
                "model computes"
            )
    return architecture


def _ends(metadata: Mapping[str, Any], vocabulary_size: int) -> dict[str, Any]:
    """The tokens of beginnings, ends and nothing: a text ends, a turn does, and a message before a tool is called."""
    found = {
        name: token_id
        for name in ("bos", "eos", "eot", "eom", "padding")
        if type(token_id := metadata.get(f"tokenizer.ggml.{name}_token_id")) is int and token_id < vocabulary_size
    }
    ends = [*dict.fromkeys(found[name] for name in ("eos", "eot", "eom") if name in found)]
    said = {
        "bos_token_id": found.get("bos"),
        "eos_token_id": ends if len(ends) > 1 else next(iter(ends), None),
        "pad_token_id": found.get("padding"),
    }
    return {key: value for key, value in said.items() if value is not None}


def _scaling(file: GGUFFile, own: Mapping[str, Any], where: str, head_size: int) -> dict[str, Any] | None:
    """``rope_scaling`` of ``config.json``."""
    kind = own.get("rope.scaling.type", "linear" if "rope.scale_linear" in own else "none")
    if kind not in ("none", "linear", "yarn"):
        raise CheckpointError(f"{where}.rope.scaling.type is {kind!r}; known are none, linear and yarn")
    growth = _number(own, "rope.scaling.attn_factor", where, 1.0)
    if kind != "yarn" and growth != 1.0:
        raise CheckpointError(f"{where}.rope.scaling.attn_factor is {growth}; only with yarn may it be other than 1")
    factor = _number(own, "rope.scaling.factor", where, _number(own, "rope.scale_linear", where, 1.0))
    linear = kind == "linear" and factor not in (0.0, 1.0)
    if ROPE_FACTORS not in file.tensors:
        if kind == "yarn":
            return _yarn(own, where, factor, growth)
        return {"rope_type": "linear", "factor": factor} if linear else None
    base = _number(own, "rope.freq_base", where, 10_000.0)
    factors = file.tensor(ROPE_FACTORS)
    expected = {"rope_type": "llama3", "factor": factors.max().item(), **LLAMA3}
    if (
        linear
        or kind == "yarn"
        or factors.shape != (head_size // 2,)
        or not torch.allclose(factors, _llama3_factors(expected, base, head_size), rtol=1e-4)
    ):
        raise CheckpointError(f"{file.path}: {ROPE_FACTORS!r} is not the scaling of Llama 3.1; no other is supported")
    return expected


def _yarn(own: Mapping[str, Any], where: str, factor: float, growth: float) -> dict[str, Any]:
    """``attn_factor`` comes on top of what the paper has cosines and sines grow by (Peng et al., 2023, §3.4)."""
    if factor < 1.0:
        raise CheckpointError(f"{where}.rope.scaling.factor is {factor}; yarn needs one from 1 up")
    length = _count(own, "context_length", where)
    return {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": _count(own, "rope.scaling.original_context_length", where, length),
        "attention_factor": growth * (0.1 * math.log(factor) + 1.0),
        "beta_fast": _number(own, "rope.scaling.yarn_beta_fast", where, 32.0),
        "beta_slow": _number(own, "rope.scaling.yarn_beta_slow", where, 1.0),
    }


def _llama3_factors(said: Mapping[str, Any], base: float, head_size: int) -> Tensor:
    """[Dh/2] what Llama 3.1 divides each frequency by."""
    wavelength = 2 * math.pi * torch.pow(base, torch.arange(0, head_size, 2).float() / head_size)
    low, high = said["low_freq_factor"], said["high_freq_factor"]
    blend = ((said["original_max_position_embeddings"] / wavelength - low) / (high - low)).clamp(0.0, 1.0)
    factors: Tensor = 1.0 / ((1.0 - blend) / said["factor"] + blend)
    return factors


def _count(own: Mapping[str, Any], key: str, where: str, default: int | None = None) -> int:
    value = own.get(key, default)
    if type(value) is not int or value < 1:
        said = "missing" if value is None else repr(value)[:80]
        raise CheckpointError(f"{where}.{key} is {said}; a whole number from 1 up is expected")
    return value


def _number(own: Mapping[str, Any], key: str, where: str, default: float | None = None) -> float:
    value = own.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        said = "missing" if value is None else repr(value)[:80]
        raise CheckpointError(f"{where}.{key} is {said}; a number is expected")
    return float(value)
