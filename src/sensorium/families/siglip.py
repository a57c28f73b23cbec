"""SigLIP (Zhai et al., 2023): two pre-norm encoders, of patches and of tokens; each pair is judged alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sensorium.config import (
    DualEncoderConfig,
    EncoderConfig,
    ImageEncoderConfig,
    LearnedPositions,
    ProbePoolerConfig,
    TokenStemConfig,
)
from sensorium.errors import CheckpointError
from sensorium.families._fields import read_int, read_patches
from sensorium.families._table import Family, Rule, rules_like
from sensorium.families.clip import STACK_KEYS, TOWERS, read_tower, section, write_sections

PADDING = 1
HEAD = "vision_model.head"


def _one(config: DualEncoderConfig) -> tuple[int, ...]:
    return (1,)


def _probe(config: DualEncoderConfig) -> tuple[int, ...]:
    return 1, 1, config.image.stack.hidden_size


RULES = (
    *TOWERS,
    Rule("image.pooler.probe", (f"{HEAD}.probe",), _probe),
    Rule("image.pooler.qkv.weight", (f"{HEAD}.attention.in_proj_weight",)),
    Rule("image.pooler.qkv.bias", (f"{HEAD}.attention.in_proj_bias",)),
    *rules_like("image.pooler.output", f"{HEAD}.attention.out_proj"),
    *rules_like("image.pooler.norm", f"{HEAD}.layernorm"),
    *rules_like("image.pooler.mlp.up", f"{HEAD}.mlp.fc1"),
    *rules_like("image.pooler.mlp.down", f"{HEAD}.mlp.fc2"),
    *rules_like("text_projection", "text_model.head"),
    Rule("logit_scale", ("logit_scale",), _one),
    Rule("logit_bias", ("logit_bias",), _one),
)


def read_config(raw: Mapping[str, Any], parts: Collection[str]) -> DualEncoderConfig:
    """``config.json`` → our config."""
    text, vision = (section(raw, name) for name in ("text_config", "vision_config"))
    image_stack, text_stack = (
        read_tower(one, "bidirectional", 768, 12, activation="gelu_pytorch_tanh", eps=1e-6) for one in (vision, text)
    )
    length, width = read_int(text, "max_position_embeddings", 64), image_stack.hidden_size
    if text.get("projection_size") not in (None, width):
        raise CheckpointError(
            f"config.json: text_config.projection_size is {text['projection_size']!r}, that of images is {width}"
        )
    return DualEncoderConfig(
        image=ImageEncoderConfig(
            read_patches(vision, width, image_size=224, patch_size=16, class_token=False),
            image_stack,
            ProbePoolerConfig(),
        ),
        text=EncoderConfig(
            TokenStemConfig(
                read_int(text, "vocab_size", 32000), text_stack.hidden_size, LearnedPositions(length),
                pad_token_id=read_int(text, "pad_token_id", PADDING),
            ),
            text_stack,
        ),
        projection_size=width,
        text_vector="last",
        text_length=length,
        image_projection=False,
        text_bias=True,
        logit_bias=True,
    )  # fmt: skip


def write_config(config: DualEncoderConfig) -> dict[str, Any]:
    """Our config → ``config.json``."""
    text = {"pad_token_id": config.stem.pad_token_id, "projection_size": config.projection_size}
    return write_sections("siglip", config, **text)


FAMILY = Family(
    name="siglip",
    base="",
    rules=RULES,
    read_config=read_config,
    write_config=write_config,
    keys=frozenset(["text_config", "vision_config"]),
    sections={
        "text_config": STACK_KEYS | {"vocab_size", "max_position_embeddings", "pad_token_id", "projection_size"},
        "vision_config": STACK_KEYS | {"image_size", "patch_size", "num_channels"},
    },
    architectures={"SiglipModel": ()},
    markers={},
    requires={"vision_use_head": True},
    inert=frozenset(["initializer_factor", "pad_token_id"]),
    ignored=("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"),
    processor="SiglipImageProcessor",
)
