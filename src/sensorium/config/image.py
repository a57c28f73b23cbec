"""Models that look at images."""

from __future__ import annotations

from dataclasses import dataclass

from sensorium.config._checked import Checked
from sensorium.errors import UsageError


@dataclass(frozen=True)
class PatchStemConfig(Checked):
    """Square patches of an image → vectors: a linear map, and a place on a grid added to each."""

    hidden_size: int
    image_size: int
    """Side, in pixels, of the images whose places were learnt; those of others are interpolated."""
    patch_size: int
    channels: int = 3
    class_token: bool = True
    """A vector of its own before the patches, which comes to stand for the whole image."""
    bias: bool = True
    norm_eps: float | None = None
    """Epsilon of a LayerNorm after the sum; ``None``: no norm."""
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch_size == 0 or self.image_size < self.patch_size:
            raise UsageError(
                f"PatchStemConfig.image_size is {self.image_size}, patch_size {self.patch_size}; an image has at least "
                "one patch"
            )

    @property
    def grid(self) -> int:
        """Patches along a side of the images whose places were learnt."""
        return self.image_size // self.patch_size

    def patches(self, height: int, width: int) -> int:
        """How many an image of so many pixels has."""
        return height // self.patch_size * (width // self.patch_size)

    def rows(self, height: int, width: int) -> int:
        """Vectors of such an image: its patches', and the class token's."""
        return self.patches(height, width) + int(self.class_token)

    @property
    def patch_values(self) -> int:
        """Numbers of one patch: channels, then rows, then columns."""
        return self.channels * self.patch_size**2

    @property
    def convolution(self) -> tuple[int, int, int, int]:
        """The shape in which files hold the map of patches: vectors, channels, rows, columns."""
        return self.hidden_size, self.channels, self.patch_size, self.patch_size
