"""Images from anywhere: every kind that decoders give comes out as it is seen; what is none is one sentence."""

from __future__ import annotations

import io
import os
import re
import struct
import time
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sensorium.errors import DataError
from sensorium.image import opening
from sensorium.image.decode import decode_several
from sensorium.image.opening import open_image, open_images
from sensorium.image.settings import ImageSettings
from sensorium.worker import Limits, WorkerPool

GRADIENT = np.stack(np.broadcast_arrays(np.arange(64)[:, None] * 4, np.arange(48)[None] * 5, 128), axis=-1)
PICTURE = Image.fromarray(GRADIENT.astype(np.uint8))
"""64 high, 48 wide: red grows downwards, green to the right."""


def saved(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def sixteen_bits() -> Image.Image:
    return Image.fromarray((GRADIENT[..., 0] * 257).astype(np.uint16))


def transparent() -> Image.Image:
    image = PICTURE.convert("RGBA")
    image.putalpha(Image.fromarray(np.where(np.arange(48)[None] < 24, 0, 255).repeat(64, 0).astype(np.uint8)))
    return image


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera on its side
    return saved(PICTURE.rotate(90, expand=True), format="PNG", exif=exif)


def animated() -> bytes:
    frames = [PICTURE.quantize(256), Image.new("P", PICTURE.size)]
    return saved(frames[0], format="GIF", save_all=True, append_images=frames[1:])


KINDS: dict[str, tuple[Callable[[], bytes], float]] = {
    "png": (lambda: saved(PICTURE, format="PNG"), 0),
    "jpeg": (lambda: saved(PICTURE, format="JPEG", quality=95), 8),
    "webp": (lambda: saved(PICTURE, format="WEBP", lossless=True), 0),
    "bmp": (lambda: saved(PICTURE, format="BMP"), 0),
    "tiff": (lambda: saved(PICTURE, format="TIFF"), 0),
    "palette": (lambda: saved(PICTURE.quantize(256), format="PNG"), 30),
    "animated": (animated, 30),
    "cmyk jpeg": (lambda: saved(PICTURE.convert("CMYK"), format="JPEG", quality=95), 10),
    "cmyk tiff": (lambda: saved(PICTURE.convert("CMYK"), format="TIFF"), 2),
    "turned by its camera": (rotated, 0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_comes_out_as_it_is_seen(kind: str, tmp_path: Path) -> None:
    make, tolerance = KINDS[kind]
    (tmp_path / "picture").write_bytes(make())
    pixels = open_image(tmp_path / "picture")
    assert pixels.shape == (64, 48, 3)
    assert np.abs(pixels.astype(int) - GRADIENT).max() <= tolerance
    assert np.array_equal(open_image(make()), pixels)


def test_sixteen_bits_and_floats_become_eight(tmp_path: Path) -> None:
    for name, image in (("a.png", sixteen_bits()), ("a.tiff", Image.fromarray(GRADIENT[..., 0].astype(np.float32)))):
        image.save(tmp_path / name)
        pixels = open_image(tmp_path / name)
        stretched = GRADIENT[..., 0] if name == "a.png" else GRADIENT[..., 0] * (255 / 252)
        assert np.abs(pixels[..., 1] - stretched).max() <= 1
        assert (pixels[..., 0] == pixels[..., 2]).all()


@pytest.mark.parametrize("kind", ["rgba", "palette", "grey"])
def test_what_is_transparent_lies_on_white(kind: str) -> None:
    image = transparent()
    if kind == "grey":
        image = image.convert("LA")
    if kind == "palette":
        image = image.quantize(255)
    pixels = open_image(saved(image, format="PNG"))
    assert (pixels[:, :20] >= 254).all()
    assert pixels[0, 30:].max() < 254


@cache
def bomb() -> bytes:
    """50 000 × 50 000 pixels in a file of 60 kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(6251 * 10_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def damaged() -> bytes:
    whole = bytearray(saved(PICTURE, format="PNG"))
    whole[len(whole) // 2] ^= 0xFF
    return bytes(whole)


WRONG: dict[str, tuple[Callable[[], bytes], str]] = {
    "no image at all": (lambda: b"<html>not a picture</html>", r"is no image that can be read \(PNG, JPEG, "),
    "empty": (lambda: b"", "is no image that can be read"),
    "cut off": (lambda: saved(PICTURE.resize((640, 480)), format="JPEG")[:5000], "is damaged"),
    "damaged": (damaged, "is damaged"),
    "a bomb": (bomb, "has more than 120,000,000 pixels|has 50,000 × 50,000 pixels; at most 120,000,000 are read"),
    "a format that nobody keeps": (lambda: saved(PICTURE, format="PCX"), "is no image that can be read"),
    "postscript, which is a program": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no image"),
}


def test_a_bomb_is_refused_by_its_header_in_no_time() -> None:
    data = bomb()
    assert 50_000 < len(data) < 70_000
    open_image(saved(PICTURE, format="PNG"))
    began = time.perf_counter()
    with pytest.raises(DataError, match="pixels"):
        open_image(data)
    assert time.perf_counter() - began < 1  # decoded, it would take minutes, and gigabytes


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_image_is_one_sentence_with_the_file_and_others_go_on(wrong: str, tmp_path: Path) -> None:
    make, said = WRONG[wrong]
    path = tmp_path / "picture.png"
    path.write_bytes(make())
    with pytest.raises(DataError, match=rf"^{path}: ({said})[^\n]*$"):
        open_image(path)
    with pytest.raises(DataError, match=f"^the image: ({said})"):
        open_image(make())
    assert open_image(saved(PICTURE, format="PNG")).shape == (64, 48, 3)


def test_a_file_is_what_it_holds_whatever_its_name_says(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(saved(PICTURE, format="PNG"))
    assert np.array_equal(open_image(path), GRADIENT)


def test_a_file_that_is_not_there_and_a_folder_are_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.png: .*No such file"):
        open_image(tmp_path / "nothing.png")
    with pytest.raises(DataError, match="Is a directory"):
        open_image(tmp_path)


def test_a_large_photograph_is_read_at_the_size_that_is_asked_for() -> None:
    photograph = saved(PICTURE.resize((4800, 6400)), format="JPEG", quality=60)
    pixels = open_image(photograph, ImageSettings(size=(64, 48)))
    assert pixels.shape == (64, 48, 3)
    assert np.abs(pixels.astype(int) - GRADIENT).max() <= 12


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        (ImageSettings(size=(10, 20)), (10, 20)),
        (ImageSettings(shortest_edge=24), (32, 24)),
        (ImageSettings(shortest_edge=24, crop=(24, 24)), (24, 24)),
        (ImageSettings(crop=(100, 10)), (100, 10)),
        (ImageSettings(patch_size=4, max_patches=64), (36, 28)),
    ],
)
def test_an_image_has_the_size_that_the_settings_ask_for(settings: ImageSettings, size: tuple[int, int]) -> None:
    assert open_image(saved(PICTURE, format="PNG"), settings).shape == (*size, 3)


# --- many ------------------------------------------------------------------------------------------------------------


def test_many_come_in_their_order_each_as_it_would_alone(tmp_path: Path) -> None:
    sources: list[Any] = []
    for number, (name, (make, _)) in enumerate(KINDS.items()):
        (tmp_path / name).write_bytes(make())
        sources += [tmp_path / name, str(tmp_path / name), make(), PICTURE.rotate(number), GRADIENT.astype(np.uint8)]
    for name, (make, _) in WRONG.items():
        (tmp_path / name).write_bytes(make())
        sources += [tmp_path / name, make(), PICTURE]
    sources += [tmp_path / "nothing", tmp_path, None, np.zeros((2, 2)), DataError("known to be none")]
    settings = ImageSettings(shortest_edge=20, crop=(20, 20))
    found = list(open_images(iter(sources), settings))
    assert len(found) == len(sources)
    for source, one in zip(sources[:-1], found[:-1], strict=True):
        if isinstance(one, DataError):
            with pytest.raises(DataError, match=f"^{re.escape(str(one))}$"):
                open_image(source, settings)
        else:
            assert np.array_equal(open_image(source, settings), one)
    assert str(found[-1]) == "known to be none"
    assert sum(isinstance(one, DataError) for one in found) == 2 * len(WRONG) + 5


def test_a_file_that_hangs_or_eats_all_memory_loses_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(seconds=3.0, memory=96 * 2**20, output=2**24)
    few = WorkerPool(decode_several, 2, what="the image", limits=limits, error=DataError)
    monkeypatch.setattr(opening, "_workers", lambda: few)
    PICTURE.save(tmp_path / "good.png")
    Image.new("L", (9_000, 9_000)).save(tmp_path / "large.png", compress_level=1)  # 243 MB in RGB
    os.mkfifo(tmp_path / "pipe.png")
    names = ["good.png", "pipe.png", "good.png", "large.png", *["good.png"] * 20]
    found = list(open_images([tmp_path / name for name in names]))
    assert str(found[1]) == f"{tmp_path}/pipe.png: took longer than 3 seconds and was stopped"
    assert str(found[3]).startswith(f"{tmp_path}/large.png: ")
    assert all(np.array_equal(one, GRADIENT) for number, one in enumerate(found) if number not in (1, 3))
    few.close()


def test_large_images_given_as_bytes_are_not_held_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "GROUP_BYTES", 1000)
    data = saved(PICTURE, format="BMP")  # more than that
    assert [len(group) for group in opening._groups([data] * 3, {})] == [1, 1, 1]
    assert [one.shape for one in open_images([data] * 3)] == [(64, 48, 3)] * 3  # type: ignore[union-attr]
