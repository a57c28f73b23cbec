"""mBART (Liu et al., 2020): BART with norms before its blocks and after its stacks, in many languages."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from sensorium.config import EncoderDecoderConfig, LearnedPositions
from sensorium.families import bart
from sensorium.families._fields import read_int


def read_config(raw: Mapping[str, Any], parts: Collection[str]) -> EncoderDecoderConfig:
    """``config.json`` → our config. Where no token to begin with is given, it is the begin of text, as is usual."""
    positions = LearnedPositions(read_int(raw, "max_position_embeddings", 1024) + bart.FIRST_ROW, bart.FIRST_ROW)
    given = {key: value for key, value in raw.items() if key != "decoder_start_token_id" or value is not None}
    return bart.read_sides(
        given, parts, positions, norm_eps=1e-5, pad_token_id=1, start_token_id=read_int(raw, "bos_token_id", 0),
        norm_place="pre",
    )  # fmt: skip


FAMILY = replace(
    bart.FAMILY,
    name="mbart",
    read_config=read_config,
    architectures={"MBartModel": (), "MBartForConditionalGeneration": ("language_model",)},
    requires={**bart.FAMILY.requires, "normalize_before": True, "add_final_layer_norm": True},
)
