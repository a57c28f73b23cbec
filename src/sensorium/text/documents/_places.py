"""A sentence without its markup, and where that stood."""

from __future__ import annotations

from typing import NamedTuple

from sensorium.text.documents._sentence import Sentence, is_markup, partners


class Place(NamedTuple):
    """A markup of a sentence, by characters of the text without markup."""

    number: int
    """Of its mark."""
    closing: int | None
    """Number of the mark that closes it; ``None``: it stands alone."""
    start: int
    end: int
    """Characters that stand between it and what closes it, or that it shows itself."""


def plain_text(sentence: Sentence) -> tuple[str, list[Place]]:
    """What a reader sees of a sentence, white space made single, and where its markups stand in it.

    A markup that closes what does not open in this sentence, or opens what does not close, stands alone.
    """
    written: list[str] = []
    spans: list[tuple[int, int]] = []  # of each markup: the characters that it shows itself
    for piece in sentence.pieces:
        start = len(written)
        for character in piece.text:
            if not character.isspace():
                written.append(character)
            elif written and written[-1] != " ":
                written.append(" ")
        if is_markup(piece):
            spans.append((start, len(written)))
    text = "".join(written).rstrip()
    partner = partners([piece for piece in sentence.pieces if is_markup(piece)])
    places = []
    for n, (start, end) in enumerate(spans):
        other = partner.get(n)
        if other is None:
            places.append(Place(n + 1, None, min(start, len(text)), min(end, len(text))))
        elif other > n:
            places.append(Place(n + 1, other + 1, min(end, len(text)), min(spans[other][0], len(text))))
    return text, places
