"""Models that write images in tokens, and draw."""

from __future__ import annotations

from dataclasses import dataclass

from sensorium.config._checked import Checked
from sensorium.config.heads import Activation
from sensorium.errors import UsageError

NORM_GROUPS = 32
"""Channels are normalised in so many groups, in every published codec of this shape."""


@dataclass(frozen=True)
class ImageCodecConfig(Checked):
    """An autoencoder whose middle is a square of tokens: convolutions, the finest level first (Esser et al., 2021)."""

    grid: int
    """Tokens along a side."""
    num_codes: int
    code_size: int
    """Numbers of a code, far fewer than those of the vector it stands for (Yu et al., 2022)."""
    channels: int
    multipliers: tuple[int, ...]
    """Of the channels, one for each level; each level but the last halves the sides."""
    blocks: int
    """On each level; on the way back, one more."""
    latent_size: int
    """Channels of the vectors that become codes."""
    image_channels: int = 3
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.multipliers or min(self.grid, self.num_codes, self.code_size, self.latent_size) < 1:
            raise UsageError("ImageCodecConfig: a codec has levels, a grid of tokens, and codes for them")
        if self.channels < 1 or any(self.channels * factor % NORM_GROUPS for factor in (1, *self.multipliers)):
            raise UsageError(
                f"ImageCodecConfig.channels is {self.channels}, multipliers {self.multipliers}; the channels of each "
                f"level must be a multiple of {NORM_GROUPS}"
            )
        if self.blocks == 0 and set(self.multipliers) != {1}:
            raise UsageError("ImageCodecConfig.blocks is 0; without blocks, all levels have the same channels")

    @property
    def patch_size(self) -> int:
        """Side, in pixels, of what one token stands for."""
        return int(2 ** (len(self.multipliers) - 1))

    @property
    def image_size(self) -> int:
        """Side of its images, in pixels."""
        return self.grid * self.patch_size

    @property
    def num_tokens(self) -> int:
        """Tokens of an image."""
        return self.grid**2

    @property
    def levels(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.channels * factor for factor in self.multipliers)

    @property
    def head_names(self) -> tuple[str, ...]:
        """The heads this model has: none."""
        return ()


@dataclass(frozen=True)
class DrawingConfig(Checked):
    """What a decoder of texts needs to write the tokens of a picture: a table and a head for them (Wu et al., 2024)."""

    codec: ImageCodecConfig
    maps: int = 2
    """From a token's vector to the decoder's."""
    activation: Activation = "gelu"
