"""MultimodalLM: a decoder of sequences in which images stand among words.

Shapes: T packed tokens and vectors of images, R vectors of all images, D hidden size of the decoder, M chosen rows, V
vocabulary.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from sensorium.config import MultimodalConfig
from sensorium.models.decoder import DecoderLM
from sensorium.models.image_encoder import ImageEncoder
from sensorium.nn.block import ACTIVATIONS, Cache
from sensorium.packed import Packed


class Projector(nn.Module):
    """From the image tower's vectors to the decoder's (Liu et al., 2024, §3.1)."""

    def __init__(self, config: MultimodalConfig) -> None:
        super().__init__()
        size = config.text.stack.hidden_size
        self.up = nn.Linear(config.image.stack.hidden_size, size, bias=config.bias)
        self.down = nn.Linear(size, size, bias=config.bias)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        """[R, hidden size of the tower] → [R, D]."""
        output: Tensor = self.down(self.activation(self.up(x)))
        return output


class MultimodalLM(nn.Module):
    """Token ids and images in, a vector for the next token out of each place.

    A vector of an image is a token that the vocabulary does not have: row r of what ``see`` gives has the id V + r. So
    sequences stay lists of ids, and everything that packs, caches and decodes them takes them as they are.
    """

    def __init__(self, config: MultimodalConfig) -> None:
        super().__init__()
        self.config = config
        self.image = ImageEncoder(config.image)
        self.projector = Projector(config)
        self.text = DecoderLM(config.text)

    def see(self, images: Packed) -> Tensor:
        """Packed patches → [R, D], all vectors of the first image, then those of the second one …"""
        vectors = self.image.after_blocks(images, self.config.image_blocks)
        if self.config.image.stem.class_token and not self.config.class_vector:
            patches = torch.ones(len(vectors), dtype=torch.bool, device=vectors.device)
            patches[images.first] = False
            vectors = vectors[patches]
        seen: Tensor = self.projector(vectors)
        return seen

    def vectors_of(self, images: Packed) -> list[int]:
        """How many rows of ``see`` each image has."""
        spare = int(self.config.image.stem.class_token and not self.config.class_vector)
        return [length - spare for length in images.lengths]

    def forward(self, batch: Packed, cache: Cache | None = None, seen: Tensor | None = None) -> Tensor:
        """Hidden states [T, D]; ids from V on are rows of ``seen`` [R, D], which ``see`` gave."""
        layout = batch.layout if cache is None else cache.layout(batch.lengths)
        hidden_states: Tensor = self.text.stack(self._vectors(batch, seen), layout, cache)
        return hidden_states

    def next_token_logits(self, hidden_states: Tensor) -> Tensor:
        """[M, D] → [M, V]. Raises ``UsageError`` when the model has no language-model head."""
        return self.text.next_token_logits(hidden_states)

    def _vectors(self, batch: Packed, seen: Tensor | None) -> Tensor:
        """[T, D]."""
        rows = batch.values - self.config.text.stem.vocabulary_size  # of an image's vectors, from 0 on
        places = (rows >= 0).nonzero().squeeze(1)
        if seen is None or not len(places):
            return torch.as_tensor(self.text.stem(batch))
        words = batch.values.masked_fill(rows >= 0, self.config.image_token_id)
        x: Tensor = self.text.stem(replace(batch, values=words))
        return x.index_copy(0, places, seen[rows[places]].to(x.dtype))
