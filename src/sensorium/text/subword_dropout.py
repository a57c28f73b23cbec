"""BPE-dropout: words cut into other pieces each time they are read (Provilkov et al., 2020).

A word is put together from its symbols, the best merge first. At each step every merge that could be made is left out
with a probability, and may be made at the next step; a step at which all are left out is the last (Algorithm 1 of the
paper). All words of many texts are merged at once, one merge of each at a step.

The dropout of the ``tokenizers`` library is not used. Its generator can't be seeded, so a run could not be repeated.
And pairs that a merge has used up stay in its queue, where each may bring back the merges that were left out, so it
cuts into fewer pieces than the paper does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tokenizers

from sensorium.errors import UsageError
from sensorium.text import Encoding, Tokenizer

NO_MERGE = np.iinfo(np.int32).max
"""The rank of a pair that is not merged: after all that are."""
BLOCK = 4096
"""Texts that are merged at once: what bounds the memory."""


class Merges:
    """The merges of a BPE tokenizer, over token ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises ``UsageError`` for a tokenizer that has no merges."""
        pairs, vocabulary, affix = _read(tokenizer)
        lefts, rights = ([vocabulary[pair[side]] for pair in pairs] for side in (0, 1))
        made = [vocabulary[left + right[len(affix) :]] for left, right in pairs]
        self.vocabulary_size = tokenizer.vocabulary_size
        keys = np.asarray(lefts, np.int64) * self.vocabulary_size + np.asarray(rights, np.int64)
        order = np.argsort(keys)
        self._keys, self._ranks = np.append(keys[order], -1), np.append(order, NO_MERGE).astype(np.int32)
        self.made = np.asarray(made, np.int32)
        """[merges] by rank: the token that takes the place of the two."""
        self._parts = dict(zip(made, zip(lefts, rights, strict=True), strict=True))
        # An added token is found in a text before any merge is made.
        for token_id in tokenizer.backend.get_added_tokens_decoder():
            self._parts.pop(token_id, None)

    def ranks(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """int32: how early each pair is merged, ``NO_MERGE`` for never."""
        keys = left.astype(np.int64) * self.vocabulary_size + right
        found = np.searchsorted(self._keys[:-1], keys)  # one past the end is the row of no merge
        return np.where(self._keys[found] == keys, self._ranks[found], NO_MERGE)

    def symbols(self, token_ids: Sequence[int]) -> list[int]:
        """What the tokens are merged from: letters or bytes, and what no merge makes."""
        left, found = [*reversed(token_ids)], []
        while left:
            token_id = left.pop()
            if token_id in self._parts:
                left += reversed(self._parts[token_id])
            else:
                found.append(token_id)
        return found


@dataclass(frozen=True)
class Words:
    """Texts as words, and words as the symbols that merges begin with; each distinct word is held once."""

    merges: Merges
    symbols: np.ndarray
    """[S] int32, of all distinct words, end to end."""
    starts: np.ndarray
    """[W + 1], where a distinct word begins in ``symbols``."""
    occurrences: np.ndarray
    """[N] int32, the distinct word at each place of the texts, end to end."""
    texts: np.ndarray
    """[T + 1], where a text begins in ``occurrences``."""
    before: np.ndarray
    """What frames every text."""
    after: np.ndarray
    max_length: int
    """Tokens kept of a text, its frame among them."""

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: Tokenizer, *, max_length: int) -> Words:
        """Read the words of texts. Raises ``UsageError`` for a tokenizer that has no merges."""
        merges = Merges(tokenizer)
        known: dict[tuple[int, ...], int] = {}
        occurrences: list[int] = []
        bounds, frame = [0], None
        for encoding in tokenizer.encode_batch(texts):
            words, before, after = _words(encoding)
            if frame is None or words:
                frame = before, after
            # A word has one piece at least: those that come later are cut off whatever is drawn.
            occurrences += [known.setdefault(word, len(known)) for word in words[:max_length]]
            bounds.append(len(occurrences))
        symbols = [merges.symbols(word) for word in known]
        before, after = frame or ((), ())
        return cls(
            merges,
            np.asarray([symbol for word in symbols for symbol in word], np.int32),
            np.cumsum([0, *map(len, symbols)]),
            np.asarray(occurrences, np.int32),
            np.asarray(bounds),
            np.asarray(before, np.int32),
            np.asarray(after, np.int32),
            max_length,
        )

    @cached_property
    def _ranks(self) -> np.ndarray:
        """[S] of the pair of each symbol and the next of its word."""
        ranks = self.merges.ranks(self.symbols, np.append(self.symbols[1:], 0))
        ranks[self.starts[1:] - 1] = NO_MERGE
        return ranks

    def sample(self, dropout: float, generator: np.random.Generator) -> list[np.ndarray]:
        """[L] int32 of each text, framed and cut; each merge is left out with the probability ``dropout``."""
        sampled: list[np.ndarray] = []
        for first in range(0, len(self.texts) - 1, BLOCK):
            sampled += self._sample(self.texts[first : first + BLOCK + 1], dropout, generator)
        return sampled

    def _sample(self, texts: np.ndarray, dropout: float, generator: np.random.Generator) -> list[np.ndarray]:
        words = self.occurrences[texts[0] : texts[-1]]
        sizes = self.starts[words + 1] - self.starts[words]
        places = _ranges(self.starts[words], sizes)
        pieces, counts = merge(self.merges, self.symbols[places], self._ranks[places], sizes, dropout, generator)
        ends = np.concatenate([[0], np.cumsum(counts)])[texts - texts[0]]
        room = self.max_length - len(self.before) - len(self.after)
        return [
            np.concatenate([self.before, pieces[start : min(end, start + room)], self.after])
            for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
        ]


def merge(
    merges: Merges,
    symbols: np.ndarray,
    ranks: np.ndarray,
    sizes: np.ndarray,
    dropout: float,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """The pieces [P] of words end to end, and how many each has [N].

    ``symbols`` [S] are those of N words of ``sizes`` [N], ``ranks`` [S] of each one's pair with the next.
    """
    rows, counts = np.arange(len(sizes)), sizes.copy()
    finished: list[tuple[np.ndarray, np.ndarray]] = []
    while len(rows):
        # The best merge that is left of each word, the first of equal ones: the least of (rank, place).
        order = ranks.astype(np.int64) << 32 | np.arange(len(ranks))
        if dropout:
            order[generator.random(len(ranks), np.float32) < dropout] |= NO_MERGE << 32
        starts = np.cumsum(sizes) - sizes
        best = np.minimum.reduceat(order, starts)
        rank, at = best >> 32, best & 0xFFFFFFFF
        going = rank != NO_MERGE
        counts[rows] = sizes
        kept = np.repeat(going, sizes)
        finished.append((rows[~going], symbols[~kept]))
        rank, at = rank[going], at[going]
        symbols[at] = merges.made[rank]
        # The pair that begins at the new token is with what came after the second of the old ones, if anything did.
        last = at + 1 == (starts + sizes - 1)[going]
        ranks[at] = np.where(last, NO_MERGE, merges.ranks(symbols[at], symbols[np.minimum(at + 2, len(symbols) - 1)]))
        inner = at[at != starts[going]]
        ranks[inner - 1] = merges.ranks(symbols[inner - 1], symbols[inner])
        kept[at + 1] = False
        symbols, ranks, rows, sizes = symbols[kept], ranks[kept], rows[going], sizes[going] - 1
    pieces = np.empty(counts.sum(), np.int32)
    ends = np.cumsum(counts)
    for rows, written in finished:
        pieces[_ranges((ends - counts)[rows], counts[rows])] = written
    return pieces, counts


# --- details ---------------------------------------------------------------------------------------------------------


def _read(tokenizer: Tokenizer) -> tuple[list[tuple[str, str]], dict[str, int], str]:
    """Pairs of pieces, in the order they are merged; ids of pieces; what the pieces inside a word begin with."""
    backend = tokenizer.backend
    model: dict[str, Any] = json.loads(backend.to_str())["model"]
    if model["type"] != "BPE" or not isinstance(backend, tokenizers.Tokenizer):
        kind = model["type"] if isinstance(backend, tokenizers.Tokenizer) else "numbered pieces"
        raise UsageError(
            f"bpe_dropout needs a tokenizer with merges, this one is {kind}; set it to 0, or train one of the kind bpe"
        )
    return [tuple(pair) for pair in model["merges"]], model["vocab"], model["continuing_subword_prefix"] or ""


def _words(encoding: Encoding) -> tuple[list[tuple[int, ...]], tuple[int, ...], tuple[int, ...]]:
    """The tokens of each word of an encoded text, and the tokens before and after them."""
    token_ids, word_ids = encoding.token_ids, encoding.word_ids
    bounds = [i for i in range(1, len(word_ids)) if word_ids[i] != word_ids[i - 1]]
    parts = [
        (word_ids[start], tuple(token_ids[start:end]))
        for start, end in zip([0, *bounds], [*bounds, len(word_ids)], strict=True)
        if end > start
    ]
    words = [part for word, part in parts if word is not None]
    before = parts[0][1] if parts and parts[0][0] is None else ()
    after = parts[-1][1] if len(parts) > 1 and parts[-1][0] is None else ()
    return words, before, after


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The places start, start + 1 … of each range, end to end."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)
