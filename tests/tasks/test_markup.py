"""Markup goes where the words went that it stood around."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium.infer.alignment import Alignment
from sensorium.tasks._markup import place_marks
from sensorium.text.documents import Document, Sentence, open_document, parse_document, plain_text

SAMPLES = sorted((Path(__file__).parents[1] / "text" / "documents" / "samples").iterdir())
STYLE = "[{}]"


def aligned(plain: str, written: str, pairs: dict[int, int]) -> Alignment:
    """By words between spaces: written word n comes from word ``pairs[n]`` alone."""
    read, found = ([match.span() for match in re.finditer(r"\S+", text)] for text in (plain, written))
    weights = np.zeros((len(found), len(read)), np.float32)
    for n, source in pairs.items():
        weights[n, source] = 1.0
    return Alignment(weights, found, read)


def translated(source: str, written: str, order: list[int]) -> str | None:
    """A sentence of Markdown with its markup, in a translation whose n-th word comes from word ``order[n]``."""
    document = parse_document(source, "markdown")
    [sentence] = document.sentences
    plain, places = plain_text(sentence)
    marked = place_marks(plain, places, written, aligned(plain, written, dict(enumerate(order))), STYLE)
    return None if marked is None else document.rendered(sentence, marked, STYLE)


def test_markup_follows_words_that_change_their_places() -> None:
    source = "She has **read** the *old book* today ."
    assert translated(source, "Heute hat sie das alte Buch gelesen .", [6, 1, 0, 3, 4, 5, 2, 7]) == (
        "Heute hat sie das *alte Buch* **gelesen** ."
    )


def test_a_word_that_comes_from_nowhere_does_not_break_a_stretch() -> None:
    source = "A **dog and a cat** sleep ."
    assert translated(source, "Ein Hund sowie eine Katze schlafen .", [0, 1, 6, 3, 4, 5, 6]) == (
        "Ein **Hund sowie eine Katze** schlafen ."
    )


def test_what_stands_within_another_stays_within_it_and_others_stay_apart() -> None:
    source = "The [big **red** house](a) and a *small one* ."
    assert translated(source, "das große rote Haus und ein kleines .", [0, 1, 2, 3, 4, 5, 6, 8]) == (
        "das [große **rote** Haus](a) und ein *kleines* ."
    )
    one = translated("a **b** *c* d", "x y z", [0, 2, 2])  # two words that come from c, none from b
    assert one is None or one.count("*") == 6


def test_code_takes_the_place_of_the_words_that_come_from_it() -> None:
    source = "Call `start` before the end ."
    assert translated(source, "Vor dem Ende starte aufrufen .", [2, 3, 4, 1, 0, 5]) == "Vor dem Ende `start` aufrufen ."


def test_what_shows_nothing_stands_between_the_words_it_stood_between() -> None:
    source = "One two ![](a.png) three four ."
    assert translated(source, "Eins zwei drei vier .", [0, 1, 2, 3, 4]) == "Eins zwei ![](a.png) drei vier ."
    assert translated("One [](#a) two .", "Eins zwei .", [0, 1, 2]) == "Eins [](#a) zwei ."


def test_punctuation_stays_outside_unless_it_stood_inside() -> None:
    plain = "I play the *piano*."
    document = parse_document(plain, "markdown")
    [sentence] = document.sentences
    text, places = plain_text(sentence)
    written = "Ich spiele Klavier."
    weights = np.array([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 1, 0]], np.float32)
    alignment = Alignment(weights, [(0, 3), (3, 10), (10, 18), (18, 19)], [(0, 1), (1, 6), (6, 10), (10, 16), (16, 17)])
    assert place_marks(text, places, written, alignment, STYLE) == "Ich spiele [1]Klavier[2]."


def test_chinese_is_aligned_by_character() -> None:
    document = parse_document("The *old* book .", "markdown")
    [sentence] = document.sentences
    plain, places = plain_text(sentence)
    alignment = Alignment(
        np.array([[0, 1, 0, 0], [0, 0, 1, 0]], np.float32), [(0, 2), (2, 4)], [(0, 3), (3, 7), (7, 12), (12, 14)]
    )
    marked = place_marks(plain, places, "旧的书本", alignment, STYLE)
    assert marked == "[1]旧的[2]书本"


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_the_translation_that_changes_nothing_has_its_markup_where_it_was(path: Path) -> None:
    document = open_document(path)
    for sentence in document.sentences:
        plain, places = plain_text(sentence)
        assert plain == " ".join(sentence.text.split())
        words = [match.span() for match in re.finditer(r"\w+|[^\w\s]", plain)]
        if not places or not words:
            continue
        marked = place_marks(plain, places, plain, Alignment(np.eye(len(words), dtype=np.float32), words, words), STYLE)
        if marked is not None:
            assert rendered_alike(document, sentence, marked), (sentence.source, marked)


def rendered_alike(document: Document, sentence: Sentence, marked: str) -> bool:
    """Whether the wording says the same; white space may stand on the other side of a mark."""
    found = document.rendered(sentence, marked, STYLE)
    return found is not None and found.split() == sentence.source.split()


@given(st.data())
def test_whatever_the_alignment_every_mark_stands_once_and_nothing_is_lost(data: st.DataObject) -> None:
    words = data.draw(st.lists(st.sampled_from(["a", "bb", "书", ",", "d-e"]), min_size=1, max_size=9))
    source = ""
    for word in words:
        source += (
            data.draw(st.sampled_from([word, f"**{word}**", f"*{word} x*", f"`{word}`", f"[{word} **y** z](u)"])) + " "
        )
    document = parse_document(source, "markdown")
    written = " ".join(data.draw(st.lists(st.sampled_from(["eins", "zwei", "，", "好"]), min_size=1, max_size=9)))
    for sentence in document.sentences:
        plain, places = plain_text(sentence)
        spans = [[match.span() for match in re.finditer(r"\S+", text)] for text in (written, plain)]
        seed = data.draw(st.integers(0, 2**16))
        weights = np.random.default_rng(seed).dirichlet([0.3] * len(spans[1]), len(spans[0])).astype(np.float32)
        marked = place_marks(plain, places, written, Alignment(weights, spans[0], spans[1]), STYLE)
        if marked is None:
            continue
        assert sorted(map(int, re.findall(r"\[(\d+)\]", marked))) == list(range(1, sentence.num_marks + 1))
        shown = [place for place in places if place.closing is None and place.end > place.start]
        if not shown:
            assert re.sub(r"\[\d+\]", "", marked) == written
        positions = {int(match[1]): match.start() for match in re.finditer(r"\[(\d+)\]", marked)}
        assert all(positions[place.number] < positions[place.closing] for place in places if place.closing is not None)
        assert all(a <= b for a, b in pairwise(sorted(positions.values())))
