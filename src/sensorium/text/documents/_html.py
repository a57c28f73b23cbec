"""HTML: text between tags, read with the standard library's parser; tags, attributes, comments and code stay.

Only places are taken from the parser, so that what is not text is not even written anew. Elements that say
``translate="no"`` (or have the class ``notranslate``) stay whole.
"""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from itertools import accumulate
from typing import Literal, NamedTuple

from sensorium.text.documents._plain import line_break, text_pieces
from sensorium.text.documents._sentence import Part, Piece, sentences_of

INLINE = frozenset(
    """
    a abbr acronym b bdi bdo big cite code data del dfn em font i img ins kbd label mark math nobr output q ruby rb rt
    rp s samp small span strike strong sub sup svg time tt u var wbr
    """.split()
)
STAYS = frozenset("script style pre code kbd samp var textarea svg math template iframe object canvas tt".split())
"""Elements that stay with all that is in them."""
VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())
_TAG = re.compile(r"<[^<>]*>")
_SPACE = re.compile(r"\s*[\r\n]\s*")


class _Event(NamedTuple):
    kind: Literal["start", "end", "empty", "data", "entity", "other"]
    start: int
    name: str = ""
    stays: bool = False


class _Reader(HTMLParser):
    """Notes where each tag, text and entity begins."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=False)
        self.events: list[_Event] = []
        self._lines = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]
        try:
            self.feed(text[: _readable(text)])
            self.close()
        except AssertionError:  # the library's word for a declaration it can't read: what comes from there on stays
            self._note("other")

    def _note(self, kind: Literal["start", "end", "empty", "data", "entity", "other"], name: str = "",
              stays: bool = False) -> None:  # fmt: skip
        line, column = self.getpos()
        self.events.append(_Event(kind, self._lines[line - 1] + column, name, stays))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """``<p class="x">``."""
        given = dict(attrs)
        kept = (given.get("translate") or "").lower() == "no" or "notranslate" in (given.get("class") or "").split()
        self._note("empty" if tag in VOID else "start", tag, tag in STAYS or kept)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """``<br/>``."""
        self._note("empty", tag)

    def handle_endtag(self, tag: str) -> None:
        """``</p>``."""
        self._note("end", tag)

    def handle_data(self, data: str) -> None:
        """Text."""
        self._note("data")

    def handle_entityref(self, name: str) -> None:
        """``&amp;``."""
        self._note("entity")

    def handle_charref(self, name: str) -> None:
        """``&#38;``."""
        self._note("entity")

    def handle_comment(self, data: str) -> None:
        """``<!-- … -->``."""
        self._note("other")

    def handle_decl(self, decl: str) -> None:
        """``<!doctype html>``."""
        self._note("other")

    def handle_pi(self, data: str) -> None:
        """``<?xml … >``."""
        self._note("other")

    def unknown_decl(self, data: str) -> None:
        """``<![CDATA[ … ]]>``."""
        self._note("other")


def read_html(text: str, first_block: int = 0) -> list[Part]:
    """The sentences of a page and what stands between them."""
    events = _Reader(text).events
    end = _readable(text)
    if end < len(text):
        events.append(_Event("data" if "<!--" not in text[end:] else "other", end))
    starts = [event.start for event in events]
    parts: list[Part] = [text[: starts[0]] if starts else text]
    pieces: list[Piece] = []
    block = first_block
    n = 0

    def flush() -> None:
        nonlocal block, pieces
        parts.extend(sentences_of(pieces, block))
        block += bool(pieces)
        pieces = []

    while n < len(events):
        event = events[n]
        last = _end_of(events, n) if event.stays else n
        end = starts[last + 1] if last + 1 < len(events) else len(text)
        source = text[event.start : end]
        if event.kind in ("data", "entity"):
            pieces += _text(source) if event.kind == "data" else [_entity(source)]
        elif event.kind == "empty" and event.name == "br":
            pieces.append(Piece(source, "\n\n", "end"))
        elif event.name in INLINE:
            if event.kind == "empty" or event.stays:
                pieces.append(Piece(source, html.unescape(_TAG.sub("", source)), "single"))
            else:
                pieces.append(Piece(source, kind="open" if event.kind == "start" else "close"))
        else:
            flush()
            parts.append(source)
        n = last + 1
    flush()
    return [part for part in parts if part]


def _readable(text: str) -> int:
    """How far tags can close: from there on there is text, or a comment without an end.

    The parser looks to the end of a text for every tag and every comment that never closes.
    """
    comment = text.find("<!--", text.rfind("-->") + 1)
    return text.rfind(">") + 1 if comment < 0 else comment


def escape_html(text: str) -> str:
    """What would be read as a tag or an entity, written as entities."""
    return html.escape(text, quote=False)


def _end_of(events: list[_Event], n: int) -> int:
    """The event that ends the element which event n starts; n itself where it never ends."""
    if events[n].kind != "start":
        return n
    depth = 0
    for m in range(n, min(len(events), n + MOST_WITHIN)):
        if events[m].name == events[n].name:
            depth += {"start": 1, "end": -1}.get(events[m].kind, 0)
            if depth == 0:
                return m
    return n


MOST_WITHIN = 100_000
"""Tags and texts within an element that stays, looked through for its end."""


def _text(source: str) -> list[Piece]:
    """Text, its line breaks as white space."""
    pieces: list[Piece] = []
    done = 0
    for match in _SPACE.finditer(source):
        pieces += text_pieces(source[done : match.start()])
        pieces.append(line_break(match[0], source[: match.start()][-1:], source[match.end() :][:1]))
        done = match.end()
    return [*pieces, *text_pieces(source[done:])]


def _entity(source: str) -> Piece:
    """What an entity stands for; one that is unknown is text."""
    return Piece(source, html.unescape(source) or " ")
