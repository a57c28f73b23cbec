"""Answering questions about images: the next token of the answer, after the image and the question.

Shapes: N examples, T packed tokens and vectors of images, R vectors of all images, M tokens of answers, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensorium.config import MultimodalConfig, PatchStemConfig
from sensorium.data.batching import Example
from sensorium.errors import DataError
from sensorium.image.opening import normalised, open_image
from sensorium.image.patches import pack_images
from sensorium.image.settings import ImageSettings
from sensorium.objectives._base import Batch, Loss, Record, field, pack
from sensorium.objectives._next_token import next_token_batch, next_token_loss
from sensorium.packed import Packed
from sensorium.text import Tokenizer
from sensorium.text.asking import IMAGE, asked


@dataclass(frozen=True)
class Answering:
    """Records: ``image``, a file or pixels [H, W, 3] uint8; ``text``, a question; ``target``, its answer."""

    images: ImageSettings
    stem: PatchStemConfig
    """What cuts images into patches."""
    max_length: int = 128
    """Tokens and patches of an image, its question and the answer; what is longer is refused."""

    def heads(self) -> dict[str, Any]:
        """None: what writes has its own."""
        return {}

    def prepare(self, records: Sequence[Record], tokenizer: Tokenizer) -> list[Example]:
        """Tokenise, and open each image once.

        Raises ``DataError`` for a record that lacks something or is too long, and for a broken image.
        """
        opened: dict[Any, np.ndarray[Any, Any]] = {}
        image_id, end = tokenizer.backend.token_to_id(IMAGE), tokenizer.eos_id
        if image_id is None or end is None:
            raise DataError(f"the tokenizer has no {IMAGE!r} or no end token, which texts with images in them need")
        examples = []
        for number, record in enumerate(records, 1):
            question, answer = (str(field(record, name, number)) for name in ("text", "target"))
            pixels = self._pixels(field(record, "image", number), opened)
            places = self._places(pixels)
            before: list[int] = []
            for token_id in tokenizer.encode(asked(question)).token_ids:
                before += [image_id] * places if token_id == image_id else [token_id]
            after = [*tokenizer.encode_plain(answer), end]
            if len(before) + len(after) > self.max_length:
                raise DataError(
                    f"record {number:,} has {len(before) + len(after)} tokens and patches; objective.max_length is "
                    f"{self.max_length}"
                )
            ids = np.asarray([*before, *after], np.int32)
            learnt = np.arange(len(ids)) >= len(before)
            labels = {"answer": learnt, "image": ids == image_id}
            examples.append(
                Example(ids, labels=labels, pixels=pixels, image_length=places + int(self.stem.class_token))
            )
        return examples

    def examples(self, prepared: list[Example], generator: np.random.Generator) -> list[Example]:
        """The same every epoch."""
        return prepared

    def collate(self, examples: Sequence[Example], tokenizer: Tokenizer, generator: np.random.Generator) -> Batch:
        """Pack texts and patches; targets: ``rows`` [M] every place before a token of an answer, ``next`` [M] that
        token, ``places`` [R] where the vectors of images stand.
        """
        packed = pack(examples)
        learnt, shown = (
            torch.from_numpy(np.concatenate([example.labels[name] for example in examples]))
            for name in ("answer", "image")
        )
        pixels = [normalised(example.pixels, self.images) for example in examples if example.pixels is not None]
        images = pack_images(pixels, self.stem.patch_size, class_token=self.stem.class_token)
        batch = next_token_batch(packed, learnt)
        return replace(batch, targets={**batch.targets, "places": shown.nonzero().squeeze(1)}, images=images)

    def losses(self, model: Any, batch: Batch) -> dict[str, Loss]:
        """Cross-entropy of the tokens of answers."""
        states = self.hidden_states(model, batch)
        return {"language_model": next_token_loss(model.text, states, batch.targets["next"])}

    def hidden_states(self, model: Any, batch: Batch) -> Tensor:
        """[M, D], each of which a token of an answer comes after."""
        assert batch.images is not None
        config: MultimodalConfig = model.config
        places = batch.targets["places"]
        rows = torch.arange(len(places), device=places.device) + config.text.stem.vocabulary_size
        values = batch.packed.values.index_copy(0, places, rows.to(batch.packed.values.dtype))
        seeing: Packed = replace(batch.packed, values=values)
        states: Tensor = model(seeing, seen=model.see(batch.images))[batch.targets["rows"]]
        return states

    def _pixels(self, image: Any, opened: dict[Any, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        """[H, W, 3] uint8 of the size that the settings ask for; a file that several questions are about, once."""
        key = image if isinstance(image, str) else id(image)
        if key not in opened:
            opened[key] = open_image(image, self.images)
        return opened[key]

    def _places(self, pixels: np.ndarray[Any, Any]) -> int:
        """Vectors that stand for an image."""
        height, width = pixels.shape[:2]
        return int(height // self.stem.patch_size) * int(width // self.stem.patch_size)
