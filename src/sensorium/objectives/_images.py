"""Images of records: each is opened once, however many records show it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sensorium.errors import DataError
from sensorium.image.opening import Pixels, open_images
from sensorium.image.settings import ImageSettings
from sensorium.objectives._base import Record, field


def open_each(records: Sequence[Record], settings: ImageSettings) -> tuple[list[int], dict[int, Pixels]]:
    """For each record the number of the first that shows its image, and by that number pixels [H, W, 3] uint8.

    Records are numbered from 1; pixels are of the size that the settings ask for. Raises ``DataError`` with the number
    of a record that has no image, or whose image can't be opened.
    """
    numbers: dict[Any, int] = {}
    images: dict[int, Any] = {}
    firsts = []
    for number, record in enumerate(records, 1):
        image = field(record, "image", number)
        first = numbers.setdefault(_key(image), number)
        images.setdefault(first, image)  # what is kept keeps its id
        firsts.append(first)
    opened = {}
    for number, pixels in zip(images, open_images(images.values(), settings), strict=True):
        if isinstance(pixels, DataError):
            raise DataError(f"record {number:,}: {pixels}") from pixels
        opened[number] = pixels
    return firsts, opened


def _key(image: Any) -> Any:
    """What two records have in common that show the same image: its file or its bytes, else the very same pixels."""
    if isinstance(image, Path):
        return str(image)
    return image if isinstance(image, str | bytes) else id(image)
