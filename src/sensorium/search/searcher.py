"""Answers from an index: what is most like a text or an image, how likely it is meant, and whether anything is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sensorium.calibration import Calibration, logistic, probability
from sensorium.errors import UsageError
from sensorium.search.index import check_model
from sensorium.search.store import Found, Kind, Store, Vector
from sensorium.tasks.matching import ImageTextVectors

LIKELY = 0.5
"""The least probability of the best match at which something there is likely meant."""


@dataclass(frozen=True)
class Match:
    """Something that was found."""

    path: str
    kind: Kind
    line: int
    """Of a text, where the part begins; of an image, 0."""
    text: str
    score: float
    """Cosine of the vectors, -1 to 1."""
    probability: float | None
    """That this is what was meant; ``None``: asked with an image for images, or a text for texts, nobody knows."""


@dataclass(frozen=True)
class Answer:
    """What an index holds that is like a query, the most alike first."""

    matches: list[Match]
    count: int
    """How many there were to choose from."""
    likely: bool | None
    """Whether the best one is likely meant; ``False``: the index probably holds nothing of the kind; ``None``: as for
    probabilities."""


class Searcher:
    """An index and the model that it was made with."""

    def __init__(self, store: Store, vectors: ImageTextVectors) -> None:
        """Raises ``UsageError`` where the index was made by another model."""
        check_model(store, vectors)
        self.store, self.vectors = store, vectors
        self.calibration = vectors.checkpoint.calibration or Calibration()

    def search(self, query: str, *, most: int = 10, kind: Kind = "image") -> Answer:
        """What is like a text. Raises ``UsageError`` for an empty one."""
        if not query.strip():
            raise UsageError("the query is empty; say what to look for")
        return self._answer(self.vectors.texts([query])[0], most, kind, crosses=kind == "image")

    def search_image(self, image: Any, *, most: int = 10, kind: Kind = "image") -> Answer:
        """What is like an image: a file, its bytes, a picture of Pillow or an array."""
        return self._answer(self.vectors.images([image])[0], most, kind, crosses=kind == "text")

    def _answer(self, vector: Vector, most: int, kind: Kind, *, crosses: bool) -> Answer:
        """``crosses``: from a text to images, or from an image to texts, which is what was learnt."""
        if most < 1:
            raise UsageError(f"at least one match must be asked for, not {most}")
        count = self.store.count(kind)
        if not count:
            raise UsageError(f"the index holds no {kind}s")
        found = self.store.nearest(vector, kind, most)
        odds = self._probabilities(found, vector, kind, count) if crosses else [None] * len(found)
        matches = [
            Match(one.path, one.kind, one.part, one.text, one.cosine, p) for one, p in zip(found, odds, strict=True)
        ]
        best = matches[0].probability
        return Answer(matches, count, None if best is None else best >= LIKELY)

    def _probabilities(self, found: list[Found], vector: Vector, kind: Kind, count: int) -> list[float]:
        model: Any = self.vectors.model
        scale = float(model.logit_scale.detach().exp())
        scaled = scale * np.array([one.cosine for one in found])
        if model.logit_bias is not None:  # each pair is judged alone
            return [float(p) for p in logistic(scaled + float(model.logit_bias.detach()))]
        ratio = scaled - self.store.background(vector, kind, scale)
        return [float(p) for p in probability(ratio, count, self.calibration)]
