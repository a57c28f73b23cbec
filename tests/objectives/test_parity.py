"""Every objective's loss is the one `transformers` computes on the same weights and the same targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from sensorium.checkpoint import open_checkpoint
from sensorium.objectives._base import Batch, Loss, total_counts, weighted
from sensorium.objectives.causal import CausalLanguageModel
from sensorium.objectives.masked_token import MaskedToken
from sensorium.objectives.sequence import SequenceClassification
from sensorium.objectives.span import SpanAnswering
from sensorium.objectives.token import TokenClassification
from sensorium.text import Tokenizer

IGNORED = -100


@pytest.fixture
def settings(tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "vocab_size": tokenizer.vocabulary_size, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 48, "max_position_embeddings": 128, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0, "initializer_range": 0.3,
    }  # fmt: skip


def padded(batch: Batch, tensor: torch.Tensor, fill: int) -> torch.Tensor:
    """[T] → [N, L]."""
    return torch.nn.utils.rnn.pad_sequence(list(batch.packed.split(tensor)), batch_first=True, padding_value=fill)


def inputs(batch: Batch) -> dict[str, torch.Tensor]:
    packed = batch.packed
    mask = padded(batch, torch.ones_like(packed.values), 0)
    values: dict[str, torch.Tensor] = {"input_ids": padded(batch, packed.values, 0), "attention_mask": mask}
    if packed.segment_ids is not None:
        values["token_type_ids"] = padded(batch, packed.segment_ids, 0)
    return values


def at_rows(batch: Batch, rows: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Labels [N, L], ignored where there is none."""
    labels = torch.full((batch.packed.num_tokens,), IGNORED)
    labels[rows] = targets
    return padded(batch, labels, IGNORED)


def compare(peer: Any, folder: Path, objective: Any, batch: Batch, labels: dict[str, torch.Tensor]) -> dict[str, Loss]:
    """The same mean loss, and the same gradient on the token table."""
    peer.save_pretrained(folder)
    expected = peer(**inputs(batch), **labels).loss
    model = open_checkpoint(folder).model
    losses: dict[str, Loss] = objective.losses(model, batch)
    ours = weighted(losses, total_counts([batch]))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    ours.backward()
    expected.backward()
    table = peer.get_input_embeddings().weight
    torch.testing.assert_close(model.stem.tokens.weight.grad, table.grad, rtol=1e-3, atol=1e-6)
    return losses


def collated(objective: Any, records: list[dict[str, Any]], tokenizer: Tokenizer) -> Batch:
    generator = np.random.default_rng(0)
    batch: Batch = objective.collate(
        objective.examples(objective.prepare(records, tokenizer), generator), tokenizer, generator
    )
    return batch


def test_masked_token_with_next_sentence(
    settings: dict[str, Any], tokenizer: Tokenizer, documents: list[dict[str, str]], tmp_path: Path
) -> None:
    peer = transformers.BertForPreTraining(transformers.BertConfig(**settings)).eval()
    objective = MaskedToken(max_length=48, sentences="next")
    batch = collated(objective, documents * 2, tokenizer)
    targets = batch.targets
    labels = {
        "labels": at_rows(batch, targets["rows"], targets["masked_token"]),
        "next_sentence_label": targets["next_sentence"],
    }
    losses = compare(peer, tmp_path, objective, batch, labels)
    logits = peer(**inputs(batch)).prediction_logits
    right = (logits.argmax(-1) == labels["labels"]).sum()
    assert losses["masked_token"].correct == int(right)


def test_causal_language_model(
    settings: dict[str, Any], tokenizer: Tokenizer, documents: list[dict[str, str]], tmp_path: Path
) -> None:
    config = transformers.GPT2Config(
        vocab_size=settings["vocab_size"], n_embd=32, n_layer=2, n_head=4, n_positions=128, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, initializer_range=0.3,
    )  # fmt: skip
    objective = CausalLanguageModel(max_length=24)
    batch = collated(objective, documents, tokenizer)
    labels = padded(batch, batch.packed.values, IGNORED)
    compare(transformers.GPT2LMHeadModel(config).eval(), tmp_path, objective, batch, {"labels": labels})


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_sequence_classification(
    settings: dict[str, Any], tokenizer: Tokenizer, documents: list[dict[str, str]], tmp_path: Path, smoothing: float
) -> None:
    labels = ("bad", "fair", "good")
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    config = transformers.BertConfig(**settings, **names)
    records = [
        {**document, "pair": "The storm came.", "label": label}
        for document, label in zip(documents, ["good", "bad", "good"], strict=True)
    ]
    objective = SequenceClassification(labels, label_smoothing=smoothing)
    batch = collated(objective, records, tokenizer)
    peer = transformers.BertForSequenceClassification(config).eval()
    if not smoothing:
        compare(peer, tmp_path, objective, batch, {"labels": torch.tensor([2, 0, 2])})
        return
    peer.save_pretrained(tmp_path)
    smoother = transformers.trainer_pt_utils.LabelSmoother(epsilon=smoothing)
    expected = smoother(peer(**inputs(batch)), torch.tensor([2, 0, 2]))
    loss = objective.losses(open_checkpoint(tmp_path).model, batch)["sequence"]
    torch.testing.assert_close(loss.total / loss.count, expected, rtol=1e-5, atol=1e-5)


def test_token_classification(settings: dict[str, Any], tokenizer: Tokenizer, tmp_path: Path) -> None:
    config = transformers.BertConfig(**settings, id2label={0: "O", 1: "PER"}, label2id={"O": 0, "PER": 1})
    records = [
        {"tokens": ["Anna", "remembered", "unforgettable", "storms"], "tags": ["PER", "O", "O", "O"]},
        {"tokens": ["Keepers", "met", "Bob"], "tags": ["O", "O", "PER"]},
    ]
    objective = TokenClassification(("O", "PER"))
    batch = collated(objective, records, tokenizer)
    labels = at_rows(batch, batch.targets["token_rows"], batch.targets["token"])
    compare(transformers.BertForTokenClassification(config).eval(), tmp_path, objective, batch, {"labels": labels})


@pytest.mark.parametrize("answer", ["railway bridge", ""])
def test_span_answering(settings: dict[str, Any], tokenizer: Tokenizer, tmp_path: Path, answer: str) -> None:
    context = "Engineers rebuilt the railway bridge. Fishermen mended their nets."
    record = {"question": "What was rebuilt?", "context": context, "answer": answer, "answer_start": 22}
    objective = SpanAnswering(max_length=64, stride=16)
    # One sequence: in a padded batch transformers spreads the softmax over the padding too.
    batch = collated(objective, [record], tokenizer)
    assert batch.packed.num_sequences == 1
    labels = {"start_positions": batch.targets["start"], "end_positions": batch.targets["end"]}
    peer = transformers.BertForQuestionAnswering(transformers.BertConfig(**settings)).eval()
    compare(peer, tmp_path, objective, batch, labels)
