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
from sensorium.image.decode import decode, in_rgb, resized
from sensorium.image.settings import ImageSettings
from sensorium.worker import Limits, Worker

LIMITS = Limits(seconds=20.0, memory=1536 * 2**20, output=512 * 2**20)
AS_IT_IS = ImageSettings()

_decode = Worker(decode, what="the image", limits=LIMITS, error=DataError)


def open_image(source: Any, settings: ImageSettings = AS_IT_IS) -> np.ndarray[Any, Any]:
    """An image → RGB pixels [H, W, 3] uint8, upright, of the size that the settings ask for.

    It is a file, its bytes, a picture of Pillow, or an array [H, W, 3] uint8. Raises ``DataError`` naming the file:
    where it is no image, damaged, too large, or where there is no such file.
    """
    if reason := not_an_image(source):
        raise DataError(f"the image is {reason}")
    how = {key: value for key, value in asdict(settings).items() if value is not None}
    if not isinstance(source, str | Path | bytes):
        return np.asarray(resized(in_rgb(_picture(source)), how))
    name = "the image" if isinstance(source, bytes) else str(source)
    data = base64.b64encode(source).decode() if isinstance(source, bytes) else None
    try:
        (height, width), pixels = _decode(str(Path(name).absolute()) if data is None else "", data, how)
    except DataError as error:
        raise DataError(f"{name}: {_said(error)}") from error
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)


def _picture(source: Any) -> Any:
    from PIL import Image

    return Image.fromarray(source) if isinstance(source, np.ndarray) else source


def not_an_image(source: Any) -> str | None:
    """What it is that is no file, no bytes of one, no picture and no pixels; ``None``: it may be an image."""
    if find_spec("PIL") is None:
        raise missing_extra("pillow", "images")
    from PIL import Image

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
