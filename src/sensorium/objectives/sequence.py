"""Sequence classification: one label for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sensorium.config import SequenceHeadConfig
from sensorium.data.batching import Example
from sensorium.objectives._base import Batch, Loss, Record, classification_loss, field, label_id, pack
from sensorium.text import Tokenizer


@dataclass(frozen=True)
class SequenceClassification:
    """Records: ``text``, perhaps ``pair``, and ``label``."""

    labels: tuple[str, ...]
    max_length: int = 128
    """Tokens kept of a record; training cuts longer ones (using a model does not: tasks read long texts in windows)."""
    label_smoothing: float = 0.0
    """Szegedy et al., 2016, §7."""
    head_dropout: float = 0.1
    dense: Any = None
    """Activation of the head's own dense layer where the family has one (RoBERTa, DistilBERT)."""

    def heads(self) -> dict[str, Any]:
        """The sequence head."""
        return {"sequence": SequenceHeadConfig(self.labels, self.dense, self.head_dropout)}

    def prepare(self, records: Sequence[Record], tokenizer: Tokenizer) -> list[Example]:
        """Tokenise. Raises ``DataError`` for a record without text or with an unknown label."""
        ids = {label: i for i, label in enumerate(self.labels)}
        targets = [label_id(ids, field(record, "label", i), i) for i, record in enumerate(records, 1)]
        texts = [
            (str(field(record, "text", i)), str(record["pair"]))
            if record.get("pair")
            else str(field(record, "text", i))
            for i, record in enumerate(records, 1)
        ]
        encoded = tokenizer.encode_batch(texts, max_length=self.max_length)
        return [
            Example(
                np.asarray(encoding.token_ids, np.int32),
                np.asarray(encoding.segment_ids, np.int8) if any(encoding.segment_ids) else None,
                {"sequence": target},
            )
            for encoding, target in zip(encoded, targets, strict=True)
        ]

    def examples(self, prepared: list[Example], generator: np.random.Generator) -> list[Example]:
        """The same every epoch."""
        return prepared

    def collate(self, examples: Sequence[Example], tokenizer: Tokenizer, generator: np.random.Generator) -> Batch:
        """Pack; targets: ``sequence`` [N]."""
        targets = torch.tensor([example.labels["sequence"] for example in examples])
        return Batch(pack(examples), {"sequence": targets}, {"sequence": len(examples)})

    def losses(self, model: Any, batch: Batch) -> dict[str, Loss]:
        """Cross-entropy over the labels."""
        logits = self.logits(model, batch)
        return {
            "sequence": classification_loss(logits, batch.targets["sequence"], label_smoothing=self.label_smoothing)
        }

    def logits(self, model: Any, batch: Batch) -> torch.Tensor:
        """[N, C]."""
        logits: torch.Tensor = model.sequence_logits(model(batch.packed), batch.packed)
        return logits
