"""Denoising: read a damaged text, write it whole; how an encoder–decoder is pretrained (BART, Lewis et al., 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sensorium.data.batching import Example
from sensorium.objectives._base import Batch, Loss, Record, field
from sensorium.objectives.masked_token import require_mask
from sensorium.objectives.seq2seq import SequenceToSequence
from sensorium.text import Tokenizer


@dataclass(frozen=True)
class Framed:
    """Pieces of texts, each [L], without the tokens that stand before and behind a text; and the mask."""

    pieces: list[np.ndarray]
    before: list[int]
    behind: list[int]
    mask_id: int

    def frame(self, token_ids: np.ndarray) -> np.ndarray:
        """As the tokenizer frames a text."""
        return np.concatenate([self.before, token_ids, self.behind]).astype(np.int32)


@dataclass(frozen=True)
class Denoising:
    """Records: ``text``, cut into pieces that fit. Runs of tokens are hidden, each behind one mask ("text infilling"),
    and the whole text is written. What is hidden is drawn anew each epoch.
    """

    start_token_id: int
    """What the decoder begins with."""
    max_length: int = 128
    probability: float = 0.3
    """Share of the tokens that are hidden."""
    span_length: float = 3.0
    """Mean of the lengths of what one mask hides, which are Poisson distributed; some hide nothing."""

    def heads(self) -> dict[str, Any]:
        """The language-model head of the decoder."""
        return self._writing.heads()

    def prepare(self, records: Sequence[Record], tokenizer: Tokenizer) -> Framed:
        """Tokenise. Raises ``DataError`` for a record without text, ``UsageError`` without a mask token."""
        mask_id = require_mask(tokenizer, "denoising")
        before, behind = tokenizer.frame()
        size, pieces = self.max_length - len(before) - len(behind), []
        for number, record in enumerate(records, 1):
            token_ids = np.asarray(tokenizer.encode_plain(str(field(record, "text", number))), np.int32)
            pieces += [token_ids[start : start + size] for start in range(0, len(token_ids), size)]
        return Framed(pieces, before, behind, mask_id)

    def examples(self, prepared: Framed, generator: np.random.Generator) -> list[Example]:
        """Each piece damaged, and whole."""
        return [
            Example(
                prepared.frame(hide_spans(piece, prepared.mask_id, self.probability, self.span_length, generator)),
                target_ids=prepared.frame(piece),
            )
            for piece in prepared.pieces
        ]

    def collate(self, examples: Sequence[Example], tokenizer: Tokenizer, generator: np.random.Generator) -> Batch:
        """As a text that is written from another."""
        return self._writing.collate(examples, tokenizer, generator)

    def losses(self, model: Any, batch: Batch) -> dict[str, Loss]:
        """Cross-entropy of every token of the whole text."""
        return self._writing.losses(model, batch)

    @property
    def _writing(self) -> SequenceToSequence:
        return SequenceToSequence(self.start_token_id, self.max_length, self.max_length)


def hide_spans(
    token_ids: np.ndarray, mask_id: int, probability: float, span_length: float, generator: np.random.Generator
) -> np.ndarray:
    """A text [L] with one mask in place of each hidden run; no two runs touch.

    >>> hide_spans(np.arange(10), -1, 0.3, 3.0, np.random.default_rng(0)).tolist()
    [0, 1, -1, 4, 5, -1, 6, 7, -1, 9]
    """
    wanted = round(len(token_ids) * probability)
    lengths = _poisson_lengths(wanted, span_length, generator)
    kept = len(token_ids) - wanted
    # Runs lie between kept tokens, at most one at a place; of more runs than places the last ones become one.
    if len(lengths) > kept + 1:
        lengths = np.append(lengths[:kept], lengths[kept:].sum())
    places = np.sort(generator.choice(kept + 1, size=len(lengths), replace=False))
    keep = np.ones(len(token_ids), bool)
    for start, length in zip(places + np.cumsum(lengths) - lengths, lengths, strict=True):
        keep[start : start + length] = False
    damaged: np.ndarray = np.insert(token_ids[keep], places, mask_id)
    return damaged


def _poisson_lengths(total: int, mean: float, generator: np.random.Generator) -> np.ndarray:
    """Lengths of runs that add up to ``total``; the last one is cut to fit."""
    lengths: list[int] = []
    room = total
    while room:
        lengths.append(min(room, int(generator.poisson(mean))))
        room -= lengths[-1]
    return np.asarray(lengths, np.int64)
