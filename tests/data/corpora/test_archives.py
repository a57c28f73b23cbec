"""Emoji and clip art out of their archives: the names that were asked for, and no concept on two sides."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sensorium.data.corpora import archives, read_corpus
from sensorium.errors import DataError, UsageError

SHARED = Path(__file__).parents[4] / "shared" / "data" / "pictures"


def emoji(code: str, name: str, **more: Any) -> dict[str, Any]:
    return {"code": code, "en": name, "zh": f"{name}一", "de": f"{name} eins", "tags_en": ["x"], "noto": True} | more


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        emoji("A", "woman rowing boat"),
        emoji("B", "rowing boat"),
        emoji("C", "tiger"),
        emoji("D", "e", noto=False),
    ]
    drawn = [
        {"image": "0.webp", "title": "Big_Cat (B and W)", "keywords": ["cat", "hash(0x8)", "unsorted", "animal"]},
        *({"image": "0.webp", "title": "card", "keywords": []} for _ in range(11)),
    ]
    picture = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), (200, 30, 30), np.uint8)).save(picture, "webp", lossless=True)
    for labels, archive, lines, names in (
        (archives.EMOJI_LABELS, archives.EMOJI, rows, "ABC"),
        (archives.CLIPART_LABELS, archives.CLIPART, drawn, "0"),
    ):
        (tmp_path / labels).write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
        with zipfile.ZipFile(tmp_path / archive, "w") as written:
            for name in names:
                written.writestr(f"{name}.webp", picture.getvalue())
    return tmp_path


def test_emoji_have_their_names_in_the_language_that_is_asked_for(folder: Path) -> None:
    english = read_corpus(f"emoji:{folder}:en")
    assert [record["text"] for record in english] == ["woman rowing boat", "rowing boat", "tiger"]
    assert english[0]["image"].shape == (64, 64, 3)
    assert english[0]["image"][0, 0].tolist() == [200, 30, 30]
    assert read_corpus(f"emoji:{folder}:zh")[2]["text"] == "tiger一"
    assert read_corpus(f"emoji:{folder}:tags")[2]["text"] == "tiger, x"
    assert {record["concept"] for record in english[:2]} == {"rowing boat"}


def test_a_title_that_many_drawings_share_names_none_of_them(folder: Path) -> None:
    [drawing] = read_corpus(f"clipart:{folder}:title")
    assert (drawing["text"], drawing["concept"]) == ("big cat", "big cat")
    assert read_corpus(f"clipart:{folder}:keywords")[0]["text"] == "big cat, cat, animal"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("emoji", "the corpus emoji is written as corpus:emoji:FOLDER:TEXT/SIDE, with a text of en, zh, de, tags"),
        ("emoji:{folder}:fr/test", "with a text of en, zh, de, tags"),
        ("emoji:{folder}:en/held-out", "the side of a corpus is train, validation, test"),
        ("clipart:{folder}/nowhere:title/test", "the corpus clipart: there is no folder .*nowhere"),
    ],
)
def test_a_name_that_is_not_understood_is_explained(folder: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_corpus(name.format(folder=folder))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (emoji("Z", "zebra"), r"emoji_noto64_webp.zip: there is no picture 'Z.webp' in it"),
        (emoji("C", "tiger", de=None), r"emoji_labels_en_zh_de.jsonl.gz:1: 'de' is None, which no label"),
        (emoji("C", "tiger", tags_en="cat"), "'tags_en' is 'cat', which no label of a picture is"),
    ],
)
def test_a_damaged_label_is_named(folder: Path, row: dict[str, Any], message: str) -> None:
    (folder / archives.EMOJI_LABELS).write_bytes(gzip.compress(json.dumps(row).encode()))
    with pytest.raises(DataError, match=message):
        read_corpus(f"emoji:{folder}:en")


def test_archives_that_are_none_and_pictures_that_are_too_large_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MOST_BYTES", 10)
    with pytest.raises(DataError, match=r"A.webp has [\d,]+ bytes; pictures of at most 10 are read"):
        read_corpus(f"emoji:{folder}:en")
    (folder / archives.EMOJI).write_bytes(b"not an archive")
    with pytest.raises(DataError, match="cannot be read as an archive of pictures"):
        read_corpus(f"emoji:{folder}:en")


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the public pictures are not at {SHARED}")
@pytest.mark.parametrize(("corpus", "least"), [("emoji:{}:en", 150), ("clipart:{}:title", 250)])
def test_no_concept_of_the_test_is_on_another_side_of_any_corpus(corpus: str, least: int) -> None:
    sides = {side: read_corpus(f"{corpus.format(SHARED)}/{side}") for side in ("train", "validation", "test")}
    concepts = {side: {record["concept"] for record in records} for side, records in sides.items()}
    assert len(sides["test"]) > least
    assert not concepts["test"] & (concepts["train"] | concepts["validation"])
    assert not concepts["test"] & {record["concept"] for record in read_corpus("icons:validation")}
