"""Pictures of a coloured shape, with questions or captions.

A record has ``image``, a file, and ``text``.
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

from sensorium.data.corpora.installed import installed_file
from sensorium.data.corpora.sides import check_side, side_of

Record = dict[str, Any]
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
SHAPES = ("circle", "rectangle", "triangle")
WORDINGS = ("a {colour} {shape}", "a {shape} that is {colour}", "the picture shows a {colour} {shape}")
"""What a caption of ``easy_vqa_captions`` may say; which one a picture has, a hash of its number decides."""


def easy_vqa(side: str) -> list[Record]:
    """48 000 questions about 5 000 pictures of one coloured shape each, with their answers in ``target``.

    ``test`` is the published one; ``validation`` are the questions about a twentieth of the training pictures.
    """
    check_side(side)
    folder = installed_file("easy-vqa", "easy_vqa/data", extra="recipes")
    records = []
    for part in ("train", "test"):
        asked = json.loads((folder / part / "questions.json").read_text(encoding="utf-8"))
        for question, answer, image in asked:
            held_out = part == "train" and side_of(str(image), 0.05) == "validation"
            own = "validation" if held_out else part
            if side in ("", own):
                path = folder / part / "images" / f"{image}.png"
                records.append({"image": str(path), "text": question, "target": answer})
    return records


def easy_shapes(side: str) -> list[Record]:
    """The pictures of easy-vqa with captions such as "a blue circle", as far as their questions say both.

    Of the pairs of a colour and a shape, a quarter are in ``test`` alone, with all of their pictures: each colour and
    each shape was seen in training, and never together. ``validation`` is a twentieth of the others.
    """
    check_side(side)
    folder = installed_file("easy-vqa", "easy_vqa/data", extra="recipes")
    records = []
    for part in ("train", "test"):
        for image, (colour, shape) in shapes_asked_about(folder / part / "questions.json").items():
            unseen = (COLOURS.index(colour) + 3 * SHAPES.index(shape)) % 4 == 0
            own = "test" if unseen else "validation" if side_of(str(image), 0.05) == "validation" else "train"
            if side in ("", own) and (part == "train" or unseen):
                path = folder / part / "images" / f"{image}.png"
                words = {"text": f"a {colour} {shape}", "colour": colour, "shape": shape}
                records.append({"image": str(path), **words})
    return records


def easy_vqa_captions(side: str) -> list[Record]:
    """The same pictures on the sides of ``easy_vqa``, with captions of several wordings: of the published test, 880 of
    1 000 pictures.
    """
    check_side(side)
    folder = installed_file("easy-vqa", "easy_vqa/data", extra="recipes")
    records = []
    for part in ("train", "test"):
        for image, (colour, shape) in shapes_asked_about(folder / part / "questions.json").items():
            held_out = part == "train" and side_of(str(image), 0.05) == "validation"
            own = "validation" if held_out else part
            if side in ("", own):
                path = folder / part / "images" / f"{image}.png"
                caption = WORDINGS[zlib.crc32(f"{part}/{image}".encode()) % len(WORDINGS)]
                words = {"text": caption.format(colour=colour, shape=shape), "colour": colour, "shape": shape}
                records.append({"image": str(path), **words})
    return records


def shapes_asked_about(path: Path) -> dict[int, tuple[str, str]]:
    """Image → the colour and the shape in it, of those images whose questions and answers give both away.

    An answer may be the colour or the shape; a yes says that the one in the question is there, unless it asks whether
    it is not: then a no does.
    """
    found: dict[int, dict[str, str]] = {}
    for question, answer, image in json.loads(path.read_text(encoding="utf-8")):
        words = re.findall(r"[a-z]+", question)
        denied = bool({"not", "no"} & set(words))
        told = [answer] if answer not in ("yes", "no") else []
        if told or (answer == "yes") != denied:
            told += words
        for name, known in (("colour", COLOURS), ("shape", SHAPES)):
            said = [word for word in told if word in known]
            found.setdefault(image, {}).update(zip([name] * len(said), said, strict=True))
    return {image: (one["colour"], one["shape"]) for image, one in found.items() if len(one) == 2}
