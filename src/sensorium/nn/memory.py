"""Memory: what another stack made of its sources, for a decoder to attend to.

Shapes: S packed source tokens, H heads, Dh head size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import torch
from torch import Tensor

from sensorium.errors import UsageError
from sensorium.packed import Layout

KeysAndValues = tuple[Tensor, Tensor]
"""[S, H, Dh] each."""


class Memory:
    """Vectors of packed sources, and which source each decoded sequence reads.

    Sequences that stand together and read the same source are one sequence of queries to its keys, since nothing is
    hidden from any of them: the beams of a sentence share its keys and values without a copy.
    """

    def __init__(self, states: Tensor, lengths: Sequence[int]) -> None:
        """``states`` [S, D], a sequence for each source."""
        self.states, self.lengths = states, tuple(lengths)
        self.owners = list(range(len(self.lengths)))
        """The source that each sequence reads."""
        self._kept: dict[int, KeysAndValues] = {}
        self._layout: Layout | None = None

    def layout(self, query_lengths: Sequence[int]) -> Layout:
        """Who attends to which source. Raises ``UsageError`` when there are more sequences than were read for."""
        if len(query_lengths) != len(self.owners):
            raise UsageError(f"{len(query_lengths)} sequences attend to the sources of {len(self.owners)}")
        runs = groupby(zip(self.owners, query_lengths, strict=True), key=lambda pair: pair[0])
        lengths = tuple(sum(length for _, length in run) for _, run in runs)
        if self._layout is None or (self._layout.query_lengths, self._layout.key_lengths) != (lengths, self.lengths):
            self._layout = Layout(lengths, self.lengths)  # the next layer asks for the same
        return self._layout

    def keys_and_values(self, layer: int, make: Callable[[Tensor], KeysAndValues]) -> KeysAndValues:
        """A layer's, worked out once however many tokens are decoded."""
        if layer not in self._kept:
            self._kept[layer] = make(self.states)
        return self._kept[layer]

    def select(self, parents: Sequence[int]) -> None:
        """Sequence i goes on as sequence ``parents[i]`` was; sources that nobody reads any more are let go."""
        owners = [self.owners[parent] for parent in parents]
        runs = [owner for owner, _ in groupby(owners)]
        if runs != list(range(len(self.lengths))):
            self._go_on_with(runs)
        self.owners = [number for number, (_, run) in enumerate(groupby(owners)) for _ in run]

    def _go_on_with(self, sources: Sequence[int]) -> None:
        """Keep these sources, in this order."""
        starts = torch.tensor([0, *self.lengths]).cumsum(0).tolist()
        rows = torch.cat([torch.arange(starts[n], starts[n + 1]) for n in sources]).to(self.states.device)
        self.states, self.lengths = self.states[rows], tuple(self.lengths[n] for n in sources)
        self._kept = {layer: (keys[rows], values[rows]) for layer, (keys, values) in self._kept.items()}
