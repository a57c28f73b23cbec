"""Pictures with names: glyphs of icon fonts, drawn here.

A record has ``image``, [H, W, 3] uint8, and ``text``.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sensorium.data.corpora.installed import installed_file
from sensorium.data.corpora.sides import check_side, on_side, side_of
from sensorium.errors import missing_extra

Record = dict[str, Any]
SIZE = 64
"""Pixels of a side."""
DRAWN = 52
"""Pixels of a glyph's longer side."""
HELD_OUT = 0.1
"""Share of the concepts for validation, and as many for the test."""
STYLES = frozenset("bold fill filled light thin duotone line outline outlined regular solid alt variant o v2".split())
"""Words of a name that say how a thing is drawn, not what it is."""
FONT = re.compile(r"(?P<name>.+?)(-webfont)?-charmap-(?P<version>[\d.]+)\.json")
ADDED = frozenset("outline off plus minus remove check alert box circle multiple lock".split())
"""Words of Material Design Icons that say what is done to a thing: its outline, crossed out, with a plus."""
MATERIAL = "materialdesignicons6"


def icons(side: str) -> list[Record]:
    """About 24 000 glyphs of twelve icon fonts with their names: ``train``, ``validation``, ``test`` or all.

    A name without its style is a concept, and a concept is on one side alone: no name of the test was seen in training,
    in any font.
    """
    check_side(side)
    return [
        _drawn(glyph) for glyph in on_side(_glyphs_of("*"), lambda glyph: glyph["concept"], side, held_out=HELD_OUT)
    ]


def icon_variants(side: str) -> list[Record]:
    """About 7 000 Material Design Icons with their names, of which each has a ``base``, "cloud", and often ``added``
    words, "off outline".

    Of the pairs of a base and an added word, as far as the base alone is an icon as well, some are kept out of training
    with all icons that have both: "cloud" and "off" were both seen there, and never together. ``validation`` has as
    many others.
    """
    check_side(side)
    glyphs = _glyphs_of(f"{MATERIAL}*")
    names = {str(glyph["text"]) for glyph in glyphs}
    records = []
    for glyph in glyphs:
        base, added = base_of(str(glyph["text"]))
        pairs = {side_of(f"{base} + {word}", HELD_OUT / 2) for word in added.split()} if base in names else set()
        own = next((one for one in ("test", "validation") if one in pairs), "train")
        if side in ("", own):
            records.append({**_drawn(glyph), "base": base, "added": added})
    return records


def base_of(text: str) -> tuple[str, str]:
    """A name → what it is a variant of, and the words that are added.

    >>> base_of("cloud off outline"), base_of("outline")
    (('cloud', 'off outline'), ('outline', ''))
    """
    words = text.split()
    first = next((n for n in range(len(words), 1, -1) if words[n - 1] not in ADDED), 1)
    return " ".join(words[:first]), " ".join(words[first:])


def words_of(name: str) -> tuple[str, str]:
    """A glyph's name → what people would call it, and its concept.

    >>> words_of("address-book-fill"), words_of("AccountBox2")
    (('address book fill', 'address book'), ('account box 2', 'account box'))
    """
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)
    said = " ".join(words).lower()
    meant = [word for word in said.split() if word not in STYLES and not word.isdecimal()]
    return said, " ".join(meant) or said


def _glyphs_of(fonts: str) -> list[Record]:
    """What all fonts name whose files' names are of this pattern."""
    folder = installed_file("qtawesome", "qtawesome/fonts", extra="demo")
    return [glyph for path in sorted(folder.glob(f"{fonts}.json")) for glyph in _glyphs(path)]


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
