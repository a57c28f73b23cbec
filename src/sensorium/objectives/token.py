"""Token classification: one label for each word (names, parts of speech)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sensorium.config import TokenHeadConfig
from sensorium.data.batching import Example
from sensorium.errors import DataError
from sensorium.objectives._base import Batch, Loss, Record, classification_loss, field, label_id, pack, starts
from sensorium.text import Encoding, Tokenizer


@dataclass(frozen=True)
class TokenClassification:
    """Records: ``tokens``, a list of words, and ``tags``, a label each. The first token of a word carries its label."""

    labels: tuple[str, ...]
    max_length: int = 128
    label_smoothing: float = 0.0
    head_dropout: float = 0.1

    def heads(self) -> dict[str, Any]:
        """The token head."""
        return {"token": TokenHeadConfig(self.labels, self.head_dropout)}

    def prepare(self, records: Sequence[Record], tokenizer: Tokenizer) -> list[Example]:
        """Tokenise. Raises ``DataError`` where words and tags do not match or a tag is unknown."""
        ids = {label: i for i, label in enumerate(self.labels)}
        texts, all_tags = [], []
        for number, record in enumerate(records, 1):
            words, tags = list(field(record, "tokens", number)), list(field(record, "tags", number))
            if len(words) != len(tags):
                raise DataError(
                    f"record {number:,} has {len(words)} tokens and {len(tags)} tags; the counts must agree"
                )
            texts.append(words)
            all_tags.append([label_id(ids, tag, number) for tag in tags])
        encoded = tokenizer.encode_batch([" ".join(words) for words in texts], max_length=self.max_length)
        return [_example(encoding, words, tags) for encoding, words, tags in zip(encoded, texts, all_tags, strict=True)]

    def examples(self, prepared: list[Example], generator: np.random.Generator) -> list[Example]:
        """The same every epoch."""
        return prepared

    def collate(self, examples: Sequence[Example], tokenizer: Tokenizer, generator: np.random.Generator) -> Batch:
        """Pack; targets: ``token_rows`` [M] rows with a label, ``token`` [M] their labels."""
        rows = [example.labels["rows"] + start for example, start in zip(examples, starts(examples), strict=True)]
        targets = np.concatenate([example.labels["token"] for example in examples])
        return Batch(
            pack(examples),
            {"token_rows": torch.from_numpy(np.concatenate(rows)), "token": torch.from_numpy(targets)},
            {"token": len(targets)},
        )

    def losses(self, model: Any, batch: Batch) -> dict[str, Loss]:
        """Cross-entropy over the labels, on the first token of each word."""
        hidden_states = model(batch.packed)[batch.targets["token_rows"]]  # [M, D]
        logits = model.token_logits(hidden_states)  # [M, C]
        return {"token": classification_loss(logits, batch.targets["token"], label_smoothing=self.label_smoothing)}


def _example(encoding: Encoding, words: list[str], tags: list[int]) -> Example:
    """The words stand in the text with one space between them: a token at a word's first character is its first."""
    begins = np.cumsum([0, *(len(word) + 1 for word in words)])[:-1]
    word_at = {int(begin): i for i, begin in enumerate(begins)}
    rows, labels = [], []
    for row, ((start, _), sequence) in enumerate(zip(encoding.offsets, encoding.sequence_ids, strict=True)):
        word = word_at.pop(start, None) if sequence is not None else None
        if word is not None:
            rows.append(row)
            labels.append(tags[word])
    return Example(
        np.asarray(encoding.token_ids, np.int32),
        None,
        {"rows": np.asarray(rows, np.int64), "token": np.asarray(labels, np.int64)},
    )
