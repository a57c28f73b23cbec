"""Open images: each file is decoded in a process of its own, with limits of time, memory and size.

Shapes: H and W pixels.
"""

from __future__ import annotations

import base64
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensorium.errors import DataError, missing_extra
from sensorium.image.decode import decode, resized
from sensorium.image.settings import ImageSettings
from sensorium.worker import Limits, Worker

LIMITS = Limits(seconds=20.0, memory=1536 * 2**20, output=512 * 2**20)
AS_IT_IS = ImageSettings()

_decode = Worker(decode, what="the image", limits=LIMITS, error=DataError)


Source = str | Path | bytes | np.ndarray[Any, Any]
"""An image: a file, the bytes of one, or pixels [H, W, 3] uint8."""


def open_image(source: Source, settings: ImageSettings = AS_IT_IS) -> np.ndarray[Any, Any]:
    """An image → RGB pixels [H, W, 3] uint8, upright, of the size that the settings ask for.

    Raises ``DataError`` naming the file: where it is no image, damaged, too large, or where there is no such file.
    """
    if find_spec("PIL") is None:
        raise missing_extra("pillow", "images")
    if isinstance(source, np.ndarray):
        return _resized(source, settings)
    name = "the image" if isinstance(source, bytes) else str(source)
    data = base64.b64encode(source).decode() if isinstance(source, bytes) else None
    how = {key: value for key, value in asdict(settings).items() if value is not None}
    try:
        (height, width), pixels = _decode(str(Path(name).absolute()) if data is None else "", data, how)
    except DataError as error:
        raise DataError(f"{name}: {_said(error)}") from error
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)


def _resized(pixels: np.ndarray[Any, Any], settings: ImageSettings) -> np.ndarray[Any, Any]:
    """Pixels that are at hand, resized and cropped. Raises ``DataError`` for an array that is no image."""
    from PIL import Image

    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise DataError(f"an array {list(pixels.shape)} of {pixels.dtype} is no image; [H, W, 3] of uint8 is expected")
    how = {key: value for key, value in asdict(settings).items() if value is not None}
    return np.asarray(resized(Image.fromarray(pixels), how))


def normalised(pixels: np.ndarray[Any, Any], settings: ImageSettings) -> Tensor:
    """RGB pixels [H, W, 3] uint8 → [3, H, W] float32 as a model wants them."""
    scaled = torch.from_numpy(pixels.astype(np.float32)) * settings.scale  # [H, W, 3]
    return ((scaled - torch.tensor(settings.mean)) / torch.tensor(settings.std)).permute(2, 0, 1)


def _said(error: DataError) -> str:
    """What a worker says of a failure, without its beginning."""
    return str(error).removeprefix("the image ").removeprefix("failed: ")
