"""T5 (Raffel et al., 2020), its version 1.1 and FLAN-T5: pre-norm stacks with RMSNorm and relative positions, no
biases, and scores that are not scaled. Version 1.1 has gated MLPs and a vocabulary matrix of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sensorium.config import (
    EncoderDecoderConfig,
    LanguageModelHeadConfig,
    RelativePositions,
    StackConfig,
    TokenStemConfig,
)
from sensorium.errors import CheckpointError
from sensorium.families._fields import PUBLISHED_ACTIVATIONS, read_activation, read_float, read_int
from sensorium.families._table import Family, Rule, rules_like


def _side(side: str, mlp: int) -> tuple[Rule, ...]:
    """One stack; ``mlp`` is the number of its blocks' MLP: self-attention, attention to the encoder, MLP."""
    ours, theirs = f"{side}.stack.layers.{{i}}", f"{side}.block.{{i}}.layer"
    attention, memory, dense = f"{theirs}.0.SelfAttention", f"{theirs}.1.EncDecAttention", f"{theirs}.{mlp}"
    up, up_name, gate = f"{ours}.mlp.up.weight", f"{dense}.DenseReluDense.wi", f"{ours}.mlp.gate.weight"
    first = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"  # all blocks share the first one's
    return (
        Rule(f"{side}.stack.relative.weight", (first,)),
        *rules_like(f"{ours}.attention_norm", f"{theirs}.0.layer_norm", bias=False),
        *rules_like(
            f"{ours}.attention.qkv", tuple(f"{attention}.{name}" for name in ("q", "k", "v")), "join", bias=False
        ),
        *rules_like(f"{ours}.attention.output", f"{attention}.o", bias=False),
        *rules_like(f"{ours}.memory_norm", f"{theirs}.1.layer_norm", bias=False),
        *rules_like(f"{ours}.memory_attention.query", f"{memory}.q", bias=False),
        *rules_like(f"{ours}.memory_attention.key_value", (f"{memory}.k", f"{memory}.v"), "join", bias=False),
        *rules_like(f"{ours}.memory_attention.output", f"{memory}.o", bias=False),
        *rules_like(f"{ours}.mlp_norm", f"{dense}.layer_norm", bias=False),
        Rule(up, (f"{up_name}.weight",), unless=gate),
        Rule(up, (f"{up_name}_1.weight",), when=gate),
        Rule(gate, (f"{up_name}_0.weight",)),
        *rules_like(f"{ours}.mlp.down", f"{dense}.DenseReluDense.wo", bias=False),
        *rules_like(f"{side}.stack.final_norm", f"{side}.final_layer_norm", bias=False),
    )


RULES = (
    Rule("encoder.stem.tokens.weight", ("shared.weight",)),
    *_side("encoder", mlp=1),
    *_side("decoder", mlp=2),
    Rule("language_model.vocabulary.weight", ("lm_head.weight",)),
)
KEYS = frozenset(
    [
        "vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads", "dropout_rate",
        "relative_attention_num_buckets", "relative_attention_max_distance", "layer_norm_epsilon", "feed_forward_proj",
        "dense_act_fn", "is_gated_act", "pad_token_id", "decoder_start_token_id", "tie_word_embeddings", "n_positions",
    ]
)  # fmt: skip
# Rates of training, and doubles of other keys.
INERT = frozenset(["initializer_factor", "classifier_dropout", "output_past", "hidden_size", "num_attention_heads"])


def read_stack(raw: Mapping[str, Any], side: str, *, max_length: int) -> StackConfig:
    """One side's blocks. Raises ``CheckpointError`` where the file contradicts itself."""
    size, heads, layers = read_int(raw, "d_model", 512), read_int(raw, "num_heads", 8), read_int(raw, "num_layers", 6)
    own = read_int(raw, "d_kv", 64)
    if side == "decoder" and raw.get("num_decoder_layers") is not None:
        layers = read_int(raw, "num_decoder_layers")
    kind = str(raw.get("feed_forward_proj", "relu"))
    gated, name = kind.startswith("gated-"), kind.removeprefix("gated-")
    name = "gelu_new" if kind == "gated-gelu" else name  # as it was trained, whatever it is called
    said = raw.get("is_gated_act", gated), raw.get("dense_act_fn", name)
    if said != (gated, name):
        raise CheckpointError(f"config.json: feed_forward_proj is {kind!r}, and {said[1]!r} is said to be its function")
    rate = read_float(raw, "dropout_rate", 0.1)
    return StackConfig(
        hidden_size=size,
        num_layers=layers,
        num_heads=heads,
        mlp_size=read_int(raw, "d_ff", 2048),
        mask="causal" if side == "decoder" else "bidirectional",
        norm_place="pre",
        norm_eps=read_float(raw, "layer_norm_epsilon", 1e-6),
        final_norm=True,
        activation=read_activation({"feed_forward_proj": name}, "feed_forward_proj", name),
        attention_scale=1.0,
        dropout=rate,
        attention_dropout=rate,
        norm="rms",
        mlp="gated" if gated else "plain",
        biases=frozenset(),
        own_head_size=None if own * heads == size else own,
        relative=RelativePositions(
            read_int(raw, "relative_attention_num_buckets", 32),
            read_int(raw, "relative_attention_max_distance", 128),
            read_int(raw, "n_positions", max_length),
        ),
        memory_size=size if side == "decoder" else None,
    )


def read_sides(
    raw: Mapping[str, Any], parts: Collection[str], *, max_length: int, scaled: bool
) -> EncoderDecoderConfig:
    """``config.json`` → our config, but for the length of texts and whether what meets the vocabulary is scaled."""
    stem = TokenStemConfig(
        vocabulary_size=read_int(raw, "vocab_size", 32128),
        hidden_size=read_int(raw, "d_model", 512),
        positions=None,
        dropout=read_float(raw, "dropout_rate", 0.1),
        pad_token_id=read_int(raw, "pad_token_id", 0),
    )
    head = LanguageModelHeadConfig(tied="vocabulary" not in parts, scaled=scaled)
    return EncoderDecoderConfig(
        stem, read_stack(raw, "encoder", max_length=max_length),
        stem, read_stack(raw, "decoder", max_length=max_length),
        read_int(raw, "decoder_start_token_id", read_int(raw, "pad_token_id", 0)),
        head if "language_model" in parts else None,
    )  # fmt: skip


def write_sides(config: EncoderDecoderConfig) -> dict[str, Any]:
    """Our config → what these families have in common."""
    stem, stack, head = config.encoder_stem, config.encoder_stack, config.language_model
    exact = stack.mlp == "gated" and stack.activation == "gelu"
    if exact or stack.relative is None:
        raise CheckpointError("this family has relative positions, and no gated MLP with the exact GELU")
    activation = PUBLISHED_ACTIVATIONS[stack.activation]
    if stack.mlp == "gated":
        activation = "gated-gelu" if stack.activation == "gelu_tanh" else f"gated-{activation}"
    return {
        "vocab_size": stem.vocabulary_size,
        "d_model": stack.hidden_size,
        "d_kv": stack.head_size,
        "d_ff": stack.mlp_size,
        "num_layers": stack.num_layers,
        "num_decoder_layers": config.decoder_stack.num_layers,
        "num_heads": stack.num_heads,
        "relative_attention_num_buckets": stack.relative.buckets,
        "relative_attention_max_distance": stack.relative.max_distance,
        "n_positions": stack.relative.max_length,
        "dropout_rate": stack.dropout,
        "layer_norm_epsilon": stack.norm_eps,
        "feed_forward_proj": activation,
        "pad_token_id": stem.pad_token_id,
        "decoder_start_token_id": config.start_token_id,
        "is_encoder_decoder": True,
        "tie_word_embeddings": head is None or head.tied,
    }


def read_config(raw: Mapping[str, Any], parts: Collection[str]) -> EncoderDecoderConfig:
    """``config.json`` → our config. Older files say by ``tie_word_embeddings`` alone what is scaled."""
    scaled = bool(raw.get("scale_decoder_outputs", raw.get("tie_word_embeddings", True)))
    return read_sides(raw, parts, max_length=512, scaled=scaled)


def write_config(config: EncoderDecoderConfig) -> dict[str, Any]:
    """Our config → ``config.json``."""
    head = config.language_model
    return {**write_sides(config), "scale_decoder_outputs": head is None or head.scaled}


FAMILY = Family(
    name="t5",
    base="",
    rules=RULES,
    read_config=read_config,
    write_config=write_config,
    keys=KEYS | {"scale_decoder_outputs"},
    architectures={
        "T5Model": (),
        "T5ForConditionalGeneration": ("language_model",),
        "T5WithLMHeadModel": ("language_model",),
    },
    markers={"vocabulary": "lm_head.weight"},
    requires={"is_encoder_decoder": True},
    inert=INERT,
    # A table that old files have, and that nothing was ever added from.
    ignored=("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",),
    copies={
        "encoder.embed_tokens.weight": "encoder.stem.tokens.weight",
        "decoder.embed_tokens.weight": "encoder.stem.tokens.weight",
    },
)
