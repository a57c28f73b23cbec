"""Extractive question answering: where in the context the answer begins and ends (Devlin et al., 2019, §4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sensorium.config import SpanHeadConfig
from sensorium.data.batching import Example
from sensorium.errors import DataError
from sensorium.objectives._base import Batch, Loss, Record, field, pack
from sensorium.text import Encoding, Tokenizer


@dataclass(frozen=True)
class SpanAnswering:
    """Records: ``question``, ``context``, ``answer`` with ``answer_start`` (character); no ``answer``: there is none.

    A long context becomes several windows; one that does not hold the whole answer points at the first token, which
    stands for "not here".
    """

    max_length: int = 384
    stride: int = 128

    def heads(self) -> dict[str, Any]:
        """The span head."""
        return {"span": SpanHeadConfig()}

    def prepare(self, records: Sequence[Record], tokenizer: Tokenizer) -> list[Example]:
        """Tokenise. Raises ``DataError`` where the answer does not stand at ``answer_start``."""
        examples = []
        for number, record in enumerate(records, 1):
            question, context = str(field(record, "question", number)), str(field(record, "context", number))
            answer, begin = record.get("answer") or "", int(record.get("answer_start") or 0)
            if answer and context[begin : begin + len(answer)] != answer:
                raise DataError(f"record {number:,}: the answer {answer!r} does not stand at character {begin}")
            for window in tokenizer.windows(question, context, max_length=self.max_length, stride=self.stride):
                start, end = _place(window, begin, begin + len(answer)) if answer else (0, 0)
                examples.append(
                    Example(
                        np.asarray(window.token_ids, np.int32),
                        np.asarray(window.segment_ids, np.int8) if any(window.segment_ids) else None,
                        {"start": start, "end": end},
                    )
                )
        return examples

    def examples(self, prepared: list[Example], generator: np.random.Generator) -> list[Example]:
        """The same every epoch."""
        return prepared

    def collate(self, examples: Sequence[Example], tokenizer: Tokenizer, generator: np.random.Generator) -> Batch:
        """Pack; targets: ``start`` and ``end`` [N], places within each sequence."""
        targets = {name: torch.tensor([example.labels[name] for example in examples]) for name in ("start", "end")}
        return Batch(pack(examples), targets, {"span": len(examples)})

    def losses(self, model: Any, batch: Batch) -> dict[str, Loss]:
        """Mean of the cross-entropies of start and end over the tokens of each sequence."""
        logits = model.span_logits(model(batch.packed)).float()  # [T, 2]
        total, correct = torch.zeros(()), 0
        targets = zip(batch.targets["start"].tolist(), batch.targets["end"].tolist(), strict=True)
        for scores, (start, end) in zip(batch.packed.split(logits), targets, strict=True):  # scores: [L, 2]
            log_probabilities = scores.log_softmax(dim=0)
            total = total - (log_probabilities[start, 0] + log_probabilities[end, 1]) / 2
            correct += scores.argmax(dim=0).tolist() == [start, end]
        return {"span": Loss(total, batch.packed.num_sequences, correct)}


def _place(window: Encoding, begin: int, end: int) -> tuple[int, int]:
    """Tokens that hold the first and the last character of the answer; (0, 0) when the window does not hold both."""
    first = last = None
    for row, ((start, stop), sequence) in enumerate(zip(window.offsets, window.sequence_ids, strict=True)):
        if sequence == 1 and start <= begin < stop:
            first = row
        if sequence == 1 and start < end <= stop:
            last = row
    return (0, 0) if first is None or last is None else (first, last)
