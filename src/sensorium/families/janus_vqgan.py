"""The codec of Janus (Wu et al., 2024), which is LlamaGen's (Sun et al., 2024): images as squares of tokens."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from sensorium.config import ImageCodecConfig
from sensorium.errors import CheckpointError
from sensorium.families._fields import read_float, read_int
from sensorium.families._table import Family, Rule, rules_like

MOST_LEVELS, MOST_BLOCKS = 8, 8
"""The rules are written out for so many."""


def codec_rules(ours: str, theirs: str) -> tuple[Rule, ...]:
    """All of a codec, under both prefixes."""
    return (
        *_side(f"{ours}encoder", f"{theirs}encoder", "down", "downsample"),
        *_side(f"{ours}decoder", f"{theirs}decoder", "up", "upsample"),
        *rules_like(f"{ours}to_code", f"{theirs}quant_conv"),
        *rules_like(f"{ours}from_code", f"{theirs}post_quant_conv"),
        Rule(f"{ours}codes.weight", (f"{theirs}quantize.embedding.weight",)),
    )


def _side(ours: str, theirs: str, levels: str, step: str) -> Iterator[Rule]:
    """The way down, or up."""
    yield from rules_like(f"{ours}.first", f"{theirs}.conv_in")
    for level in range(MOST_LEVELS):
        own, published = f"{ours}.levels.{level}", f"{theirs}.{levels}.{level}"
        for block in range(MOST_BLOCKS + 1):
            yield from _block(f"{own}.blocks.{block}", f"{published}.block.{block}")
            yield from _attention(f"{own}.attention.{block}", f"{published}.attn.{block}")
        yield from rules_like(f"{own}.step.convolution", f"{published}.{step}.conv")
    yield from _block(f"{ours}.middle.before", f"{theirs}.mid.block_1")
    yield from _attention(f"{ours}.middle.attention", f"{theirs}.mid.attn_1")
    yield from _block(f"{ours}.middle.after", f"{theirs}.mid.block_2")
    yield from rules_like(f"{ours}.norm", f"{theirs}.norm_out")
    yield from rules_like(f"{ours}.last", f"{theirs}.conv_out")


def _block(ours: str, theirs: str) -> Iterator[Rule]:
    for own, published in (
        ("first_norm", "norm1"), ("first", "conv1"), ("second_norm", "norm2"), ("second", "conv2"),
        ("shortcut", "nin_shortcut"),
    ):  # fmt: skip
        yield from rules_like(f"{ours}.{own}", f"{theirs}.{published}")


def _attention(ours: str, theirs: str) -> Iterator[Rule]:
    for own, published in (("norm", "norm"), ("query", "q"), ("key", "k"), ("value", "v"), ("output", "proj_out")):
        yield from rules_like(f"{ours}.{own}", f"{theirs}.{published}")


def read_config(raw: Mapping[str, Any], parts: Collection[str]) -> ImageCodecConfig:
    """``config.json`` → our config."""
    multipliers = raw.get("channel_multiplier", [1, 1, 2, 2, 4])
    blocks = read_int(raw, "num_res_blocks", 2)
    if not isinstance(multipliers, list | tuple) or not 0 < len(multipliers) <= MOST_LEVELS or blocks > MOST_BLOCKS:
        raise CheckpointError(
            f"config.json: channel_multiplier is {multipliers!r}, num_res_blocks {blocks}; up to {MOST_LEVELS} levels "
            f"of up to {MOST_BLOCKS} blocks are known"
        )
    channels = read_int(raw, "in_channels", 3)
    if read_int(raw, "out_channels", 3) != channels:
        raise CheckpointError("config.json: in_channels and out_channels differ; a codec gives what it was given")
    return ImageCodecConfig(
        grid=read_int(raw, "num_patches", 32),
        num_codes=read_int(raw, "num_embeddings", 16384),
        code_size=read_int(raw, "embed_dim", 8),
        channels=read_int(raw, "base_channels", 128),
        multipliers=tuple(read_int({"channel_multiplier": one}, "channel_multiplier") for one in multipliers),
        blocks=blocks,
        latent_size=read_int(raw, "latent_channels", 256),
        image_channels=channels,
        dropout=read_float(raw, "dropout", 0.0),
    )


def write_config(config: ImageCodecConfig) -> dict[str, Any]:
    """Our config → ``config.json``."""
    return {
        "num_patches": config.grid,
        "num_embeddings": config.num_codes,
        "embed_dim": config.code_size,
        "base_channels": config.channels,
        "channel_multiplier": list(config.multipliers),
        "num_res_blocks": config.blocks,
        "latent_channels": config.latent_size,
        "in_channels": config.image_channels,
        "out_channels": config.image_channels,
        "dropout": config.dropout,
    }


KEYS = frozenset(
    [
        "num_patches", "num_embeddings", "embed_dim", "base_channels", "channel_multiplier", "num_res_blocks",
        "latent_channels", "in_channels", "out_channels", "dropout",
    ]
)  # fmt: skip
OF_DECODERS = frozenset(["projection_dim", "num_hidden_layers", "hidden_act", "image_token_embed_dim"])
"""They describe what stands beside the codec in a model that draws."""
FAMILY = Family(
    name="janus_vqgan",
    base="",
    rules=codec_rules("", ""),
    read_config=read_config,
    write_config=write_config,
    keys=KEYS,
    architectures={"JanusVQVAE": ()},
    markers={},
    requires={"double_latent": False},
    inert=OF_DECODERS,
    processor="JanusImageProcessor",
)
