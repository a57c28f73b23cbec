"""Images as they might have been taken otherwise: what a model that learns from few of them needs.

Shapes: H and W pixels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

ASPECT = math.log(4 / 3)
"""A crop is at most so much wider than high, or higher than wide: a logarithm."""
ATTEMPTS = 10
LIGHTENED, DARKNESS = 0.5, 0.25
"""Share of the channels that are lightened where colours change; how dark what was black is at least."""
LIGHTEST, DARKEST = 0.4, 1.5
"""How dark black becomes where inks are mixed, at least and at most: above 1, for what is less dark is mixed too."""


def random_mirror(
    pixels: np.ndarray[Any, Any], probability: float, generator: np.random.Generator
) -> np.ndarray[Any, Any]:  # fmt: skip
    """An image [H, W, 3] uint8, or with this probability its mirror image, left for right."""
    return np.ascontiguousarray(pixels[:, ::-1]) if generator.random() < probability else pixels


def random_crop(
    pixels: np.ndarray[Any, Any], smallest: float, generator: np.random.Generator
) -> np.ndarray[Any, Any]:  # fmt: skip
    """A part of an image [H, W, 3] uint8 of at least ``smallest`` of its area, at the size of the whole.

    Area and shape are drawn as in Szegedy et al. (2015, §6); where none of ten draws fits, the image stays whole.
    """
    height, width, _ = pixels.shape
    for _ in range(ATTEMPTS):
        area = height * width * generator.uniform(smallest, 1.0)
        aspect = math.exp(generator.uniform(-ASPECT, ASPECT))
        rows, columns = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < rows <= height and 0 < columns <= width:
            top, left = generator.integers(height - rows + 1), generator.integers(width - columns + 1)
            part = torch.from_numpy(pixels[top : top + rows, left : left + columns].astype(np.float32))
            part = part.permute(2, 0, 1)[None]  # [1, 3, rows, columns]
            whole = F.interpolate(part, (height, width), mode="bilinear", antialias=True)  # [1, 3, H, W]
            return whole[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()
    return pixels


def random_colours(
    pixels: np.ndarray[Any, Any], share: float, generator: np.random.Generator
) -> np.ndarray[Any, Any]:  # fmt: skip
    """An image [H, W, 3] uint8, or with the probability ``share`` the same in other colours.

    Red, green and blue change places, and half of them are lightened: white stays white, black becomes any colour.
    """
    if generator.random() >= share:
        return pixels
    darkness = np.where(generator.random(3) < LIGHTENED, generator.uniform(DARKNESS, 1.0, 3), 1.0)  # [3]
    changed: np.ndarray[Any, Any] = 255 - (255 - pixels[..., generator.permutation(3)]) * darkness  # [H, W, 3]
    return changed.round().astype(np.uint8)


def random_inks(
    pixels: np.ndarray[Any, Any], share: float, generator: np.random.Generator
) -> np.ndarray[Any, Any]:  # fmt: skip
    """An image [H, W, 3] uint8, or with the probability ``share`` the same in other inks.

    Half of the time red, green and blue change places, which keeps pure colours pure; else each becomes a mixture of
    how dark all three are, so that any ink becomes nearly any other. White stays white.
    """
    if generator.random() >= share:
        return pixels
    if generator.random() < 0.5:
        return np.ascontiguousarray(pixels[..., generator.permutation(3)])
    mixture = generator.dirichlet((0.5, 0.5, 0.5), 3) * generator.uniform(LIGHTEST, DARKEST, (3, 1))  # [3, 3]
    darkness = ((255 - pixels.astype(np.float32)) @ mixture.T).clip(0, 255)  # [H, W, 3]
    changed: np.ndarray[Any, Any] = (255 - darkness).round().astype(np.uint8)
    return changed


def random_shift(
    pixels: np.ndarray[Any, Any], most: int, generator: np.random.Generator
) -> np.ndarray[Any, Any]:  # fmt: skip
    """An image [H, W, 3] moved by up to ``most`` pixels each way; what comes in repeats its edge.

    As He et al. (2016, §4.2) move pictures of 32 pixels by 4, but for the zeros that come in there.
    """
    height, width, _ = pixels.shape
    down, right = generator.integers(-most, most + 1, size=2)
    rows = (np.arange(height) - down).clip(0, height - 1)
    columns = (np.arange(width) - right).clip(0, width - 1)
    shifted: np.ndarray[Any, Any] = pixels[rows[:, None], columns]
    return shifted
