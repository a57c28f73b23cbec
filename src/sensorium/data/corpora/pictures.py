"""Pictures with names: glyphs of icon fonts, drawn here.

A record has ``image``, [H, W, 3] uint8, and ``text``.
"""

from __future__ import annotations

import json
import re
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sensorium.data.corpora.installed import installed_file
from sensorium.data.corpora.sides import check_side, on_side, side_of
from sensorium.errors import missing_extra

Record = dict[str, Any]
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
SHAPES = ("circle", "rectangle", "triangle")
WORDINGS = ("a {colour} {shape}", "a {shape} that is {colour}", "the picture shows a {colour} {shape}")
"""What a caption of ``easy_vqa_captions`` may say; which one a picture has, a hash of its number decides."""
SIZE = 64
"""Pixels of a side."""
DRAWN = 52
"""Pixels of a glyph's longer side."""
HELD_OUT = 0.1
"""Share of the concepts for validation, and as many for the test."""
STYLES = frozenset("bold fill filled light thin duotone line outline outlined regular solid alt variant o v2".split())
"""Words of a name that say how a thing is drawn, not what it is."""
FONT = re.compile(r"(?P<name>.+?)(-webfont)?-charmap-(?P<version>[\d.]+)\.json")


def icons(side: str) -> list[Record]:
    """About 24 000 glyphs of twelve icon fonts with their names: ``train``, ``validation``, ``test`` or all.

    A name without its style is a concept, and a concept is on one side alone: no name of the test was seen in training,
    in any font.
    """
    check_side(side)
    folder = installed_file("qtawesome", "qtawesome/fonts", extra="demo")
    glyphs = [glyph for path in sorted(folder.glob("*.json")) for glyph in _glyphs(path)]
    return [_drawn(glyph) for glyph in on_side(glyphs, lambda glyph: glyph["concept"], side, held_out=HELD_OUT)]


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


def words_of(name: str) -> tuple[str, str]:
    """A glyph's name → what people would call it, and its concept.

    >>> words_of("address-book-fill"), words_of("AccountBox2")
    (('address book fill', 'address book'), ('account box 2', 'account box'))
    """
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)
    said = " ".join(words).lower()
    meant = [word for word in said.split() if word not in STYLES and not word.isdecimal()]
    return said, " ".join(meant) or said


def _glyphs(path: Path) -> list[Record]:
    """What a font's list of characters names."""
    found = FONT.fullmatch(path.name)
    if found is None:
        return []
    webfont = "-webfont" if "webfont" in path.name else ""
    font = path.with_name(f"{found['name']}{webfont}-{found['version']}.ttf")
    glyphs = []
    for name, code in json.loads(path.read_text(encoding="utf-8")).items():
        text, concept = words_of(name)
        glyphs.append({"text": text, "concept": concept, "font": str(font), "code": int(code, 16)})
    return glyphs


def _drawn(glyph: Record) -> Record:
    """The record with its picture: black on white, in the middle."""
    try:
        from PIL import Image, ImageDraw, ImageOps
    except ImportError as error:
        raise missing_extra("pillow", "images") from error
    font = _font(glyph["font"])
    character = chr(glyph["code"])
    left, top, right, bottom = (int(edge) for edge in font.getbbox(character))
    large = Image.new("L", (right - left + 2 * SIZE, bottom - top + 2 * SIZE))
    ImageDraw.Draw(large).text((SIZE - left, SIZE - top), character, font=font, fill=255)
    large = ImageOps.invert(large.crop(large.getbbox()))  # fonts are not exact about where their ink is
    factor = DRAWN / max(large.size)
    small = large.resize([max(1, round(side * factor)) for side in large.size], Image.Resampling.BOX)
    picture = Image.new("L", (SIZE, SIZE), 255)
    picture.paste(small, ((SIZE - small.width) // 2, (SIZE - small.height) // 2))
    pixels = np.asarray(picture)[..., None].repeat(3, axis=2)  # [H, W, 3]
    return {"image": pixels, "text": glyph["text"], "concept": glyph["concept"], "font": Path(glyph["font"]).stem}


@cache
def _font(path: str) -> Any:
    from PIL import ImageFont

    return ImageFont.truetype(path, 4 * SIZE)
