"""A sentence of a document: its text, and the markup that stands within it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sensorium.text.sentences import sentence_spans

MARK = "[{}]"
"""How the n-th markup of a sentence stands in a text that is translated, when nothing else is asked for."""
MARKUP = "\ufffc"
"""What stands for a markup while sentences are looked for."""
_BRACKETS = {"[": "[\\[［【]", "]": "[\\]］】]", "(": "[(（]", ")": "[)）]", "{": "[{｛]", "}": "[}｝]",
             "<": "[<＜〈]", ">": "[>＞〉]"}  # fmt: skip
_LETTER = re.compile(r"[^\W\d_]")
_LATIN = re.compile(r"[^\W_]")
_CHINESE = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]")


class Piece(NamedTuple):
    """A stretch of a sentence: text, or markup that stays."""

    source: str
    """As it stands in the document."""
    text: str = ""
    """What a reader sees of it."""
    kind: Literal["text", "open", "close", "single", "break", "end"] = "text"
    """``text`` can be translated. Markup is ``open`` and ``close``, which belong together, or ``single``. ``break``:
    the source goes to a new line, the text goes on; ``end``: no sentence reaches beyond."""
    instead: str | None = None
    """Source to write where the sentence is another one; ``None``: as before."""


@dataclass(frozen=True)
class Sentence:
    """A sentence, or a heading, a cell, an item: what is translated as one."""

    pieces: tuple[Piece, ...]
    block: int = 0
    """Number of its paragraph."""
    special: str = ""
    """Characters that must be escaped here as well."""

    @property
    def source(self) -> str:
        """As it stands in the document."""
        return "".join(piece.source for piece in self.pieces)

    @property
    def text(self) -> str:
        """What a reader sees."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def num_marks(self) -> int:
        """Markups within the sentence."""
        return sum(is_markup(piece) for piece in self.pieces)

    def marked(self, mark: str = MARK) -> str:
        """The text with marks, numbered from 1, in the place of markup, and white space made single."""
        number = 0
        parts = []
        for piece in self.pieces:
            number += is_markup(piece)
            parts.append(mark.format(number) if is_markup(piece) else piece.text)
        return " ".join("".join(parts).split())

    def seen(self, marked: str, mark: str = MARK) -> str:
        """What a reader sees of another wording: its marks as the markup they stand for."""
        markups = [piece.text for piece in self.pieces if is_markup(piece)]

        def shown(match: re.Match[str]) -> str:
            number = int(match[1])
            return markups[number - 1] if 1 <= number <= len(markups) else match[0]

        return _pattern(mark).sub(shown, marked) if markups else marked

    @property
    def stretches(self) -> list[str]:
        """The texts between markups that hold a letter: what is translated where the whole loses its marks."""
        return [piece.text for piece in self.pieces if _is_stretch(piece)]

    def with_stretches(self, texts: Sequence[str], escape: Callable[[str], str]) -> str:
        """The source with other texts between its markups, in the order of ``stretches``."""
        given = iter(texts)
        return "".join(
            _as_before(piece.text, escape(" ".join(next(given).split()))) if _is_stretch(piece) else
            piece.source if piece.instead is None else piece.instead
            for piece in self.pieces
        )  # fmt: skip


Part = str | Sentence


def is_markup(piece: Piece) -> bool:
    """Whether it stays as it is."""
    return piece.kind in ("open", "close", "single")


def sentences_of(pieces: Iterable[Piece], block: int, special: str = "") -> list[Part]:
    """A paragraph's pieces as its sentences and what stands between them; the sources in order make its source."""
    atoms = [atom for piece in pieces for atom in _atoms(piece)]
    seen = "".join(MARKUP if is_markup(atom) else atom.text for atom in atoms)
    places = []  # first character of each atom in what is seen
    total = 0
    for atom in atoms:
        places.append(total)
        total += 1 if is_markup(atom) else len(atom.text)
    parts: list[Part] = []
    done = first = 0
    for start, end in sentence_spans(seen):
        while first < len(atoms) and places[first] < start:
            first += 1
        last = first
        while last < len(atoms) and places[last] < end:
            last += 1
        begin, stop = _trimmed(atoms, first, last)
        if any(_is_stretch(atom) for atom in atoms[begin:stop]):
            parts.append("".join(atom.source for atom in atoms[done:begin]))
            parts.append(Sentence(tuple(_joined(atoms[begin:stop])), block, special))
            done = stop
        first = last
    parts.append("".join(atom.source for atom in atoms[done:]))
    return [part for part in parts if part]


def render(
    sentence: Sentence, marked: str, escape: Callable[[str], str], *, style: str, keep_breaks: bool
) -> str | None:
    """See ``Document.rendered``; ``keep_breaks``: as many lines as the sentence had."""
    marked = " ".join(marked.split())
    if marked == sentence.marked(style):
        return sentence.source
    found = list(_pattern(style).finditer(marked)) if sentence.num_marks else []
    markups = [piece for piece in sentence.pieces if is_markup(piece)]
    order = [int(match[1]) - 1 for match in found]
    if sorted(order) != list(range(len(markups))) or not _nested(order, markups):
        return None
    texts = [marked[start:end] for start, end in _between(found, len(marked))]
    spaced = _spaces(sentence)
    parts = [texts[0]]
    for n, after in zip(order, texts[1:], strict=True):
        before_had, after_had = spaced[n]
        markup = markups[n]
        if not before_had and markup.kind == "close":
            parts[-1] = parts[-1].rstrip()
        elif before_had and _LATIN.search(parts[-1][-1:]) and not _CHINESE.search(parts[-1][-1:]):
            parts[-1] += " "
        if not after_had and markup.kind == "open":
            after = after.lstrip()
        elif after_had and markup.kind != "open" and _LATIN.search(after[:1]) and not _CHINESE.search(after[:1]):
            after = " " + after
        elif not after_had and markup.kind == "single" and re.match(r"\s[.,;:!?)\]}…。，；：！？）]", after):
            after = after.lstrip()
        parts += [markup.source if markup.instead is None else markup.instead, after]
    parts[::2] = [_guarded(escape(text), sentence.special) for text in parts[::2]]
    written = "".join(parts)
    breaks = [piece for piece in sentence.pieces if piece.kind == "break"]
    return _broken(written, [piece.source for piece in breaks]) if keep_breaks and breaks else written


# --- details ---------------------------------------------------------------------------------------------------------


def _atoms(piece: Piece) -> Iterable[Piece]:
    """A piece by character where its text is its source."""
    if piece.kind == "text" and piece.source == piece.text:
        return (Piece(character, character) for character in piece.text)
    return (piece,)


def _joined(atoms: Sequence[Piece]) -> Iterable[Piece]:
    """Neighbouring characters as one piece."""
    waiting: list[Piece] = []
    for atom in atoms:
        if atom.kind == "text":
            waiting.append(atom)
            continue
        yield from _run(waiting)
        waiting = []
        yield atom
    yield from _run(waiting)


def _run(atoms: Sequence[Piece]) -> Iterable[Piece]:
    if atoms:
        yield Piece("".join(atom.source for atom in atoms), "".join(atom.text for atom in atoms))


def _trimmed(atoms: Sequence[Piece], first: int, last: int) -> tuple[int, int]:
    """The stretch without the markup around all of it, or that opens or closes what lies beyond it."""
    partner = {first + a: None if b is None else first + b for a, b in partners(atoms[first:last]).items()}
    while first < last:
        start, end = atoms[first], atoms[last - 1]
        if start.kind in ("open", "close") and partner[first] in (None, last - 1):
            last -= partner[first] is not None
            first += 1
        elif end.kind in ("open", "close") and partner[last - 1] is None:
            last -= 1
        elif not is_markup(start) and not start.text.strip():
            first += 1
        elif not is_markup(end) and not end.text.strip():
            last -= 1
        else:
            break
    return first, last


def partners(atoms: Sequence[Piece]) -> dict[int, int | None]:
    """Which markup closes which, ``None`` where there is none."""
    partner: dict[int, int | None] = {}
    waiting: list[int] = []
    for n, atom in enumerate(atoms):
        if atom.kind in ("open", "close"):
            partner[n] = None
        if atom.kind == "open":
            waiting.append(n)
        elif atom.kind == "close" and waiting:
            other = waiting.pop()
            partner[n], partner[other] = other, n
    return partner


def _nested(order: Sequence[int], markups: Sequence[Piece]) -> bool:
    """Whether markups in another order open and close as they did: each pair still a pair."""
    before = partners(markups)
    after = partners([markups[n] for n in order])
    return all(before[order[a]] == (None if b is None else order[b]) for a, b in after.items())


STYLES = ("[{}]", "<{}>", "({})", "{{{}}}")
"""Ways to write a mark; a model's vocabulary decides which it can keep."""


def _pattern(style: str) -> re.Pattern[str]:
    before, after = style.format("0").split("0")
    return re.compile(rf"{_BRACKETS[before]}\s?(\d{{1,4}})\s?{_BRACKETS[after]}")


def _between(found: Sequence[re.Match[str]], length: int) -> Iterable[tuple[int, int]]:
    edges = [0, *(edge for match in found for edge in match.span()), length]
    return zip(edges[::2], edges[1::2], strict=True)


def _spaces(sentence: Sentence) -> list[tuple[bool, bool]]:
    """For each markup, whether white space stands right before and right after it."""
    spaced = []
    for n, piece in enumerate(sentence.pieces):
        if is_markup(piece):
            before = sentence.pieces[n - 1].text[-1:] if n else ""
            after = sentence.pieces[n + 1].text[:1] if n + 1 < len(sentence.pieces) else ""
            spaced.append((before.isspace(), after.isspace()))
    return spaced


def _is_stretch(piece: Piece) -> bool:
    return piece.kind == "text" and bool(_LETTER.search(piece.text))


def _as_before(old: str, new: str) -> str:
    """The new text with the white space that stood around the old one."""
    return old[: len(old) - len(old.lstrip())] + new.strip() + old[len(old.rstrip()) :]


def _guarded(text: str, special: str) -> str:
    for character in special:
        text = text.replace(character, "\\" + character)
    return text


def _broken(text: str, breaks: Sequence[str]) -> str:
    """The text in one line more than there are breaks, each cut near its share of the length, never within a tag."""
    places = [
        match.start()
        for match in re.finditer(r"\s|(?<=[，。！？；：、,;:])(?=\S)|(?<=[\u2e80-\u9fff])(?=[\u2e80-\u9fff])", text)
        if text.rfind("<", 0, match.start()) <= text.rfind(">", 0, match.start())
    ]
    lines, start = [], 0
    for n, ending in enumerate(breaks, 1):
        wanted = len(text) * n / (len(breaks) + 1)
        allowed = [place for place in places if place > start]
        if not allowed:
            break
        place = min(allowed, key=lambda place: abs(place - wanted))
        lines.append(text[start:place].strip() + ending)
        start = place
    return "".join([*lines, text[start:].strip()])
