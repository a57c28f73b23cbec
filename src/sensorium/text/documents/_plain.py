"""Plain text: paragraphs, and lines that go on or don't."""

from __future__ import annotations

import re
from itertools import zip_longest

from sensorium.text.documents._sentence import Part, Piece, sentences_of

_LINES = re.compile(r"[^\r\n]*(?:\r\n?|\n|$)")
_LINE_END = re.compile(r"[\r\n]+$")
_ITEM = re.compile(r"\s*(?:[-*•–—#>|]+|\d+[.)]|[（(]?[一二三四五六七八九十\d]+[)）、])[^\S\r\n]*")
_ENDS = tuple('.!?:;。！？：；…”」』"')
URL = re.compile(
    r"(?:https?|ftp)://[^\s<>\"'）)，。；]*[^\s<>\"'）)，。；.,;:!?]|www\.[^\s<>\"'）)，。；]*[^\s<>\"'）)，。；.,;:!?]"
)
NEARLY_FULL = 0.6
"""Of the longest line: a shorter one was ended on purpose."""


def read_plain(text: str) -> list[Part]:
    """The sentences of a text and what stands between them.

    A line goes on in the next one where it is about as long as the longest of its paragraph, does not end a sentence,
    and the next does not look like an item of a list.
    """
    parts: list[Part] = []
    paragraph: list[str] = []
    block = 0
    for line in _LINES.findall(text):
        if line.strip():
            paragraph.append(line)
            continue
        parts += _paragraph(paragraph, block)
        block += bool(paragraph)
        paragraph = []
        parts.append(line)
    return [part for part in [*parts, *_paragraph(paragraph, block)] if part]


def text_pieces(text: str) -> list[Piece]:
    """A text, with the addresses in it as markup: they stay as they are."""
    pieces, done = [], 0
    for match in URL.finditer(text):
        pieces += [Piece(text[done : match.start()], text[done : match.start()]), Piece(match[0], match[0], "single")]
        done = match.end()
    pieces.append(Piece(text[done:], text[done:]))
    return [piece for piece in pieces if piece.source]


def line_break(source: str, before: str, after: str) -> Piece:
    """A line break within a sentence: white space, but nothing between two Chinese characters."""
    chinese = "\u2e80" <= before[-1:] <= "\uffef" and "\u2e80" <= after[:1] <= "\uffef"
    return Piece(source, "" if chinese else " ", "break")


def _paragraph(lines: list[str], block: int) -> list[Part]:
    longest = max((len(line.strip()) for line in lines), default=0)
    pieces: list[Piece] = []
    goes_on = False
    for line, following in zip_longest(lines, lines[1:], fillvalue=""):
        body = _LINE_END.sub("", line)
        if goes_on:
            pieces += text_pieces(body)
        else:
            pieces += item_pieces(body)
        here, ending = body.rstrip(), line[len(body) :]
        full = len(here) >= NEARLY_FULL * longest and not here.endswith(_ENDS)
        deeper = _indentation(following) > _indentation(line) and not _ITEM.match(line)
        goes_on = full and bool(following.strip()) and not deeper and not _ITEM.match(following)
        pieces.append(line_break(ending, here, following.lstrip()) if goes_on else Piece(ending, "\n\n", "end"))
    return sentences_of((piece for piece in pieces if piece.source), block)


def item_pieces(body: str) -> list[Piece]:
    """A line; what makes it an item of a list, or another speaker's, is no part of a sentence."""
    match = _ITEM.match(body)
    if match is None or not match[0][-1:].isspace():
        return text_pieces(body)
    return [Piece(match[0], "\n\n", "end"), *text_pieces(body[match.end() :])]


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip())
