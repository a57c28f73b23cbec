"""What every objective has in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sensorium.data.batching import Example
from sensorium.errors import DataError
from sensorium.packed import Packed
from sensorium.text import Tokenizer

Record = Mapping[str, Any]
"""One row of the user's data: ``text``, ``label`` …"""


@dataclass(frozen=True)
class Batch:
    """Packed examples and what to predict of them."""

    packed: Packed
    targets: dict[str, Tensor]
    counts: dict[str, int]
    """Labelled items of each loss: known before the forward pass, so that accumulation can divide by the step's sum."""
    sources: Packed | None = None
    """What an encoder reads, a sequence for each of ``packed``, which the decoder reads; ``None``: there is no encoder
    beside a decoder."""
    images: Packed | None = None
    """Patches of an image for each of ``packed``; ``None``: there are none."""
    parts: Mapping[int, Batch] | None = None
    """Of a mixture, a batch for each kind of what is learnt, of which this one shows the first."""

    def to(self, device: torch.device) -> Batch:
        """This batch on another device."""
        targets = {name: target.to(device) for name, target in self.targets.items()}
        sources = None if self.sources is None else self.sources.to(device)
        images = None if self.images is None else self.images.to(device)
        parts = None if self.parts is None else {number: part.to(device) for number, part in self.parts.items()}
        packed = self.packed.to(device)
        return replace(self, packed=packed, targets=targets, sources=sources, images=images, parts=parts)

    @property
    def num_tokens(self) -> int:
        """Tokens and patches that the model reads, on all sides."""
        if self.parts is not None:
            return sum(part.num_tokens for part in self.parts.values())
        return sum(side.num_tokens for side in (self.packed, self.sources, self.images) if side is not None)


@dataclass(frozen=True)
class Loss:
    """A loss over the labelled items of one batch, as a sum: accumulation divides by the count of the whole step."""

    total: Tensor
    """[] float32, differentiable."""
    count: int
    """Labelled items."""
    correct: int | None
    """Of them, how many the model got right; ``None`` where nothing is right or wrong."""


class Objective(Protocol):
    """From records to losses. Randomness is passed in, so that (seed, epoch, batch) decides it."""

    def heads(self) -> dict[str, Any]:
        """Head name → its config: what the model must have."""
        ...

    def prepare(self, records: Sequence[Record], tokenizer: Tokenizer) -> Any:
        """Tokenise, once."""
        ...

    def examples(self, prepared: Any, generator: np.random.Generator) -> list[Example]:
        """The examples of one epoch."""
        ...

    def collate(self, examples: Sequence[Example], tokenizer: Tokenizer, generator: np.random.Generator) -> Batch:
        """Pack examples and make their targets."""
        ...

    def losses(self, model: Any, batch: Batch) -> dict[str, Loss]:
        """Named losses; heads run on labelled rows alone."""
        ...


def pack(examples: Sequence[Example]) -> Packed:
    """Examples end to end; segment ids where any example has them."""
    segments = None
    if any(example.segment_ids is not None for example in examples):
        segments = [
            np.zeros(len(example), np.int8) if example.segment_ids is None else example.segment_ids
            for example in examples
        ]
    return Packed.from_sequences([example.token_ids for example in examples], segment_ids=segments)


def starts(examples: Sequence[Example]) -> np.ndarray:
    """[N] row of each example's first token once they are packed."""
    return np.cumsum([0, *(len(example) for example in examples)])[:-1]


def classification_loss(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Loss:
    """Cross-entropy of logits [M, C] and labels [M], in float32."""
    logits = logits.float()
    total = torch.nn.functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=label_smoothing)
    return Loss(total, len(targets), int((logits.argmax(dim=-1) == targets).sum()))


def field(record: Record, name: str, number: int) -> Any:
    """A field of a record. Raises ``DataError`` naming the record and the fields it has."""
    if name not in record:
        raise DataError(f"record {number:,} has no {name!r}; it has {', '.join(map(repr, record)) or 'nothing'}")
    value = record[name]
    if value is None or (isinstance(value, str) and not value):  # pixels are no text
        raise DataError(f"record {number:,}: its {name!r} is empty; fill it in, or remove the record")
    return value


def label_id(labels: Mapping[str, int], label: Any, number: int) -> int:
    """The number of a label. Raises ``DataError`` naming the label and those that are known."""
    if str(label) not in labels:
        known = ", ".join(list(labels)[:10])
        raise DataError(f"record {number:,} has the label {label!r}, which is not one of {known}")
    return labels[str(label)]


def total_counts(batches: Sequence[Batch]) -> dict[str, int]:
    """Labelled items of each loss over all batches of an update."""
    counts: dict[str, int] = {}
    for batch in batches:
        for name, count in batch.counts.items():
            counts[name] = counts.get(name, 0) + count
    return counts


def weighted(losses: dict[str, Loss], counts: dict[str, int]) -> Tensor:
    """The sum of the losses, each divided by its items in the whole update (not in one of its batches)."""
    return torch.stack([loss.total / max(1, counts[name]) for name, loss in losses.items()]).sum()
