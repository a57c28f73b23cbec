"""A model that reads images among words, with the images of its prompts: a decoder, to everything that decodes.

Shapes: T packed tokens, R vectors of all images, D hidden size, M chosen rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sensorium.config import DecoderConfig
from sensorium.models.multimodal import MultimodalLM
from sensorium.packed import Packed


class Looking:
    """``generate`` and ``beam_search`` take it as a ``DecoderLM``; the last ids are vectors of its images."""

    def __init__(self, model: MultimodalLM, images: Packed) -> None:
        """The images are looked at here, once."""
        self.model = model
        with torch.inference_mode():
            self.seen = model.see(images)  # [R, D]
        first = model.config.first_seen_id
        self.image_ids: list[list[int]] = []
        """What stands in a prompt for each image."""
        for rows in model.vectors_of(images):
            self.image_ids.append(list(range(first, first + rows)))
            first += rows

    @property
    def config(self) -> DecoderConfig:
        """Of what writes."""
        return self.model.config.text

    @property
    def stack(self) -> Any:
        """What reads and writes."""
        return self.model.text.stack

    def __call__(self, batch: Packed, cache: Any) -> Tensor:
        """Hidden states [T, D] of the new tokens."""
        hidden_states: Tensor = self.model(batch, cache, self.seen)
        return hidden_states

    def next_token_logits(self, hidden_states: Tensor) -> Tensor:
        """[M, D] → [M, V]."""
        return self.model.next_token_logits(hidden_states)

    def in_words(self, prompt: Sequence[int]) -> list[int]:
        """A prompt as the vocabulary has it: the token that stands for images in place of their vectors."""
        size, image = self.config.stem.vocabulary_size, self.model.config.image_token_id
        return [token_id if token_id < size else image for token_id in prompt]
