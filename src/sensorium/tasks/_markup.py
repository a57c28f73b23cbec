"""Markup of a sentence in its translation: each mark goes where the words went that it stood around or between.

A word of the translation belongs to the words of the source that the model looked at (`infer/alignment.py`). Chinese
characters are words here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sensorium.infer.alignment import Alignment, Span
from sensorium.tasks._links import EASTERN
from sensorium.text.documents import Place

_WORDS = re.compile(rf"[{EASTERN}]|[^\W_{EASTERN}]+(?:['’-][^\W_{EASTERN}]+)*|[^\w\s]|_")


def place_marks(plain: str, places: Sequence[Place], written: str, alignment: Alignment, style: str) -> str | None:
    """A translation with the marks that ``places`` have in the plain text; ``None`` where one finds no words.

    Marks that belong together stand around the stretch of words that comes from the words between them: of all
    stretches the one whose words, each by how much more than half of it comes from there, add up to most. Pairs within
    another stay within it, others stay apart. Such a stretch begins or ends with punctuation only where what stood
    between the marks did. A mark that shows something itself (code) takes the place of the words that come from it;
    what shows nothing stands where most words before it come from words before it.
    """
    read, found = ([match.span() for match in _WORDS.finditer(text)] for text in (plain, written))
    if not read or not found:
        return None
    shares = _word_shares(alignment, found, read)  # [words written, words read]
    punctuation = _punctuation(written, found)
    marks: list[_Mark] = []
    taken: dict[Span, tuple[int, int]] = {}  # of characters of the plain text: the words written, as far as before
    for place in sorted(places, key=lambda place: (place.start - place.end, place.start)):  # the longest first
        inside = [n for n, (start, end) in enumerate(read) if start >= place.start and end <= place.end]
        if not inside:
            before = sum(end <= place.start for _, end in read)
            marks.append(_alone(place, shares[:, :before].sum(1), found, style))
            continue
        edges = _punctuation(plain, [read[inside[0]], read[inside[-1]]])
        gains = shares[:, inside].sum(1) - 0.5
        gains = gains if edges.any() else np.where(punctuation, np.minimum(gains, -1e-3), gains)
        stretch = _stretch(gains, _free(place, taken, len(found)))
        if stretch is None:
            return None
        taken[place.start, place.end] = stretch
        start, end = found[stretch[0]][0], found[stretch[1] - 1][1]
        marks += _around(place, start, end, style)
    return _with_marks(written, marks)


# --- details ---------------------------------------------------------------------------------------------------------


class _Mark(NamedTuple):
    """A mark in the place of some characters, or of none; marks in one place stand by their ranks."""

    start: int
    end: int
    rank: int
    text: str


CLOSES, ALONE, OPENS, SHOWS = range(4)


def _word_shares(alignment: Alignment, written: Sequence[Span], read: Sequence[Span]) -> np.ndarray:
    """[words written, words read]: how much of a word comes from each. Squared, so that what is meant stands out."""
    by_token = alignment.weights @ _overlaps(alignment.read, read)  # [T, words read]
    shares = (_overlaps(alignment.written, written).T @ by_token) ** 2
    normal: np.ndarray = shares / np.maximum(shares.sum(1, keepdims=True), 1e-12)
    return normal


def _overlaps(tokens: Sequence[Span], words: Sequence[Span]) -> np.ndarray:
    """[tokens, words] the share of each token that lies in each word."""
    starts, ends = (np.array([token[i] for token in tokens])[:, None] for i in (0, 1))
    firsts, lasts = (np.array([word[i] for word in words])[None, :] for i in (0, 1))
    shared = np.maximum(0, np.minimum(ends, lasts) - np.maximum(starts, firsts))
    overlaps: np.ndarray = shared / np.maximum(shared.sum(1, keepdims=True), 1)
    return overlaps


def _free(place: Place, taken: dict[Span, tuple[int, int]], count: int) -> np.ndarray:
    """[words written] which a place may have: those of what it stands within, none of what stands beside it."""
    free = np.ones(count, bool)
    for (start, end), (first, last) in taken.items():
        within = np.zeros(count, bool)
        within[first:last] = True
        free &= within if start <= place.start and place.end <= end else ~within
    return free


def _punctuation(text: str, words: Sequence[Span]) -> np.ndarray:
    """[words] which of them hold no letter and no digit."""
    return np.array([not any(map(str.isalnum, text[start:end])) for start, end in words])


def _stretch(gains: np.ndarray, free: np.ndarray) -> tuple[int, int] | None:
    """First and one behind the last of the free words in a row that gain most; ``None``: no word has a share at all.

    ``gains`` [words written]: by how much more than half of each comes from there.
    """
    best, stretch = 0.0, None
    total, start = 0.0, 0
    for n, gain in enumerate(np.where(free, gains, -np.inf)):
        if total < 0.0:
            total, start = 0.0, n
        total += float(gain)
        if total > best:
            best, stretch = total, (start, n + 1)
    likeliest = int(np.where(free, gains, -np.inf).argmax())
    if stretch is None and free[likeliest] and gains[likeliest] > -0.5:
        return likeliest, likeliest + 1
    return stretch


def _around(place: Place, start: int, end: int, style: str) -> list[_Mark]:
    first = style.format(place.number)
    if place.closing is None:
        return [_Mark(start, end, SHOWS, first)]
    return [_Mark(start, start, OPENS, first), _Mark(end, end, CLOSES, style.format(place.closing))]


def _alone(place: Place, before: np.ndarray, written: Sequence[Span], style: str) -> _Mark:
    """``before`` [words written]: how much of each comes from words before the place."""
    words = int(np.concatenate([[0.0], np.cumsum(2 * before - 1)]).argmax())
    position = written[words][0] if words < len(written) else written[-1][1]
    numbers = [place.number] if place.closing is None else [place.number, place.closing]
    return _Mark(position, position, ALONE, "".join(map(style.format, numbers)))


def _with_marks(text: str, marks: Sequence[_Mark]) -> str:
    """Marks are given from those of the longest stretches to those of the shortest."""
    order = sorted(
        range(len(marks)), key=lambda n: (*marks[n][:1], marks[n].rank, -n if marks[n].rank == CLOSES else n)
    )
    parts, done = [], 0
    for mark in (marks[n] for n in order):
        parts += [text[done : mark.start], mark.text]
        done = max(done, mark.end)
    return "".join([*parts, text[done:]])
