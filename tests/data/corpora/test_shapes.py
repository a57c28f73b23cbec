"""Captions of easy-vqa's pictures: what the answers say, seen again in the pixels, and the sides of the questions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from sensorium.data.corpora import read_corpus
from sensorium.data.corpora.shapes import COLOURS, SHAPES, told
from sensorium.errors import DataError


def asked(*pairs: str) -> list[dict[str, Any]]:
    return [
        {"image": "0.png", "text": text, "target": answer}
        for text, _, answer in (pair.partition(" → ") for pair in pairs)
    ]


@pytest.mark.parametrize(
    ("pairs", "shape", "colour"),
    [
        (["what shape is present? → circle"], "circle", None),
        (["what color is the triangle? → teal"], "triangle", "teal"),
        (["is there not a red shape? → no"], None, "red"),
        (["is no rectangle present? → no", "does the image contain a gray shape? → yes"], "rectangle", "gray"),
        (["is there a circle? → no", "is there not a triangle in the image? → yes"], "rectangle", None),
        (["is there a circle? → no"], None, None),
    ],
)
def test_questions_and_answers_tell_what_is_there(pairs: list[str], shape: str | None, colour: str | None) -> None:
    assert told(asked(*pairs), SHAPES) == shape
    assert told(asked(*pairs), COLOURS) == colour


def test_answers_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(DataError, match=r"0\.png: the answers about it contradict each other"):
        told(asked("is there a circle? → yes", "is there a circle? → no"), SHAPES)


RGB = {
    "black": (0, 0, 0), "blue": (0, 0, 255), "brown": (128, 64, 0), "gray": (128, 128, 128), "green": (0, 128, 0),
    "red": (255, 0, 0), "teal": (0, 128, 128), "yellow": (255, 255, 0),
}  # fmt: skip


def test_nine_of_ten_pictures_have_a_caption_that_their_pixels_bear_out() -> None:
    pytest.importorskip("easy_vqa", reason="easy-vqa is not installed: sensorium[recipes] brings it")
    sides = {side: read_corpus(f"easy_vqa_captions:{side}") for side in ("train", "validation", "test")}
    questions = {side: {r["image"] for r in read_corpus(f"easy_vqa:{side}")} for side in sides}
    assert {side: len(records) for side, records in sides.items()} == {"train": 3372, "validation": 206, "test": 888}
    for side, records in sides.items():
        assert {record["image"] for record in records} <= questions[side]
        assert len({record["image"] for record in records}) == len(records)
    assert len(read_corpus("easy_vqa_captions")) == 3372 + 206 + 888
    for record in sides["test"]:
        assert {record["colour"], record["shape"]} <= set(record["text"].split())
    pixels = [np.asarray(Image.open(record["image"]).convert("RGB")).reshape(-1, 3) for record in sides["test"]]
    ground = np.array([np.median(np.concatenate([one[:64], one[-64:]]), axis=0) for one in pixels])  # the edges
    right = 0
    for one, behind, record in zip(pixels, ground, sides["test"], strict=True):
        drawn = one[np.abs(one.astype(int) - behind).sum(axis=1) > 60]
        values, counts = np.unique(drawn, axis=0, return_counts=True)
        said = min(RGB, key=lambda name: np.abs(np.array(RGB[name]) - values[counts.argmax()]).sum())
        right += said == record["colour"]
    assert right / len(pixels) > 0.95
