"""Judges of drawings of one coloured shape: what the pixels say, and a classifier trained on real pictures alone.

Shapes: N pictures, H and W pixels, D features, K kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.linalg import sqrtm
from torch import Tensor, nn

COLOURS = {
    "black": (0, 0, 0), "blue": (0, 0, 255), "brown": (165, 42, 42), "gray": (128, 128, 128), "green": (0, 255, 0),
    "red": (255, 0, 0), "teal": (0, 128, 128), "yellow": (255, 255, 0),
}  # fmt: skip
FAINT, THIN, FINER = 60.0, 0.15, 8
"""Below so much of a difference from the ground nothing is drawn; so little cover is none; pixels are cut so fine."""


def by_pixels(picture: Image.Image) -> tuple[str, str] | None:
    """The colour and the shape of what stands on the ground; ``None`` where nothing does.

    The colour is the nearest to the median of what differs most from the ground. Of a rectangle, an ellipse and a
    triangle in the same box, the shape is the one that covers most nearly the same.
    """
    pixels = np.asarray(picture.convert("RGB")).astype(float)  # [H, W, 3]
    ground = np.median(pixels.reshape(-1, 3), axis=0)
    differs = np.linalg.norm(pixels - ground, axis=-1)  # [H, W]
    if differs.max() < FAINT:
        return None
    ink = np.median(pixels[differs > 0.8 * differs.max()], axis=0)
    colour = min(COLOURS, key=lambda name: float(np.linalg.norm(np.array(COLOURS[name]) - ink)))
    way = ink - ground
    cover = np.clip((pixels - ground) @ way / (way @ way), 0, 1)  # [H, W]
    cover[cover < THIN] = 0
    return colour, _shape(cover)


def _shape(cover: np.ndarray[Any, Any]) -> str:
    size = len(cover)
    (left, right), (top, bottom) = _ends(cover.max(axis=0)), _ends(cover.max(axis=1))
    rows, columns = (np.mgrid[0 : size * FINER, 0 : size * FINER] + 0.5) / FINER
    x, y = (columns - left) / max(1e-6, right - left), (rows - top) / max(1e-6, bottom - top)
    box = (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)
    shapes = {
        "rectangle": box,
        "circle": (x - 0.5) ** 2 + (y - 0.5) ** 2 <= 0.25,
        "triangle": box & (np.abs(x - 0.5) <= y / 2),
    }
    covers = {name: one.reshape(size, FINER, size, FINER).mean(axis=(1, 3)) for name, one in shapes.items()}
    return min(covers, key=lambda name: float(np.abs(covers[name] - cover).sum()))


def _ends(most: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Where what is covered begins and ends, parts of pixels counted by how much of them is covered."""
    (places,) = np.nonzero(most)
    return places[0] + 1 - most[places[0]], places[-1] + most[places[-1]]


class Classifier(nn.Module):
    """A small convolutional network, which shares nothing with what draws: kinds of pictures, and features of them."""

    def __init__(self, kinds: int, width: int = 64) -> None:
        super().__init__()
        sizes = (3, width // 2, width, width)
        steps: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            steps += [nn.Conv2d(inputs, outputs, 5, stride=2, padding=2), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.body = nn.Sequential(*steps, nn.AdaptiveMaxPool2d(1), nn.Flatten())
        self.head = nn.Linear(width, kinds)

    def forward(self, pixels: Tensor) -> Tensor:
        """[N, 3, H, W] → [N, K]."""
        logits: Tensor = self.head(self.body(pixels))
        return logits


def values(pictures: Sequence[Image.Image], size: int) -> Tensor:
    """[N, 3, H, W] from -1 to 1, of one size."""
    same = [np.asarray(one.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)) for one in pictures]
    return torch.from_numpy(np.stack(same)).permute(0, 3, 1, 2).float() / 127.5 - 1


def trained(pixels: Tensor, kinds: Tensor, *, epochs: int = 15, batch: int = 64) -> Classifier:
    """A classifier that has seen real pictures [N, 3, H, W] of these kinds [N]."""
    torch.manual_seed(0)
    model = Classifier(int(kinds.max()) + 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    steps = epochs * (len(pixels) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(pixels))
        for chosen in order[: len(order) // batch * batch].split(batch):
            loss = nn.functional.cross_entropy(model(pixels[chosen]), kinds[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def frechet_distance(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    """Between normal distributions with the means and covariances of features [N, D] (Heusel et al., 2017)."""
    covariances = [np.cov(one, rowvar=False) for one in (first, second)]
    apart = first.mean(axis=0) - second.mean(axis=0)
    root = sqrtm(covariances[0] @ covariances[1]).real
    return float(apart @ apart + np.trace(covariances[0] + covariances[1] - 2 * root))
