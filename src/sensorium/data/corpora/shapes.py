"""What easy-vqa's pictures show, told from the questions about them and their answers: captions of a coloured shape.

A record has ``image``, a file; ``text``, a caption; ``shape`` and ``colour``.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from sensorium.data.corpora.pictures import easy_vqa
from sensorium.errors import DataError

SHAPES = ("circle", "rectangle", "triangle")
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
WORDINGS = ("a {colour} {shape}", "a {shape} that is {colour}", "the picture shows a {colour} {shape}")
"""What a caption may say; which one a picture has, a hash of its number decides."""


def easy_vqa_captions(side: str) -> list[dict[str, Any]]:
    """Captions of the pictures whose shape and colour follow from the answers: nine of ten, on ``easy_vqa``'s sides.

    Raises ``DataError`` where answers contradict each other.
    """
    by_picture: dict[str, list[dict[str, Any]]] = {}
    for record in easy_vqa(side):
        by_picture.setdefault(record["image"], []).append(record)
    records = []
    for image, asked in by_picture.items():
        colour, shape = told(asked, COLOURS), told(asked, SHAPES)
        if colour is not None and shape is not None:
            caption = _wording(image).format(colour=colour, shape=shape)
            records.append({"image": image, "text": caption, "colour": colour, "shape": shape})
    return records


def told(asked: Iterable[dict[str, Any]], names: Collection[str]) -> str | None:
    """The one of the names that questions and answers about a picture leave; ``None``: they leave several.

    >>> told([{"text": "is there not a circle?", "target": "no"}], SHAPES)
    'circle'
    >>> told([{"text": "is a circle present?", "target": "no"}], SHAPES) is None
    True

    Raises ``DataError`` where they leave none.
    """
    left = set(names)
    for record in asked:
        words = re.findall("[a-z]+", record["text"])
        named = next((word for word in words if word in names), None)
        answer = record["target"]
        if answer in names:
            left &= {answer}
        elif named is not None and answer in ("yes", "no"):
            holds = (answer == "yes") != bool({"no", "not"} & set(words))
            left &= {named} if holds else set(names) - {named}
        elif named is not None:  # "what color is the circle?"
            left &= {named}
        if not left:
            raise DataError(f"{record['image']}: the answers about it contradict each other")
    return left.pop() if len(left) == 1 else None


def _wording(image: str) -> str:
    own = "/".join(Path(image).parts[-3:])  # not the folder that the package is installed in
    return WORDINGS[zlib.crc32(own.encode()) % len(WORDINGS)]
