"""Stems: what turns raw input into vectors for the stack."""

from __future__ import annotations

import math

from torch import Tensor, nn

from sensorium.config import LearnedPositions, TokenStemConfig
from sensorium.errors import UsageError
from sensorium.nn.dropout import Dropout
from sensorium.nn.positions import sinusoids
from sensorium.packed import Packed


class TokenStem(nn.Module):
    """Token ids [T] → vectors [T, D]: token + position (+ segment), normalised where the family does."""

    def __init__(self, config: TokenStemConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary_size, config.hidden_size)
        table = config.positions if isinstance(config.positions, LearnedPositions) else None
        self.positions = None if table is None else nn.Embedding(table.size, config.hidden_size)
        self.segments = nn.Embedding(config.num_segments, config.hidden_size) if config.num_segments else None
        self.norm = nn.Identity() if config.norm_eps is None else nn.LayerNorm(config.hidden_size, config.norm_eps)
        self.dropout = Dropout(config.dropout)

    def forward(self, batch: Packed) -> Tensor:
        """[T, D]. Raises ``UsageError`` for a sequence longer than the position table."""
        x = self.tokens(batch.values)  # [T, D]
        if self.config.scaled:
            x = x * math.sqrt(self.config.hidden_size)
        if self.positions is not None:
            x = x + self.positions(self.position_rows(batch))
        elif self.config.positions is not None:
            x = x + sinusoids(self.position_rows(batch), self.config.hidden_size).to(x.dtype)
        if self.segments is not None:
            # Without segment ids every token belongs to segment 0: add its row once, look up nothing.
            x = x + (self.segments.weight[0] if batch.segment_ids is None else self.segments(batch.segment_ids))
        output: Tensor = self.dropout(self.norm(x))
        return output

    def position_rows(self, batch: Packed) -> Tensor:
        """[T] row of the position table for each token. Raises ``UsageError`` when a sequence is longer than it."""
        table = self.config.positions
        assert table is not None
        last = int(batch.positions.max())
        if last >= table.max_length:
            raise UsageError(f"a sequence has {last + 1:,} tokens; this model reads at most {table.max_length:,}")
        return batch.positions + (table.offset if isinstance(table, LearnedPositions) else 0)
