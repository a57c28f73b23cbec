"""Sequences that begin alike, their beginning computed once.

Shapes: T packed tokens, B beginnings, N sequences that go on from them, S keys of all, H heads, Dh head size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sensorium.errors import UsageError
from sensorium.packed import Layout


class SharedBeginnings:
    """A ``Cache`` of one step, with gradients: a batch of B beginnings and, behind them, what N sequences go on with.

    Of a causal stack without it each sequence would hold its own copy of its beginning, and come to the same (as
    prompts that share pages do in ``infer.cache``, and as in Juravsky et al., 2024).
    """

    def __init__(self, owners: Sequence[int]) -> None:
        """``owners`` [N]: the number of the beginning that each sequence goes on from."""
        self.owners = owners
        self._rows = torch.empty(0, dtype=torch.int64)

    def layout(self, lengths: tuple[int, ...]) -> Layout:
        """Who attends to whom. ``lengths`` [B + N] are those of the beginnings, then those of the rests.

        Raises ``UsageError`` for an owner that is no beginning.
        """
        beginnings = len(lengths) - len(self.owners)
        if not all(0 <= owner < beginnings for owner in self.owners):
            raise UsageError(f"a sequence goes on from beginning {max(self.owners)}; there are {max(0, beginnings)}")
        rows = torch.arange(sum(lengths)).split(list(lengths))
        seen = [*rows[:beginnings]]
        for owner, own in zip(self.owners, rows[beginnings:], strict=True):
            seen += [rows[owner], own]
        self._rows = torch.cat(seen)  # [S]
        rests = zip(self.owners, lengths[beginnings:], strict=True)
        keys = (*lengths[:beginnings], *(lengths[owner] + length for owner, length in rests))
        return Layout(query_lengths=lengths, key_lengths=keys)

    def update(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [T, H, Dh] → [S, H, Dh]: a beginning's stand before each of its rests."""
        rows = self._rows.to(key.device)
        return key.index_select(0, rows), value.index_select(0, rows)
