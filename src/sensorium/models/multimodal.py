"""MultimodalLM: a decoder of sequences in which images stand among words, and drawings too.

Shapes: T packed tokens and vectors of images, R vectors of all images, D hidden size of the decoder, M chosen rows, V
vocabulary of words, C codes of drawings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sensorium.config import Activation, DrawingConfig, MultimodalConfig
from sensorium.errors import UsageError
from sensorium.models.decoder import DecoderLM
from sensorium.models.image_codec import ImageCodec
from sensorium.models.image_encoder import ImageEncoder
from sensorium.nn.block import ACTIVATIONS, Cache
from sensorium.packed import Packed


class Maps(nn.ModuleList):
    """Linear maps from one space to another with an activation between them (Liu et al., 2024, §3.1)."""

    def __init__(self, inputs: int, size: int, count: int, activation: Activation, *, bias: bool = True) -> None:
        super().__init__(nn.Linear(inputs if n == 0 else size, size, bias=bias) for n in range(count))
        self.activation: Callable[[Tensor], Tensor] = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        """[R, inputs] → [R, size]."""
        for number, linear in enumerate(self):
            x = linear(self.activation(x) if number else x)
        return x


FREQUENCY = 2.5
"""Deviation of random features' frequencies: heads of codes 1 / FREQUENCY apart begin with a product of 0.6."""


class Drawing(nn.Module):
    """What a decoder of words needs to draw: a codec, the vectors of its tokens, and a head that says the next."""

    def __init__(self, config: DrawingConfig, size: int) -> None:
        super().__init__()
        self.codec = ImageCodec(config.codec)
        self.tokens = nn.Embedding(config.codec.num_codes, config.codec.code_size)
        self.maps = Maps(config.codec.code_size, size, config.maps, config.activation)
        self.head = nn.Linear(size, size)
        self.activation: Callable[[Tensor], Tensor] = ACTIVATIONS[config.activation]
        self.vocabulary = nn.Linear(size, config.codec.num_codes)

    @torch.no_grad()
    def begin_with(self, codec: ImageCodec, seed: int) -> None:
        """Take a codec, and begin with what it knows: codes that are near each other are read alike and written alike.

        Heads of tokens begin as random features of their codes, whose products fall with the codes' distance (Rahimi &
        Recht, 2007). Where they stay frozen, a code that was never written is still as likely as those around it.
        """
        self.codec.load_state_dict(codec.state_dict())
        codes = F.normalize(codec.codes.weight.float(), dim=-1)  # [C, E]
        self.tokens.weight.copy_(codes)
        generator = torch.Generator().manual_seed(seed)
        size = self.vocabulary.in_features
        ways = FREQUENCY * torch.randn(codes.shape[1], size, generator=generator)  # [E, D]
        phases = 2 * math.pi * torch.rand(size, generator=generator)
        self.vocabulary.weight.copy_((codes @ ways + phases).cos() * (2 / size) ** 0.5)
        self.vocabulary.bias.zero_()

    def vectors(self, tokens: Tensor) -> Tensor:
        """[R] int64 tokens of drawings → [R, D]; each that occurs is mapped once."""
        distinct, place = tokens.unique(return_inverse=True)
        vectors: Tensor = self.maps(self.tokens(distinct))
        return vectors[place]

    def logits(self, hidden_states: Tensor) -> Tensor:
        """[M, D] → [M, C]: which token of the drawing comes next."""
        logits: Tensor = self.vocabulary(self.states(hidden_states))
        return logits

    def states(self, hidden_states: Tensor) -> Tensor:
        """[M, D] → [M, D], of which the vocabulary's products are the logits."""
        return self.activation(self.head(hidden_states))


class MultimodalLM(nn.Module):
    """Token ids and images in, a vector for the next token out of each place.

    A token of a drawing, and a vector of an image, is a token that the vocabulary of words does not have: code c has
    the id V + c, row r of what ``see`` gives V + C + r. So sequences stay lists of ids, and everything that packs,
    caches and decodes them takes them as they are.
    """

    def __init__(self, config: MultimodalConfig) -> None:
        super().__init__()
        self.config = config
        size = config.text.stack.hidden_size
        self.image = ImageEncoder(config.image)
        self.projector = Maps(config.image.stack.hidden_size, size, config.maps, config.activation, bias=config.bias)
        self.text = DecoderLM(config.text)
        self.drawing = None if config.drawing is None else Drawing(config.drawing, size)

    def see(self, images: Packed) -> Tensor:
        """Packed patches → [R, D], all vectors of the first image, then those of the second one …"""
        blocks = self.config.image_blocks
        vectors = self.image(images) if blocks is None else self.image.after_blocks(images, blocks)
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
        """Hidden states [T, D]; the last ids are rows of ``seen`` [R, D], which ``see`` gave."""
        layout = batch.layout if cache is None else cache.layout(batch.lengths)
        hidden_states: Tensor = self.text.stack(self._vectors(batch, seen), layout, cache)
        return hidden_states

    def next_token_logits(self, hidden_states: Tensor) -> Tensor:
        """[M, D] → [M, V]. Raises ``UsageError`` when the model has no language-model head."""
        return self.text.next_token_logits(hidden_states)

    def require_drawing(self) -> Drawing:
        """What draws. Raises ``UsageError`` where there is nothing."""
        if self.drawing is None:
            raise UsageError("this model looks at images and does not draw; take one that does, such as a janus")
        return self.drawing

    def _vectors(self, batch: Packed, seen: Tensor | None) -> Tensor:
        """[T, D]."""
        ids, words, first = batch.values, self.config.first_drawn_id, self.config.first_seen_id
        beyond = ids >= words  # [T]
        if not beyond.any():
            return torch.as_tensor(self.text.stem(batch))
        x: Tensor = self.text.stem(replace(batch, values=ids.masked_fill(beyond, self.config.image_token_id)))
        drawn = (beyond & (ids < first)).nonzero().squeeze(1)
        if len(drawn):
            x = x.index_copy(0, drawn, self.require_drawing().vectors(ids[drawn] - words).to(x.dtype))
        places = (ids >= first).nonzero().squeeze(1)
        if len(places):
            assert seen is not None, "there are ids of images, and none was looked at"
            x = x.index_copy(0, places, seen[ids[places] - first].to(x.dtype))
        return x
