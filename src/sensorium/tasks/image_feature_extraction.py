"""Image feature extraction: an image as vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sensorium.models.dual_encoder import DualEncoder
from sensorium.packed import Packed
from sensorium.tasks._images import ImageTask, OnError, Run


class ImageFeatureExtraction(ImageTask):
    """An image → the last hidden state of every patch; of a model that matches images with texts, its one vector."""

    def __call__(self, inputs: Any, *, pool: bool = False, on_error: OnError = "raise") -> Any:
        """``[[vector, …]]`` as nested lists [1, L, D], or [1, D] with ``pool``; a list of those for a list.

        ``on_error``: "answer" gives ``{"error": why}`` for an image that can't be read, instead of raising
        ``DataError``. Raises ``UsageError`` for ``pool`` when the model has no pooler.
        """
        if isinstance(self.checkpoint.model, DualEncoder):
            vectors: Run = lambda batch: list(self.model.image_vectors(batch).float())  # noqa: E731
            return self.answer(inputs, vectors, _listed, on_error)

        def run(batch: Packed) -> Sequence[Tensor]:
            hidden_states: Tensor = self.model(batch)  # [T, D]
            return list(self.model.pooled(hidden_states, batch)) if pool else batch.split(hidden_states.float())

        return self.answer(inputs, run, _listed, on_error)


def _listed(vectors: Tensor) -> Any:
    return [vectors.tolist()]
