"""RoBERTa (Liu et al., 2019): BERT without next-sentence prediction; positions count from the padding id + 1."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sensorium.config import (
    EncoderConfig,
    MaskedTokenHeadConfig,
    PoolerConfig,
    SequenceHeadConfig,
    SpanHeadConfig,
    TokenHeadConfig,
)
from sensorium.families._fields import read_int, read_labels, read_problem
from sensorium.families._table import Family, Rule, rules_like
from sensorium.families.bert import ENCODER_KEYS, ENCODER_RULES, head_dropout, read_stack, read_stem, write_encoder

HEAD_RULES = (
    *rules_like("masked_token.dense", "lm_head.dense"),
    *rules_like("masked_token.norm", "lm_head.layer_norm"),
    Rule("masked_token.vocabulary.weight", ("lm_head.decoder.weight",)),
    Rule("masked_token.bias", ("lm_head.decoder.bias",), also="lm_head.bias", apart="masked_token.vocabulary.weight"),
    *rules_like("sequence.pooler.dense", "classifier.dense"),
    *rules_like("sequence.classifier", "classifier.out_proj"),
    *rules_like("token.classifier", "classifier"),
    *rules_like("span.classifier", "qa_outputs"),
)


def read_config(raw: Mapping[str, Any], parts: Collection[str]) -> EncoderConfig:
    """``config.json`` → our config."""
    stack = read_stack(raw)
    tied = bool(raw.get("tie_word_embeddings", True))
    pad_token_id = read_int(raw, "pad_token_id", 1)
    return EncoderConfig(
        stem=read_stem({**raw, "pad_token_id": pad_token_id}, offset=pad_token_id + 1),
        stack=stack,
        pooler=PoolerConfig() if "pooler" in parts else None,
        # The masked-token head has gelu whatever the stack has.
        masked_token=MaskedTokenHeadConfig("gelu", stack.norm_eps, tied) if "masked_token" in parts else None,
        sequence=SequenceHeadConfig(read_labels(raw), "tanh", head_dropout(raw), read_problem(raw))
        if "sequence" in parts
        else None,
        token=TokenHeadConfig(read_labels(raw), head_dropout(raw)) if "token" in parts else None,
        span=SpanHeadConfig() if "span" in parts else None,
    )


def family(name: str, prefix: str) -> Family:
    """RoBERTa under its own name, or under that of a family that differs only in class names."""
    return Family(
        name=name,
        base="roberta.",
        rules=ENCODER_RULES + HEAD_RULES,
        read_config=read_config,
        write_config=write_encoder,
        keys=ENCODER_KEYS,
        architectures={
            f"{prefix}Model": (),
            f"{prefix}ForMaskedLM": ("masked_token",),
            f"{prefix}ForSequenceClassification": ("sequence",),
            f"{prefix}ForTokenClassification": ("token",),
            f"{prefix}ForQuestionAnswering": ("span",),
        },
        markers={
            "pooler": "{base}pooler.dense.weight",
            "masked_token": "lm_head.dense.weight",
            "sequence": "classifier.out_proj.weight",
            "token": "classifier.weight",
            "span": "qa_outputs.weight",
        },
        requires={"position_embedding_type": "absolute"},
        renamed=((".gamma", ".weight"), (".beta", ".bias")),
        ignored=("{base}embeddings.position_ids",),
        copies={"lm_head.decoder.weight": "stem.tokens.weight"},
    )


FAMILY = family("roberta", "Roberta")
