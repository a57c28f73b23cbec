"""The key/value cache: what earlier tokens left behind, so that each is computed once."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from sensorium import native
from sensorium.config import StackConfig
from sensorium.errors import UsageError
from sensorium.native import PANEL
from sensorium.packed import Layout


class KeyValueCache:
    """Keys and values of every layer for N sequences, preallocated to a capacity of tokens each.

    ``select`` goes on with any of the sequences, any number of times; each gets a copy of its own.
    """

    def __init__(self, config: StackConfig, num_sequences: int, capacity: int, dtype: torch.dtype) -> None:
        """Allocates 2 · layers · N · capacity · (heads of keys · head size) items."""
        shape = (config.num_layers, num_sequences, capacity, config.kv_heads, config.head_size)
        self.keys = torch.empty(shape, dtype=dtype)  # [L, N, C, H, Dh]
        self.values = torch.empty(shape, dtype=dtype)
        self.capacity = capacity
        self.lengths = [0] * num_sequences
        self._rows = torch.empty(0, dtype=torch.int64)
        self._all_rows = torch.empty(0, dtype=torch.int64)

    def layout(self, lengths: tuple[int, ...]) -> Layout:
        """Begin a step that brings ``lengths`` new tokens. Raises ``UsageError`` when they do not fit."""
        before, self.lengths = self.lengths, _grown(self.lengths, lengths, self.capacity)
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

    def select(self, parents: Sequence[int]) -> None:
        """Sequence i goes on from what ``parents[i]`` is now: a beam search's step, or sequences that leave."""
        if list(parents) == list(range(len(self.lengths))):
            return
        index = torch.tensor(list(parents))
        self.keys, self.values = self.keys[:, index], self.values[:, index]
        self.lengths = [self.lengths[parent] for parent in parents]

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forget all tokens of each sequence but its first ``lengths``. Raises ``UsageError`` where it has fewer."""
        self.lengths = _shortened(self.lengths, lengths)

    def block(self, sequence: int, number: int) -> tuple[Tensor, Tensor]:
        """A copy of the keys and values [L, 64, H, Dh] of 64 tokens of a sequence."""
        rows = slice(number * PANEL, (number + 1) * PANEL)
        return self.keys[:, sequence, rows].clone(), self.values[:, sequence, rows].clone()

    def fill(self, sequence: int, blocks: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Put what ``block`` gave of another sequence into an empty one."""
        for keys, values in blocks:
            rows = slice(self.lengths[sequence], self.lengths[sequence] + PANEL)
            self.keys[:, sequence, rows], self.values[:, sequence, rows] = keys, values
            self.lengths[sequence] += PANEL

    def _places(self, starts: Sequence[int], stops: Sequence[int]) -> Tensor:
        """Rows of the flattened store that hold tokens ``starts[n]`` to ``stops[n]`` of every sequence."""
        rows = [
            torch.arange(n * self.capacity + start, n * self.capacity + stop)
            for n, (start, stop) in enumerate(zip(starts, stops, strict=True))
        ]
        return torch.cat(rows)


class PagedCache:
    """Keys and values for the compiled kernels: pages of 64 tokens, preallocated; a sequence is a row of page numbers.

    Sequences may share pages: ``select`` goes on with any of them, any number of times, and copies at most the last,
    unfinished page of each (Kwon et al., 2023).
    """

    def __init__(
        self,
        config: StackConfig,
        num_sequences: int,
        capacity: int,
        dtype: torch.dtype,
        *,
        num_pages: int | None = None,
    ) -> None:
        """Room for N sequences of ``capacity`` tokens; ``dtype`` is float32 or bfloat16.

        ``num_pages`` is how many pages there are in all, for sequences that share some; ``None``: they share none.
        """
        self.capacity = capacity
        if num_pages is None:
            num_pages = num_sequences * pages_of(capacity)
        self.keys, self.values = new_pages(config, config.kv_heads, num_pages, dtype)
        self._head_size = config.head_size
        self.lengths = [0] * num_sequences
        self._before = list(self.lengths)
        self._pages: list[list[int]] = [[] for _ in self.lengths]
        self._uses = [0] * num_pages
        self._free = list(range(num_pages))[::-1]

    def layout(self, lengths: tuple[int, ...]) -> Layout:
        """Begin a step that brings ``lengths`` new tokens. Raises ``UsageError`` when they do not fit."""
        self._before, self.lengths = self.lengths, _grown(self.lengths, lengths, self.capacity)
        for n, length in enumerate(self.lengths):
            while len(self._pages[n]) * PANEL < length:
                self._pages[n].append(self._take())
        return Layout(query_lengths=tuple(lengths), key_lengths=tuple(self.lengths))

    def struct(self) -> native.Cache:
        """This step, as the kernels take it."""
        self._table, self._lengths = page_table(self._pages), torch.tensor(self._before)
        return pages_struct(self.keys, self.values, self._table, self._lengths)

    def select(self, parents: Sequence[int]) -> None:
        """Sequence i goes on from what ``parents[i]`` is now: a beam search's step, or sequences that leave."""
        old, lengths = self._pages, self.lengths
        self._pages = [list(old[parent]) for parent in parents]
        self.lengths = [lengths[parent] for parent in parents]
        for pages in self._pages:
            for page in pages:
                self._uses[page] += 1
        for pages in old:
            for page in pages:
                self._release(page)
        self._own_last_pages()

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forget all tokens of each sequence but its first ``lengths``. Raises ``UsageError`` where it has fewer."""
        self.lengths = _shortened(self.lengths, lengths)
        for pages, length in zip(self._pages, self.lengths, strict=True):
            while len(pages) > pages_of(length):
                self._release(pages.pop())
        self._own_last_pages()

    def block(self, sequence: int, number: int) -> tuple[Tensor, Tensor]:
        """A copy of the keys and values of 64 tokens of a sequence: one page of each layer."""
        page = self._pages[sequence][number]
        return self.keys[:, page].clone(), self.values[:, page].clone()

    def fill(self, sequence: int, blocks: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Put what ``block`` gave of another sequence into an empty one."""
        for keys, values in blocks:
            page = self._take()
            self.keys[:, page], self.values[:, page] = keys, values
            self._pages[sequence].append(page)
            self.lengths[sequence] += PANEL

    def _own_last_pages(self) -> None:
        """Two sequences can't both write into one page: one that is not full is copied for all but one of them."""
        copies = []
        for n, pages in enumerate(self._pages):
            if self.lengths[n] % PANEL and self._uses[pages[-1]] > 1:
                copies.append((pages[-1], self._take(), self.lengths[n] % PANEL))
                self._release(pages[-1])
                pages[-1] = copies[-1][1]
        if copies:
            self._copy(copies)

    def _copy(self, copies: Sequence[tuple[int, int, int]]) -> None:
        """Pages (from, to) with so many tokens in them."""
        layers, _, heads, units, _ = self.keys.shape
        table, lengths = page_table(self._pages), torch.tensor(self.lengths)
        struct, places = pages_struct(self.keys, self.values, table, lengths), torch.tensor(copies)
        native.library().sensorium_copy_pages(
            ctypes.byref(struct), native.pointer(places), len(copies), layers, heads, self._head_size,
            self._head_size // units, torch.get_num_threads(),
        )  # fmt: skip

    def _take(self) -> int:
        if not self._free:
            raise UsageError(f"all {len(self._uses)} pages of the cache are in use")
        page = self._free.pop()
        self._uses[page] = 1
        return page

    def _release(self, page: int) -> None:
        self._uses[page] -= 1
        if not self._uses[page]:
            self._free.append(page)


AnyCache = KeyValueCache | PagedCache


def pages_needed(prefix: int, prompts: Sequence[int], ends: Sequence[int], branches: Sequence[int]) -> int:
    """Pages for prompts whose first ``prefix`` tokens are shared, and for the branches that go on from each.

    ``prompts`` and ``ends`` are the tokens of each prompt and of its longest branch. Full pages are shared; each branch
    has those that it writes into to itself, the one where its prompt breaks off among them.

    >>> pages_needed(0, [130], [194], [4])  # two full pages of the prompt, and for each of four branches the third
    10
    >>> pages_needed(128, [130, 150], [140, 160], [1, 1])
    4
    """
    own = (
        length // PANEL - prefix // PANEL + count * (pages_of(end) - length // PANEL)
        for length, end, count in zip(prompts, ends, branches, strict=True)
    )
    return prefix // PANEL + sum(own)


def pages_of(tokens: int) -> int:
    """Pages that so many tokens of a sequence take."""
    return -(-tokens // PANEL)


def new_pages(config: StackConfig, heads: int, num_pages: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Empty pages of keys and of values for every layer, as ``native/attention.h`` has them, in 32-bit units."""
    per_unit = 4 // dtype.itemsize
    row = -(-config.head_size // 16) * 16
    shape = (config.num_layers, num_pages, heads)
    keys = torch.zeros(*shape, config.head_size // per_unit, PANEL, dtype=torch.int32)
    return keys, torch.zeros(*shape, PANEL // per_unit, row, dtype=torch.int32)


def page_table(pages: Sequence[Sequence[int]]) -> Tensor:
    """[sequences, most pages of one] int64: which pages each sequence has; filled up with zeros."""
    columns = max(map(len, pages))
    return torch.tensor([[*own, *[0] * (columns - len(own))] for own in pages])


def pages_struct(keys: Tensor, values: Tensor, table: Tensor, lengths: Tensor) -> native.Cache:
    """Pages as the kernels take them. The tensors must outlive it."""
    places = (tensor.data_ptr() for tensor in (keys, values, table, lengths))
    return native.Cache(*places, keys.shape[1], table.shape[1])


def _shortened(before: Sequence[int], lengths: Sequence[int]) -> list[int]:
    """Raises ``UsageError`` where a sequence has not so many tokens."""
    if len(lengths) != len(before) or any(new > old for old, new in zip(before, lengths, strict=False)):
        raise UsageError(f"sequences of {list(before)} tokens can't be cut to {list(lengths)}")
    return list(lengths)


def _grown(before: Sequence[int], new: Sequence[int], capacity: int) -> list[int]:
    """Tokens of each sequence after a step. Raises ``UsageError`` when the step does not fit the cache."""
    if len(new) != len(before):
        raise UsageError(f"the cache holds {len(before)} sequences, the step brings {len(new)}")
    after = [old + more for old, more in zip(before, new, strict=True)]
    if max(after) > capacity:
        raise UsageError(f"a sequence of {max(after)} tokens does not fit a cache of {capacity}")
    return after
