"""What a stack on the kernels attends to of another one: keys and values of its sources, worked out once, in pages.

Shapes: S packed source tokens, D width of the vectors.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sensorium import native
from sensorium.config import StackConfig
from sensorium.infer.cache import new_pages, page_table, pages_of, pages_struct
from sensorium.nn.memory import Memory


class PagedMemory(Memory):
    """As ``nn.Memory``. Sources that are let go leave their pages where they are."""

    def __init__(
        self, memory: Memory, config: StackConfig, struct: native.Stack, code: int, dtype: torch.dtype
    ) -> None:
        """``struct`` is the stack that will attend, ``code`` the dtype of its products, ``dtype`` that of keys."""
        states = memory.states.detach().float().contiguous()  # [S, D]
        super().__init__(states, memory.lengths)
        self.owners = list(memory.owners)
        ends = np.cumsum([pages_of(length) for length in self.lengths]).tolist()
        self._pages = [list(range(*span)) for span in zip([0, *ends], ends, strict=False)]
        self._keys, self._values = new_pages(config, config.num_heads, ends[-1], dtype)
        pages = self._struct()
        offsets = torch.tensor([0, *np.cumsum(self.lengths)])  # [sources + 1]
        native.library().sensorium_memory(
            code, ctypes.byref(struct), native.pointer(states), native.pointer(offsets), len(self.lengths),
            ctypes.byref(pages), torch.get_num_threads(),
        )  # fmt: skip

    def attended_by(self, query_lengths: Sequence[int]) -> tuple[Any, int, int]:
        """For ``native.Batch``: the pages, where the tokens that read each source begin, and how many sources."""
        layout = self.layout(query_lengths)
        self._readers = torch.tensor([0, *np.cumsum(layout.query_lengths)])  # [sources + 1]
        return ctypes.pointer(self._struct()), self._readers.data_ptr(), len(self.lengths)

    def _struct(self) -> native.Cache:
        self._table, self._key_lengths = page_table(self._pages), torch.tensor(self.lengths)
        return pages_struct(self._keys, self._values, self._table, self._key_lengths)

    def _go_on_with(self, sources: Sequence[int]) -> None:
        self.lengths = tuple(self.lengths[n] for n in sources)
        self._pages = [self._pages[n] for n in sources]
