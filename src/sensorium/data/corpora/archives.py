"""Pictures in archives, and what they are called: Noto's emoji in three languages, Open Clip Art.

Both are read from a folder that the corpus's name says: ``emoji:FOLDER:LANGUAGE/SIDE``, ``clipart:FOLDER:TEXT/SIDE``. A
record has ``image``, [64, 64, 3] uint8, and ``text``. A name without what it says of people and of drawing is a
concept, and a concept is on one side alone; sides are drawn as those of icons are, so a concept that several corpora
have is on the same side of all.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sensorium.data.corpora.glyphs import HELD_OUT, words_of
from sensorium.data.corpora.sides import check_side, on_side
from sensorium.data.records import read_json_lines
from sensorium.errors import DataError, UsageError
from sensorium.image.opening import open_image

Record = dict[str, Any]
EMOJI, EMOJI_LABELS = "emoji_noto64_webp.zip", "emoji_labels_en_zh_de.jsonl.gz"
CLIPART, CLIPART_LABELS = "openclipart64_webp.zip", "openclipart64.jsonl.gz"
MOST_BYTES = 2**20
"""Of one picture, packed."""
PEOPLE = frozenset("man woman person men women people boy girl boys girls".split())
"""Words of an emoji's name that say who does it: the same is drawn of each."""
FACING = re.compile(r"(: | )facing right$")
BY = re.compile(r"\W+by [^()]*$|\((b and w|bw)\)|_bw$", re.IGNORECASE)
"""Of a title: who drew it, and in what."""
SHARED_BY = 10
"""A title that more pictures have is the name of a collection, and says nothing of any of them."""
NOT_A_WORD = re.compile(r"hash\(|^0x|^unsorted$|^$")


def emoji(which: str) -> list[Record]:
    """1 911 emoji by their names in ``en``, ``zh`` or ``de``, or by their English name with its ``tags``.

    Who does something is no part of a concept: a woman, a man and a person who row a boat are on one side.
    """
    folder, text, side = _parts(which, "emoji", ("en", "zh", "de", "tags"))
    rows = _rows(folder / EMOJI_LABELS, ("code", "en", "zh", "de", "tags_en"))
    drawn = [row for row in rows if row.get("noto")]
    records = [
        {
            "image": f"{row['code']}.webp",
            "text": ", ".join([row["en"], *row["tags_en"]]) if text == "tags" else row[text],
            "concept": emoji_concept(row["en"]),
        }
        for row in drawn
    ]
    return _with_pictures(folder / EMOJI, on_side(records, _concept, side, held_out=HELD_OUT))


def clipart(which: str) -> list[Record]:
    """About 2 700 drawings of Open Clip Art by their ``title``, or by its ``keywords`` as well.

    Those whose title is that of more than ten are left out.
    """
    folder, text, side = _parts(which, "clipart", ("title", "keywords"))
    rows = _rows(folder / CLIPART_LABELS, ("image", "title", "keywords"))
    titles = Counter(row["title"].lower() for row in rows)
    records = []
    for row in rows:
        title, concept = clipart_title(row["title"])
        if titles[row["title"].lower()] > SHARED_BY or not title:
            continue
        keywords = [word for word in row["keywords"] if not NOT_A_WORD.search(word)] if text == "keywords" else []
        records.append({"image": row["image"], "text": ", ".join([title, *keywords]), "concept": concept})
    return _with_pictures(folder / CLIPART, on_side(records, _concept, side, held_out=HELD_OUT))


def emoji_concept(name: str) -> str:
    """What an emoji is of, whoever does it.

    >>> [emoji_concept(name) for name in ("woman rowing boat", "family: man, boy", "man", "flag: Peru")]
    ['rowing boat', 'family', 'man', 'flag peru']
    """
    words = words_of(FACING.sub("", name))[1].split()
    return " ".join([word for word in words if word not in PEOPLE] or words)


def clipart_title(title: str) -> tuple[str, str]:
    """A title → what people would call it, and its concept.

    >>> clipart_title("Pumpkin_Pie (B and W)"), clipart_title("dog head 02 by Nicu Buculei")
    (('pumpkin pie', 'pumpkin pie'), ('dog head 02', 'dog head'))
    """
    said = " ".join(re.findall(r"[^\W_]+", BY.sub("", title))).lower()
    words = [word for word in said.split() if not word.isdecimal()]
    return said, " ".join(words) or said


def _concept(record: Mapping[str, Any]) -> str:
    return str(record["concept"])


def _parts(which: str, corpus: str, texts: Sequence[str]) -> tuple[Path, str, str]:
    """The folder, which text, and the side. Raises ``UsageError``."""
    place, _, what = which.rpartition(":")
    text, _, side = what.partition("/")
    if not place or text not in texts:
        known = ", ".join(texts)
        raise UsageError(f"the corpus {corpus} is written as corpus:{corpus}:FOLDER:TEXT/SIDE, with a text of {known}")
    check_side(side)
    folder = Path(place).expanduser()
    if not folder.is_dir():
        raise UsageError(f"the corpus {corpus}: there is no folder {place}; its pictures are public data, not shipped")
    return folder, text, side


def _rows(path: Path, keys: Sequence[str]) -> list[Mapping[str, Any]]:
    """Of a file of labels; lists are of texts, all else is text. Raises ``DataError`` with the line."""
    rows = []
    for number, row in read_json_lines(path):
        for key in keys:
            value = row.get(key)
            is_list = isinstance(value, list) and all(isinstance(one, str) for one in value)
            if not (is_list if key in ("keywords", "tags_en") else isinstance(value, str) and value):
                raise DataError(f"{path}:{number}: {key!r} is {value!r}, which no label of a picture is")
        rows.append(row)
    return rows


def _with_pictures(path: Path, records: Sequence[Record]) -> list[Record]:
    """The records with the pictures that they name. Raises ``DataError`` naming the archive and the picture."""
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as an archive of pictures: {error}") from error
    with archive:
        return [{**record, "image": _picture(archive, record["image"], path)} for record in records]


def _picture(archive: zipfile.ZipFile, name: str, path: Path) -> Any:
    """[H, W, 3] uint8."""
    try:
        entry = archive.getinfo(name)
    except KeyError as error:
        raise DataError(f"{path}: there is no picture {name!r} in it") from error
    if entry.file_size > MOST_BYTES:
        raise DataError(f"{path}: {name} has {entry.file_size:,} bytes; pictures of at most {MOST_BYTES:,} are read")
    try:
        packed = archive.read(entry)
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:  # the last: encrypted, or packed otherwise
        raise DataError(f"{path}: {name} cannot be taken out of it: {error}") from error
    try:
        return open_image(packed)
    except DataError as error:
        raise DataError(f"{path}: {name}: {error}") from error
