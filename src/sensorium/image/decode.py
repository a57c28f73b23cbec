"""What the decode worker does with one image file: strangers' bytes → pixels of the size that was asked for.

Runs in a process of its own. Sizes are read from the header, and refused, before anything is decoded.
"""

from __future__ import annotations

import base64
import io
import warnings
from typing import TYPE_CHECKING, Any

from sensorium.worker import MOST_CHARACTERS

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "AVIF")
"""Decoders that are let near strangers' files; Pillow has many that nobody keeps."""
MOST_PIXELS = 120_000_000
"""The largest photograph that is read; 360 MB decoded."""
LARGE = 2**24
"""Pixels above which a photograph is decoded at a part of its size at once, where a small one is asked for."""
MOST_BYTES = 512 * 2**20
"""Of a file."""
WHITE = (255, 255, 255)
"""What is seen through an image that is transparent."""
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")


def decode(source: str, data: str | None, how: dict[str, Any]) -> tuple[list[int], bytes]:
    """A file, or ``data`` in base64 → [height, width] and the bytes of its RGB pixels, row after row.

    ``how`` are fields of ``ImageSettings``; none of them leaves an image as it is.
    """
    from PIL import Image

    warnings.simplefilter("error", Image.DecompressionBombWarning)
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS
    image = resized(_opened(source, data, how), how)
    return [image.height, image.width], image.tobytes()


def decode_several(
    files: list[tuple[str, str | None]], how: dict[str, Any]
) -> tuple[list[list[int] | str], bytes]:  # fmt: skip
    """``decode`` for files and ``data``, one call for all of them: the pixels of those that can be read, one after
    another, and for each its [height, width], or why it can't be read.
    """
    found: list[list[int] | str] = []
    pixels = []
    for source, data in files:
        try:
            size, beside = decode(source, data, how)
        except MemoryError:  # what is left may be too little for the next
            raise
        except Exception as error:
            found.append((str(error).splitlines() or [type(error).__name__])[0][:MOST_CHARACTERS])
        else:
            found.append(size)
            pixels.append(beside)
    return found, b"".join(pixels)


def _opened(source: str, data: str | None, how: dict[str, Any]) -> Image.Image:
    """Upright, in RGB, the first picture where there are several."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    file = io.BytesIO(base64.b64decode(data)) if data is not None else open(source, "rb")  # noqa: SIM115
    with file:
        if file.seek(0, io.SEEK_END) > MOST_BYTES:
            raise ValueError(f"has more than {MOST_BYTES // 2**20} MB")
        file.seek(0)
        try:
            image = Image.open(file, formats=FORMATS)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ValueError(f"has more than {MOST_PIXELS:,} pixels") from error
        except UnidentifiedImageError as error:
            raise ValueError(f"is no image that can be read ({', '.join(FORMATS)})") from error
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise ValueError(f"has {width:,} × {height:,} pixels; at most {MOST_PIXELS:,} are read")
        if image.format == "JPEG" and width * height > LARGE and (how.get("size") or how.get("shortest_edge")):
            high, wide = how.get("size") or (how["shortest_edge"], how["shortest_edge"])
            image.draft("RGB", (2 * wide, 2 * high))
        try:
            image.load()
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise ValueError(f"is damaged ({error})") from error
        return in_rgb(ImageOps.exif_transpose(image))


def in_rgb(image: Image.Image) -> Image.Image:
    """Any mode that a decoder gives → RGB of 8 bits: 16 bits are scaled, what is transparent lies on white."""
    from PIL import Image

    if image.mode in SIXTEEN_BITS or image.mode == "I":
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    elif image.mode == "F":
        extrema: Any = image.getextrema()
        low, high = extrema
        factor = 255 / (high - low or 1)
        image = image.point(lambda value: value * factor - low * factor).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (*WHITE, 255))
        image = Image.alpha_composite(ground, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def resized(image: Image.Image, how: dict[str, Any]) -> Image.Image:
    """Resized and cropped as ``ImageSettings`` say."""
    from PIL import Image

    size = _target(image.size, how)
    if size is not None and size != image.size:
        image = image.resize(size, Image.Resampling[str(how.get("resample", "bilinear")).upper()])
    if how.get("background"):
        height, width = how["size"]
        square = Image.new("RGB", (width, height), tuple(how["background"]))
        square.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
        return square
    crop = how.get("crop")
    if not crop:
        return image
    height, width = crop
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _target(size: tuple[int, int], how: dict[str, Any]) -> tuple[int, int] | None:
    """(width, height) to resize an image of ``size`` to; ``None``: as it is."""
    width, height = size
    if how.get("background"):
        factor = how["size"][0] / max(size)
        least = how.get("min_side", 1)
        return max(round(width * factor), least), max(round(height * factor), least)
    if how.get("size"):
        return how["size"][1], how["size"][0]
    if edge := how.get("shortest_edge"):
        short, long = min(size), max(size)
        long = int(edge * long / short)
        return (edge, long) if width <= height else (long, edge)
    if most := how.get("max_patches"):
        return _most_patches(width, height, how["patch_size"], most)
    return None


def _most_patches(width: int, height: int, patch: int, most: int) -> tuple[int, int]:
    """The largest size of the same shape, in whole patches, of which there are at most so many (SigLIP 2)."""

    def scaled(scale: float, side: int) -> int:
        return max(patch, -int(-(side * scale) // patch) * patch)  # rounded up to whole patches

    low, high = 1e-6, 100.0
    while high - low >= 1e-5:
        middle = (low + high) / 2
        fits = scaled(middle, width) // patch * (scaled(middle, height) // patch) <= most
        low, high = (middle, high) if fits else (low, middle)
    return scaled(low, width), scaled(low, height)
