"""Subtitles, SubRip (SRT) and WebVTT: the lines below a time are text, all others stay."""

from __future__ import annotations

import html
import re

from sensorium.text.documents._plain import line_break, text_pieces
from sensorium.text.documents._sentence import Part, Piece, sentences_of

_LINES = re.compile(r"[^\r\n]*(?:\r\n?|\n|$)")
_TIME = re.compile(r"\s*(?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3}\s*-->\s*(?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3}")
_MARKUP = re.compile(
    r"(?P<close></[^<>]*>)|(?P<tag><[^<>]*>)|(?P<single>\{\\[^{}]*\})|(?P<entity>&(?:#\d+|#x[\da-f]+|\w+);)"
)
_TURN = re.compile(r"\s*[-–—]\s*")
"""Another speaker."""


def read_subtitles(text: str) -> list[Part]:
    """The sentences of the cues and what stands between them. A cue is translated by itself, as its time is its own."""
    parts: list[Part] = []
    cue: list[str] | None = None
    block = 0
    for line in _LINES.findall(text):
        if cue is not None and line.strip():
            cue.append(line)
            continue
        parts += _cue(cue or [], block)
        block += bool(cue)
        cue = [] if _TIME.match(line) else None
        parts.append(line)
    return [part for part in [*parts, *_cue(cue or [], block)] if part]


def escape_subtitles(text: str) -> str:
    """SubRip has no escapes; an arrow would be read as a time."""
    return text.replace("-->", "→")


def _cue(lines: list[str], block: int) -> list[Part]:
    pieces: list[Piece] = []
    for n, line in enumerate(lines):
        body = line.rstrip("\r\n")
        turn = _TURN.match(body)
        marker = turn[0] if turn else ""
        pieces += [Piece(marker, "\n\n", "end"), *_pieces(body[len(marker) :])]
        ending = line[len(body) :]
        if n + 1 < len(lines) and not _TURN.match(lines[n + 1]):
            pieces.append(line_break(ending, body.rstrip(), lines[n + 1]))
        else:
            pieces.append(Piece(ending, "\n\n", "end"))
    return sentences_of((piece for piece in pieces if piece.source), block)


def _pieces(body: str) -> list[Piece]:
    pieces, done = [], 0
    for match in _MARKUP.finditer(body):
        pieces += text_pieces(body[done : match.start()])
        if match["entity"]:
            pieces.append(Piece(match[0], html.unescape(match[0]) or " "))
        elif match["tag"] and not re.match(r"<(?:/|\d|!|br\b)", match[0]):
            pieces.append(Piece(match[0], kind="open"))
        else:
            pieces.append(Piece(match[0], kind="close" if match["close"] else "single"))
        done = match.end()
    return [*pieces, *text_pieces(body[done:])]
