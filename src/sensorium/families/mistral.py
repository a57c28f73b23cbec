"""Mistral (Jiang et al., 2023): Llama without biases, whose tokens look back over a window."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from sensorium.config import DecoderConfig
from sensorium.families import llama
from sensorium.families._fields import read_int


def read_config(raw: Mapping[str, Any], parts: Collection[str]) -> DecoderConfig:
    """``config.json`` → our config."""
    unlimited = raw.get("sliding_window", 4096) is None
    window = None if unlimited else read_int(raw, "sliding_window", 4096)
    return llama.read_decoder(raw, parts, biases=(), kv_heads=8, window=window)


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """Our config → ``config.json``."""
    return {**llama.write_decoder(config), "sliding_window": config.stack.window}


FAMILY = replace(
    llama.FAMILY,
    name="mistral",
    read_config=read_config,
    write_config=write_config,
    keys=llama.KEYS | {"sliding_window"},
    architectures={"MistralModel": (), "MistralForCausalLM": ("language_model",)},
    inert=frozenset(),
)
