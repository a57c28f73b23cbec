"""Images of records: each is opened once, and the record whose image is broken is named, whatever is learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sensorium.config import ImageCodecConfig, PatchStemConfig
from sensorium.errors import DataError
from sensorium.image.settings import ImageSettings
from sensorium.models.image_codec import ImageCodec
from sensorium.objectives import _images
from sensorium.objectives._base import Objective
from sensorium.objectives.answering import Answering
from sensorium.objectives.captioning import Captioning
from sensorium.objectives.coding import Coding
from sensorium.objectives.contrastive import Contrastive
from sensorium.objectives.drawing import Drawing
from sensorium.text.training import train_byte_level_bpe

SETTINGS, STEM = ImageSettings(), PatchStemConfig(32, 16, 8)
CODEC = ImageCodecConfig(4, 12, 4, 32, (1, 1, 1), 1, 8)
OBJECTIVES: list[Any] = [
    Answering(SETTINGS, STEM),
    Captioning(SETTINGS, STEM, 0),
    Coding(SETTINGS, CODEC),
    Contrastive(SETTINGS, STEM),
    Drawing(SETTINGS, ImageCodec(CODEC)),
]
TOKENIZER = train_byte_level_bpe(["what is in it? a red square"], 320, family="janus")


def pixels(seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def record(image: Any) -> dict[str, Any]:
    return {"image": image, "text": "what is in it?", "target": "a red square"}


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Half a picture."""
    path = tmp_path / "broken.png"
    Image.fromarray(pixels()).save(path)
    path.write_bytes(path.read_bytes()[:300])
    return path


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda one: type(one).__name__)
def test_the_record_whose_image_is_broken_is_named(objective: Objective, broken: Path) -> None:
    for image, message in (
        (str(broken), r"record 3: .*broken\.png: "),
        (broken, r"record 3: .*broken\.png: "),
        (str(broken.with_name("nowhere.png")), r"record 3: .*nowhere\.png: .*No such file"),
        (b"no image", "record 3: the image: "),
        (np.zeros((4, 4), np.uint8), "record 3: the image is a ndarray; a file, its bytes"),
        (None, "record 3: its 'image' is empty"),
    ):
        with pytest.raises(DataError, match=message):
            objective.prepare([record(pixels()), record(pixels(1)), record(image)], TOKENIZER)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda one: type(one).__name__)
def test_each_image_is_opened_once(objective: Objective, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def noting(sources: Any, settings: ImageSettings) -> Any:
        asked.extend(sources)
        return open_images(asked, settings)

    open_images = _images.open_images
    monkeypatch.setattr(_images, "open_images", noting)
    same, path = pixels(), tmp_path / "a.png"
    Image.fromarray(pixels(1)).save(path)
    images = [same, str(path), pixels(), path, same, path.read_bytes()]
    objective.prepare([record(image) for image in images], TOKENIZER)
    assert [type(one) for one in asked] == [np.ndarray, str, np.ndarray, bytes]


def test_records_share_what_the_first_of_them_shows() -> None:
    shown = [pixels(), pixels(1)]
    firsts, opened = _images.open_each([{"image": image} for image in (*shown, *shown)], SETTINGS)
    assert firsts == [1, 2, 1, 2]
    assert list(opened) == [1, 2]
    for found, expected in zip(opened.values(), shown, strict=True):
        np.testing.assert_array_equal(found, expected)
