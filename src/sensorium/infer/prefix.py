"""Prefixes: what earlier prompts left behind, for a prompt that begins as one of them did.

The keys and values of a prompt are kept in blocks of 64 tokens, each under a hash of all tokens up to its end: a later
prompt takes the blocks that its own hashes name and computes the rest. On the compiled kernels no bit of what comes
after changes. A caller with another salt finds nothing: how soon an answer comes would tell what others had asked.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from weakref import ref

import numpy as np
from torch import Tensor

from sensorium.errors import UsageError
from sensorium.infer.cache import AnyCache
from sensorium.models.decoder import DecoderLM
from sensorium.native import PANEL

Block = tuple[Tensor, Tensor]
"""The keys and values of 64 tokens in all layers, as the cache lays them out."""


class PrefixStore:
    """Blocks of one model's prompts, at most so many bytes; those that were not asked for the longest go first."""

    def __init__(self, model: DecoderLM, most_bytes: int) -> None:
        self._model = ref(model)
        self.most_bytes = most_bytes
        self.num_bytes = 0
        """Of the blocks that are kept."""
        self._blocks: OrderedDict[bytes, Block] = OrderedDict()
        self._lock = Lock()

    def salted(self, salt: str) -> Prefixes:
        """This store for one caller: blocks of another salt are never found."""
        return Prefixes(self, salt)

    def __len__(self) -> int:
        return len(self._blocks)

    def find(self, names: Sequence[bytes]) -> list[Block]:
        """The blocks of these names up to the first that is missing."""
        found = []
        with self._lock:
            for name in names:
                if name not in self._blocks:
                    break
                found.append(self._blocks[name])
            self._touch(names[: len(found)])
        return found

    def missing(self, names: Sequence[bytes]) -> list[int]:
        """Which of these blocks are not here."""
        with self._lock:
            return [number for number, name in enumerate(names) if name not in self._blocks]

    def keep(self, names: Sequence[bytes], blocks: dict[int, Block]) -> None:
        """Take new blocks of a prompt whose blocks have these names, by their numbers."""
        with self._lock:
            for number, block in blocks.items():
                if names[number] not in self._blocks:
                    self._blocks[names[number]] = block
                    self.num_bytes += _num_bytes(block)
            self._touch([name for name in names if name in self._blocks])
            while self.num_bytes > self.most_bytes:
                _, block = self._blocks.popitem(last=False)
                self.num_bytes -= _num_bytes(block)

    def check(self, model: DecoderLM) -> None:
        """Raises ``UsageError`` for another model than the one whose blocks these are."""
        if self._model() is not model:
            raise UsageError("these prefixes are of another model; give each model a store of its own")

    def _touch(self, names: Sequence[bytes]) -> None:
        """Asked for just now; a block is of no use without those before it, so these count as the newer ones."""
        for name in reversed(names):
            self._blocks.move_to_end(name)


@dataclass(frozen=True)
class Prefixes:
    """A store as one caller sees it."""

    store: PrefixStore
    salt: str

    def fill(self, model: DecoderLM, cache: AnyCache, prompts: Sequence[Sequence[int]], *, leave: int) -> None:
        """Put into an empty cache what is known of each prompt's beginning; ``leave`` tokens at least are not."""
        self.store.check(model)
        for sequence, prompt in enumerate(prompts):
            names = block_names(prompt[: max(len(prompt) - leave, 0)], self.salt)
            cache.fill(sequence, self.store.find(names))

    def keep(self, cache: AnyCache, prompts: Sequence[Sequence[int]]) -> None:
        """Copy out of a cache what is not known of its prompts, one a sequence."""
        for sequence, prompt in enumerate(prompts):
            names = block_names(prompt, self.salt)
            blocks = {number: cache.block(sequence, number) for number in self.store.missing(names)}
            self.store.keep(names, blocks)


def block_names(tokens: Sequence[int], salt: str) -> list[bytes]:
    """For every whole block of 64 tokens a SHA-256 of the salt and all tokens up to its end."""
    return list(_block_names(tokens, salt))


def _block_names(tokens: Sequence[int], salt: str) -> Iterator[bytes]:
    name = hashlib.sha256(salt.encode()).digest()
    for start in range(0, len(tokens) - PANEL + 1, PANEL):
        block = np.asarray(tokens[start : start + PANEL], dtype=np.int64)
        name = hashlib.sha256(name + block.tobytes()).digest()
        yield name


def _num_bytes(block: Block) -> int:
    return sum(part.numel() * part.element_size() for part in block)
