"""Matching images with texts: a pair of a batch belongs together, and no other two do.

Shapes: N pairs of a batch, P size of the space in which images and texts meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sensorium.config import PatchStemConfig
from sensorium.data.batching import Example
from sensorium.image.augment import random_crop
from sensorium.image.opening import normalised
from sensorium.image.patches import pack_images
from sensorium.image.settings import ImageSettings
from sensorium.objectives._base import Batch, Loss, Record, pack
from sensorium.objectives._base import field as field_of
from sensorium.objectives._images import open_each
from sensorium.objectives.known_texts import KnownTexts, learns
from sensorium.packed import Packed
from sensorium.text import Tokenizer


@dataclass(frozen=True)
class Contrastive:
    """Records: ``image``, a file or pixels [H, W, 3] uint8, and ``text``.

    A model that chooses among texts learns by a softmax over the batch, both ways (Radford et al., 2021, figure 3); one
    that judges pairs alone, by a sigmoid for each (Zhai et al., 2023, §3.2). Where several pairs of a batch have the
    same text, each of its images belongs to each of them.
    """

    images: ImageSettings
    stem: PatchStemConfig
    """What cuts images into patches."""
    max_length: int = 64
    """Tokens kept of a text."""
    chunk: int | None = None
    """So many pairs go through the towers at a time, and once more on the way back: memory is that of a chunk, the loss
    that of the whole batch (Gao et al., 2021, "gradient caching"). ``None``: all at once."""
    crop: float = 1.0
    """Smallest share of an image that is shown, drawn anew each time; 1: all of it."""

    known: KnownTexts = field(default_factory=KnownTexts, compare=False, repr=False)
    """Of texts that a frozen tower has read."""

    def heads(self) -> dict[str, Any]:
        """None: the projections are the model's own."""
        return {}

    def prepare(self, records: Sequence[Record], tokenizer: Tokenizer) -> list[Example]:
        """Tokenise, and open each image once. Raises ``DataError`` for a record without either, or a broken image."""
        texts = [str(field_of(record, "text", i)) for i, record in enumerate(records, 1)]
        encoded = tokenizer.encode_batch(texts, max_length=self.max_length, offsets=False)
        firsts, opened = open_each(records, self.images)
        numbers: dict[str, int] = {}
        examples = []
        for text, encoding, first in zip(texts, encoded, firsts, strict=True):
            pixels = opened[first]
            examples.append(
                Example(
                    np.asarray(encoding.token_ids, np.int32),
                    labels={"text": numbers.setdefault(text, len(numbers))},
                    pixels=pixels,
                    image_length=self.stem.rows(*pixels.shape[:2]),
                )
            )
        return examples

    def examples(self, prepared: list[Example], generator: np.random.Generator) -> list[Example]:
        """The same every epoch."""
        return prepared

    def collate(self, examples: Sequence[Example], tokenizer: Tokenizer, generator: np.random.Generator) -> Batch:
        """Pack texts and patches; target: ``text`` [N], equal where texts are."""
        shown = [example.pixels for example in examples if example.pixels is not None]
        if self.crop < 1.0:
            shown = [random_crop(pixels, self.crop, generator) for pixels in shown]
        pixels = [normalised(one, self.images) for one in shown]
        images = pack_images(pixels, self.stem.patch_size, class_token=self.stem.class_token)
        targets = torch.tensor([example.labels["text"] for example in examples])
        return Batch(pack(examples), {"text": targets}, {"contrastive": len(examples)}, images=images)

    def losses(self, model: Any, batch: Batch) -> dict[str, Loss]:
        """Cross-entropy of the right texts of each image and of the right images of each text, or a sigmoid a pair."""
        assert batch.images is not None
        images = self._vectors(model.image_vectors, batch.images)  # [N, P]
        texts = self._texts(model, batch.packed)  # [N, P]
        logits = model.logits(images, texts).float()  # [N, N]
        matches = batch.targets["text"][:, None] == batch.targets["text"]  # [N, N]
        if model.logit_bias is None:
            total = (_chosen(logits, matches) + _chosen(logits.t(), matches)) / 2
        else:
            total = -F.logsigmoid(torch.where(matches, logits, -logits)).sum()
        correct = matches.gather(1, logits.argmax(dim=1, keepdim=True)).sum()
        return {"contrastive": Loss(total, len(logits), int(correct))}

    def _texts(self, model: Any, texts: Packed) -> Tensor:
        """[N, P]; of a tower that does not learn, only the map into the space of both is computed again."""
        if learns(model.text):
            return self._vectors(model.text_vectors, texts)
        projected: Tensor = model.project_texts(self.known(model, texts))
        return projected

    def _vectors(self, tower: Callable[[Packed], Tensor], batch: Packed) -> Tensor:
        if self.chunk is None or batch.num_sequences <= self.chunk or not torch.is_grad_enabled():
            return tower(batch)
        # What is computed again needs an input that asks for gradients; the kernels keep theirs out of torch's sight.
        asks = torch.zeros((), requires_grad=True)
        parts = [
            checkpoint(lambda _, part=part: tower(part), asks, use_reentrant=True) for part in batch.chunks(self.chunk)
        ]
        return torch.cat(parts)


def _chosen(logits: Tensor, matches: Tensor) -> Tensor:
    """Σ cross-entropy of rows [N, N] whose right columns are equally right."""
    likelihood = logits.log_softmax(dim=1)
    return -(likelihood * matches).sum(dim=1).div(matches.sum(dim=1)).sum()
