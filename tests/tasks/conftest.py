"""Tiny random models, saved by transformers with a real vocabulary trained on the spot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from sensorium.text import Tokenizer
from sensorium.text.training import train_byte_level_bpe, train_wordpiece

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

    def save(name: str, config: Any, save_tokenizer: Callable[[Path], Any]) -> None:
        torch.manual_seed(len(made))
        model = getattr(transformers, name)(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0.0, 0.25)
        folder = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder)
        save_tokenizer(folder)
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
        save(name, transformers.BertConfig(**sizes, **({} if labels is None else _labels(labels))), wordpiece.save)
    framed = _roberta_tokenizer(bpe)
    roberta = {**sizes, "vocab_size": len(framed), "max_position_embeddings": 42, "pad_token_id": framed.pad_token_id}
    ends = {"bos_token_id": framed.bos_token_id, "eos_token_id": framed.eos_token_id}
    save("RobertaForMaskedLM", transformers.RobertaConfig(**roberta, **ends), framed.save_pretrained)
    save(
        "RobertaForSequenceClassification",
        transformers.RobertaConfig(**roberta, **ends, **_labels(nli)),
        framed.save_pretrained,
    )
    distilbert = transformers.DistilBertConfig(
        dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=40, vocab_size=wordpiece.vocabulary_size,
        **_labels(nli),
    )  # fmt: skip
    save("DistilBertForMaskedLM", distilbert, wordpiece.save)
    save("DistilBertForSequenceClassification", distilbert, wordpiece.save)
    save(
        "GPT2LMHeadModel",
        transformers.GPT2Config(
            n_embd=16, n_layer=2, n_head=2, n_positions=64, vocab_size=bpe.vocabulary_size,
            bos_token_id=bpe.eos_id, eos_token_id=bpe.eos_id,
        ),
        bpe.save,
    )  # fmt: skip
    return made


def _roberta_tokenizer(bpe: Tokenizer) -> Any:
    """The learned pieces under RoBERTa's special tokens."""
    learned = json.loads(bpe.backend.to_str())["model"]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *learned["vocab"], "<mask>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return transformers.RobertaTokenizer(
        vocab=vocabulary, merges=[tuple(pair) for pair in learned["merges"]], model_max_length=40
    )


def _labels(names: dict[int, str]) -> dict[str, Any]:
    return {"id2label": names, "label2id": {name: number for number, name in names.items()}}
