"""Evaluations of small made-up models that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sensorium.evaluate import Evaluation, Settings, evaluate_classification

Records = list[dict[str, str]]


@pytest.fixture
def reviews() -> Callable[..., Records]:
    """So many made-up reviews, a third of them positive; none occurs twice."""

    def reviews(count: int = 60, first: int = 0) -> Records:
        moods = {"negative": "bad and dirty", "positive": "good and clean"}
        labels = ["positive" if number % 3 == 0 else "negative" for number in range(first, first + count)]
        return [
            {"text": f"Room {number} was {moods[label]}, said guest {number * 7}.", "label": label}
            for number, label in enumerate(labels, first)
        ]

    return reviews


@pytest.fixture
def evaluated(reviews: Callable[..., Records]) -> Callable[..., Evaluation]:
    """An evaluation of a made-up model that is right so often on sixty reviews, and about as sure."""

    def evaluated(share_right: float = 0.8, **changes: Any) -> Evaluation:
        records, random = reviews(), np.random.default_rng(0)
        flipped = {"positive": "negative", "negative": "positive"}
        said = [
            {
                "label": record["label"] if random.random() < share_right else flipped[record["label"]],
                "score": float(np.clip(random.normal(share_right, 0.05), 0.5, 1)),
            }
            for record in records
        ]
        settings: dict[str, Any] = {"settings": Settings(resamples=200), "dataset": "reviews"} | changes
        return evaluate_classification(lambda _: said, records, labels=["negative", "positive"], **settings)

    return evaluated
