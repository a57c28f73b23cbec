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
FIRST_BIAS, FIRST_SCALE_BESIDE_IT = -10.0, math.log(10)
"""Where both begin in a model that judges pairs alone (Zhai et al., 2023, §3.2): nearly all pairs do not match."""


def first_value(config: DualEncoderConfig, name: str) -> float:
    """Of ``logit_scale`` or ``logit_bias``, before anything is learnt."""
    if name == "logit_bias":
        return FIRST_BIAS
    return FIRST_SCALE_BESIDE_IT if config.logit_bias else FIRST_SCALE


class DualEncoder(nn.Module):
    """Two towers, a projection of each, and the scale of their products."""

    def __init__(self, config: DualEncoderConfig) -> None:
        super().__init__()
        self.config = config
        text = config.text
        self.image = ImageEncoder(config.image)
        self.text = EncoderLM(text) if isinstance(text, EncoderConfig) else DecoderLM(text)
        size, width = config.projection_size, config.image.stack.hidden_size
        self.image_projection = nn.Linear(width, size, bias=False) if config.image_projection else None
        self.text_projection = nn.Linear(text.stack.hidden_size, size, bias=config.text_bias)
        self.logit_scale = nn.Parameter(torch.tensor(first_value(config, "logit_scale")))
        self.logit_bias = nn.Parameter(torch.tensor(first_value(config, "logit_bias"))) if config.logit_bias else None

    def image_vectors(self, images: Packed) -> Tensor:
        """[N, P] of length 1, of packed patches."""
        vectors = self.image.vector(images)
        if self.image_projection is not None:
            vectors = self.image_projection(vectors)
        return F.normalize(vectors, dim=-1)

    def text_vectors(self, texts: Packed) -> Tensor:
        """[M, P] of length 1, of packed token ids."""
        return self.project_texts(self.text_states(texts))

    def text_states(self, texts: Packed) -> Tensor:
        """[M, D] what stands for each text before it is projected."""
        texts = self._filled(texts)
        return self.text_vector(self.text(texts), texts)

    def project_texts(self, states: Tensor) -> Tensor:
        """[M, D] → [M, P] of length 1."""
        vectors: Tensor = self.text_projection(states)
        return F.normalize(vectors, dim=-1)

    def text_vector(self, hidden_states: Tensor, texts: Packed) -> Tensor:
        """[T, D] → [M, D]: of the vectors of its tokens, what stands for each text."""
        if self.config.text_vector == "first":
            return hidden_states[texts.first]
        if self.config.text_vector == "last":
            return hidden_states[texts.last]
        if self.config.text_vector == "mean":
            rows = hidden_states.to(torch.promote_types(hidden_states.dtype, torch.float32))
            sums = rows.new_zeros(texts.num_sequences, rows.shape[1]).index_add(0, texts.sequence_ids, rows)
            return (sums / texts.offsets.diff()[:, None].to(sums.device)).to(hidden_states.dtype)
        return hidden_states[self._ends(texts)]

    def logits(self, image_vectors: Tensor, text_vectors: Tensor) -> Tensor:
        """[N, P] and [M, P] → [N, M]: how well each image and each text match."""
        logits = self.logit_scale.exp() * image_vectors @ text_vectors.t()
        return logits if self.logit_bias is None else logits + self.logit_bias

    def probabilities(self, logits: Tensor) -> Tensor:
        """[N, M] → [N, M]: that a pair matches, each judged alone, or among all texts of an image."""
        return logits.softmax(dim=-1) if self.logit_bias is None else logits.sigmoid()

    def _filled(self, texts: Packed) -> Packed:
        """Texts of the length that the model was trained with."""
        length, padding = self.config.text_length, self.config.stem.pad_token_id
        if length is None or set(texts.lengths) == {length}:
            return texts
        assert padding is not None
        filling = texts.values.new_full((length,), padding)
        whole = [torch.cat([ids, filling])[:length] for ids in texts.split(texts.values)]
        return Packed.from_sequences(whole).to(filling.device)

    def _ends(self, texts: Packed) -> Tensor:
        """[M] row of the token that ends each text."""
        end = self.config.end_token_id
        marks = texts.values if end is None else (texts.values == end).int()
        places = torch.stack([part.argmax() for part in texts.split(marks)])  # the first of the largest
        return texts.first + places
