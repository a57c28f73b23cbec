"""ImageCodec: an image ⇄ a square of tokens (van den Oord et al., 2017; Esser et al., 2021).

Shapes: N images, H rows and W columns of pixels, h and w of tokens, L channels of the latent vectors, E numbers of a
code, C codes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sensorium.config import ImageCodecConfig
from sensorium.image.patches import kinds_of_patches
from sensorium.nn.convolution import Double, Halve, Level, Middle, group_norm


class ImageCodec(nn.Module):
    """``encode`` makes tokens of pixels, ``decode`` pixels of tokens."""

    def __init__(self, config: ImageCodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = CodecEncoder(config)
        self.to_code = nn.Conv2d(config.latent_size, config.code_size, 1)
        self.codes = nn.Embedding(config.num_codes, config.code_size)
        self.from_code = nn.Conv2d(config.code_size, config.latent_size, 1)
        self.decoder = CodecDecoder(config)

    def encode(self, pixels: Tensor) -> Tensor:
        """[N, 3, H, W] → [N, h, w] int64, the code next to each vector."""
        return self._nearest(self.vectors(pixels))

    def encode_alike(self, pixels: Tensor) -> Tensor:
        """[N, 3, H, W] → [N, h, w] int64: as ``encode``, but patches of an image whose pixels are the same get the same
        token, that of their mean vector.

        What stands around a patch moves its vector a little, and where two codes are near, an even ground flickers
        between them: noise that a decoder would have to learn to write.
        """
        kinds, counts = kinds_of_patches(pixels, self.config.patch_size)
        return self._nearest(mean_of_kinds(self.vectors(pixels), kinds, counts))

    def vectors(self, pixels: Tensor) -> Tensor:
        """[N, 3, H, W] → [N, h, w, E], of any length: what codes stand for."""
        found: Tensor = self.to_code(self.encoder(pixels)).permute(0, 2, 3, 1)
        return found

    def _nearest(self, vectors: Tensor) -> Tensor:
        """[N, h, w, E] → [N, h, w], the code next to each vector."""
        codes = self.codes.weight  # [C, E]
        tokens: Tensor = (codes.square().sum(dim=1) - 2 * vectors @ codes.t()).argmin(dim=-1)
        return tokens

    def decode(self, tokens: Tensor) -> Tensor:
        """[N, h, w] int64 → [N, 3, H, W]."""
        return self.pixels_of(F.normalize(self.codes(tokens), dim=-1))

    def pixels_of(self, codes: Tensor) -> Tensor:
        """[N, h, w, E], of length 1 each → [N, 3, H, W]."""
        pixels: Tensor = self.decoder(self.from_code(codes.permute(0, 3, 1, 2)))
        return pixels

    @torch.no_grad()
    def settle(self) -> None:
        """Scale the codes to length 1, as they are read: then the nearest is the one of the nearest direction."""
        self.codes.weight.copy_(F.normalize(self.codes.weight, dim=-1))


def mean_of_kinds(vectors: Tensor, kinds: Tensor, counts: Tensor) -> Tensor:
    """Vectors [N, h, w, E] of patches → the same, each the mean of those of its kind (``kinds_of_patches``)."""
    sums = vectors.new_zeros(len(counts), vectors.shape[-1]).index_add(0, kinds.flatten(), vectors.flatten(0, 2))
    means: Tensor = (sums / counts[:, None])[kinds]
    return means


class CodecEncoder(nn.Module):
    """[N, 3, H, W] → [N, L, h, w], from the finest level to the coarsest."""

    def __init__(self, config: ImageCodecConfig) -> None:
        super().__init__()
        sizes, coarsest = config.levels, len(config.levels) - 1
        self.first = nn.Conv2d(config.image_channels, config.channels, 3, padding=1)
        levels = []
        for level, (before, size) in enumerate(zip((config.channels, *sizes), sizes, strict=False)):
            pairs = [(before if block == 0 else size, size) for block in range(config.blocks)]
            step = None if level == coarsest else Halve(size)
            levels.append(Level(pairs, config.dropout, attends=level == coarsest, step=step))
        self.levels = nn.ModuleList(levels)
        self.middle = Middle(sizes[-1], config.dropout)
        self.norm = group_norm(sizes[-1])
        self.last = nn.Conv2d(sizes[-1], config.latent_size, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """[N, 3, H, W] → [N, L, h, w]."""
        *_, x = self.stages(pixels)
        output: Tensor = self.last(F.silu(self.norm(self.middle(x))))
        return output

    def stages(self, pixels: Tensor) -> list[Tensor]:
        """What each level gives, the finest first: what an image looks like at each size."""
        x, found = self.first(pixels), []
        for level in self.levels:
            x = level(x)
            found.append(x)
        return found


class CodecDecoder(nn.Module):
    """[N, L, h, w] → [N, 3, H, W], from the coarsest level to the finest."""

    def __init__(self, config: ImageCodecConfig) -> None:
        super().__init__()
        sizes = config.levels[::-1]
        self.first = nn.Conv2d(config.latent_size, sizes[0], 3, padding=1)
        self.middle = Middle(sizes[0], config.dropout)
        levels = []
        for level, (before, size) in enumerate(zip((sizes[0], *sizes), sizes, strict=False)):
            pairs = [(before if block == 0 else size, size) for block in range(config.blocks + 1)]
            step = None if level == len(sizes) - 1 else Double(size)
            levels.append(Level(pairs, config.dropout, attends=level == 0, step=step))
        self.levels = nn.ModuleList(levels)
        self.norm = group_norm(sizes[-1])
        self.last = nn.Conv2d(sizes[-1], config.image_channels, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """[N, L, h, w] → [N, 3, H, W]."""
        x = self.middle(self.first(latents))
        for level in self.levels:
            x = level(x)
        output: Tensor = self.last(F.silu(self.norm(x)))
        return output
