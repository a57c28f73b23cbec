"""Zero-shot image classification: which of some descriptions an image matches (Radford et al., 2021, §3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sensorium.checkpoint import Checkpoint
from sensorium.infer.batching import pack_encodings
from sensorium.packed import Packed
from sensorium.tasks._images import ImageTask, OnError
from sensorium.tasks.zero_shot_classification import filled, label_list


class ZeroShotImageClassification(ImageTask):
    """An image and candidate labels → the labels by how well the image matches "This is a photo of <label>."."""

    def __init__(self, checkpoint: Checkpoint, batch_tokens: int) -> None:
        super().__init__(checkpoint, batch_tokens)
        self.tokenizer = checkpoint.require_tokenizer()
        self._known: tuple[tuple[str, ...], Tensor] | None = None  # the last descriptions and their vectors

    def __call__(
        self,
        inputs: Any,
        candidate_labels: str | Sequence[str],
        *,
        hypothesis_template: str = "This is a photo of {}.",
        on_error: OnError = "raise",
    ) -> Any:
        """``[{"score", "label"}]`` by falling score; a list of those for a list.

        Scores sum to 1 for a model that chooses among texts (CLIP), and each stands alone for one that judges pairs
        (SigLIP). ``on_error``: "answer" gives ``{"error": why}`` for an image that can't be read, instead of raising
        ``DataError``.
        """
        labels = label_list(candidate_labels)
        vectors = self._text_vectors(tuple(filled(hypothesis_template, label) for label in labels))  # [M, P]

        def run(batch: Packed) -> Sequence[Tensor]:
            logits: Tensor = self.model.logits(self.model.image_vectors(batch), vectors)  # [N, M]
            return list(self.model.probabilities(logits.float()))

        def finish(scores: Tensor) -> list[dict[str, Any]]:
            order = scores.argsort(descending=True).tolist()
            return [{"score": float(scores[i]), "label": labels[i]} for i in order]

        return self.answer(inputs, run, finish, on_error)

    @torch.inference_mode()
    def _text_vectors(self, texts: tuple[str, ...]) -> Tensor:
        """[M, P]; those of the last call are kept."""
        if self._known is None or self._known[0] != texts:
            longest = self.model.config.max_length
            encodings = [self.tokenizer.encode(text, max_length=longest) for text in texts]
            self._known = texts, self.model.text_vectors(pack_encodings(encodings))
        return self._known[1]
