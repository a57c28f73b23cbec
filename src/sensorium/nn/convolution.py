"""The parts of an image codec: residual convolutions, attention between places, steps to the next size.

Shapes: N images, C and O channels, H rows, W columns of places.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sensorium.config import NORM_GROUPS

NORM_EPS = 1e-6


def group_norm(channels: int) -> nn.GroupNorm:
    """Channels normalised in groups (Wu & He, 2018)."""
    return nn.GroupNorm(NORM_GROUPS, channels, NORM_EPS)


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice; what came in is added (He et al., 2016)."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.first_norm = group_norm(inputs)
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second_norm = group_norm(outputs)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, O, H, W]."""
        y = self.first(F.silu(self.first_norm(x)))  # [N, O, H, W]
        y = self.second(self.dropout(F.silu(self.second_norm(y))))
        output: Tensor = self.shortcut(x) + y
        return output


class PlaceAttention(nn.Module):
    """Every place attends to every other, with one head; what came in is added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.query, self.key, self.value, self.output = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → the same."""
        normed = self.norm(x)
        query, key, value = (
            part(normed).flatten(2).transpose(1, 2)[:, None] for part in (self.query, self.key, self.value)
        )  # [N, 1, H · W, C]
        mixed = F.scaled_dot_product_attention(query, key, value)  # [N, 1, H · W, C]
        output: Tensor = x + self.output(mixed[:, 0].transpose(1, 2).reshape(x.shape))
        return output


class Halve(nn.Module):
    """Half as many rows and columns; a column and a row of zeros are added at the end alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, C, H / 2, W / 2]."""
        output: Tensor = self.convolution(F.pad(x, (0, 1, 0, 1)))
        return output


class Double(nn.Module):
    """Each place becomes four, which a convolution tells apart."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, C, 2 H, 2 W]."""
        output: Tensor = self.convolution(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return output


class Level(nn.Module):
    """Blocks of one size, each with attention after it on the coarsest level, and the step to the next size."""

    def __init__(self, sizes: list[tuple[int, int]], dropout: float, *, attends: bool, step: nn.Module | None) -> None:
        """``sizes``: channels that come into each block and leave it."""
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(inputs, outputs, dropout) for inputs, outputs in sizes)
        self.attention = nn.ModuleList(PlaceAttention(outputs) if attends else nn.Identity() for _, outputs in sizes)
        self.step = nn.Identity() if step is None else step

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → the next level's."""
        for block, attention in zip(self.blocks, self.attention, strict=True):
            x = attention(block(x))
        output: Tensor = self.step(x)
        return output


class Middle(nn.Module):
    """Between both ways: a block, attention, a block."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.before = ResidualBlock(channels, channels, dropout)
        self.attention = PlaceAttention(channels)
        self.after = ResidualBlock(channels, channels, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → the same."""
        output: Tensor = self.after(self.attention(self.before(x)))
        return output
