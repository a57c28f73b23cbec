"""Pixels ⇄ packed patches: an image is a sequence, row after row, whatever its size.

Shapes: C channels, H and W pixels, P side of a patch, R and K rows and columns of patches, T packed rows of all images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sensorium.errors import DataError
from sensorium.packed import Packed


def to_patches(pixels: Tensor, patch_size: int) -> Tensor:
    """[C, H, W] → [R · K, C · P · P], row after row; of each patch all of a channel, then the next.

    Raises ``DataError`` where the sides are no multiples of P.

    >>> to_patches(torch.arange(8).view(1, 2, 4), 2).tolist()
    [[0, 1, 4, 5], [2, 3, 6, 7]]
    """
    channels, height, width = pixels.shape
    if height % patch_size or width % patch_size or not height or not width:
        raise DataError(
            f"an image of {width} × {height} pixels can't be cut into patches of {patch_size} × {patch_size}"
        )
    grid = pixels.reshape(channels, height // patch_size, patch_size, width // patch_size, patch_size)
    return grid.permute(1, 3, 0, 2, 4).flatten(2).flatten(0, 1)


def from_patches(patches: Tensor, rows: int, patch_size: int) -> Tensor:
    """[R · K, C · P · P] of R ``rows`` → [C, H, W]: ``to_patches`` backwards.

    >>> from_patches(torch.tensor([[0, 1, 4, 5], [2, 3, 6, 7]]), 1, 2).tolist()
    [[[0, 1, 2, 3], [4, 5, 6, 7]]]
    """
    grid = patches.reshape(rows, len(patches) // rows, -1, patch_size, patch_size)  # [R, K, C, P, P]
    return grid.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)


def kinds_of_patches(images: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
    """Which patches of an image have the same pixels: [N, C, H, W] → [N, R, K] int64 the number of each patch's kind,
    and how many patches each kind has. Two images have no kind in common.

    >>> kinds, counts = kinds_of_patches(torch.tensor([[[[7, 7, 0]]], [[[7, 0, 0]]]]), 1)
    >>> kinds.tolist(), counts.tolist()
    ([[[2, 2, 0]], [[3, 1, 1]]], [1, 2, 2, 1])
    """
    patches = torch.stack([to_patches(image, patch_size) for image in images])  # [N, R · K, C · P · P]
    owner = torch.arange(len(images), dtype=patches.dtype, device=patches.device)[:, None, None]
    rows = torch.cat([patches, owner.expand(*patches.shape[:2], 1)], dim=-1).flatten(0, 1)
    _, kinds, counts = rows.unique(dim=0, return_inverse=True, return_counts=True)
    return kinds.view(len(images), images.shape[2] // patch_size, -1), counts


def pack_images(images: Sequence[Tensor], patch_size: int, *, class_token: bool) -> Packed:
    """Images [C, H, W] of any sizes, one after another.

    Values are [T, C · P · P], positions [T, 3]: time, row and column. With ``class_token`` each image begins with a row
    of zeros in its place. Raises ``DataError`` as ``to_patches``.
    """
    before = int(class_token)
    rows, places, lengths = [], [], []
    for pixels in images:
        patches = to_patches(pixels, patch_size)
        columns = pixels.shape[2] // patch_size
        number = torch.arange(len(patches))
        place = torch.stack([torch.zeros_like(number), number // columns, number % columns], dim=1)  # [R · K, 3]
        rows += [patches.new_zeros(before, patches.shape[1]), patches]
        places += [place.new_zeros(before, 3), place]
        lengths.append(before + len(patches))
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    return Packed(torch.cat(rows), offsets, torch.cat(places))
