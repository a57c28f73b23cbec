"""Pictures of a coloured shape: the published test, no picture on two sides, and what their questions give away."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sensorium.data.corpora import read_corpus
from sensorium.data.corpora.pictures import shapes_asked_about


def test_easy_vqa_has_its_published_test_and_no_picture_on_two_sides() -> None:
    pytest.importorskip("easy_vqa", reason="easy-vqa is not installed: sensorium[recipes] brings it")
    sides = {side: read_corpus(f"easy_vqa:{side}") for side in ("train", "validation", "test")}
    assert len(sides["train"]) + len(sides["validation"]) == 38_575
    assert len(sides["test"]) == 9_673
    pictures = {side: {record["image"] for record in records} for side, records in sides.items()}
    assert {side: len(images) for side, images in pictures.items()}["test"] == 1_000
    assert not pictures["train"] & pictures["validation"]
    assert 100 < len(pictures["validation"]) < 300
    assert set(sides["test"][0]) == {"image", "text", "target"}


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        ([("what color is the triangle?", "teal")], ("teal", "triangle")),
        ([("is no rectangle present?", "no"), ("does the image contain a gray shape?", "yes")], ("gray", "rectangle")),
        ([("what shape is present?", "circle"), ("is there not a red shape?", "no")], ("red", "circle")),
        ([("what shape is present?", "circle"), ("is there a red shape?", "no")], None),
        ([("is there not a circle?", "yes"), ("what color is the shape?", "blue")], None),
    ],
)
def test_questions_and_answers_tell_what_is_there(
    tmp_path: Path, pairs: list[tuple[str, str]], told: tuple[str, str] | None
) -> None:
    path = tmp_path / "questions.json"
    path.write_text(json.dumps([[question, answer, 7] for question, answer in pairs]))
    assert shapes_asked_about(path) == ({} if told is None else {7: told})


RGB = {
    "black": (0, 0, 0), "blue": (0, 0, 255), "brown": (165, 42, 42), "gray": (128, 128, 128), "green": (0, 255, 0),
    "red": (255, 0, 0), "teal": (0, 128, 128), "yellow": (255, 255, 0),
}  # fmt: skip


def test_captions_say_what_the_pixels_show_on_the_sides_of_the_questions() -> None:
    pytest.importorskip("easy_vqa", reason="easy-vqa is not installed: sensorium[recipes] brings it")
    sides = {side: read_corpus(f"easy_vqa_captions:{side}") for side in ("train", "validation", "test")}
    asked = {side: {record["image"] for record in read_corpus(f"easy_vqa:{side}")} for side in sides}
    for side, records in sides.items():
        images = [record["image"] for record in records]
        assert set(images) <= asked[side]
        assert len(set(images)) == len(images) > 0.85 * len(asked[side])
    assert len(read_corpus("easy_vqa_captions")) == sum(map(len, sides.values()))
    for record in sides["test"]:
        assert {record["colour"], record["shape"]} <= set(record["text"].split())
        pixels = np.asarray(Image.open(record["image"]).convert("RGB")).reshape(-1, 3).astype(int)  # [64 · 64, 3]
        nearest = np.abs(pixels[:, None] - np.array(list(RGB.values()))).sum(axis=-1).min(axis=0)  # the ground is pale
        assert list(RGB)[int(nearest.argmin())] == record["colour"]
