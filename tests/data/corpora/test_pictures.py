"""Icons of fonts: drawn as people know them, and no name of the test among those trained on. And coloured shapes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sensorium.data.corpora import read_corpus
from sensorium.data.corpora.pictures import SIZE, shapes_asked_about, words_of
from sensorium.errors import UsageError


@pytest.mark.parametrize(
    ("name", "said", "meant"),
    [
        ("trash-can-outline", "trash can outline", "trash can"),
        ("ListBulletsBold", "list bullets bold", "list bullets"),
        ("numeric-5-box", "numeric 5 box", "numeric box"),
        ("circle-o", "circle o", "circle"),
        ("500px", "500 px", "px"),
        ("fill", "fill", "fill"),
    ],
)
def test_a_name_is_its_words_and_a_concept_without_style_and_number(name: str, said: str, meant: str) -> None:
    assert words_of(name) == (said, meant)


def test_sides_share_no_concept_and_every_glyph_is_drawn_in_the_middle() -> None:
    sides = {side: read_corpus(f"icons:{side}") for side in ("validation", "test")}
    concepts = {side: {record["concept"] for record in records} for side, records in sides.items()}
    assert not concepts["validation"] & concepts["test"]
    assert len({record["font"] for record in sides["test"]}) == 12
    for record in sides["test"]:
        assert record["image"].shape == (SIZE, SIZE, 3)
        assert record["image"].dtype == np.uint8
    drawn = [record for record in sides["test"] if record["image"].min() < 100]
    assert len(drawn) > 0.99 * len(sides["test"])
    for record in drawn[:200]:
        rows, columns = np.nonzero(record["image"][..., 0] < 128)
        assert abs(rows.min() - (SIZE - 1 - rows.max())) <= 3
        assert abs(columns.min() - (SIZE - 1 - columns.max())) <= 3


def test_an_unknown_side_is_refused() -> None:
    with pytest.raises(UsageError, match="the side of a corpus is train, validation, test"):
        read_corpus("icons:held-out")


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
