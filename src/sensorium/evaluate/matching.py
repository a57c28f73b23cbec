"""How well images and texts match, by a model with two towers: what the evaluation of retrieval asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sensorium.checkpoint import Checkpoint
from sensorium.evaluate.retrieval import Scores
from sensorium.infer.batching import BATCH_TOKENS
from sensorium.tasks.matching import ImageTextVectors


def matcher(
    checkpoint: Checkpoint, *, batch_tokens: int = BATCH_TOKENS
) -> Callable[[Sequence[Any], Sequence[str]], Scores]:
    """Images and texts → [N, M] the cosines of their vectors. Raises ``UsageError`` for a model without two towers."""
    vectors = ImageTextVectors(checkpoint, batch_tokens)

    def score(images: Sequence[Any], texts: Sequence[str]) -> Scores:
        return np.asarray(vectors.images(images) @ vectors.texts(texts).T)

    return score
