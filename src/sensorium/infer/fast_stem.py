"""The token stem on the compiled kernels: three look-ups, their sum and its norm in one pass.

Shapes: T packed tokens, D hidden size.
"""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor, nn

from sensorium import native
from sensorium.errors import UsageError
from sensorium.nn.positions import sinusoids
from sensorium.nn.stems import TokenStem
from sensorium.packed import Packed


class FastStem(nn.Module):
    """As ``nn.TokenStem``, for inference. It reads the tables of the stem that it is made from."""

    def __init__(self, stem: TokenStem) -> None:
        """Raises ``OSError`` where the kernels can't run."""
        super().__init__()
        self.library = native.library()
        self.stem, self.config = stem, stem.config
        self.places: Tensor | None = None
        """[places, D] of positions that are added, learned or not."""
        if stem.positions is not None:
            self.places = stem.positions.weight
        elif self.config.positions is not None:
            self.places = sinusoids(torch.arange(self.config.positions.max_length), self.config.hidden_size)

    @property
    def tokens(self) -> nn.Embedding:
        """The token table."""
        return self.stem.tokens

    def forward(self, batch: Packed) -> Tensor:
        """[T, D] float32. Raises ``UsageError`` for a sequence longer than the position table, or an unknown id."""
        stem = self.stem
        ids = batch.values.contiguous()
        positions = None if self.places is None else stem.position_rows(batch).contiguous()
        segments = None if batch.segment_ids is None or stem.segments is None else batch.segment_ids.contiguous()
        for name, given, size in (
            ("token", ids, self.config.vocabulary_size), ("segment", segments, self.config.num_segments),
        ):  # fmt: skip
            if given is not None and not 0 <= int(given.min()) <= int(given.max()) < size:
                raise UsageError(f"{name} ids from {int(given.min())} to {int(given.max())}; this model knows {size:,}")
        norm = stem.norm if isinstance(stem.norm, nn.LayerNorm) else None
        tables = (stem.tokens.weight, self.places, None if stem.segments is None else stem.segments.weight)
        struct = native.Stem(
            *map(native.pointer, tables),
            native.Norm(None, None) if norm is None else native.Norm(*map(native.pointer, (norm.weight, norm.bias))),
            self.config.hidden_size, norm.eps if norm is not None else 0.0,
            math.sqrt(self.config.hidden_size) if self.config.scaled else 1.0,
        )  # fmt: skip
        x = torch.empty(len(ids), self.config.hidden_size)
        self.library.sensorium_stem(
            ctypes.byref(struct), native.pointer(ids), native.pointer(positions), native.pointer(segments), len(ids),
            native.pointer(x), torch.get_num_threads(),
        )  # fmt: skip
        return x
