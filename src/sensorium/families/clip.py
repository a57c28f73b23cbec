"""CLIP (Radford et al., 2021): a pre-norm tower over patches and a causal one over tokens, their vectors compared."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sensorium.config import (
    CaptionerConfig,
    DecoderConfig,
    DualEncoderConfig,
    ImageEncoderConfig,
    LearnedPositions,
    Mask,
    StackConfig,
    TokenStemConfig,
    learned_positions,
)
from sensorium.errors import CheckpointError
from sensorium.families._fields import read_activation, read_float, read_int, read_patches, write_patches, write_sizes
from sensorium.families._table import Family, Rule, rules_like

OLD_END = 2
"""What files say that were made before the end token's own number was written down: there the largest ends a text."""


def patch_shape(config: DualEncoderConfig | CaptionerConfig) -> tuple[int, ...]:
    """Of the published map of patches, which is a convolution."""
    return config.image.stem.convolution


def tower_rules(ours: str, theirs: str) -> tuple[Rule, ...]:
    """The blocks of a tower."""
    layer, published = f"{ours}.stack.layers.{{i}}", f"{theirs}.encoder.layers.{{i}}"
    attention = f"{published}.self_attn"
    return (
        *rules_like(f"{layer}.attention.qkv", tuple(f"{attention}.{name}_proj" for name in "qkv"), "join"),
        *rules_like(f"{layer}.attention.output", f"{attention}.out_proj"),
        *rules_like(f"{layer}.attention_norm", f"{published}.layer_norm1"),
        *rules_like(f"{layer}.mlp.up", f"{published}.mlp.fc1"),
        *rules_like(f"{layer}.mlp.down", f"{published}.mlp.fc2"),
        *rules_like(f"{layer}.mlp_norm", f"{published}.layer_norm2"),
    )


TOWERS = (
    Rule("image.stem.class_token", ("vision_model.embeddings.class_embedding",)),
    Rule("image.stem.patches.weight", ("vision_model.embeddings.patch_embedding.weight",), patch_shape),
    Rule("image.stem.patches.bias", ("vision_model.embeddings.patch_embedding.bias",)),
    Rule("image.stem.positions.weight", ("vision_model.embeddings.position_embedding.weight",)),
    *rules_like("image.stem.norm", "vision_model.pre_layrnorm"),
    *tower_rules("image", "vision_model"),
    *rules_like("image.stack.final_norm", "vision_model.post_layernorm"),
    Rule("text.stem.tokens.weight", ("text_model.embeddings.token_embedding.weight",)),
    Rule("text.stem.positions.weight", ("text_model.embeddings.position_embedding.weight",)),
    *tower_rules("text", "text_model"),
    *rules_like("text.stack.final_norm", "text_model.final_layer_norm"),
)
"""What SigLIP shares; either lacks some of it."""
RULES = (
    *TOWERS,
    Rule("image_projection.weight", ("visual_projection.weight",)),
    Rule("text_projection.weight", ("text_projection.weight",)),
    Rule("logit_scale", ("logit_scale",)),
)


def read_tower(
    raw: Mapping[str, Any], mask: Mask, size: int, heads: int, *, activation: str = "quick_gelu", eps: float = 1e-5
) -> StackConfig:
    """The stack of a tower; what a file leaves out is as given."""
    return StackConfig(
        hidden_size=read_int(raw, "hidden_size", size),
        num_layers=read_int(raw, "num_hidden_layers", 12),
        num_heads=read_int(raw, "num_attention_heads", heads),
        mlp_size=read_int(raw, "intermediate_size", 4 * size),
        mask=mask,
        norm_place="pre",
        norm_eps=read_float(raw, "layer_norm_eps", eps),
        final_norm=True,
        activation=read_activation(raw, "hidden_act", activation),
        attention_dropout=read_float(raw, "attention_dropout", 0.0),
    )


def read_config(raw: Mapping[str, Any], parts: Collection[str]) -> DualEncoderConfig:
    """``config.json`` → our config."""
    text, vision = (section(raw, name) for name in ("text_config", "vision_config"))
    image_stack, text_stack = read_tower(vision, "bidirectional", 768, 12), read_tower(text, "causal", 512, 8)
    end = text.get("eos_token_id", 49407)
    if isinstance(end, bool) or not isinstance(end, int):
        raise CheckpointError(f"config.json: text_config.eos_token_id is {end!r}; one token is expected")
    return DualEncoderConfig(
        image=ImageEncoderConfig(
            read_patches(
                vision, image_stack.hidden_size, image_size=224, patch_size=32, bias=False,
                norm_eps=image_stack.norm_eps,
            ),
            image_stack,
        ),
        text=DecoderConfig(
            TokenStemConfig(
                read_int(text, "vocab_size", 49408), text_stack.hidden_size,
                LearnedPositions(read_int(text, "max_position_embeddings", 77)),
            ),
            text_stack,
        ),
        projection_size=read_int(raw, "projection_dim", 512),
        end_token_id=None if end == OLD_END else end,
    )  # fmt: skip


def section(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of ``config.json``; without it, defaults hold. Raises ``CheckpointError`` where it is no object."""
    found = raw.get(name) or {}
    if not isinstance(found, Mapping):
        raise CheckpointError(f"config.json: {name} is {found!r}; an object is expected")
    return found


def write_tower(stack: StackConfig) -> dict[str, Any]:
    """The keys of a tower's stack."""
    return {**write_sizes(stack), "attention_dropout": stack.attention_dropout}


def write_sections(name: str, config: DualEncoderConfig, **text: Any) -> dict[str, Any]:
    """Both towers of a family, with what is said of texts there alone."""
    stem, reads = config.image.stem, config.text
    return {
        "text_config": {
            "model_type": f"{name}_text_model",
            "vocab_size": reads.stem.vocabulary_size,
            "max_position_embeddings": learned_positions(reads.stem).size,
            **text,
            **write_tower(reads.stack),
        },
        "vision_config": {
            "model_type": f"{name}_vision_model",
            **write_patches(stem),
            **write_tower(config.image.stack),
        },
    }


def write_config(config: DualEncoderConfig) -> dict[str, Any]:
    """Our config → ``config.json``."""
    if config.end_token_id == OLD_END:
        raise CheckpointError(
            f"a clip model whose texts end with token {OLD_END} can't be saved: in its config.json, that means the "
            "token with the largest number; take a tokenizer that numbers its end token otherwise"
        )
    end = OLD_END if config.end_token_id is None else config.end_token_id
    return {"projection_dim": config.projection_size, **write_sections("clip", config, eos_token_id=end)}


STACK_KEYS = frozenset(
    [
        "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "layer_norm_eps",
        "attention_dropout",
    ]
)  # fmt: skip
FAMILY = Family(
    name="clip",
    base="",
    rules=RULES,
    read_config=read_config,
    write_config=write_config,
    keys=frozenset(["projection_dim", "text_config", "vision_config"]),
    sections={
        "text_config": STACK_KEYS | {"vocab_size", "max_position_embeddings", "eos_token_id"},
        "vision_config": STACK_KEYS | {"image_size", "patch_size", "num_channels"},
    },
    architectures={"CLIPModel": ()},
    markers={},
    requires={"text_config_dict": None, "vision_config_dict": None, "dropout": 0.0},
    inert=frozenset(["logit_scale_init_value", "initializer_factor", "projection_dim", "pad_token_id"]),
    ignored=("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"),
    processor="CLIPImageProcessor",
)
