"""Answering questions about images: the next token of the answer, after the image and the question.

An image is looked at, and read, once for several questions; each of them goes on from it by itself.

Shapes: N questions, T packed tokens and vectors of images, R vectors of all images, M tokens of answers, D hidden size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensorium.config import MultimodalConfig, PatchStemConfig
from sensorium.data.batching import Example
from sensorium.errors import DataError
from sensorium.image.augment import random_crop, random_shift
from sensorium.image.opening import Pixels, normalised
from sensorium.image.patches import pack_images
from sensorium.image.settings import ImageSettings
from sensorium.nn.beginnings import SharedBeginnings
from sensorium.objectives._base import Batch, Loss, Record, field
from sensorium.objectives._images import open_each
from sensorium.objectives._next_token import next_token_batch, next_token_loss
from sensorium.packed import Packed
from sensorium.text import Tokenizer
from sensorium.text.asking import IMAGE, asked


@dataclass(frozen=True)
class Question:
    """A question after its image, and its answer."""

    token_ids: np.ndarray[Any, Any]
    """[L] int32, of what comes after the image."""
    answer: int
    """Which of them is the answer's first."""


@dataclass(frozen=True)
class Asked:
    """An image, and all that is asked about it."""

    pixels: Pixels
    """[H, W, 3] uint8."""
    beginning: np.ndarray[Any, Any]
    """[B] int32: token ids up to the image, and its token in the place of each of its vectors."""
    questions: list[Question] = dataclasses.field(default_factory=list)


@dataclass(frozen=True)
class Answering:
    """Records: ``image``, a file or pixels [H, W, 3] uint8; ``text``, a question; ``target``, its answer."""

    images: ImageSettings
    stem: PatchStemConfig
    """What cuts images into patches."""
    max_length: int = 128
    """Tokens and patches of an image, its question and the answer; what is longer is refused."""
    questions: int = 8
    """Of one image that are asked at one look at it, at most: they are an example, and share a batch."""
    crop: float = 1.0
    """Smallest share of an image that is shown, drawn anew each time; 1: all of it."""
    shift: int = 0
    """Pixels by which an image is moved at most, drawn anew each time."""

    def heads(self) -> dict[str, Any]:
        """None: what writes has its own."""
        return {}

    def prepare(self, records: Sequence[Record], tokenizer: Tokenizer) -> list[Asked]:
        """Tokenise, and open each image once.

        Raises ``DataError`` for a record that lacks something or is too long, and for a broken image.
        """
        image_id, end = tokenizer.backend.token_to_id(IMAGE), tokenizer.eos_id
        if image_id is None or end is None:
            raise DataError(f"the tokenizer has no {IMAGE!r} or no end token, which texts with images in them need")
        said = [(_said(record, "text", n), _said(record, "target", n)) for n, record in enumerate(records, 1)]
        firsts, opened = open_each(records, self.images)
        found: dict[int, Asked] = {}
        for number, ((text, answer), first) in enumerate(zip(said, firsts, strict=True), 1):
            ids = tokenizer.encode(asked(text)).token_ids
            place = ids.index(image_id)
            if first not in found:
                pixels = opened[first]
                begun = np.asarray(ids[:place] + [image_id] * self.stem.patches(*pixels.shape[:2]), np.int32)
                found[first] = Asked(pixels, begun)
            before = ids[place + 1 :]
            rest = np.asarray([*before, *tokenizer.encode_plain(answer), end], np.int32)
            if (length := len(found[first].beginning) + len(rest)) > self.max_length:
                raise DataError(
                    f"record {number:,} has {length} tokens and patches; objective.max_length is {self.max_length}"
                )
            found[first].questions.append(Question(rest, len(before)))
        return list(found.values())

    def examples(self, prepared: list[Asked], generator: np.random.Generator) -> list[Example]:
        """Looks at images; which questions about an image share one is drawn anew each epoch."""
        return [
            self._look(one, [one.questions[i] for i in chosen])
            for one in prepared
            for chosen in np.array_split(
                generator.permutation(len(one.questions)), -(-len(one.questions) // self.questions)
            )
        ]

    def collate(self, examples: Sequence[Example], tokenizer: Tokenizer, generator: np.random.Generator) -> Batch:
        """Pack what each image's texts begin with, behind them the questions, and patches.

        Targets: ``rows`` [M] every place before a token of an answer, ``next`` [M] that token, ``places`` [R] where the
        vectors of images stand, ``owners`` [N] the image of each question.
        """
        shown = [self._shown(example.pixels, generator) for example in examples if example.pixels is not None]
        pixels = [normalised(one, self.images) for one in shown]
        images = pack_images(pixels, self.stem.patch_size, class_token=self.stem.class_token)
        begun = [example.labels["beginning"] for example in examples]
        asked_of = [(question, n) for n, example in enumerate(examples) for question in example.labels["questions"]]
        asked_of.sort(key=lambda one: len(begun[one[1]]) + len(one[0].token_ids))  # attention is fastest on equal ones
        packed = Packed.from_sequences(
            [*begun, *(question.token_ids for question, _ in asked_of)],
            start_positions=[*[0] * len(begun), *(len(begun[n]) for _, n in asked_of)],
        )
        learnt = [np.zeros(len(ids), np.bool_) for ids in begun]
        learnt += [np.arange(len(question.token_ids)) >= question.answer for question, _ in asked_of]
        batch = next_token_batch(packed, torch.from_numpy(np.concatenate(learnt)))
        looking = {
            "places": (packed.values == tokenizer.backend.token_to_id(IMAGE)).nonzero().squeeze(1),
            "owners": torch.tensor([n for _, n in asked_of]),
        }
        return replace(batch, targets={**batch.targets, **looking}, images=images)

    def losses(self, model: Any, batch: Batch) -> dict[str, Loss]:
        """Cross-entropy of the tokens of answers."""
        states = self.hidden_states(model, batch)
        return {"language_model": next_token_loss(model.text, states, batch.targets["next"])}

    def hidden_states(self, model: Any, batch: Batch) -> Tensor:
        """[M, D], each of which a token of an answer comes after."""
        assert batch.images is not None
        config: MultimodalConfig = model.config
        places = batch.targets["places"]
        rows = torch.arange(len(places), device=places.device) + config.first_seen_id
        values = batch.packed.values.index_copy(0, places, rows.to(batch.packed.values.dtype))
        seeing: Packed = replace(batch.packed, values=values)
        beginnings = SharedBeginnings(batch.targets["owners"].tolist())
        states: Tensor = model(seeing, beginnings, seen=model.see(batch.images))[batch.targets["rows"]]
        return states

    def _look(self, one: Asked, questions: list[Question]) -> Example:
        return Example(
            np.concatenate([one.beginning, *(question.token_ids for question in questions)]),
            labels={"beginning": one.beginning, "questions": questions},
            pixels=one.pixels,
            image_length=self.stem.rows(*one.pixels.shape[:2]),
        )

    def _shown(self, pixels: Pixels, generator: np.random.Generator) -> Pixels:
        """What is seen of an image this time, of the same size."""
        if self.crop < 1.0:
            pixels = random_crop(pixels, self.crop, generator)
        return random_shift(pixels, self.shift, generator) if self.shift else pixels


def _said(record: Record, name: str, number: int) -> str:
    """A text of a record. Raises ``DataError`` where it speaks of another image than the record's own."""
    text = str(field(record, name, number))
    if IMAGE in text:
        raise DataError(
            f"record {number:,}: its {name!r} has {IMAGE!r} in it, which stands for an image; a record has one image, "
            "and training puts it before the question; take it out"
        )
    return text
