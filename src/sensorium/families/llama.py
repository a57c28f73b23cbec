"""Llama (Touvron et al., 2023) and the families that are settings of it: pre-norm causal decoders with RMSNorm, rotary
positions, gated MLPs, and often fewer heads of keys and values than of queries."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from sensorium.config import (
    DecoderConfig,
    LanguageModelHeadConfig,
    LinearScaling,
    Llama3Scaling,
    RotaryPositions,
    StackConfig,
    TokenStemConfig,
    YarnScaling,
)
from sensorium.errors import CheckpointError
from sensorium.families._fields import PUBLISHED_ACTIVATIONS, read_activation, read_float, read_int
from sensorium.families._table import Family, Rule, rules_like

LAYER = "{base}layers.{i}"
ATTENTION = f"{LAYER}.self_attn"
RULES = (
    Rule("stem.tokens.weight", ("{base}embed_tokens.weight",)),
    *rules_like("stack.layers.{i}.attention_norm", f"{LAYER}.input_layernorm", bias=False),
    *rules_like(
        "stack.layers.{i}.attention.qkv",
        (f"{ATTENTION}.q_proj", f"{ATTENTION}.k_proj", f"{ATTENTION}.v_proj"),
        "join",
    ),
    *rules_like("stack.layers.{i}.attention.query_norm", f"{ATTENTION}.q_norm", bias=False),
    *rules_like("stack.layers.{i}.attention.key_norm", f"{ATTENTION}.k_norm", bias=False),
    *rules_like("stack.layers.{i}.attention.output", f"{ATTENTION}.o_proj"),
    *rules_like("stack.layers.{i}.mlp_norm", f"{LAYER}.post_attention_layernorm", bias=False),
    *rules_like("stack.layers.{i}.mlp.gate", f"{LAYER}.mlp.gate_proj"),
    *rules_like("stack.layers.{i}.mlp.up", f"{LAYER}.mlp.up_proj"),
    *rules_like("stack.layers.{i}.mlp.down", f"{LAYER}.mlp.down_proj"),
    *rules_like("stack.final_norm", "{base}norm", bias=False),
    Rule("language_model.vocabulary.weight", ("lm_head.weight",)),
)  # fmt: skip
KEYS = frozenset(
    [
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "rms_norm_eps", "attention_dropout",
        "tie_word_embeddings", "rope_theta", "rope_scaling", "rope_parameters", "pad_token_id",
    ]
)  # fmt: skip


# What an object of rotary positions may say, by its type, beside the type and the base.
SCALINGS: dict[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset(["factor"]),
    "llama3": frozenset(["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"]),
    "yarn": frozenset(
        [
            "factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale",
            "mscale_all_dim", "truncate", "finetuned",
        ]
    ),
}  # fmt: skip


def read_decoder(
    raw: Mapping[str, Any],
    parts: Collection[str],
    *,
    biases: Collection[str],
    kv_heads: int | None = None,
    qk_norm: bool = False,
    window: int | None = None,
) -> DecoderConfig:
    """``config.json`` → our config, but for what families say in their own ways.

    ``kv_heads`` is how many there are where the file does not say; ``None``: as many as heads.
    """
    size, heads = read_int(raw, "hidden_size", 4096), read_int(raw, "num_attention_heads", 32)
    own = None if raw.get("head_dim") is None else read_int(raw, "head_dim")
    shared = raw.get("num_key_value_heads", kv_heads)
    shared = heads if shared is None else read_int({"num_key_value_heads": shared}, "num_key_value_heads")
    return DecoderConfig(
        stem=TokenStemConfig(
            vocabulary_size=read_int(raw, "vocab_size", 32000),
            hidden_size=size,
            positions=None,
            pad_token_id=None if raw.get("pad_token_id") is None else read_int(raw, "pad_token_id"),
        ),
        stack=StackConfig(
            hidden_size=size,
            num_layers=read_int(raw, "num_hidden_layers", 32),
            num_heads=heads,
            mlp_size=read_int(raw, "intermediate_size", 11008),
            mask="causal",
            norm_place="pre",
            norm="rms",
            norm_eps=read_float(raw, "rms_norm_eps", 1e-6),
            final_norm=True,
            mlp="gated",
            activation=read_activation(raw, "hidden_act", "silu"),
            attention_dropout=read_float(raw, "attention_dropout", 0.0),
            biases=frozenset(biases),
            num_kv_heads=None if shared == heads else shared,
            own_head_size=None if own is None or own * heads == size else own,
            qk_norm=qk_norm,
            rotary=read_rotary(raw),
            window=window,
        ),
        language_model=LanguageModelHeadConfig(bool(raw.get("tie_word_embeddings", False)))
        if "language_model" in parts
        else None,
    )  # fmt: skip


def read_rotary(raw: Mapping[str, Any]) -> RotaryPositions:
    """Positions as version 5 of transformers writes them (``rope_parameters``) or as version 4 did.

    Raises ``CheckpointError`` for a scaling that is not implemented.
    """
    said = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(said, Mapping):
        raise CheckpointError(f"config.json: the rotary positions are {said!r}; an object is expected")
    said = {key: value for key, value in said.items() if value is not None}
    kind = said.get("rope_type", said.get("type", "default"))
    if kind not in SCALINGS:
        raise CheckpointError(f"config.json: rotary positions of type {kind!r}; known are {', '.join(SCALINGS)}")
    if unknown := sorted(set(said) - SCALINGS[kind] - {"rope_type", "type", "rope_theta", "partial_rotary_factor"}):
        raise CheckpointError(f"config.json: rotary positions of type {kind!r} say {unknown[0]!r}, which is not known")
    length = read_int(raw, "max_position_embeddings", 2048)
    scaling: LinearScaling | Llama3Scaling | YarnScaling | None = None
    if kind == "linear":
        scaling = LinearScaling(read_float(said, "factor", 1.0))
    elif kind == "llama3":
        scaling = Llama3Scaling(
            read_float(said, "factor", 8.0),
            read_float(said, "low_freq_factor", 1.0),
            read_float(said, "high_freq_factor", 4.0),
            read_int(said, "original_max_position_embeddings", 8192),
        )
    elif kind == "yarn":
        scaling = _read_yarn(said, length)
        length = max(length, int(scaling.factor * scaling.original_length))
    if float(said.get("partial_rotary_factor", raw.get("partial_rotary_factor", 1.0))) != 1.0:
        raise CheckpointError("config.json: partial_rotary_factor is not 1; only whole heads are turned here")
    base = read_float(said if "rope_theta" in said else raw, "rope_theta", 10_000.0)
    if base <= 1.0:
        raise CheckpointError(f"config.json: rope_theta is {base}; more than 1 is expected")
    return RotaryPositions(length, base, scaling)


def _read_yarn(said: Mapping[str, Any], length: int) -> YarnScaling:
    """The attention factor is 0.1 · ln(factor) + 1 where the file says none (Peng et al., 2023, §3.4)."""
    original = read_int(said, "original_max_position_embeddings", length)
    factor = read_float(said, "factor", length / max(original, 1))
    if original < 1 or factor < 1.0:
        raise CheckpointError(f"config.json: positions made for {original} tokens can't be scaled by {factor}")

    def growth(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0

    some, all_dims = read_float(said, "mscale", 0.0), read_float(said, "mscale_all_dim", 0.0)
    inferred = growth(some) / growth(all_dims) if some and all_dims else growth(1.0)
    return YarnScaling(
        factor, original,
        read_float(said, "attention_factor", inferred),
        read_float(said, "beta_fast", 32.0) or 32.0, read_float(said, "beta_slow", 1.0) or 1.0,
        bool(said.get("truncate", True)),
    )  # fmt: skip


def write_rotary(rotary: RotaryPositions) -> dict[str, Any]:
    """The same as ``config.json`` says it: keys that both versions read."""
    scaling: dict[str, Any] | None = None
    if isinstance(rotary.scaling, LinearScaling):
        scaling = {"rope_type": "linear", "factor": rotary.scaling.factor}
    elif isinstance(rotary.scaling, YarnScaling):
        scaling = {
            "rope_type": "yarn",
            "factor": rotary.scaling.factor,
            "original_max_position_embeddings": rotary.scaling.original_length,
            "attention_factor": rotary.scaling.attention_factor,
            "beta_fast": rotary.scaling.fast,
            "beta_slow": rotary.scaling.slow,
            "truncate": rotary.scaling.whole,
        }
    elif rotary.scaling is not None:
        scaling = {
            "rope_type": "llama3",
            "factor": rotary.scaling.factor,
            "low_freq_factor": rotary.scaling.low_frequency_factor,
            "high_freq_factor": rotary.scaling.high_frequency_factor,
            "original_max_position_embeddings": rotary.scaling.original_length,
        }
    return {"max_position_embeddings": rotary.max_length, "rope_theta": rotary.base, "rope_scaling": scaling}


def write_decoder(config: DecoderConfig) -> dict[str, Any]:
    """Our config → what these families have in common."""
    stem, stack = config.stem, config.stack
    assert stack.rotary is not None
    return {
        "vocab_size": stem.vocabulary_size,
        "hidden_size": stack.hidden_size,
        "intermediate_size": stack.mlp_size,
        "num_hidden_layers": stack.num_layers,
        "num_attention_heads": stack.num_heads,
        "num_key_value_heads": stack.kv_heads,
        "head_dim": stack.head_size,
        "hidden_act": PUBLISHED_ACTIVATIONS[stack.activation],
        "rms_norm_eps": stack.norm_eps,
        "attention_dropout": stack.attention_dropout,
        "tie_word_embeddings": config.language_model is not None and config.language_model.tied,
        "pad_token_id": stem.pad_token_id,
        **write_rotary(stack.rotary),
    }


def read_config(raw: Mapping[str, Any], parts: Collection[str]) -> DecoderConfig:
    """``config.json`` → our config."""
    said = {"qkv": "attention_bias", "output": "attention_bias", "mlp": "mlp_bias"}
    return read_decoder(raw, parts, biases=[name for name, key in said.items() if raw.get(key, False)])


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """Our config → ``config.json``."""
    biases = config.stack.biases
    return {**write_decoder(config), "attention_bias": "qkv" in biases, "mlp_bias": "mlp" in biases}


FAMILY = Family(
    name="llama",
    base="model.",
    rules=RULES,
    read_config=read_config,
    write_config=write_config,
    keys=KEYS | {"attention_bias", "mlp_bias"},
    architectures={"LlamaModel": (), "LlamaForCausalLM": ("language_model",)},
    markers={},
    # It splits products for tensor parallelism; the sums are the same.
    inert=frozenset(["pretraining_tp", "rope_interleaved", "is_llama_config"]),
    ignored=("{base}layers.{i}.self_attn.rotary_emb.inv_freq", "{base}rotary_emb.inv_freq"),
    copies={"lm_head.weight": "stem.tokens.weight"},
)
