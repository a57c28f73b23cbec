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
from sensorium.image.decode import decode
from sensorium.image.settings import ImageSettings
from sensorium.worker import Limits, Worker

LIMITS = Limits(seconds=20.0, memory=1536 * 2**20, output=512 * 2**20)
AS_IT_IS = ImageSettings()

_decode = Worker(decode, what="the image", limits=LIMITS, error=DataError)


def open_image(source: str | Path | bytes, settings: ImageSettings = AS_IT_IS) -> np.ndarray[Any, Any]:
    """A file, or the bytes of one → RGB pixels [H, W, 3] uint8, upright, of the size that the settings ask for.

    Raises ``DataError`` naming the file: where it is no image, damaged, too large, or where there is no such file.
    """
    if find_spec("PIL") is None:
        raise missing_extra("pillow", "images")
    name = "the image" if isinstance(source, bytes) else str(source)
    data = base64.b64encode(source).decode() if isinstance(source, bytes) else None
    how = {key: value for key, value in asdict(settings).items() if value is not None}
    try:
        (height, width), pixels = _decode(str(Path(name).absolute()) if data is None else "", data, how)
    except DataError as error:
        raise DataError(f"{name}: {_said(error)}") from error
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)


def normalised(pixels: np.ndarray[Any, Any], settings: ImageSettings) -> Tensor:
    """RGB pixels [H, W, 3] uint8 → [3, H, W] float32 as a model wants them."""
    scaled = torch.from_numpy(pixels.astype(np.float32)) * settings.scale  # [H, W, 3]
    return ((scaled - torch.tensor(settings.mean)) / torch.tensor(settings.std)).permute(2, 0, 1)


def _said(error: DataError) -> str:
    """What a worker says of a failure, without its beginning."""
    return str(error).removeprefix("the image ").removeprefix("failed: ")
