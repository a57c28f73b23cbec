"""Next-sentence prediction: does the second text follow the first?"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sensorium.errors import DataError
from sensorium.packed import Packed
from sensorium.tasks._task import Pairs, Task, require_text
from sensorium.text import Encoding

LABELS = ("IsNext", "NotNext")


class NextSentencePrediction(Task):
    """A pair of texts → whether the second follows the first (Devlin et al., 2019)."""

    def __call__(self, inputs: Any) -> Any:
        """``[{"label", "score"}, …]``, both labels by falling score, for ``{"text": …, "text_pair": …}``.

        A list of those for a list. A pair longer than the model reads cannot be cut into windows without cutting what
        is asked about: its longer text is shortened, with a warning.
        """
        return self.answer(inputs, self._prepare, self._run, self._finish)

    def _prepare(self, one: Any, number: int) -> list[Encoding]:
        if not isinstance(one, dict) or not {"text", "text_pair"} <= one.keys():
            raise DataError(f"input {number} needs 'text' and 'text_pair'")
        first, second = require_text(one["text"], number), require_text(one["text_pair"], number)
        encoding = self.tokenizer.encode(first, second)
        if len(encoding) > self.max_length:
            warnings.warn(
                f"input {number} has {len(encoding):,} tokens: the longer text is shortened to fit {self.max_length:,}",
                stacklevel=2,
            )
            encoding = self.tokenizer.encode(first, second, max_length=self.max_length)
        return [encoding]

    def _run(self, batch: Packed, windows: Sequence[Encoding]) -> Sequence[Tensor]:
        logits: Tensor = self.model.next_sentence_logits(self.model(batch), batch)  # [N, 2]
        return list(logits.float())

    def _finish(self, one: Any, pairs: Pairs) -> list[dict[str, Any]]:
        ((_, logits),) = pairs
        scores = logits.softmax(dim=0).tolist()
        ranked = sorted(zip(LABELS, scores, strict=True), key=lambda pair: pair[1], reverse=True)
        return [{"label": label, "score": score} for label, score in ranked]
