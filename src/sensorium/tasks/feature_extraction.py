"""Feature extraction: the vector of every token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from sensorium.errors import DataError
from sensorium.packed import Packed
from sensorium.tasks._task import Pairs, Task, require_text
from sensorium.text import Encoding

MOST_TOKENS = 100_000


class FeatureExtraction(Task):
    """A text → the last hidden state of every token, special ones included.

    A text longer than the model reads gives the vectors of its windows end to end, each window with its special tokens.
    """

    def __call__(self, inputs: Any) -> Any:
        """``[[vector, …]]`` for a text, as nested lists [1, L, D]; a list of those for a list.

        Raises ``DataError`` for a text of more than ``MOST_TOKENS`` tokens: use ``sentence-embedding``.
        """
        return self.answer(inputs, self._prepare, self._run, self._finish)

    def _prepare(self, one: Any, number: int) -> Iterator[Encoding]:
        tokens = 0
        for window in self.windows(require_text(one, number)):
            tokens += len(window)
            if tokens > MOST_TOKENS:
                raise DataError(
                    f"input {number} has more than {MOST_TOKENS:,} tokens, the most for which a vector each is given: "
                    "cut the text, or use sentence-embedding"
                )
            yield window

    def _run(self, batch: Packed, windows: Sequence[Encoding]) -> Sequence[Tensor]:
        hidden_states: Tensor = self.model(batch)  # [T, D]
        return batch.split(hidden_states.float())

    def _finish(self, one: str, pairs: Pairs) -> Any:
        return [torch.cat([vectors for _, vectors in pairs]).tolist()]
