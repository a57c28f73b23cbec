"""Captioner: the model that looks at an image and writes a text (Li et al., 2022, BLIP).

Shapes: S packed rows of all images, T packed tokens of the decoder, M chosen rows, D hidden size, V vocabulary.
"""

from __future__ import annotations

from torch import Tensor, nn

from sensorium.config import CaptionerConfig
from sensorium.models.encoder_decoder import Side
from sensorium.models.image_encoder import ImageEncoder
from sensorium.nn.block import Cache
from sensorium.nn.heads import MaskedTokenHead, next_token_logits
from sensorium.nn.memory import Memory
from sensorium.packed import Packed


class Captioner(nn.Module):
    """Packed patches in, a memory out; the decoder's token ids and a memory in, a vector for each next token out."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.config = config
        self.image = ImageEncoder(config.image)
        self.decoder = Side(config.decoder_stem, config.decoder_stack)
        head = config.language_model
        self.language_model = None if head is None else MaskedTokenHead(head, self.decoder.stem.tokens)

    def encode(self, images: Packed) -> Memory:
        """What the image tower makes of the images: all of its vectors, [S, D of the tower]."""
        states: Tensor = self.image(images)
        return Memory(states, images.lengths)

    def forward(self, batch: Packed, memory: Memory, cache: Cache | None = None) -> Tensor:
        """Hidden states [T, D], a sequence for each of the memory's; with a cache, ``batch`` holds only new tokens."""
        hidden_states: Tensor = self.decoder(batch, memory, cache)
        return hidden_states

    def next_token_logits(self, hidden_states: Tensor) -> Tensor:
        """[M, D] → [M, V]. Raises ``UsageError`` when the model has no language-model head."""
        return next_token_logits(self.language_model, hidden_states)
