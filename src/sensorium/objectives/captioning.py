"""Captions: the next token of a text about an image, given all vectors of the image (Li et al., 2022, §3.2, "LM").

Shapes: N pairs of a batch, T packed tokens of the captions, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from sensorium.config import MaskedTokenHeadConfig, PatchStemConfig
from sensorium.data.batching import Example
from sensorium.errors import UsageError
from sensorium.image.augment import random_crop, random_mirror
from sensorium.image.opening import normalised
from sensorium.image.patches import pack_images
from sensorium.image.settings import ImageSettings
from sensorium.objectives._base import Batch, Loss, Record, field, pack
from sensorium.objectives._images import open_each
from sensorium.objectives._next_token import next_token_loss
from sensorium.packed import Packed
from sensorium.text import Tokenizer


@dataclass(frozen=True)
class Captioning:
    """Records: ``image``, a file or pixels [H, W, 3] uint8; ``text``, what is said of it.

    The decoder reads the start token and the caption, and predicts the caption and its end (teacher forcing).
    """

    images: ImageSettings
    stem: PatchStemConfig
    """What cuts images into patches."""
    start_token_id: int
    """What a caption begins with."""
    max_length: int = 64
    """Tokens kept of a caption, its end among them."""
    label_smoothing: float = 0.0
    crop: float = 1.0
    """Smallest share of an image that is shown, drawn anew each time; 1: all of it."""
    mirror: float = 0.0
    """Share of the times that an image is shown left for right. Not where captions say where something is."""

    def heads(self) -> dict[str, Any]:
        """The language-model head of the decoder."""
        return {"language_model": MaskedTokenHeadConfig()}

    def prepare(self, records: Sequence[Record], tokenizer: Tokenizer) -> list[Example]:
        """Tokenise, and open each image once, of which several captions may speak.

        Raises ``DataError`` for a record that lacks something, and for a broken image; ``UsageError`` where nothing
        ends a text.
        """
        end = end_of_captions(tokenizer)
        captions = [str(field(record, "text", number)) for number, record in enumerate(records, 1)]
        firsts, opened = open_each(records, self.images)
        examples = []
        for caption, first in zip(captions, firsts, strict=True):
            ids = [*tokenizer.encode_plain(caption)[: self.max_length - 1], end]
            pixels = opened[first]
            length = self.stem.rows(*pixels.shape[:2])
            examples.append(Example(np.asarray(ids, np.int32), pixels=pixels, image_length=length))
        return examples

    def examples(self, prepared: list[Example], generator: np.random.Generator) -> list[Example]:
        """The same every epoch."""
        return prepared

    def collate(self, examples: Sequence[Example], tokenizer: Tokenizer, generator: np.random.Generator) -> Batch:
        """Pack patches, and what the decoder reads; target: ``next`` [T] the token it is to write at each place."""
        shown = [example.pixels for example in examples if example.pixels is not None]
        if self.mirror:
            shown = [random_mirror(pixels, self.mirror, generator) for pixels in shown]
        if self.crop < 1.0:
            shown = [random_crop(pixels, self.crop, generator) for pixels in shown]
        pixels = [normalised(one, self.images) for one in shown]
        images = pack_images(pixels, self.stem.patch_size, class_token=self.stem.class_token)
        read = [np.concatenate([[self.start_token_id], example.token_ids[:-1]]) for example in examples]
        following = pack(examples).values
        return Batch(
            Packed.from_sequences(read), {"next": following}, {"language_model": len(following)}, images=images
        )

    def losses(self, model: Any, batch: Batch) -> dict[str, Loss]:
        """Cross-entropy of every token of the captions; the vocabulary's logits are never held all at once."""
        states = self.hidden_states(model, batch)
        loss = next_token_loss(model, states, batch.targets["next"], label_smoothing=self.label_smoothing)
        return {"language_model": loss}

    def hidden_states(self, model: Any, batch: Batch) -> Tensor:
        """[T, D] of the decoder, each of which a token of a caption comes after."""
        assert batch.images is not None
        states: Tensor = model(batch.packed, model.encode(batch.images))
        return states


def end_of_captions(tokenizer: Tokenizer) -> int:
    """What ends a caption: the token that parts texts, as BERT's ``[SEP]``, else the end token.

    Raises ``UsageError`` where there is neither.
    """
    end = tokenizer.eos_id if tokenizer.sep_id is None else tokenizer.sep_id
    if end is None:
        raise UsageError("the tokenizer has no token that ends a text, so a model could not learn to stop; train one")
    return end
