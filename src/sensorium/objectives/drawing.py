"""Drawing: the tokens of an image, one after another, after the words for it (Ramesh et al., 2021).

Shapes: N examples, T packed tokens, M tokens of drawings, D hidden size, h and w tokens of a drawing's sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensorium.data.batching import Example
from sensorium.errors import DataError
from sensorium.image.augment import random_mirror, random_shift
from sensorium.image.opening import Pixels, normalised
from sensorium.image.settings import ImageSettings
from sensorium.models.image_codec import ImageCodec
from sensorium.nn.cross_entropy import linear_cross_entropy
from sensorium.objectives._base import Batch, Loss, Record, field, pack
from sensorium.objectives._images import open_each
from sensorium.text import Tokenizer
from sensorium.text.drawing import hidden_caption, prompt_ids

VARIANTS = 16
"""Drawings that are made of an image, where it is moved or mirrored: the codec looks at each once, before training."""
ENCODED = 64
"""Images that the codec looks at in one go."""


@dataclass(frozen=True)
class Drawing:
    """Records: ``image``, a file or pixels [H, W, 3] uint8; ``text``, what is in it.

    Of some captions nothing is shown, so that drawings can be guided (Ho & Salimans, 2021): their words are padding.
    """

    images: ImageSettings
    codec: ImageCodec
    """What makes tokens of images; it learns nothing here."""
    max_length: int = 128
    """Tokens of a caption and its drawing; what is longer is refused."""
    caption_dropout: float = 0.1
    """Share of captions that are hidden, drawn anew each time."""
    word_dropout: float = 0.0
    """Share of the words of other captions that are hidden: what each means is then learnt without the others, and
    holds beside words that it never stood with."""
    shift: int = 0
    """Pixels by which an image is moved at most."""
    mirror: float = 0.0
    """Share of images that are drawn left for right. Not where captions say where something is."""

    def heads(self) -> dict[str, Any]:
        """None: what draws has its own."""
        return {}

    def prepare(self, records: Sequence[Record], tokenizer: Tokenizer) -> list[Example]:
        """Tokenise, and look at each image once. Raises ``DataError`` for a record that lacks something or is too long,
        and for a broken image.
        """
        texts = [str(field(record, "text", number)) for number, record in enumerate(records, 1)]
        firsts, opened = open_each(records, self.images)
        self._check_sizes(opened)
        drawn = self._drawn(opened)
        examples = []
        for number, (text, first) in enumerate(zip(texts, firsts, strict=True), 1):
            before = prompt_ids(text, tokenizer)
            length = len(before) + self.codec.config.num_tokens
            if length > self.max_length:
                raise DataError(f"record {number:,} has {length} tokens; objective.max_length is {self.max_length}")
            # What is drawn is written in a range of its own once it is packed: words come first.
            ids = np.concatenate([before, drawn[first][0]]).astype(np.int32)
            examples.append(
                Example(ids, labels={"word": _word_of_each(text, before, tokenizer), "drawn": drawn[first]})
            )
        return examples

    def examples(self, prepared: list[Example], generator: np.random.Generator) -> list[Example]:
        """Where images are moved or mirrored, another of what was made of each, drawn anew each epoch."""
        if not (self.shift or self.mirror):
            return prepared
        return [_as(one, one.labels["drawn"][generator.integers(len(one.labels["drawn"]))]) for one in prepared]

    def collate(self, examples: Sequence[Example], tokenizer: Tokenizer, generator: np.random.Generator) -> Batch:
        """Pack; targets: ``places`` [M] where tokens of drawings stand, ``next`` [M] which they are."""
        shown = [self._shown(example, tokenizer, generator) for example in examples]
        drawn = np.concatenate([np.arange(len(one)) >= len(one.labels["word"]) for one in examples])
        packed = pack(shown)
        places = torch.from_numpy(drawn).nonzero().squeeze(1)
        targets = {"places": places, "next": packed.values[places].long()}
        return Batch(packed, targets, {"drawing": len(places)})

    def losses(self, model: Any, batch: Batch) -> dict[str, Loss]:
        """Cross-entropy of the tokens of drawings."""
        places, following = batch.targets["places"], batch.targets["next"]
        first = model.config.first_drawn_id
        values = batch.packed.values.index_add(0, places, torch.full_like(places, first).to(batch.packed.values.dtype))
        states: Tensor = model(replace(batch.packed, values=values))[places - 1]  # [M, D], each before a drawn token
        drawing = model.require_drawing()
        head = drawing.vocabulary
        total, correct = linear_cross_entropy(drawing.states(states), head.weight, head.bias, following)
        return {"drawing": Loss(total, len(following), correct)}

    def _shown(self, example: Example, tokenizer: Tokenizer, generator: np.random.Generator) -> Example:
        """The example with as much of its words as is shown this time."""
        ids, word = example.token_ids, example.labels["word"]
        prompt, drawn = ids[: len(word)].tolist(), ids[len(word) :]
        if generator.random() < self.caption_dropout:
            prompt = hidden_caption(prompt, tokenizer)
        elif self.word_dropout:
            chosen = generator.random(int(word.max()) + 1) < self.word_dropout  # [words]
            prompt = hidden_caption(prompt, tokenizer, np.append(chosen, False)[word])
        else:
            return example
        return Example(np.concatenate([prompt, drawn]).astype(np.int32), labels=example.labels)

    def _drawn(self, opened: dict[int, Pixels]) -> dict[int, list[np.ndarray[Any, Any]]]:
        """The tokens of each image, and of what else is made of it: always the same."""
        found: dict[int, list[np.ndarray[Any, Any]]] = {number: [] for number in opened}
        generator = np.random.default_rng(0)
        for _ in range(VARIANTS if self.shift or self.mirror else 1):
            made = [
                random_mirror(random_shift(pixels, self.shift, generator), self.mirror, generator)
                for pixels in opened.values()
            ]
            for tokens, several in zip(self._tokens(made), found.values(), strict=True):
                several.append(tokens)
        return found

    def _check_sizes(self, opened: dict[int, Pixels]) -> None:
        side = self.codec.config.image_size
        for number, pixels in opened.items():
            height, width = pixels.shape[:2]
            if (height, width) != (side, side):
                raise DataError(
                    f"record {number:,}: the image has {width} × {height} pixels once it is made ready; the codec "
                    f"draws {side} × {side}"
                )

    @torch.no_grad()
    def _tokens(self, images: list[Pixels]) -> list[np.ndarray[Any, Any]]:
        """[h · w] tokens of each image, row after row."""
        found: list[np.ndarray[Any, Any]] = []
        for start in range(0, len(images), ENCODED):
            pixels = torch.stack([normalised(one, self.images) for one in images[start : start + ENCODED]])
            found += list(self.codec.encode_alike(pixels).flatten(1).numpy())
        return found


def _as(example: Example, drawn: np.ndarray[Any, Any]) -> Example:
    """The example with another drawing after its words."""
    words = example.token_ids[: len(example.labels["word"])]
    return Example(np.concatenate([words, drawn]).astype(np.int32), labels=example.labels)


def _word_of_each(text: str, prompt: Sequence[int], tokenizer: Tokenizer) -> np.ndarray[Any, Any]:
    """[tokens of a prompt] the number of the word that each belongs to; -1: none."""
    numbers = [-1 if number is None else number for number in tokenizer.encode(text).word_ids]
    return np.asarray(numbers + [-1] * (len(prompt) - len(numbers)))
