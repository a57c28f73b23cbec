"""The stem of images: patches → vectors for the stack (Dosovitskiy et al., 2021, §3.1).

Shapes: T packed rows of all images (a class token and patches of each), N images, D hidden size, G patches along a side
of the images whose places were learnt, V numbers of a patch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sensorium.config import PatchStemConfig
from sensorium.nn.dropout import Dropout
from sensorium.packed import Packed


class PatchStem(nn.Module):
    """Patches [T, V] → vectors [T, D]. Where there is a class token, the first row of each image stands for it."""

    def __init__(self, config: PatchStemConfig) -> None:
        super().__init__()
        self.config = config
        size = config.hidden_size
        self.patches = nn.Linear(config.patch_values, size, bias=config.bias)
        self.class_token = nn.Parameter(torch.zeros(size)) if config.class_token else None
        self.positions = nn.Embedding(config.class_token + config.grid**2, size)
        self.norm = nn.Identity() if config.norm_eps is None else nn.LayerNorm(size, config.norm_eps)
        self.dropout = Dropout(config.dropout)

    def forward(self, batch: Packed) -> Tensor:
        """[T, D]. ``batch.positions`` [T, 3] has time, row and column of each patch."""
        x = self.patches(batch.values.to(self.patches.weight.dtype))  # [T, D]
        if self.class_token is not None:
            x = x.index_copy(0, batch.first, self.class_token.expand(batch.num_sequences, -1))
        output: Tensor = self.dropout(self.norm(x + self.places(batch)))
        return output

    def places(self, batch: Packed) -> Tensor:
        """[T, D] what is added to each row for its place."""
        grids = [(int(row) + 1, int(column) + 1) for _, row, column in batch.positions[batch.last].tolist()]
        grid = self.config.grid
        if set(grids) == {(grid, grid)}:
            return self.positions.weight.repeat(batch.num_sequences, 1)
        tables = {size: self._table(*size) for size in set(grids)}
        return torch.cat([tables[size] for size in grids])

    def _table(self, rows: int, columns: int) -> Tensor:
        """[rows · columns, D], with the class token's before them: the learnt grid, stretched to another one."""
        grid, first = self.config.grid, int(self.config.class_token)
        learnt = self.positions.weight
        if (rows, columns) == (grid, grid):
            return learnt
        square = learnt[first:].view(1, grid, grid, -1).permute(0, 3, 1, 2)  # [1, D, G, G]
        stretched = F.interpolate(square, size=(rows, columns), mode="bicubic", align_corners=False)
        return torch.cat([learnt[:first], stretched[0].flatten(1).t()])
