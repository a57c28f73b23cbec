"""BERT (Devlin et al., 2019): post-norm encoder, learned positions, segments, pooler; MLM and NSP heads."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sensorium.config import (
    EncoderConfig,
    LearnedPositions,
    MaskedTokenHeadConfig,
    NextSentenceHeadConfig,
    PoolerConfig,
    SequenceHeadConfig,
    SpanHeadConfig,
    StackConfig,
    TokenHeadConfig,
    TokenStemConfig,
    learned_positions,
)
from sensorium.families._fields import (
    read_activation,
    read_float,
    read_int,
    read_labels,
    read_problem,
    write_labels,
    write_sizes,
)
from sensorium.families._table import Family, Rule, rules_like

LAYER = "{base}encoder.layer.{i}"
SELF = f"{LAYER}.attention.self"

ENCODER_RULES = (
    Rule("stem.tokens.weight", ("{base}embeddings.word_embeddings.weight",)),
    Rule("stem.positions.weight", ("{base}embeddings.position_embeddings.weight",)),
    Rule("stem.segments.weight", ("{base}embeddings.token_type_embeddings.weight",)),
    *rules_like("stem.norm", "{base}embeddings.LayerNorm"),
    *rules_like("stack.layers.{i}.attention.qkv", (f"{SELF}.query", f"{SELF}.key", f"{SELF}.value"), "join"),
    *rules_like("stack.layers.{i}.attention.output", f"{LAYER}.attention.output.dense"),
    *rules_like("stack.layers.{i}.attention_norm", f"{LAYER}.attention.output.LayerNorm"),
    *rules_like("stack.layers.{i}.mlp.up", f"{LAYER}.intermediate.dense"),
    *rules_like("stack.layers.{i}.mlp.down", f"{LAYER}.output.dense"),
    *rules_like("stack.layers.{i}.mlp_norm", f"{LAYER}.output.LayerNorm"),
    *rules_like("pooler.dense", "{base}pooler.dense"),
)
"""What RoBERTa and XLM-RoBERTa share."""

ENCODER_KEYS = frozenset(
    [
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "hidden_act",
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "max_position_embeddings",
        "type_vocab_size",
        "layer_norm_eps",
        "pad_token_id",
        "classifier_dropout",
        "tie_word_embeddings",
    ]
)
HEAD_RULES = (
    *rules_like("masked_token.dense", "cls.predictions.transform.dense"),
    *rules_like("masked_token.norm", "cls.predictions.transform.LayerNorm"),
    Rule("masked_token.vocabulary.weight", ("cls.predictions.decoder.weight",)),
    Rule(
        "masked_token.bias",
        ("cls.predictions.decoder.bias",),
        also="cls.predictions.bias",
        apart="masked_token.vocabulary.weight",
    ),
    *rules_like("next_sentence.classifier", "cls.seq_relationship"),
    *rules_like("sequence.classifier", "classifier"),
    *rules_like("token.classifier", "classifier"),
    *rules_like("span.classifier", "qa_outputs"),
)


def read_stem(raw: Mapping[str, Any], *, offset: int) -> TokenStemConfig:
    """The stem's part of ``config.json``; ``offset`` is the position of the first token."""
    return TokenStemConfig(
        vocabulary_size=read_int(raw, "vocab_size", 30522),
        hidden_size=read_int(raw, "hidden_size", 768),
        positions=LearnedPositions(read_int(raw, "max_position_embeddings", 512), offset),
        num_segments=read_int(raw, "type_vocab_size", 2),
        norm_eps=read_float(raw, "layer_norm_eps", 1e-12),
        dropout=read_float(raw, "hidden_dropout_prob", 0.1),
        pad_token_id=None if raw.get("pad_token_id", 0) is None else read_int(raw, "pad_token_id", 0),
    )


def read_stack(raw: Mapping[str, Any]) -> StackConfig:
    """The stack's part of ``config.json``."""
    return StackConfig(
        hidden_size=read_int(raw, "hidden_size", 768),
        num_layers=read_int(raw, "num_hidden_layers", 12),
        num_heads=read_int(raw, "num_attention_heads", 12),
        mlp_size=read_int(raw, "intermediate_size", 3072),
        norm_eps=read_float(raw, "layer_norm_eps", 1e-12),
        activation=read_activation(raw, "hidden_act", "gelu"),
        dropout=read_float(raw, "hidden_dropout_prob", 0.1),
        attention_dropout=read_float(raw, "attention_probs_dropout_prob", 0.1),
    )


def head_dropout(raw: Mapping[str, Any]) -> float:
    """Dropout before a classifier: its own key, else the stack's."""
    key = "hidden_dropout_prob" if raw.get("classifier_dropout") is None else "classifier_dropout"
    return read_float(raw, key, 0.1)


def read_config(raw: Mapping[str, Any], parts: Collection[str]) -> EncoderConfig:
    """``config.json`` → our config."""
    stack = read_stack(raw)
    tied = bool(raw.get("tie_word_embeddings", True))
    return EncoderConfig(
        stem=read_stem(raw, offset=0),
        stack=stack,
        pooler=PoolerConfig() if "pooler" in parts else None,
        masked_token=MaskedTokenHeadConfig(stack.activation, stack.norm_eps, tied) if "masked_token" in parts else None,
        next_sentence=NextSentenceHeadConfig() if "next_sentence" in parts else None,
        sequence=SequenceHeadConfig(read_labels(raw), None, head_dropout(raw), read_problem(raw))
        if "sequence" in parts
        else None,
        token=TokenHeadConfig(read_labels(raw), head_dropout(raw)) if "token" in parts else None,
        span=SpanHeadConfig() if "span" in parts else None,
    )


def write_encoder(config: EncoderConfig) -> dict[str, Any]:
    """The keys that BERT and RoBERTa share."""
    stem, stack = config.stem, config.stack
    head = config.sequence or config.token
    return {
        "vocab_size": stem.vocabulary_size,
        **write_sizes(stack),
        "hidden_dropout_prob": stack.dropout,
        "attention_probs_dropout_prob": stack.attention_dropout,
        "max_position_embeddings": learned_positions(stem).size,
        "type_vocab_size": stem.num_segments,
        "pad_token_id": stem.pad_token_id,
        "classifier_dropout": None if head is None else head.dropout,
        "tie_word_embeddings": config.masked_token is None or config.masked_token.tied,
        **write_labels(config.sequence, config.token),
    }


FAMILY = Family(
    name="bert",
    base="bert.",
    rules=ENCODER_RULES + HEAD_RULES,
    read_config=read_config,
    write_config=write_encoder,
    keys=ENCODER_KEYS,
    architectures={
        "BertModel": (),
        "BertForPreTraining": ("masked_token", "next_sentence"),
        "BertForMaskedLM": ("masked_token",),
        "BertForNextSentencePrediction": ("next_sentence",),
        "BertForSequenceClassification": ("sequence",),
        "BertForTokenClassification": ("token",),
        "BertForQuestionAnswering": ("span",),
    },
    markers={
        "pooler": "{base}pooler.dense.weight",
        "masked_token": "cls.predictions.transform.dense.weight",
        "next_sentence": "cls.seq_relationship.weight",
        "sequence": "classifier.weight",
        "token": "classifier.weight",
        "span": "qa_outputs.weight",
    },
    requires={"position_embedding_type": "absolute"},
    inert=frozenset(
        [
            "directionality",
            "pooler_fc_size",
            "pooler_num_attention_heads",
            "pooler_num_fc_layers",
            "pooler_size_per_head",
            "pooler_type",
        ]
    ),
    renamed=((".gamma", ".weight"), (".beta", ".bias")),
    ignored=("{base}embeddings.position_ids",),
    copies={"cls.predictions.decoder.weight": "stem.tokens.weight"},
)
