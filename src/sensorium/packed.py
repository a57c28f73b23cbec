"""Packed: the one data structure. Sequences end to end, boundaries as offsets, no padding anywhere.

Shapes: T = tokens of all sequences, N = sequences, D = hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sensorium.errors import UsageError


@dataclass(frozen=True)
class Packed:
    """A batch: sequence n is ``values[offsets[n]:offsets[n + 1]]``.

    >>> batch = Packed.from_sequences([[5, 6, 7], [8]])
    >>> batch.values.tolist(), batch.offsets.tolist(), batch.positions.tolist()
    ([5, 6, 7, 8], [0, 3, 4], [0, 1, 2, 0])
    """

    values: Tensor
    """[T] token ids (int64), or [T, D] vectors."""
    offsets: Tensor
    """[N + 1] int64, on the CPU: attention needs the lengths as numbers."""
    positions: Tensor
    """[T] int64: place of each token in its sequence; [T, 3] of patches: time, row and column."""
    segment_ids: Tensor | None = None
    """[T] int64: BERT's token types; ``None``: all zero."""

    @classmethod
    def from_sequences(
        cls,
        sequences: Sequence[Sequence[int] | np.ndarray | Tensor],
        *,
        segment_ids: Sequence[Sequence[int] | np.ndarray | Tensor] | None = None,
        start_positions: Sequence[int] | None = None,
    ) -> Packed:
        """Lay sequences of token ids end to end.

        ``start_positions`` is the position of each sequence's first token: decoding goes on after a cached prefix.
        Raises ``UsageError`` when there is no sequence or one is empty.
        """
        lengths = [len(sequence) for sequence in sequences]
        if not lengths or 0 in lengths:
            raise UsageError("a batch needs at least one sequence, and each sequence at least one token")
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        starts = np.zeros(len(lengths), dtype=np.int64) if start_positions is None else np.asarray(start_positions)
        positions = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return cls(
            values=_concatenate(sequences),
            offsets=torch.from_numpy(offsets.astype(np.int64)),
            positions=torch.from_numpy(positions.astype(np.int64)),
            segment_ids=None if segment_ids is None else _concatenate(segment_ids),
        )

    @property
    def num_sequences(self) -> int:
        """N."""
        return len(self.lengths)

    @property
    def num_tokens(self) -> int:
        """T."""
        return int(self.values.shape[0])

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each sequence."""
        return tuple(self.offsets.diff().tolist())

    @cached_property
    def layout(self) -> Layout:
        """Who attends within this batch: every sequence to itself."""
        return Layout(query_lengths=self.lengths, key_lengths=self.lengths)

    @property
    def first(self) -> Tensor:
        """[N] index of each sequence's first token."""
        return self.offsets[:-1].to(self.values.device)

    @property
    def last(self) -> Tensor:
        """[N] index of each sequence's last token."""
        return (self.offsets[1:] - 1).to(self.values.device)

    @property
    def sequence_ids(self) -> Tensor:
        """[T] index of the sequence each token belongs to."""
        ids = torch.arange(self.num_sequences).repeat_interleave(self.offsets.diff())
        return ids.to(self.values.device)

    def split(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Any [T, …] tensor, cut at this batch's boundaries; views, not copies."""
        parts: tuple[Tensor, ...] = tensor.split(list(self.lengths))
        return parts

    def chunks(self, size: int) -> Iterator[Packed]:
        """Batches of at most ``size`` of these sequences each, in order; views, not copies.

        >>> [part.values.tolist() for part in Packed.from_sequences([[1, 2], [3], [4, 5]]).chunks(2)]
        [[1, 2, 3], [4, 5]]
        """
        for first in range(0, self.num_sequences, size):
            offsets = self.offsets[first : first + size + 1]
            rows = slice(int(offsets[0]), int(offsets[-1]))
            segments = None if self.segment_ids is None else self.segment_ids[rows]
            yield Packed(self.values[rows], offsets - offsets[0], self.positions[rows], segments)

    def to(self, device: torch.device | str) -> Packed:
        """This batch on another device; the offsets stay on the CPU."""
        segment_ids = None if self.segment_ids is None else self.segment_ids.to(device)
        return replace(
            self, values=self.values.to(device), positions=self.positions.to(device), segment_ids=segment_ids
        )


@dataclass(frozen=True)
class Layout:
    """Who attends to whom: the queries of sequence n see the keys of sequence n, nothing else.

    Where the lengths differ, the queries are the *last* tokens of the keys (decoding with a cache), or another
    stream altogether (cross-attention).
    """

    query_lengths: tuple[int, ...]
    key_lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.query_lengths) != len(self.key_lengths):
            raise UsageError(
                f"{len(self.query_lengths)} sequences of queries attend to {len(self.key_lengths)} of keys; "
                "the counts must agree"
            )

    @cached_property
    def query_positions(self) -> Tensor:
        """[T] the place of each query in its sequence: the last one stands at the last key."""
        ends = zip(self.query_lengths, self.key_lengths, strict=True)
        return torch.cat([torch.arange(keys - queries, keys) for queries, keys in ends])

    def offsets(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """[N + 1] int32 each, where the queries and the keys of each sequence begin, as kernels of a GPU take them."""
        if device not in self._offsets:
            query, key = (
                torch.tensor([*_starts(lengths), sum(lengths)], dtype=torch.int32).to(device)
                for lengths in (self.query_lengths, self.key_lengths)
            )
            self._offsets[device] = query, key
        return self._offsets[device]

    @cached_property
    def _offsets(self) -> dict[torch.device, tuple[Tensor, Tensor]]:
        return {}

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The sequences, gathered by similar length, so that one call of a kernel serves many."""
        order = sorted(range(len(self.key_lengths)), key=lambda n: (self.key_lengths[n], self.query_lengths[n]))
        starts = {"query": _starts(self.query_lengths), "key": _starts(self.key_lengths)}
        groups, members, real = [], [order[0]], self.key_lengths[order[0]]
        for n in order[1:]:
            padded = (len(members) + 1) * self.key_lengths[n]  # sorted: the newest is the longest
            real += self.key_lengths[n]
            if padded - real > max(GROUP_SLACK * real, GROUP_SLACK_TOKENS):
                groups.append(self._group(members, starts))
                members, real = [], self.key_lengths[n]
            members.append(n)
        return (*groups, self._group(members, starts))

    def _group(self, members: list[int], starts: dict[str, list[int]]) -> Group:
        return Group(
            query=Rows.of([starts["query"][n] for n in members], [self.query_lengths[n] for n in members]),
            key=Rows.of([starts["key"][n] for n in members], [self.key_lengths[n] for n in members]),
        )


GROUP_SLACK = 0.15
"""Share of padding a group may hold: computing a few padded scores costs less than another kernel call."""
GROUP_SLACK_TOKENS = 64


@dataclass(frozen=True)
class Rows:
    """The rows of n sequences in a packed tensor, as a rectangle [n, L] with L the longest of them.

    A contiguous run of equal lengths is a view of the packed tensor; anything else is gathered by ``index`` and
    scattered back by ``inverse``.
    """

    lengths: tuple[int, ...]
    start: int | None
    """First row, when the sequences lie end to end and are equally long; else ``None``."""
    index: Tensor
    """[n · L] row of each cell; cells beyond a sequence's end repeat its first row."""
    inverse: Tensor
    """[Σ lengths] cell of each row, sequence after sequence."""
    rows: Tensor
    """[Σ lengths] row in the packed tensor, sequence after sequence."""

    @classmethod
    def of(cls, starts: list[int], lengths: list[int]) -> Rows:
        """The rows of sequences that begin at ``starts``."""
        first, size = np.asarray(starts)[:, None], np.asarray(lengths)[:, None]  # [n, 1]
        place = np.arange(size.max())[None, :]  # [1, L]
        real = place < size  # [n, L]
        index = np.where(real, first + place, first)
        contiguous = real.all() and (np.diff(starts) == lengths[0]).all()
        return cls(
            lengths=tuple(lengths),
            start=starts[0] if contiguous else None,
            index=torch.from_numpy(index.reshape(-1)),
            inverse=torch.from_numpy(np.flatnonzero(real)),
            rows=torch.from_numpy(index[real]),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(n, L)."""
        return len(self.lengths), max(self.lengths)

    @cached_property
    def real(self) -> Tensor:
        """[n, L] bool: this cell is a token, not padding."""
        n, length = self.shape
        return torch.arange(length).expand(n, length) < torch.tensor(self.lengths)[:, None]


@dataclass(frozen=True)
class Group:
    """Sequences of similar length that one kernel call serves."""

    query: Rows
    key: Rows

    @cached_property
    def uniform(self) -> bool:
        """No padding in this group."""
        return len(set(self.query.lengths)) == 1 and len(set(self.key.lengths)) == 1

    def mask(self, *, causal: bool, window: int | None = None) -> Tensor | None:
        """[n, 1, Lq or 1, Lk] bool, True where a query may look; ``None`` where no mask is needed.

        ``window`` is how many keys a causal query sees at most; ``None``: all before it.
        """
        if not causal:
            return self.padding_mask
        if window is None:
            return self.causal_mask
        # A query that is padding may look anywhere: with nothing to see it would be NaN, and spoil gradients.
        return self.causal_mask & (self.distances < window) | ~self.query.real[:, None, :, None]

    @cached_property
    def padding_mask(self) -> Tensor | None:
        """[n, 1, 1, Lk]: keys that are tokens."""
        return None if len(set(self.key.lengths)) == 1 else self.key.real[:, None, None, :]

    @cached_property
    def causal_mask(self) -> Tensor:
        """[n, 1, Lq, Lk]: keys at or before the query, the last query standing at the last key."""
        return (self.distances >= 0) & self.key.real[:, None, None, :]

    @cached_property
    def distances(self) -> Tensor:
        """[n, 1, Lq, Lk]: how many places a key stands before a query."""
        query_lengths, key_lengths = torch.tensor(self.query.lengths), torch.tensor(self.key.lengths)
        place = torch.arange(self.query.shape[1])[None, :] + (key_lengths - query_lengths)[:, None]  # [n, Lq]
        return (place[:, :, None] - torch.arange(self.key.shape[1]))[:, None]


def _starts(lengths: tuple[int, ...]) -> list[int]:
    return [0, *np.cumsum(lengths)[:-1].tolist()]


def _concatenate(sequences: Sequence[Sequence[int] | np.ndarray | Tensor]) -> Tensor:
    if isinstance(sequences[0], Tensor):
        return torch.cat([torch.as_tensor(sequence) for sequence in sequences])
    return torch.from_numpy(np.concatenate([np.asarray(sequence, dtype=np.int64) for sequence in sequences]))
