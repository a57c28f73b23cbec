"""Icons of fonts: drawn as people know them, and no name of the test among those trained on."""

from __future__ import annotations

import numpy as np
import pytest

from sensorium.data.corpora import read_corpus
from sensorium.data.corpora.glyphs import SIZE, base_of, words_of
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


def test_no_icon_of_training_adds_a_word_to_a_base_that_the_test_asks_for() -> None:
    sides = {side: read_corpus(f"icon_variants:{side}") for side in ("train", "validation", "test")}
    pairs = {
        side: {(record["base"], word) for record in records for word in record["added"].split()}
        for side, records in sides.items()
    }
    known = {record["text"] for record in sides["train"]}
    for record in sides["test"]:
        base, added = base_of(record["text"])
        assert (base, added) == (record["base"], record["added"])
        assert base in known  # the thing itself was seen, and each word with other things
        assert not {(base, word) for word in added.split()} <= pairs["train"]
    assert {word for _, word in pairs["test"]} <= {word for _, word in pairs["train"]}
    assert len(sides["test"]) > 150
