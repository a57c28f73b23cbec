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
from sensorium.image.augment import random_inks, random_mirror, random_shift
from sensorium.image.opening import Pixels, normalised
from sensorium.image.settings import ImageSettings
from sensorium.models.image_codec import ImageCodec
from sensorium.nn.cross_entropy import linear_cross_entropy
from sensorium.objectives._base import Batch, Loss, Record, field, pack
from sensorium.objectives._images import open_each
from sensorium.text import Encoding, Tokenizer
from sensorium.text.drawing import hidden_caption, prompt_ids

VARIANTS = 16
"""Drawings that are made of an image, where it is moved, mirrored or recoloured: the codec looks at each once, before
training."""
ENCODED = 64
"""Images that the codec looks at in one go."""
Drawn = np.ndarray[Any, Any]
"""Tokens, row after row of an image."""


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
    recolour: float = 0.0
    """Share of the images that are shown in other colours, so that what a word means is learnt in every colour."""
    colour_words: tuple[str, ...] = ()
    """Words that are hidden where colours are others: they would not be true. None: all words are hidden."""
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
        drawn = self._drawn(opened, 0.0)
        recoloured = self._drawn(opened, 1.0) if self.recolour else drawn
        examples = []
        for number, (text, first) in enumerate(zip(texts, firsts, strict=True), 1):
            before = prompt_ids(text, tokenizer)
            length = len(before) + self.codec.config.num_tokens
            if length > self.max_length:
                raise DataError(f"record {number:,} has {length} tokens; objective.max_length is {self.max_length}")
            # What is drawn is written in a range of its own once it is packed: words come first.
            ids = np.concatenate([before, drawn[first][0]]).astype(np.int32)
            encoded = tokenizer.encode(text)
            words = _word_of_each(encoded, len(before))
            untrue = self._untrue_of_each(text, encoded, words)
            labels = {"words": words, "untrue": untrue, "drawn": drawn[first], "recoloured": recoloured[first]}
            examples.append(Example(ids, labels=labels))
        return examples

    def examples(self, prepared: list[Example], generator: np.random.Generator) -> list[Example]:
        """Where images are moved or mirrored, another of what was made of each, drawn anew each epoch."""
        if not (self.shift or self.mirror):
            return prepared
        return [_as(one, _one_of(one.labels["drawn"], generator)) for one in prepared]

    def collate(self, examples: Sequence[Example], tokenizer: Tokenizer, generator: np.random.Generator) -> Batch:
        """Pack; targets: ``places`` [M] where tokens of drawings stand, ``next`` [M] which they are."""
        shown = [self._shown(example, tokenizer, generator) for example in examples]
        drawn = np.concatenate([np.arange(len(one)) >= len(one.labels["words"]) for one in examples])
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
        ids, words = example.token_ids, example.labels["words"]
        prompt, drawn = ids[: len(words)].tolist(), ids[len(words) :]
        hide = np.append(generator.random(int(words.max()) + 1) < self.word_dropout, False)[words]  # [prompt]
        if generator.random() < self.recolour:
            drawn, hide = _one_of(example.labels["recoloured"], generator), hide | example.labels["untrue"]
        if generator.random() < self.caption_dropout:
            hide = words >= 0
        prompt = hidden_caption(prompt, tokenizer, hide)
        return Example(np.concatenate([prompt, drawn]).astype(np.int32), labels=example.labels)

    def _untrue_of_each(
        self, text: str, encoded: Encoding, words: np.ndarray[Any, Any]
    ) -> np.ndarray[Any, Any]:  # fmt: skip
        """[tokens of a prompt] bool: which belong to words that other colours make untrue."""
        if not self.colour_words:
            return np.asarray(words >= 0)
        said: dict[int, str] = {}
        for number, (start, end) in zip(words.tolist(), encoded.offsets, strict=False):
            said[number] = said.get(number, "") + text[start:end].strip().lower()
        untrue = [number for number, word in said.items() if number >= 0 and word in self.colour_words]
        return np.isin(words, untrue)

    def _drawn(self, opened: dict[int, Pixels], recolour: float) -> dict[int, Drawn]:
        """[variants, h · w] the tokens of each image, and of what else is made of it: always the same."""
        variants = VARIANTS if self.shift or self.mirror or recolour else 1
        generator = np.random.default_rng(0)
        # All in one piece: small arrays kept among large ones that are freed would hold gigabytes of memory.
        drawn = np.empty((variants, len(opened), self.codec.config.num_tokens), np.int32)
        for variant in drawn:
            made = [self._changed(pixels, recolour, generator) for pixels in opened.values()]
            for start in range(0, len(made), ENCODED):
                variant[start : start + ENCODED] = self._tokens(made[start : start + ENCODED])
        return {number: drawn[:, place] for place, number in enumerate(opened)}

    def _changed(self, pixels: Pixels, recolour: float, generator: np.random.Generator) -> Pixels:
        moved = random_mirror(random_shift(pixels, self.shift, generator), self.mirror, generator)
        return random_inks(moved, recolour, generator)

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
    def _tokens(self, images: list[Pixels]) -> Drawn:
        """[images, h · w], row after row."""
        pixels = torch.stack([normalised(one, self.images) for one in images])
        tokens: Drawn = self.codec.encode_alike(pixels).flatten(1).numpy()
        return tokens


def _one_of(several: Drawn, generator: np.random.Generator) -> Drawn:
    """[variants, h · w] → [h · w], by chance."""
    chosen: Drawn = several[generator.integers(len(several))]
    return chosen


def _as(example: Example, drawn: Drawn) -> Example:
    """The example with another drawing after its words."""
    words = example.token_ids[: len(example.labels["words"])]
    return Example(np.concatenate([words, drawn]).astype(np.int32), labels=example.labels)


def _word_of_each(encoded: Encoding, length: int) -> np.ndarray[Any, Any]:
    """[length] the number of the word that each token of a prompt belongs to; -1: none."""
    numbers = [-1 if number is None else number for number in encoded.word_ids]
    return np.asarray(numbers + [-1] * (length - len(numbers)))
