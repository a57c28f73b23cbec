"""Images as squares of tokens: what a codec gives back is like what it was given, by means of all of its codes.

Shapes: N images, H rows and W columns of pixels, h and w of tokens, E numbers of a code, C codes, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from sensorium.config import ImageCodecConfig
from sensorium.data.batching import Example
from sensorium.errors import DataError
from sensorium.image.augment import random_colours, random_crop
from sensorium.image.opening import normalised
from sensorium.image.patches import from_patches, kinds_of_patches, pack_images
from sensorium.image.settings import ImageSettings
from sensorium.models.image_codec import CodecEncoder, ImageCodec, mean_of_kinds
from sensorium.objectives._base import Batch, Loss, Record
from sensorium.objectives._images import open_each
from sensorium.packed import Packed
from sensorium.text import Tokenizer

COMMITMENT = 0.25
"""Weight of the distance of vectors from their codes, beside that of codes from their vectors (van den Oord et al.,
2017)."""
NEARNESS = 0.15
"""Weight of both distances, which are sums over a code's numbers, beside the values of pixels."""
SHARPNESS = 20.0
"""What the products of a vector with all codes are multiplied by, to say how near each is: they are cosines."""


@dataclass(frozen=True)
class Coding:
    """Records: ``image``, a file or pixels [H, W, 3] uint8.

    Vectors and codes have length 1 and few numbers (Yu et al., 2022, §3.2), and over a batch all codes should be near
    as often as any other, which both keep codes from falling out of use: what is near is learnt from the entropy of
    their average use (Yu et al., 2024, §3.1), so that no state stands beside the weights.
    """

    images: ImageSettings
    codec: ImageCodecConfig
    use: float = 0.001
    """Weight of the even use of codes: more keeps more of them in use, and makes one ground many codes."""
    perceptual: float = 0.0
    """Weight of what the codec's own levels see otherwise in what it gives back (Johnson et al., 2016)."""
    crop: float = 1.0
    """Smallest share of an image that is shown, drawn anew each time; 1: all of it."""
    recolour: float = 0.0
    """Share of the images that are shown in other colours, drawn anew each time."""

    def heads(self) -> dict[str, Any]:
        """None."""
        return {}

    def prepare(self, records: Sequence[Record], tokenizer: Tokenizer | None) -> list[Example]:
        """Open images, each once. Raises ``DataError`` for a record without one, or for a broken image."""
        _, opened = open_each(records, self.images)
        examples = []
        for number, pixels in opened.items():
            side, (height, width) = self.codec.patch_size, pixels.shape[:2]
            if height % side or width % side:
                raise DataError(
                    f"record {number:,}: an image of {width} × {height} pixels can't be cut into tokens of {side} × "
                    f"{side}"
                )
            nothing = np.zeros(0, np.int32)
            examples.append(Example(nothing, pixels=pixels, image_length=height // side * (width // side)))
        return examples

    def examples(self, prepared: list[Example], generator: np.random.Generator) -> list[Example]:
        """The same every epoch."""
        return prepared

    def collate(
        self, examples: Sequence[Example], tokenizer: Tokenizer | None, generator: np.random.Generator
    ) -> Batch:
        """Pack images, a sequence of what tokens stand for each."""
        shown = [example.pixels for example in examples if example.pixels is not None]
        if self.crop < 1.0:
            shown = [random_crop(pixels, self.crop, generator) for pixels in shown]
        if self.recolour:
            shown = [random_colours(pixels, self.recolour, generator) for pixels in shown]
        pixels = [normalised(one, self.images) for one in shown]
        packed = pack_images(pixels, self.codec.patch_size, class_token=False)
        names = ("reconstruction", "codes", "use", *(("perceptual",) if self.perceptual else ()))
        return Batch(packed, {}, dict.fromkeys(names, len(examples)))

    def losses(self, model: ImageCodec, batch: Batch) -> dict[str, Loss]:
        """Mean distance of values and its square, distance of vectors from their codes, how unevenly codes are used.

        An image's patches of the same pixels count as one: a ground, however large, is one thing to learn.
        """
        pixels = square_images(batch.packed, self.codec.patch_size).to(model.codes.weight.dtype)  # [N, 3, H, W]
        count, side = len(pixels), self.codec.patch_size
        kinds, counts = kinds_of_patches(pixels, side)  # [N, h, w], [kinds]
        directions = F.normalize(model.vectors(pixels).float(), dim=-1)  # [N, h, w, E]
        vectors = F.normalize(mean_of_kinds(directions, kinds, counts), dim=-1)
        codes = F.normalize(model.codes.weight.float(), dim=-1)  # [C, E]
        near = vectors @ codes.t()  # [N, h, w, C]
        chosen = codes[near.argmax(dim=-1)]  # [N, h, w, E]
        straight = (vectors + (chosen - vectors).detach()).to(pixels.dtype)  # the gradient goes past the choice
        found = model.pixels_of(straight)  # [N, 3, H, W]
        apart_by = found.float() - pixels.float()
        apart = (chosen - vectors.detach()).square() + COMMITMENT * (chosen.detach() - vectors).square()
        # Squares as well: what is nearest by absolute differences alone is the ground, and no small thing on it.
        missed = F.avg_pool2d((apart_by.abs() + apart_by.square()).mean(dim=1), side)  # [N, h, w]
        losses = {
            "reconstruction": (missed / counts[kinds]).sum() / len(counts),
            "codes": NEARNESS * apart.sum(dim=-1).mean(),
            "use": self.use * unevenness(near.flatten(0, -2)),
        }
        if self.perceptual:
            losses["perceptual"] = self.perceptual * seen_otherwise(model.encoder, found, pixels)
        return {name: Loss(count * loss, count, None) for name, loss in losses.items()}


def square_images(packed: Packed, patch_size: int) -> Tensor:
    """Packed patches of N images of one size → [N, 3, H, W]. Raises ``DataError`` where they differ in size."""
    rows = {int(row) + 1 for row in packed.positions[packed.last][:, 1]}
    if len(rows) > 1 or len(set(packed.lengths)) > 1:
        raise DataError("the images of a batch differ in size; a codec takes those of one size at a time")
    return torch.stack(
        [from_patches(patches, rows.copy().pop(), patch_size) for patches in packed.split(packed.values)]
    )


def unevenness(near: Tensor) -> Tensor:
    """Cosines [R, C] of vectors with codes → [] nats that the average use of the codes lacks of being even."""
    use = (SHARPNESS * near).softmax(dim=-1).mean(dim=0)  # [C]
    return (use * (use * len(use)).clamp_min(1e-9).log()).sum()


def seen_otherwise(encoder: CodecEncoder, found: Tensor, pixels: Tensor) -> Tensor:
    """[] how far apart both images are to each level of the encoder, vectors of places scaled to length 1.

    The encoder learns nothing from it: it would learn to see less.
    """
    weights = {name: weight.detach() for name, weight in encoder.named_parameters()}
    with torch.no_grad():
        wanted = encoder.stages(pixels)
    distances = []
    for ours, theirs in zip(_stages(encoder, weights, found), wanted, strict=True):
        apart = F.normalize(ours.float(), dim=1) - F.normalize(theirs.float(), dim=1)  # [N, channels, rows, columns]
        distances.append(apart.square().sum(dim=1).mean())
    return torch.stack(distances).mean()


def _stages(encoder: CodecEncoder, weights: dict[str, Tensor], pixels: Tensor) -> list[Tensor]:
    """``encoder.stages`` with other weights."""
    x = functional_call(encoder.first, _under("first.", weights), (pixels,))
    found = []
    for number, level in enumerate(encoder.levels):
        x = functional_call(level, _under(f"levels.{number}.", weights), (x,))
        found.append(x)
    return found


def _under(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
