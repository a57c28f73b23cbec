"""mT5 (Xue et al., 2021): T5 1.1 in a hundred languages; what meets its vocabulary is never scaled."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from sensorium.config import EncoderDecoderConfig
from sensorium.errors import CheckpointError
from sensorium.families import t5

# What the published config has where a file does not say it.
DEFAULTS = {"vocab_size": 250112, "d_ff": 1024, "num_layers": 8, "num_heads": 6, "feed_forward_proj": "gated-gelu"}


def read_config(raw: Mapping[str, Any], parts: Collection[str]) -> EncoderDecoderConfig:
    """``config.json`` → our config."""
    return t5.read_sides({**DEFAULTS, **raw}, parts, max_length=1024, scaled=False)


def write_config(config: EncoderDecoderConfig) -> dict[str, Any]:
    """Our config → ``config.json``."""
    if config.language_model is not None and config.language_model.scaled:
        raise CheckpointError("family mt5 does not scale what meets the vocabulary, and this model does; save it as t5")
    return t5.write_sides(config)


FAMILY = replace(
    t5.FAMILY,
    name="mt5",
    read_config=read_config,
    write_config=write_config,
    keys=t5.KEYS,
    architectures={"MT5Model": (), "MT5ForConditionalGeneration": ("language_model",)},
)
