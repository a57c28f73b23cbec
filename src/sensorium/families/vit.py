"""ViT (Dosovitskiy et al., 2021): pre-norm encoder over patches of an image and a class token; image labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sensorium.config import (
    BIASES,
    ImageEncoderConfig,
    PoolerConfig,
    SequenceHeadConfig,
    StackConfig,
)
from sensorium.errors import CheckpointError
from sensorium.families._fields import (
    PUBLISHED_ACTIVATIONS,
    read_activation,
    read_float,
    read_int,
    read_labels,
    read_patches,
    read_problem,
    write_labels,
    write_patches,
    write_sizes,
)
from sensorium.families._table import Family, Rule, rules_like

LAYER = "{base}encoder.layer.{i}"
SELF = f"{LAYER}.attention.attention"
PATCHES = "{base}embeddings.patch_embeddings.projection"


def _class_token(config: ImageEncoderConfig) -> tuple[int, ...]:
    return 1, 1, config.stem.hidden_size


def _positions(config: ImageEncoderConfig) -> tuple[int, ...]:
    return 1, 1 + config.stem.grid**2, config.stem.hidden_size


def _patches(config: ImageEncoderConfig) -> tuple[int, ...]:
    return config.stem.convolution


RULES = (
    Rule("stem.class_token", ("{base}embeddings.cls_token",), _class_token),
    Rule("stem.positions.weight", ("{base}embeddings.position_embeddings",), _positions),
    Rule("stem.patches.weight", (f"{PATCHES}.weight",), _patches),
    Rule("stem.patches.bias", (f"{PATCHES}.bias",)),
    *rules_like("stack.layers.{i}.attention.qkv", (f"{SELF}.query", f"{SELF}.key", f"{SELF}.value"), "join"),
    *rules_like("stack.layers.{i}.attention.output", f"{LAYER}.attention.output.dense"),
    *rules_like("stack.layers.{i}.attention_norm", f"{LAYER}.layernorm_before"),
    *rules_like("stack.layers.{i}.mlp.up", f"{LAYER}.intermediate.dense"),
    *rules_like("stack.layers.{i}.mlp.down", f"{LAYER}.output.dense"),
    *rules_like("stack.layers.{i}.mlp_norm", f"{LAYER}.layernorm_after"),
    *rules_like("stack.final_norm", "{base}layernorm"),
    *rules_like("pooler.dense", "{base}pooler.dense"),
    *rules_like("sequence.classifier", "classifier"),
)


def read_config(raw: Mapping[str, Any], parts: Collection[str]) -> ImageEncoderConfig:
    """``config.json`` → our config."""
    size, eps = read_int(raw, "hidden_size", 768), read_float(raw, "layer_norm_eps", 1e-12)
    dropout = read_float(raw, "hidden_dropout_prob", 0.0)
    if raw.get("pooler_output_size") not in (None, size):
        raise CheckpointError(f"config.json: pooler_output_size is {raw['pooler_output_size']!r}; only {size} is known")
    return ImageEncoderConfig(
        stem=read_patches(raw, size, image_size=224, patch_size=16, dropout=dropout),
        stack=StackConfig(
            hidden_size=size,
            num_layers=read_int(raw, "num_hidden_layers", 12),
            num_heads=read_int(raw, "num_attention_heads", 12),
            mlp_size=read_int(raw, "intermediate_size", 3072),
            norm_place="pre",
            norm_eps=eps,
            final_norm=True,
            activation=read_activation(raw, "hidden_act", "gelu"),
            dropout=dropout,
            attention_dropout=read_float(raw, "attention_probs_dropout_prob", 0.0),
            biases=BIASES,
        ),
        pooler=PoolerConfig(read_activation(raw, "pooler_act", "tanh")) if "pooler" in parts else None,
        sequence=SequenceHeadConfig(read_labels(raw), problem=read_problem(raw)) if "sequence" in parts else None,
    )  # fmt: skip


def write_config(config: ImageEncoderConfig) -> dict[str, Any]:
    """Our config → ``config.json``."""
    stem, stack = config.stem, config.stack
    pooler = config.pooler if isinstance(config.pooler, PoolerConfig) else PoolerConfig()
    return {
        **write_sizes(stack),
        "hidden_dropout_prob": stack.dropout,
        "attention_probs_dropout_prob": stack.attention_dropout,
        **write_patches(stem),
        "qkv_bias": True,
        "pooler_output_size": stack.hidden_size,
        "pooler_act": PUBLISHED_ACTIVATIONS[pooler.activation],
        **write_labels(config.sequence, None),
    }


FAMILY = Family(
    name="vit",
    base="vit.",
    rules=RULES,
    read_config=read_config,
    write_config=write_config,
    keys=frozenset(
        [
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "hidden_act",
            "hidden_dropout_prob",
            "attention_probs_dropout_prob",
            "layer_norm_eps",
            "image_size",
            "patch_size",
            "num_channels",
            "pooler_output_size",
            "pooler_act",
        ]
    ),
    architectures={"ViTModel": (), "ViTForImageClassification": ("sequence",)},
    markers={"pooler": "{base}pooler.dense.weight", "sequence": "classifier.weight"},
    requires={"qkv_bias": True},
    inert=frozenset(["encoder_stride"]),
    processor="ViTImageProcessor",
)
