"""Open images: files are decoded in processes of their own, with limits of time, memory and size.

Shapes: H and W pixels.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensorium.errors import DataError, missing_extra
from sensorium.image.decode import decode_several, in_rgb, resized
from sensorium.image.settings import ImageSettings
from sensorium.machine import usable_cores
from sensorium.worker import Limits, WorkerPool

LIMITS = Limits(seconds=20.0, memory=1536 * 2**20, output=512 * 2**20)
AS_IT_IS = ImageSettings()
MOST_WORKERS = 8
"""More of them than this decode faster than any model here looks."""
GROUP = 8
"""Files that a worker is given at a time: what a call costs is shared among them."""
GROUP_BYTES = 4 * 2**20
"""Of images that are given as bytes, in one group."""
Pixels = np.ndarray[Any, Any]
"""[H, W, 3] uint8."""


@cache
def _workers() -> WorkerPool:
    size = min(usable_cores(), MOST_WORKERS)
    return WorkerPool(decode_several, size, what="the image", limits=LIMITS, error=DataError)


def open_image(source: Any, settings: ImageSettings = AS_IT_IS) -> Pixels:
    """An image → RGB pixels [H, W, 3] uint8, upright, of the size that the settings ask for.

    It is a file, its bytes, a picture of Pillow, or an array [H, W, 3] uint8. Raises ``DataError`` naming the file:
    where it is no image, damaged, too large, or where there is no such file.
    """
    if reason := not_an_image(source):
        raise DataError(f"the image is {reason}")
    how = _how(settings)
    [opened] = _files([source], how) if isinstance(source, str | Path | bytes) else [_in_hand(source, how)]
    if isinstance(opened, DataError):
        raise opened
    return opened


def open_images(sources: Iterable[Any], settings: ImageSettings = AS_IT_IS) -> Iterator[Pixels | DataError]:
    """Many images, as ``open_image`` opens each, in their order; where one can't be opened, the reason is in its place.

    Files are decoded side by side by as many processes as there are cores, a few ahead of what was asked for. A file
    that crashes its process, or hangs it, costs the others nothing. A source that is a ``DataError`` already stays one.
    """
    how = _how(settings)
    return chain.from_iterable(_workers().map(lambda group: _group(group, how), _groups(sources, how)))


def _how(settings: ImageSettings) -> dict[str, Any]:
    return {key: value for key, value in asdict(settings).items() if value is not None}


def _groups(sources: Iterable[Any], how: dict[str, Any]) -> Iterator[list[Any]]:
    """A few sources at a time. What is in hand is made ready here: such a picture may be another's too."""
    group: list[Any] = []
    size = 0
    for source in sources:
        if not isinstance(source, DataError) and (reason := not_an_image(source)):
            source = DataError(f"the image is {reason}")
        elif not isinstance(source, str | Path | bytes | DataError):
            source = _in_hand(source, how)
        group.append(source)
        size += len(source) if isinstance(source, bytes) else 0
        if len(group) == GROUP or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _group(group: list[Any], how: dict[str, Any]) -> list[Pixels | DataError]:
    """A group with its files opened; all else in it is ready."""
    opened = iter(_files([one for one in group if isinstance(one, str | Path | bytes)], how))
    return [next(opened) if isinstance(one, str | Path | bytes) else one for one in group]


def _files(sources: list[Any], how: dict[str, Any]) -> list[Pixels | DataError]:
    """Files, or their bytes, opened by one call; if it comes to grief over one of them, by a call each."""
    if not sources:
        return []
    files = [
        ("", base64.b64encode(one).decode()) if isinstance(one, bytes) else (str(Path(one).absolute()), None)
        for one in sources
    ]
    try:
        found, pixels = _workers()(files, how)
    except DataError as error:
        if len(sources) > 1:
            return [opened for one in sources for opened in _files([one], how)]
        return [_refusal(sources[0], _said(error))]
    opened: list[Pixels | DataError] = []
    begin = 0
    for source, one in zip(sources, found, strict=True):
        if isinstance(one, str):
            opened.append(_refusal(source, one))
            continue
        height, width = one
        opened.append(np.frombuffer(pixels, np.uint8, height * width * 3, begin).reshape(height, width, 3))
        begin += height * width * 3
    return opened


def _refusal(source: Any, problem: str) -> DataError:
    return DataError(f"{'the image' if isinstance(source, bytes) else source}: {problem}")


def _in_hand(source: Any, how: dict[str, Any]) -> Pixels:
    return np.asarray(resized(in_rgb(_picture(source)), how))


def _picture(source: Any) -> Any:
    from PIL import Image

    return Image.fromarray(source) if isinstance(source, np.ndarray) else source


def not_an_image(source: Any) -> str | None:
    """What it is that is no file, no bytes of one, no picture and no pixels; ``None``: it may be an image."""
    try:
        from PIL import Image
    except ImportError as error:
        raise missing_extra("pillow", "images") from error

    if isinstance(source, str | Path | bytes | Image.Image):
        return None
    pixels = isinstance(source, np.ndarray) and source.dtype == np.uint8 and source.ndim == 3 and source.shape[2] == 3
    if pixels and source.size:
        return None
    return f"a {type(source).__name__}; a file, its bytes, a picture of Pillow or an array [H, W, 3] uint8 is expected"


def normalised(pixels: np.ndarray[Any, Any], settings: ImageSettings) -> Tensor:
    """RGB pixels [H, W, 3] uint8 → [3, H, W] float32 as a model wants them."""
    scaled = torch.from_numpy(pixels.astype(np.float32)) * settings.scale  # [H, W, 3]
    return ((scaled - torch.tensor(settings.mean)) / torch.tensor(settings.std)).permute(2, 0, 1)


def _said(error: DataError) -> str:
    """What a worker says of a failure, without its beginning."""
    return str(error).removeprefix("the image ").removeprefix("failed: ")
