"""Qwen 2 (Yang et al., 2024): Llama with biases on queries, keys and values alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from sensorium.config import DecoderConfig
from sensorium.errors import CheckpointError
from sensorium.families import llama

# Windows that only some layers have; ``check_full`` sees to it that none has.
WINDOWS = frozenset(["sliding_window", "max_window_layers", "layer_types"])


def check_full(raw: Mapping[str, Any]) -> None:
    """Raise ``CheckpointError`` for layers that do not look at everything before them."""
    others = [kind for kind in raw.get("layer_types") or () if kind != "full_attention"]
    if raw.get("use_sliding_window", False) or others:
        raise CheckpointError("config.json: some layers look back over a window; only full attention is supported here")


def read_config(raw: Mapping[str, Any], parts: Collection[str]) -> DecoderConfig:
    """``config.json`` → our config."""
    check_full(raw)
    return llama.read_decoder(raw, parts, biases=("qkv",), kv_heads=32)


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """Our config → ``config.json``."""
    return {**llama.write_decoder(config), "use_sliding_window": False}


FAMILY = replace(
    llama.FAMILY,
    name="qwen2",
    read_config=read_config,
    write_config=write_config,
    keys=llama.KEYS | WINDOWS | {"use_sliding_window"},
    architectures={"Qwen2Model": (), "Qwen2ForCausalLM": ("language_model",)},
    inert=frozenset(),
)
