"""Sentence similarity: how near in meaning sentences are to a source sentence."""

from __future__ import annotations

from typing import Any

from sensorium.checkpoint import Checkpoint
from sensorium.errors import DataError
from sensorium.tasks._task import require_iterable
from sensorium.tasks.sentence_embedding import SentenceEmbedding


class SentenceSimilarity:
    """``{"source_sentence": …, "sentences": […]}`` → the cosine of each sentence's vector with the source's."""

    def __init__(self, checkpoint: Checkpoint, batch_tokens: int) -> None:
        self.embed = SentenceEmbedding(checkpoint, batch_tokens)

    def __call__(self, inputs: Any) -> Any:
        """A list of numbers from -1 to 1, in the order of the sentences.

        A list of those for a list of inputs, a stream of them for a generator.
        """
        if isinstance(inputs, dict):
            return self._similarities(inputs)
        stream = map(self._similarities, require_iterable(inputs))
        return list(stream) if isinstance(inputs, list | tuple) else stream

    def _similarities(self, inputs: Any) -> list[float]:
        if not isinstance(inputs, dict) or not {"source_sentence", "sentences"} <= inputs.keys():
            raise DataError("sentence-similarity needs 'source_sentence' and 'sentences'")
        sentences = list(inputs["sentences"])
        if not sentences:
            return []
        vectors = self.embed([inputs["source_sentence"], *sentences])  # [1 + N, D]
        norms = (vectors**2).sum(axis=1) ** 0.5
        return (vectors[1:] @ vectors[0] / (norms[1:] * norms[0])).tolist()  # type: ignore[no-any-return]
