"""Tiny random models, saved by transformers with a real vocabulary trained on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from sensorium.text_training import train_byte_level_bpe, train_wordpiece

TEXTS = (
    "The quick brown fox jumps over the lazy dog. Paris is the capital of France, and Anna lives there.",
    "Machine learning models read words; unbelievable playing, replaying and undoing of things!",
    "今天天气很好，我们去公园玩。这家酒店的房间很干净，服务也不错。",
)
LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Published class → folder with a random model of it and its tokenizer."""
    made: dict[str, Path] = {}
    wordpiece, bpe = train_wordpiece(TEXTS * 3, 400), train_byte_level_bpe(TEXTS * 3, 400)

    def save(name: str, config: Any, tokenizer: Any) -> None:
        torch.manual_seed(len(made))
        model = getattr(transformers, name)(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0.0, 0.25)
        folder = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder)
        tokenizer.save(folder)
        made[name] = folder

    sizes: dict[str, Any] = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
        "max_position_embeddings": 40, "vocab_size": wordpiece.vocabulary_size,
    }  # fmt: skip
    tags = dict(enumerate(LABELS))
    nli = {0: "contradiction", 1: "neutral", 2: "entailment"}
    for name, labels in {
        "BertModel": None,
        "BertForMaskedLM": None,
        "BertForNextSentencePrediction": None,
        "BertForQuestionAnswering": None,
        "BertForSequenceClassification": nli,
        "BertForTokenClassification": tags,
    }.items():
        extra = {} if labels is None else {"id2label": labels, "label2id": {v: k for k, v in labels.items()}}
        save(name, transformers.BertConfig(**sizes, **extra), wordpiece)
    save(
        "GPT2LMHeadModel",
        transformers.GPT2Config(
            n_embd=16, n_layer=2, n_head=2, n_positions=64, vocab_size=bpe.vocabulary_size,
            bos_token_id=bpe.eos_id, eos_token_id=bpe.eos_id,
        ),
        bpe,
    )  # fmt: skip
    return made
