"""DualEncoder: images and texts as vectors of one space (Radford et al., 2021).

Shapes: T packed rows of all images or texts, N images, M texts, D hidden size of a tower, P size of the space.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sensorium.config import DualEncoderConfig, EncoderConfig
from sensorium.models.decoder import DecoderLM
from sensorium.models.encoder import EncoderLM
from sensorium.models.image_encoder import ImageEncoder
from sensorium.packed import Packed

FIRST_SCALE = math.log(1 / 0.07)
"""Where the logarithm of the scale begins (Radford et al., 2021, §2.5)."""


class DualEncoder(nn.Module):
    """Two towers, a projection of each, and the scale of their products."""

    def __init__(self, config: DualEncoderConfig) -> None:
        super().__init__()
        self.config = config
        text = config.text
        self.image = ImageEncoder(config.image)
        self.text = EncoderLM(text) if isinstance(text, EncoderConfig) else DecoderLM(text)
        self.image_projection = nn.Linear(config.image.stack.hidden_size, config.projection_size, bias=False)
        self.text_projection = nn.Linear(text.stack.hidden_size, config.projection_size, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(FIRST_SCALE))

    def image_vectors(self, images: Packed) -> Tensor:
        """[N, P] of length 1, of packed patches."""
        vectors: Tensor = self.image_projection(self.image(images)[images.first])
        return F.normalize(vectors, dim=-1)

    def text_vectors(self, texts: Packed) -> Tensor:
        """[M, P] of length 1, of packed token ids."""
        vectors: Tensor = self.text_projection(self.text_vector(self.text(texts), texts))
        return F.normalize(vectors, dim=-1)

    def text_vector(self, hidden_states: Tensor, texts: Packed) -> Tensor:
        """[T, D] → [M, D]: what stands for each text before it is projected."""
        if self.config.text_vector == "first":
            return hidden_states[texts.first]
        if self.config.text_vector == "mean":
            return torch.stack([part.mean(dim=0) for part in texts.split(hidden_states)])
        return hidden_states[self._ends(texts)]

    def logits(self, image_vectors: Tensor, text_vectors: Tensor) -> Tensor:
        """[N, P] and [M, P] → [N, M]: how well each image and each text match."""
        return self.logit_scale.exp() * image_vectors @ text_vectors.t()

    def _ends(self, texts: Packed) -> Tensor:
        """[M] row of the token that ends each text."""
        end = self.config.end_token_id
        marks = texts.values if end is None else (texts.values == end).int()
        places = torch.stack([part.argmax() for part in texts.split(marks)])  # the first of the largest
        return texts.first + places
