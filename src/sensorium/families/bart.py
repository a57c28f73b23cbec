"""BART (Lewis et al., 2020): a post-norm encoder and decoder that share their tokens, as a rule; positions count from
row 2."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from sensorium.config import (
    EncoderDecoderConfig,
    LanguageModelHeadConfig,
    LearnedPositions,
    NormPlace,
    SinusoidalPositions,
    StackConfig,
    TokenStemConfig,
    learned_positions,
)
from sensorium.errors import CheckpointError
from sensorium.families._fields import PUBLISHED_ACTIVATIONS, read_activation, read_float, read_int
from sensorium.families._table import Family, Rule, rules_like

FIRST_ROW = 2
"""Of the position table: the published code leaves two rows for padding."""


def _side(side: str) -> tuple[Rule, ...]:
    ours, theirs = f"{side}.stack.layers.{{i}}", f"{{base}}{side}.layers.{{i}}"
    attention, memory = f"{theirs}.self_attn", f"{theirs}.encoder_attn"
    return (
        Rule(f"{side}.stem.positions.weight", (f"{{base}}{side}.embed_positions.weight",)),
        *rules_like(f"{side}.stem.norm", f"{{base}}{side}.layernorm_embedding"),
        *rules_like(
            f"{ours}.attention.qkv", tuple(f"{attention}.{name}_proj" for name in ("q", "k", "v")), "join"
        ),
        *rules_like(f"{ours}.attention.output", f"{attention}.out_proj"),
        *rules_like(f"{ours}.attention_norm", f"{theirs}.self_attn_layer_norm"),
        *rules_like(f"{ours}.memory_attention.query", f"{memory}.q_proj"),
        *rules_like(f"{ours}.memory_attention.key_value", (f"{memory}.k_proj", f"{memory}.v_proj"), "join"),
        *rules_like(f"{ours}.memory_attention.output", f"{memory}.out_proj"),
        *rules_like(f"{ours}.memory_norm", f"{theirs}.encoder_attn_layer_norm"),
        *rules_like(f"{ours}.mlp.up", f"{theirs}.fc1"),
        *rules_like(f"{ours}.mlp.down", f"{theirs}.fc2"),
        *rules_like(f"{ours}.mlp_norm", f"{theirs}.final_layer_norm"),
        *rules_like(f"{side}.stack.final_norm", f"{{base}}{side}.layer_norm"),
    )  # fmt: skip


SHARED, APART = "{base}shared.weight", "decoder.stem.tokens.weight"
RULES = (
    Rule("encoder.stem.tokens.weight", (SHARED,), unless=APART),
    # Where each side has its own, the published code still holds a shared table, and never reads it.
    Rule("encoder.stem.tokens.weight", ("{base}encoder.embed_tokens.weight",), also=SHARED, apart=APART, when=APART),
    Rule(APART, ("{base}decoder.embed_tokens.weight",), also=SHARED, apart=APART),
    *_side("encoder"),
    *_side("decoder"),
    Rule("language_model.vocabulary.weight", ("lm_head.weight",)),
    Rule("language_model.bias", ("final_logits_bias",), "row"),
)
KEYS = frozenset(
    [
        "vocab_size", "max_position_embeddings", "d_model", "activation_function", "dropout", "attention_dropout",
        "scale_embedding", "pad_token_id", "decoder_start_token_id", "tie_word_embeddings",
        *(f"{side}_{name}" for side in ("encoder", "decoder") for name in ("layers", "ffn_dim", "attention_heads")),
    ]
)  # fmt: skip
REQUIRES = {
    "is_encoder_decoder": True, "normalize_before": False, "add_final_layer_norm": False, "add_bias_logits": False,
}  # fmt: skip
# Rates of training, doubles of other keys, and what once told variants apart and now holds for all.
INERT = frozenset(
    [
        "activation_dropout", "classifier_dropout", "classif_dropout", "encoder_layerdrop", "decoder_layerdrop",
        "init_std", "num_hidden_layers", "extra_pos_embeddings", "force_bos_token_to_be_generated", "hidden_size",
        "output_past", "save_step",
    ]
)  # fmt: skip
ARCHITECTURES: dict[str, tuple[str, ...]] = {"BartModel": (), "BartForConditionalGeneration": ("language_model",)}


def read_stack(raw: Mapping[str, Any], side: str, norm_place: NormPlace) -> StackConfig:
    """One side's blocks."""
    size = read_int(raw, "d_model", 1024)
    return StackConfig(
        hidden_size=size,
        num_layers=read_int(raw, f"{side}_layers", 12),
        num_heads=read_int(raw, f"{side}_attention_heads", 16),
        mlp_size=read_int(raw, f"{side}_ffn_dim", 4096),
        mask="causal" if side == "decoder" else "bidirectional",
        norm_place=norm_place,
        norm_eps=1e-5,
        final_norm=norm_place == "pre",
        activation=read_activation(raw, "activation_function", "gelu"),
        dropout=read_float(raw, "dropout", 0.1),
        attention_dropout=read_float(raw, "attention_dropout", 0.0),
        memory_size=size if side == "decoder" else None,
    )


def read_sides(
    raw: Mapping[str, Any],
    parts: Collection[str],
    positions: LearnedPositions | SinusoidalPositions,
    *,
    norm_eps: float | None,
    pad_token_id: int,
    start_token_id: int,
    norm_place: NormPlace = "post",
    shared: bool = True,
) -> EncoderDecoderConfig:
    """``config.json`` → our config, but for how tokens are placed and whether both sides share their table.

    Nothing is shared where ``tie_word_embeddings`` is false.
    """
    tied = bool(raw.get("tie_word_embeddings", True))
    stem = TokenStemConfig(
        vocabulary_size=read_int(raw, "vocab_size", 50265),
        hidden_size=read_int(raw, "d_model", 1024),
        positions=positions,
        norm_eps=norm_eps,
        dropout=read_float(raw, "dropout", 0.1),
        pad_token_id=read_int(raw, "pad_token_id", pad_token_id),
        scaled=bool(raw.get("scale_embedding", False)),
    )
    written = stem.vocabulary_size if shared else read_int(raw, "decoder_vocab_size", stem.vocabulary_size)
    return EncoderDecoderConfig(
        stem, read_stack(raw, "encoder", norm_place),
        replace(stem, vocabulary_size=written), read_stack(raw, "decoder", norm_place),
        read_int(raw, "decoder_start_token_id", start_token_id),
        LanguageModelHeadConfig(tied=tied, bias=True) if "language_model" in parts else None,
        shared_tokens=tied and shared,
    )  # fmt: skip


def write_sides(config: EncoderDecoderConfig) -> dict[str, Any]:
    """Our config → what these families have in common."""
    stem, written = config.encoder_stem, {}
    for side, stack in (("encoder", config.encoder_stack), ("decoder", config.decoder_stack)):
        written[f"{side}_layers"] = stack.num_layers
        written[f"{side}_ffn_dim"] = stack.mlp_size
        written[f"{side}_attention_heads"] = stack.num_heads
    stack = config.encoder_stack
    return {
        "vocab_size": stem.vocabulary_size,
        "d_model": stack.hidden_size,
        **written,
        "activation_function": PUBLISHED_ACTIVATIONS[stack.activation],
        "dropout": stack.dropout,
        "attention_dropout": stack.attention_dropout,
        "scale_embedding": stem.scaled,
        "pad_token_id": stem.pad_token_id,
        "decoder_start_token_id": config.start_token_id,
        "is_encoder_decoder": True,
        "tie_word_embeddings": config.language_model is None or config.language_model.tied,
    }


def read_config(raw: Mapping[str, Any], parts: Collection[str]) -> EncoderDecoderConfig:
    """``config.json`` → our config."""
    positions = LearnedPositions(read_int(raw, "max_position_embeddings", 1024) + FIRST_ROW, FIRST_ROW)
    return read_sides(raw, parts, positions, norm_eps=1e-5, pad_token_id=1, start_token_id=2)


def write_config(config: EncoderDecoderConfig) -> dict[str, Any]:
    """Our config → ``config.json``. Raises ``CheckpointError`` for a vocabulary that is tied to one of two tables."""
    table, head = learned_positions(config.encoder_stem), config.language_model
    if (head is not None and head.tied != config.shared_tokens) or (
        config.encoder_stem.vocabulary_size != config.decoder_stem.vocabulary_size
    ):
        raise CheckpointError("this family ties its vocabulary and both tables of tokens, or none of the three")
    return {
        **write_sides(config),
        "max_position_embeddings": table.max_length,
        "tie_word_embeddings": config.shared_tokens,
    }


FAMILY = Family(
    name="bart",
    base="model.",
    rules=RULES,
    read_config=read_config,
    write_config=write_config,
    keys=KEYS,
    architectures=ARCHITECTURES,
    markers={},
    requires={**REQUIRES, "normalize_embedding": True, "static_position_embeddings": False},
    inert=INERT,
    copies={
        "lm_head.weight": "encoder.stem.tokens.weight",
        "{base}encoder.embed_tokens.weight": "encoder.stem.tokens.weight",
        "{base}decoder.embed_tokens.weight": "encoder.stem.tokens.weight",
    },
)
