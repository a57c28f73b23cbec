"""The key/value cache: what earlier tokens left behind, so that each is computed once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sensorium.config import StackConfig
from sensorium.errors import UsageError
from sensorium.packed import Layout


class KeyValueCache:
    """Keys and values of every layer for N sequences, preallocated to a capacity of tokens each.

    A sequence may leave (``keep``): the others go on without it.
    """

    def __init__(self, config: StackConfig, num_sequences: int, capacity: int, dtype: torch.dtype) -> None:
        """Allocates 2 · layers · N · capacity · D items."""
        shape = (config.num_layers, num_sequences, capacity, config.num_heads, config.head_size)
        self.keys = torch.empty(shape, dtype=dtype)  # [L, N, C, H, Dh]
        self.values = torch.empty(shape, dtype=dtype)
        self.capacity = capacity
        self.lengths = [0] * num_sequences
        self._rows = torch.empty(0, dtype=torch.int64)
        self._all_rows = torch.empty(0, dtype=torch.int64)

    def layout(self, lengths: tuple[int, ...]) -> Layout:
        """Begin a step that brings ``lengths`` new tokens. Raises ``UsageError`` when they do not fit."""
        if len(lengths) != len(self.lengths):
            raise UsageError(f"the cache holds {len(self.lengths)} sequences, the step brings {len(lengths)}")
        before = self.lengths
        self.lengths = [old + new for old, new in zip(before, lengths, strict=True)]
        if max(self.lengths) > self.capacity:
            raise UsageError(f"a sequence of {max(self.lengths)} tokens does not fit a cache of {self.capacity}")
        self._rows = self._places(before, self.lengths)
        self._all_rows = self._places([0] * len(lengths), self.lengths)
        return Layout(query_lengths=tuple(lengths), key_lengths=tuple(self.lengths))

    def update(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keep this step's keys and values [T, H, Dh]; give back all there are, [S, H, Dh]."""
        kept = []
        for store, new in ((self.keys[layer], key), (self.values[layer], value)):
            flat = store.view(-1, *store.shape[2:])  # [N · C, H, Dh]
            flat[self._rows] = new
            kept.append(flat[self._all_rows])
        return kept[0], kept[1]

    def keep(self, sequences: Sequence[int]) -> None:
        """Only these sequences stay, in this order."""
        index = torch.tensor(list(sequences))
        self.keys, self.values = self.keys[:, index], self.values[:, index]
        self.lengths = [self.lengths[i] for i in sequences]

    def _places(self, starts: Sequence[int], stops: Sequence[int]) -> Tensor:
        """Rows of the flattened store that hold tokens ``starts[n]`` to ``stops[n]`` of every sequence."""
        rows = [
            torch.arange(n * self.capacity + start, n * self.capacity + stop)
            for n, (start, stop) in enumerate(zip(starts, stops, strict=True))
        ]
        return torch.cat(rows)
