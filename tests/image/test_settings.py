"""How images are made ready: the published settings, and the pixels that `transformers` makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from sensorium.errors import CheckpointError
from sensorium.image.opening import normalised, open_image
from sensorium.image.patches import to_patches
from sensorium.image.settings import FILE, ImageSettings, read_image_settings, write_image_settings

PROCESSORS: dict[str, Any] = {
    "janus": lambda: JanusImageProcessorPil(size={"height": 30, "width": 30}),
    "janus with others": lambda: JanusImageProcessorPil(
        size={"height": 24, "width": 24}, min_size=20, image_mean=[0.1, 0.2, 0.9]
    ),
    "vit": lambda: ViTImageProcessorPil(size={"height": 30, "width": 30}),
    "vit, not square": lambda: ViTImageProcessorPil(size={"height": 20, "width": 31}, resample=3, rescale_factor=0.01),
    "clip": lambda: CLIPImageProcessorPil(size={"shortest_edge": 30}, crop_size={"height": 30, "width": 30}),
    "clip, a crop that is larger": lambda: CLIPImageProcessorPil(
        size={"shortest_edge": 21}, crop_size={"height": 30, "width": 25}
    ),
    "siglip": lambda: SiglipImageProcessorPil(size={"height": 32, "width": 32}),
    "nothing but scaled": lambda: ViTImageProcessorPil(do_resize=False, do_normalize=False),
}


@pytest.fixture(params=[(41, 60), (60, 41), (33, 33)], ids=str)
def picture(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (*request.param, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_those_of_transformers(name: str, picture: Path) -> None:
    processor = PROCESSORS[name]()
    processor.save_pretrained(picture.parent)
    settings = read_image_settings(picture.parent)
    assert settings is not None
    expected = torch.as_tensor(np.asarray(processor(Image.open(picture))["pixel_values"][0]))
    torch.testing.assert_close(normalised(open_image(picture, settings), settings), expected, rtol=0, atol=1e-5)


def test_patches_of_any_shape_are_those_of_siglip_2(picture: Path) -> None:
    processor = Siglip2ImageProcessorPil(patch_size=4, max_num_patches=40)
    processor.save_pretrained(picture.parent)
    settings = read_image_settings(picture.parent)
    assert settings is not None
    found = processor(Image.open(picture))
    rows, columns = (int(number) for number in np.asarray(found["spatial_shapes"][0]))
    pixels = normalised(open_image(picture, settings), settings)
    assert pixels.shape == (3, rows * 4, columns * 4)
    # Its patches have the channels of each pixel together.
    theirs = torch.as_tensor(np.asarray(found["pixel_values"][0]))[: rows * columns].view(-1, 4, 4, 3)
    expected = theirs.permute(0, 3, 1, 2).flatten(1)
    torch.testing.assert_close(to_patches(pixels, 4), expected, rtol=0, atol=1e-5)


OLDER = [
    ({"size": 224}, ImageSettings(size=(224, 224))),
    ({"size": [224, 192], "resample": 3}, ImageSettings(size=(224, 192), resample="bicubic")),
    (
        {"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 200, "do_center_crop": True},
        ImageSettings(shortest_edge=224, crop=(200, 200)),
    ),
    ({"size": 8, "do_resize": False, "do_center_crop": False, "crop_size": 4}, ImageSettings()),
]


@pytest.mark.parametrize(("raw", "settings"), OLDER, ids=str)
def test_older_files_are_read_as_they_were_meant(raw: dict[str, Any], settings: ImageSettings, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps(raw))
    assert read_image_settings(tmp_path) == settings


@pytest.mark.parametrize(
    "settings",
    [
        ImageSettings(size=(3, 4), resample="lanczos", mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0), scale=0.5),
        ImageSettings(shortest_edge=7, crop=(5, 6)),
        ImageSettings(patch_size=16, max_patches=256),
        ImageSettings(),
    ],
)
def test_what_is_written_is_read_again(settings: ImageSettings, tmp_path: Path) -> None:
    write_image_settings(tmp_path, settings, processor="ViTImageProcessor")
    assert read_image_settings(tmp_path) == settings


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"do_thumbnail": True}, "the key 'do_thumbnail' is not known, and it might change what a model sees"),
        ({"size": "large"}, "size"),
        ({"size": -3}, "size is -3; a whole number up to 16,384 is expected"),
        ({"size": {"longest_edge": 3}}, "no size|size"),
        ({"image_mean": [0.5]}, "image_mean is .0.5.; three numbers are expected"),
        ({"resample": 9}, "out of range"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(raw: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match=f"{FILE}: .*{said}"):
        read_image_settings(tmp_path)


def test_a_folder_without_the_file_has_no_settings(tmp_path: Path) -> None:
    assert read_image_settings(tmp_path) is None
