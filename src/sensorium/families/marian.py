"""Marian (Junczys-Dowmunt et al., 2018), as OPUS-MT publishes it: BART's blocks with sinusoids, no norm of tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sensorium.config import EncoderDecoderConfig, SinusoidalPositions
from sensorium.families import bart
from sensorium.families._fields import read_int


def read_config(raw: Mapping[str, Any], parts: Collection[str]) -> EncoderDecoderConfig:
    """``config.json`` → our config."""
    positions = SinusoidalPositions(read_int(raw, "max_position_embeddings", 1024))
    return bart.read_sides(
        {"vocab_size": 58101, **raw}, parts, positions, norm_eps=None, pad_token_id=58100, start_token_id=58100,
        shared=bool(raw.get("share_encoder_decoder_embeddings", True)),
    )  # fmt: skip


def write_config(config: EncoderDecoderConfig) -> dict[str, Any]:
    """Our config → ``config.json``."""
    return {
        **bart.write_sides(config),
        "max_position_embeddings": config.max_length,
        "share_encoder_decoder_embeddings": config.shared_tokens,
        "decoder_vocab_size": config.decoder_stem.vocabulary_size,
    }


def position_table(config: EncoderDecoderConfig) -> Tensor:
    """[places, D]: what files may repeat, sines first."""
    size = config.encoder_stack.hidden_size
    exponents = torch.arange(0, size, 2, dtype=torch.float64) / size
    angles = torch.arange(config.max_length)[:, None].double() / 10_000.0**exponents
    return torch.cat([angles.sin(), angles[:, : size // 2].cos()], dim=-1).float()


FAMILY = replace(
    bart.FAMILY,
    name="marian",
    read_config=read_config,
    write_config=write_config,
    rules=tuple(replace(rule, also=None) for rule in bart.RULES),  # two tables, and no third beside them
    keys=bart.KEYS | {"decoder_vocab_size", "share_encoder_decoder_embeddings"},
    architectures={"MarianModel": (), "MarianMTModel": ("language_model",)},
    requires={**bart.REQUIRES, "normalize_embedding": False, "static_position_embeddings": True},
    ignored=(bart.SHARED,),
    constants={
        "{base}encoder.embed_positions.weight": position_table,
        "{base}decoder.embed_positions.weight": position_table,
    },
)  # fmt: skip
