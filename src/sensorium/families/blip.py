"""BLIP (Li et al., 2022): a pre-norm tower over patches, and BERT's blocks as a decoder that attends to its vectors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from sensorium.config import (
    CaptionerConfig,
    ImageEncoderConfig,
    LearnedPositions,
    MaskedTokenHeadConfig,
    StackConfig,
    TokenStemConfig,
    learned_positions,
)
from sensorium.errors import CheckpointError
from sensorium.families import bert, clip
from sensorium.families._fields import read_activation, read_float, read_int, read_patches, write_patches, write_sizes
from sensorium.families._table import Family, Rule, rules_like

IMAGE, TEXT = "vision_model", "text_decoder."
IMAGE_LAYER, OUR_IMAGE_LAYER = f"{IMAGE}.encoder.layers.{{i}}", "image.stack.layers.{i}"
MEMORY = f"{TEXT}{bert.LAYER}.crossattention".replace("{base}", "bert.")
OUR_MEMORY = "decoder.stack.layers.{i}.memory"
VOCABULARY = f"{TEXT}cls.predictions.decoder.weight"


def _class_token(config: CaptionerConfig) -> tuple[int, ...]:
    return 1, 1, config.image.stem.hidden_size


def _positions(config: CaptionerConfig) -> tuple[int, ...]:
    return 1, 1 + config.image.stem.grid**2, config.image.stem.hidden_size


def _of_text(rule: Rule) -> Rule:
    """A rule of BERT's, of the decoder."""

    def named(name: str) -> str:
        return TEXT + name.replace("{base}", "bert.")

    head = rule.ours.startswith("masked_token.")
    ours = rule.ours.replace("masked_token.", "language_model.") if head else f"decoder.{rule.ours}"
    return replace(
        rule, ours=ours, theirs=tuple(map(named, rule.theirs)), also=None if rule.also is None else named(rule.also),
        apart=None if rule.apart is None else rule.apart.replace("masked_token.", "language_model."),
    )  # fmt: skip


RULES = (
    Rule("image.stem.class_token", (f"{IMAGE}.embeddings.class_embedding",), _class_token),
    Rule("image.stem.positions.weight", (f"{IMAGE}.embeddings.position_embedding",), _positions),
    Rule("image.stem.patches.weight", (f"{IMAGE}.embeddings.patch_embedding.weight",), clip.patch_shape),
    Rule("image.stem.patches.bias", (f"{IMAGE}.embeddings.patch_embedding.bias",)),
    *rules_like(f"{OUR_IMAGE_LAYER}.attention.qkv", f"{IMAGE_LAYER}.self_attn.qkv"),  # one map there as here
    *rules_like(f"{OUR_IMAGE_LAYER}.attention.output", f"{IMAGE_LAYER}.self_attn.projection"),
    *rules_like(f"{OUR_IMAGE_LAYER}.attention_norm", f"{IMAGE_LAYER}.layer_norm1"),
    *rules_like(f"{OUR_IMAGE_LAYER}.mlp.up", f"{IMAGE_LAYER}.mlp.fc1"),
    *rules_like(f"{OUR_IMAGE_LAYER}.mlp.down", f"{IMAGE_LAYER}.mlp.fc2"),
    *rules_like(f"{OUR_IMAGE_LAYER}.mlp_norm", f"{IMAGE_LAYER}.layer_norm2"),
    *rules_like("image.stack.final_norm", f"{IMAGE}.post_layernorm"),
    *(_of_text(rule) for rule in bert.ENCODER_RULES if rule.ours.startswith(("stem.", "stack."))),
    *rules_like(f"{OUR_MEMORY}_attention.query", f"{MEMORY}.self.query"),
    *rules_like(f"{OUR_MEMORY}_attention.key_value", (f"{MEMORY}.self.key", f"{MEMORY}.self.value"), "join"),
    *rules_like(f"{OUR_MEMORY}_attention.output", f"{MEMORY}.output.dense"),
    *rules_like(f"{OUR_MEMORY}_norm", f"{MEMORY}.output.LayerNorm"),
    *(_of_text(rule) for rule in bert.HEAD_RULES if rule.ours.startswith("masked_token.")),
)


def read_config(raw: Mapping[str, Any], parts: Collection[str]) -> CaptionerConfig:
    """``config.json`` → our config."""
    text, vision = (clip.section(raw, name) for name in ("text_config", "vision_config"))
    if not text.get("is_decoder", True):
        raise CheckpointError("config.json: text_config.is_decoder is false; only a decoder writes captions")
    tower = clip.read_tower(vision, "bidirectional", 768, 12, activation="gelu", eps=1e-5)
    patches = read_patches(vision, tower.hidden_size, image_size=384, patch_size=16)
    size, eps = read_int(text, "hidden_size", 768), read_float(text, "layer_norm_eps", 1e-12)
    dropout = read_float(text, "hidden_dropout_prob", 0.0)
    stem = TokenStemConfig(
        read_int(text, "vocab_size", 30524), size, LearnedPositions(read_int(text, "max_position_embeddings", 512)),
        norm_eps=eps, dropout=dropout,
        pad_token_id=None if text.get("pad_token_id", 0) is None else read_int(text, "pad_token_id", 0),
    )  # fmt: skip
    stack = StackConfig(
        hidden_size=size,
        num_layers=read_int(text, "num_hidden_layers", 12),
        num_heads=read_int(text, "num_attention_heads", 8),
        mlp_size=read_int(text, "intermediate_size", 3072),
        mask="causal",
        norm_eps=eps,
        activation=read_activation(text, "hidden_act", "gelu"),
        dropout=dropout,
        attention_dropout=read_float(text, "attention_probs_dropout_prob", 0.0),
        memory_size=tower.hidden_size,
    )
    tied = bool(raw.get("tie_word_embeddings", True) or text.get("tie_word_embeddings", True))
    return CaptionerConfig(
        ImageEncoderConfig(patches, tower), stem, stack, read_int(text, "bos_token_id", 30522),
        read_int(text, "sep_token_id", 102), MaskedTokenHeadConfig(stack.activation, eps, tied),
    )  # fmt: skip


def write_config(config: CaptionerConfig) -> dict[str, Any]:
    """Our config → ``config.json``."""
    image, stem, stack, head = config.image, config.decoder_stem, config.decoder_stack, config.language_model
    tied = head is None or head.tied
    return {
        "tie_word_embeddings": tied,
        "text_config": {
            "model_type": "blip_text_model",
            "vocab_size": stem.vocabulary_size,
            **write_sizes(stack),
            "encoder_hidden_size": image.stack.hidden_size,
            "max_position_embeddings": learned_positions(stem).size,
            "hidden_dropout_prob": stack.dropout,
            "attention_probs_dropout_prob": stack.attention_dropout,
            "bos_token_id": config.start_token_id,
            "sep_token_id": config.end_token_id,
            "pad_token_id": stem.pad_token_id,
            "is_decoder": True,
            "tie_word_embeddings": tied,
        },
        "vision_config": {
            "model_type": "blip_vision_model",
            **write_patches(image.stem),
            **clip.write_tower(image.stack),
        },
    }


INERT = frozenset(
    # The projections belong to a matcher, whose weights, if there, are refused as left over.
    [
        "projection_dim", "image_text_hidden_size", "logit_scale_init_value", "initializer_factor", "label_smoothing",
        "encoder_hidden_size",
    ]
)  # fmt: skip
FAMILY = Family(
    name="blip",
    base="",
    rules=RULES,
    read_config=read_config,
    write_config=write_config,
    keys=frozenset(["tie_word_embeddings", "text_config", "vision_config"]),
    sections={
        "text_config": clip.STACK_KEYS - {"attention_dropout"} | {
            "vocab_size", "max_position_embeddings", "hidden_dropout_prob", "attention_probs_dropout_prob",
            "bos_token_id", "sep_token_id", "pad_token_id", "is_decoder", "tie_word_embeddings",
        },
        "vision_config": clip.STACK_KEYS | {"image_size", "patch_size", "tie_word_embeddings"},
    },
    architectures={"BlipForConditionalGeneration": ("language_model",)},
    markers={},
    requires={"text_config_dict": None, "vision_config_dict": None, "dropout": 0.0, "num_channels": 3},
    inert=INERT,
    ignored=(f"{TEXT}bert.embeddings.position_ids",),
    copies={VOCABULARY: "decoder.stem.tokens.weight"},
    processor="BlipImageProcessor",
)  # fmt: skip
