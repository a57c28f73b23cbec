"""Sentence embeddings: one vector a text, pooled as the checkpoint's own modules say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensorium.checkpoint import Checkpoint
from sensorium.errors import UsageError
from sensorium.packed import Packed
from sensorium.sentence import SentenceSettings
from sensorium.tasks._task import Pairs, Task, require_text
from sensorium.text import Encoding

LONG_TEXT = ("window", "truncate")


class SentenceEmbedding(Task):
    """A text → a vector (Reimers & Gurevych, 2019).

    Without ``modules.json`` in the checkpoint: the mean of the token vectors, scaled to length 1. A text longer than
    the model reads is cut into windows whose tokens are pooled together; where one token stands for a window (``cls``,
    ``lasttoken``), the windows' vectors are averaged by length.
    """

    def __init__(self, checkpoint: Checkpoint, batch_tokens: int) -> None:
        super().__init__(checkpoint, batch_tokens)
        self.settings = checkpoint.sentence or SentenceSettings()
        longest = checkpoint.language_config.max_length
        self.max_length = min(longest, self.settings.max_length or longest)

    def __call__(self, inputs: Any, *, long_text: str = "window") -> Any:
        """A vector [D] (numpy, float32) for a text; an array [N, D] for a list; a stream of vectors for a generator.

        ``long_text="truncate"`` reads only the beginning, as sentence-transformers does.
        """
        if long_text not in LONG_TEXT:
            raise UsageError(f"long_text is {long_text!r}; known are {', '.join(LONG_TEXT)}")
        vectors = self.answer(inputs, partial(self._prepare, long_text=long_text), self._run, self._finish)
        if isinstance(inputs, list | tuple):
            return np.stack(vectors) if vectors else np.zeros((0, self.model.config.stack.hidden_size), np.float32)
        return vectors

    def _prepare(self, one: Any, number: int, *, long_text: str) -> Iterator[Encoding]:
        text = require_text(one, number)
        text = text.lower() if self.settings.lowercase else text
        return islice(self.windows(text), 1 if long_text == "truncate" else None)

    def _run(self, batch: Packed, windows: Sequence[Encoding]) -> Sequence[Tensor]:
        """Each window's pooled vector and its weight, [D + 1]; means are left as sums, so that windows add up."""
        hidden_states = self.model(batch).float()  # [T, D]
        pooling = self.settings.pooling
        if pooling == "mean":
            rows = batch.sequence_ids[:, None].expand(-1, hidden_states.shape[1])
            sums = hidden_states.new_zeros(batch.num_sequences, hidden_states.shape[1])
            pooled = sums.scatter_add_(0, rows, hidden_states)  # [N, D]
        elif pooling == "max":
            pooled = torch.stack([part.amax(dim=0) for part in batch.split(hidden_states)])
        else:
            pooled = hidden_states[batch.first if pooling == "cls" else batch.last]
        return list(torch.cat([pooled, torch.tensor(batch.lengths)[:, None]], dim=1))

    def _finish(self, one: str, pairs: Pairs) -> Any:
        first, *others = (pooled.numpy() for _, pooled in pairs)  # [D + 1] each
        vector, weight = first[:-1], first[-1:]
        if others:  # a long text, as the sum of its windows
            windows = np.stack([first, *others])  # [windows, D + 1]
            vectors, weights = windows[:, :-1], windows[:, -1:]
            weight = weights.sum(axis=0)
            if self.settings.pooling == "max":
                vector = vectors.max(axis=0)
            else:
                vector = (vectors if self.settings.pooling == "mean" else vectors * weights).sum(axis=0)
        if self.settings.pooling == "mean" or (others and self.settings.pooling != "max"):
            vector = vector / weight
        if self.settings.normalize:
            vector = vector / max(math.sqrt(float(vector @ vector)), 1e-12)
        return vector if vector.base is None else vector.copy()  # not a view that keeps its whole batch
