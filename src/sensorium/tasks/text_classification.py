"""Text classification: one label for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from sensorium.errors import DataError, UsageError
from sensorium.packed import Packed
from sensorium.tasks._task import Pairs, Task, require_text, weighted_mean
from sensorium.text import Encoding

FUNCTIONS = {"softmax": lambda x: x.softmax(-1), "sigmoid": lambda x: x.sigmoid(), "none": lambda x: x}
DEFAULT_FUNCTION = {"single_label": "softmax", "multi_label": "sigmoid", "regression": "none"}
LEGACY = object()
"""``top_k`` was not given: the answer is one dict, as in transformers 4."""


class TextClassification(Task):
    """A text → its label and score.

    A text longer than the model reads is judged window by window, the logits averaged by the windows' lengths. Of a
    pair the longer text is cut, and every window carries the other.
    """

    def __call__(self, inputs: Any, *, top_k: Any = LEGACY, function_to_apply: str | None = None) -> Any:
        """``[{"label", "score"}]`` for a text, a dict each for a list or a pair; with ``top_k`` a list of the best.

        ``top_k=None``: all labels. An input is a text or ``{"text": …, "text_pair": …}``. ``function_to_apply``:
        ``softmax``, ``sigmoid`` or ``none``.
        """
        if function_to_apply is not None and function_to_apply not in FUNCTIONS:
            raise UsageError(f"function_to_apply is {function_to_apply!r}; known are {', '.join(FUNCTIONS)}")

        def finish(one: Any, pairs: Pairs) -> Any:
            return self._finish(weighted_mean(pairs), top_k, function_to_apply)

        answer = self.answer(inputs, self._prepare, self._run, finish)
        return [answer] if isinstance(inputs, str) and top_k is LEGACY else answer

    def _prepare(self, one: Any, number: int) -> Iterator[Encoding]:
        if not isinstance(one, dict):
            return self.windows(require_text(one, number))
        if "text" not in one:
            raise DataError(f"input {number} has no 'text'; it has {', '.join(map(repr, one))}")
        text, pair = require_text(one["text"], number), one.get("text_pair")
        if pair is None:
            return self.windows(text)
        if len(require_text(pair, number)) > len(text):
            return self.windows(pair, first=text)
        return self.windows(text, second=pair)

    def _run(self, batch: Packed, windows: Sequence[Encoding]) -> Sequence[Tensor]:
        logits: Tensor = self.model.sequence_logits(self.model(batch), batch)  # [N, C]
        return list(logits.float())

    def _finish(self, logits: Tensor, top_k: Any, function_to_apply: str | None) -> Any:
        head = self.model.config.sequence
        scores = FUNCTIONS[function_to_apply or DEFAULT_FUNCTION[head.problem]](logits).tolist()
        ranked = sorted(zip(head.labels, scores, strict=True), key=lambda pair: pair[1], reverse=True)
        answers = [{"label": label, "score": score} for label, score in ranked]
        return answers[0] if top_k is LEGACY else answers[:top_k]
