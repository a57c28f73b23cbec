"""Qwen 3 (Yang et al., 2025): Llama whose queries and keys are normalised, with heads of a size of their own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from sensorium.config import DecoderConfig
from sensorium.families import llama, qwen2


def read_config(raw: Mapping[str, Any], parts: Collection[str]) -> DecoderConfig:
    """``config.json`` → our config."""
    qwen2.check_full(raw)
    biases = ("qkv", "output") if raw.get("attention_bias", False) else ()
    return llama.read_decoder({"head_dim": 128, **raw}, parts, biases=biases, kv_heads=32, qk_norm=True)


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """Our config → ``config.json``."""
    return {**qwen2.write_config(config), "attention_bias": "qkv" in config.stack.biases}


FAMILY = replace(
    qwen2.FAMILY,
    name="qwen3",
    read_config=read_config,
    write_config=write_config,
    keys=qwen2.FAMILY.keys | {"attention_bias"},
    architectures={"Qwen3Model": (), "Qwen3ForCausalLM": ("language_model",)},
)
