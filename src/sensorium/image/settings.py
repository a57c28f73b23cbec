"""How a model wants its images: their size, and what becomes of their values (``preprocessor_config.json``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sensorium.errors import CheckpointError
from sensorium.storage import read_object, write_json

FILE = "preprocessor_config.json"
Resample = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
RESAMPLE: tuple[Resample, ...] = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""In the order of their published numbers, which are Pillow's."""


@dataclass(frozen=True)
class ImageSettings:
    """Resize, crop, normalise; sizes are (height, width) in pixels."""

    size: tuple[int, int] | None = None
    """What every image is resized to."""
    shortest_edge: int | None = None
    """What the shorter side is resized to, where the shape of an image is kept."""
    crop: tuple[int, int] | None = None
    """What is cut out of the middle afterwards, with black around it where there is less."""
    background: tuple[int, int, int] | None = None
    """Keep the shape: the longer side becomes that of ``size``, and what is left of the square is of this colour."""
    min_side: int = 1
    """Of what is put on such a background, in pixels."""
    resample: Resample = "bilinear"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    """Of each channel, of values from 0 to 1."""
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    scale: float = 1 / 255
    """What a pixel is multiplied by before the mean is taken away."""
    patch_size: int | None = None
    max_patches: int | None = None
    """Keep the shape, and resize to the most pixels that fit into so many patches of ``patch_size`` (SigLIP 2)."""


INERT = frozenset(
    [
        "image_processor_type", "feature_extractor_type", "processor_class", "do_convert_rgb", "data_format",
        "input_data_format", "device", "disable_grouping", "return_tensors", "default_to_square", "size_divisor",
        "auto_map", "num_channels", "crop_pct",
    ]
)  # fmt: skip
READ = frozenset(
    [
        "do_resize", "size", "do_center_crop", "crop_size", "resample", "do_rescale", "rescale_factor", "do_normalize",
        "image_mean", "image_std", "patch_size", "max_num_patches", "do_pad", "min_size", "background_color",
    ]
)  # fmt: skip
ON_SQUARES = ("Janus",)
"""Whose images keep their shape, on a square of the mean colour."""
WRITTEN_BY_SHORTEST = ("CLIP", "ChineseCLIP")
"""Whose single number is the shorter side; of others it is both."""


def read_image_settings(folder: Path) -> ImageSettings | None:
    """The settings beside a checkpoint, ``None`` where there are none.

    Raises ``CheckpointError`` for one that is not known, or that is none.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    raw = read_object(path)
    if unknown := sorted(set(raw) - READ - INERT):
        raise CheckpointError(f"{path}: the key {unknown[0]!r} is not known, and it might change what a model sees")
    try:
        return _settings(raw)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def write_image_settings(folder: Path, settings: ImageSettings, *, processor: str) -> None:
    """Write them for ``processor``, the published class that reads them."""
    keys: dict[str, Any] = {
        "image_processor_type": processor,
        "do_resize": settings.size is not None
        or settings.shortest_edge is not None
        or settings.max_patches is not None,
        "resample": RESAMPLE.index(settings.resample),
        "do_center_crop": settings.crop is not None,  # some classes crop where nothing is said
        "do_rescale": True,
        "rescale_factor": settings.scale,
        "do_normalize": True,
        "image_mean": list(settings.mean),
        "image_std": list(settings.std),
    }
    if settings.size is not None:
        keys["size"] = dict(zip(("height", "width"), settings.size, strict=True))
    if settings.shortest_edge is not None:
        keys["size"] = {"shortest_edge": settings.shortest_edge}
    if settings.crop is not None:
        keys["crop_size"] = dict(zip(("height", "width"), settings.crop, strict=True))
    if processor.startswith(ON_SQUARES):
        if settings.background not in (None, mean_colour(settings.mean)):
            raise CheckpointError(f"{processor} puts images on the mean colour, not on {settings.background}")
        keys["min_size"] = settings.min_side
    if settings.max_patches is not None:
        keys |= {"patch_size": settings.patch_size, "max_num_patches": settings.max_patches}
    write_json(folder / FILE, keys)


def _settings(raw: Mapping[str, Any]) -> ImageSettings:
    whose = str(raw.get("image_processor_type") or raw.get("feature_extractor_type") or "")
    size, shortest = (None, None) if raw.get("do_resize") is False else _size(raw.get("size"), whose)
    most = raw.get("max_num_patches")
    mean = _channels("image_mean", raw.get("image_mean", [0.5] * 3))
    on_square = size is not None and whose.startswith(ON_SQUARES)
    if size is not None and on_square and (raw.get("do_pad") is False or size[0] != size[1]):
        raise ValueError(f"size is {size}, do_pad {raw.get('do_pad')!r}; {whose} puts images on squares")
    return ImageSettings(
        size=size if most is None else None,
        shortest_edge=shortest if most is None else None,
        crop=_pair(raw["crop_size"]) if raw.get("do_center_crop", "crop_size" in raw) else None,
        resample=RESAMPLE[_whole("resample", raw.get("resample", 2))],
        background=mean_colour(mean) if on_square else None,
        min_side=_whole("min_size", raw.get("min_size", 1)) if on_square else 1,
        mean=mean if raw.get("do_normalize", True) else (0.0,) * 3,
        std=_channels("image_std", raw.get("image_std", [0.5] * 3)) if raw.get("do_normalize", True) else (1.0,) * 3,
        scale=float(raw.get("rescale_factor", 1 / 255)) if raw.get("do_rescale", True) else 1.0,
        patch_size=None if most is None else _whole("patch_size", raw["patch_size"]),
        max_patches=None if most is None else _whole("max_num_patches", most),
    )


def mean_colour(mean: tuple[float, ...]) -> tuple[int, int, int]:
    """The colour of the mean, rounded down."""
    red, green, blue = (int(255 * channel) for channel in mean)
    return red, green, blue


def _size(value: Any, whose: str) -> tuple[tuple[int, int] | None, int | None]:
    """``size`` as older and newer files have it → (height, width), or the shorter side."""
    if value is None:
        return None, None
    if isinstance(value, Mapping) and set(value) == {"shortest_edge"}:
        return None, _whole("size", value["shortest_edge"])
    if isinstance(value, int) and whose.startswith(WRITTEN_BY_SHORTEST):
        return None, _whole("size", value)
    return _pair(value), None


def _pair(value: Any) -> tuple[int, int]:
    """(height, width) of a number, a pair, or both by name."""
    if isinstance(value, Mapping) and set(value) == {"height", "width"}:
        value = [value["height"], value["width"]]
    sides = [value, value] if isinstance(value, int) else list(value)
    if len(sides) != 2:
        raise ValueError(f"{value!r} is no size; a number, or height and width, are expected")
    return _whole("size", sides[0]), _whole("size", sides[1])


def _whole(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 2**14:
        raise ValueError(f"{key} is {value!r}; a whole number up to {2**14:,} is expected")
    return value


def _channels(key: str, value: Any) -> tuple[float, ...]:
    numbers = tuple(float(number) for number in value)
    if len(numbers) != 3 or not all(abs(number) < 1e6 for number in numbers):
        raise ValueError(f"{key} is {value!r}; three numbers are expected, one for each channel")
    return numbers
