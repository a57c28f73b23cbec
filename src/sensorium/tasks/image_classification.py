"""Image classification: labels of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sensorium.errors import UsageError
from sensorium.packed import Packed
from sensorium.tasks._images import ImageTask, OnError
from sensorium.tasks.text_classification import DEFAULT_FUNCTION, FUNCTIONS


class ImageClassification(ImageTask):
    """An image → its likeliest labels."""

    def __call__(
        self,
        inputs: Any,
        *,
        top_k: int | None = 5,
        function_to_apply: str | None = None,
        on_error: OnError = "raise",
    ) -> Any:
        """``[{"label", "score"}]`` by falling score, the best ``top_k`` (``None``: all); a list of those for a list.

        ``function_to_apply``: ``softmax``, ``sigmoid`` or ``none``. ``on_error``: "answer" gives ``{"error": why}``
        for an image that can't be read, instead of raising ``DataError``.
        """
        if function_to_apply is not None and function_to_apply not in FUNCTIONS:
            raise UsageError(f"function_to_apply is {function_to_apply!r}; known are {', '.join(FUNCTIONS)}")
        head = self.model.config.sequence
        scored: Any = FUNCTIONS[function_to_apply or DEFAULT_FUNCTION[head.problem]]

        def finish(logits: Tensor) -> list[dict[str, Any]]:
            pairs = sorted(zip(scored(logits).tolist(), head.labels, strict=True), key=lambda pair: -pair[0])
            return [{"label": label, "score": score} for score, label in pairs[:top_k]]

        return self.answer(inputs, self._logits, finish, on_error)

    def _logits(self, batch: Packed) -> Sequence[Tensor]:
        logits: Tensor = self.model.sequence_logits(self.model(batch), batch)  # [N, C]
        return list(logits.float())
