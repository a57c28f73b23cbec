"""GPT-2 (Radford et al., 2019): pre-norm causal decoder, learned positions; its matrices are stored transposed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sensorium.config import (
    DecoderConfig,
    LanguageModelHeadConfig,
    LearnedPositions,
    StackConfig,
    TokenStemConfig,
    learned_positions,
)
from sensorium.errors import CheckpointError
from sensorium.families._fields import PUBLISHED_ACTIVATIONS, read_activation, read_float, read_int
from sensorium.families._table import Family, Rule, rules_like

LAYER = "{base}h.{i}"

# The published layers are "Conv1D": y = x W + b with W [in, out], the transpose of a linear layer's weight.
RULES = (
    Rule("stem.tokens.weight", ("{base}wte.weight",)),
    Rule("stem.positions.weight", ("{base}wpe.weight",)),
    *rules_like("stack.layers.{i}.attention_norm", f"{LAYER}.ln_1"),
    *rules_like("stack.layers.{i}.attention.qkv", f"{LAYER}.attn.c_attn", "transpose"),
    *rules_like("stack.layers.{i}.attention.output", f"{LAYER}.attn.c_proj", "transpose"),
    *rules_like("stack.layers.{i}.mlp_norm", f"{LAYER}.ln_2"),
    *rules_like("stack.layers.{i}.mlp.up", f"{LAYER}.mlp.c_fc", "transpose"),
    *rules_like("stack.layers.{i}.mlp.down", f"{LAYER}.mlp.c_proj", "transpose"),
    *rules_like("stack.final_norm", "{base}ln_f"),
    Rule("language_model.vocabulary.weight", ("lm_head.weight",)),
)


def read_config(raw: Mapping[str, Any], parts: Collection[str]) -> DecoderConfig:
    """``config.json`` → our config. Raises ``CheckpointError`` for dropouts that differ between attention and MLP."""
    size = read_int(raw, "n_embd", 768)
    positions = read_int(raw, "n_positions", 1024)
    if raw.get("n_ctx", positions) != positions:
        raise CheckpointError(f"config.json: n_ctx is {raw['n_ctx']}, n_positions {positions}; they must agree")
    inner = raw.get("n_inner")
    return DecoderConfig(
        stem=TokenStemConfig(
            vocabulary_size=read_int(raw, "vocab_size", 50257),
            hidden_size=size,
            positions=LearnedPositions(positions),
            dropout=read_float(raw, "embd_pdrop", 0.1),
        ),
        stack=StackConfig(
            hidden_size=size,
            num_layers=read_int(raw, "n_layer", 12),
            num_heads=read_int(raw, "n_head", 12),
            mlp_size=4 * size if inner is None else read_int(raw, "n_inner"),
            mask="causal",
            norm_place="pre",
            norm_eps=read_float(raw, "layer_norm_epsilon", 1e-5),
            final_norm=True,
            activation=read_activation(raw, "activation_function", "gelu_new"),
            attention_scale=None if raw.get("scale_attn_weights", True) else 1.0,
            dropout=read_float(raw, "resid_pdrop", 0.1),
            attention_dropout=read_float(raw, "attn_pdrop", 0.1),
        ),
        language_model=LanguageModelHeadConfig(bool(raw.get("tie_word_embeddings", True)))
        if "language_model" in parts
        else None,
    )


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """Our config → ``config.json``."""
    stem, stack = config.stem, config.stack
    return {
        "vocab_size": stem.vocabulary_size,
        "n_positions": learned_positions(stem).size,
        "n_embd": stack.hidden_size,
        "n_layer": stack.num_layers,
        "n_head": stack.num_heads,
        "n_inner": stack.mlp_size,
        "activation_function": PUBLISHED_ACTIVATIONS[stack.activation],
        "layer_norm_epsilon": stack.norm_eps,
        "embd_pdrop": stem.dropout,
        "resid_pdrop": stack.dropout,
        "attn_pdrop": stack.attention_dropout,
        "scale_attn_weights": stack.attention_scale is None,
        "tie_word_embeddings": config.language_model is None or config.language_model.tied,
    }


FAMILY = Family(
    name="gpt2",
    base="transformer.",
    rules=RULES,
    read_config=read_config,
    write_config=write_config,
    keys=frozenset(
        [
            "vocab_size",
            "n_positions",
            "n_ctx",
            "n_embd",
            "n_layer",
            "n_head",
            "n_inner",
            "activation_function",
            "layer_norm_epsilon",
            "embd_pdrop",
            "resid_pdrop",
            "attn_pdrop",
            "scale_attn_weights",
            "tie_word_embeddings",
            "pad_token_id",
        ]
    ),
    architectures={"GPT2Model": (), "GPT2LMHeadModel": ("language_model",)},
    markers={},
    requires={"scale_attn_by_inverse_layer_idx": False},
    inert=frozenset(
        # reorder_and_upcast_attn guards fp16 overflow; the formula is the same. The summary_ keys belong to a head
        # (GPT2DoubleHeads) whose weights, if there, are refused as left over.
        [
            "reorder_and_upcast_attn",
            "summary_type",
            "summary_use_proj",
            "summary_activation",
            "summary_proj_to_labels",
            "summary_first_dropout",
        ]
    ),
    ignored=("{base}h.{i}.attn.bias", "{base}h.{i}.attn.masked_bias"),
    copies={"lm_head.weight": "stem.tokens.weight"},
)
