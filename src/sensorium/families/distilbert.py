"""DistilBERT (Sanh et al., 2019): BERT's encoder with half the layers, no segments, no pooler."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sensorium.config import (
    EncoderConfig,
    LearnedPositions,
    MaskedTokenHeadConfig,
    SequenceHeadConfig,
    SpanHeadConfig,
    StackConfig,
    TokenHeadConfig,
    TokenStemConfig,
    learned_positions,
)
from sensorium.errors import CheckpointError
from sensorium.families._fields import (
    PUBLISHED_ACTIVATIONS,
    read_activation,
    read_float,
    read_int,
    read_labels,
    read_problem,
    write_labels,
)
from sensorium.families._table import Family, Rule, rules_like

LAYER = "{base}transformer.layer.{i}"
NORM_EPS = 1e-12
"""Not in the config: the published code has it fixed."""

RULES = (
    Rule("stem.tokens.weight", ("{base}embeddings.word_embeddings.weight",)),
    Rule("stem.positions.weight", ("{base}embeddings.position_embeddings.weight",)),
    *rules_like("stem.norm", "{base}embeddings.LayerNorm"),
    *rules_like(
        "stack.layers.{i}.attention.qkv",
        (f"{LAYER}.attention.q_lin", f"{LAYER}.attention.k_lin", f"{LAYER}.attention.v_lin"),
        "join",
    ),
    *rules_like("stack.layers.{i}.attention.output", f"{LAYER}.attention.out_lin"),
    *rules_like("stack.layers.{i}.attention_norm", f"{LAYER}.sa_layer_norm"),
    *rules_like("stack.layers.{i}.mlp.up", f"{LAYER}.ffn.lin1"),
    *rules_like("stack.layers.{i}.mlp.down", f"{LAYER}.ffn.lin2"),
    *rules_like("stack.layers.{i}.mlp_norm", f"{LAYER}.output_layer_norm"),
    *rules_like("masked_token.dense", "vocab_transform"),
    *rules_like("masked_token.norm", "vocab_layer_norm"),
    Rule("masked_token.vocabulary.weight", ("vocab_projector.weight",)),
    Rule("masked_token.bias", ("vocab_projector.bias",)),
    *rules_like("sequence.pooler.dense", "pre_classifier"),
    *rules_like("sequence.classifier", "classifier"),
    *rules_like("token.classifier", "classifier"),
    *rules_like("span.classifier", "qa_outputs"),
)


def read_config(raw: Mapping[str, Any], parts: Collection[str]) -> EncoderConfig:
    """``config.json`` → our config."""
    size, dropout = read_int(raw, "dim", 768), read_float(raw, "dropout", 0.1)
    activation = read_activation(raw, "activation", "gelu")
    tied = bool(raw.get("tie_word_embeddings", True))
    return EncoderConfig(
        stem=TokenStemConfig(
            vocabulary_size=read_int(raw, "vocab_size", 30522),
            hidden_size=size,
            positions=LearnedPositions(read_int(raw, "max_position_embeddings", 512)),
            norm_eps=NORM_EPS,
            dropout=dropout,
            pad_token_id=None if raw.get("pad_token_id", 0) is None else read_int(raw, "pad_token_id", 0),
        ),
        stack=StackConfig(
            hidden_size=size,
            num_layers=read_int(raw, "n_layers", 6),
            num_heads=read_int(raw, "n_heads", 12),
            mlp_size=read_int(raw, "hidden_dim", 4 * 768),
            norm_eps=NORM_EPS,
            activation=activation,
            dropout=dropout,
            attention_dropout=read_float(raw, "attention_dropout", 0.1),
        ),
        masked_token=MaskedTokenHeadConfig(activation, NORM_EPS, tied) if "masked_token" in parts else None,
        sequence=SequenceHeadConfig(
            read_labels(raw), "relu", read_float(raw, "seq_classif_dropout", 0.2), read_problem(raw)
        )
        if "sequence" in parts
        else None,
        token=TokenHeadConfig(read_labels(raw), dropout) if "token" in parts else None,
        span=SpanHeadConfig(read_float(raw, "qa_dropout", 0.1)) if "span" in parts else None,
    )


def write_config(config: EncoderConfig) -> dict[str, Any]:
    """Our config → ``config.json``. Raises ``CheckpointError`` for what the format cannot say."""
    stem, stack = config.stem, config.stack
    if stem.num_segments or config.pooler or stack.norm_eps != NORM_EPS:
        raise CheckpointError("a DistilBERT has no segments, no pooler and a norm epsilon of 1e-12; save this as bert")
    return {
        "vocab_size": stem.vocabulary_size,
        "dim": stack.hidden_size,
        "n_layers": stack.num_layers,
        "n_heads": stack.num_heads,
        "hidden_dim": stack.mlp_size,
        "activation": PUBLISHED_ACTIVATIONS[stack.activation],
        "dropout": stack.dropout,
        "attention_dropout": stack.attention_dropout,
        "seq_classif_dropout": 0.2 if config.sequence is None else config.sequence.dropout,
        "qa_dropout": 0.1 if config.span is None else config.span.dropout,
        "max_position_embeddings": learned_positions(stem).size,
        "pad_token_id": stem.pad_token_id,
        "tie_word_embeddings": config.masked_token is None or config.masked_token.tied,
        **write_labels(config.sequence, config.token),
    }


FAMILY = Family(
    name="distilbert",
    base="distilbert.",
    rules=RULES,
    read_config=read_config,
    write_config=write_config,
    keys=frozenset(
        [
            "vocab_size",
            "dim",
            "n_layers",
            "n_heads",
            "hidden_dim",
            "activation",
            "dropout",
            "attention_dropout",
            "seq_classif_dropout",
            "qa_dropout",
            "max_position_embeddings",
            "pad_token_id",
            "tie_word_embeddings",
        ]
    ),
    architectures={
        "DistilBertModel": (),
        "DistilBertForMaskedLM": ("masked_token",),
        "DistilBertForSequenceClassification": ("sequence",),
        "DistilBertForTokenClassification": ("token",),
        "DistilBertForQuestionAnswering": ("span",),
    },
    markers={
        "masked_token": "vocab_projector.bias",
        "sequence": "pre_classifier.weight",
        "token": "classifier.weight",
        "span": "qa_outputs.weight",
    },
    # Sinusoids are only how the position table begins; it is stored like any other.
    inert=frozenset({"sinusoidal_pos_embds", "tie_weights_"}),
    ignored=("{base}embeddings.position_ids",),
    copies={"vocab_projector.weight": "stem.tokens.weight"},
)
