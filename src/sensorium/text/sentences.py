"""Cutting text into sentences, Chinese and Western, also within one text: as places, so that nothing is lost."""

from __future__ import annotations

import re

ABBREVIATIONS = frozenset(
    """
    mr mrs ms dr prof st sr jr vs etc e.g i.e fig figs no vol pp ed eds cf al inc ltd co corp gen col sgt lt capt rev
    hon approx dept est eq sec ch jan feb mar apr jun jul aug sep sept oct nov dec mt ft
    z.b d.h u.a u.u usw bzw ca nr bd s.o s.u evtl ggf vgl str hr fr
    """.split()
)
"""Without their last full stop. Those that often end a sentence too (usw., etc.) do so before a capital, see below."""
NEARBY = 200
"""Characters around a mark that are looked at: a text of any make is read in a time that grows with its length."""
MAY_END = frozenset("etc usw inc ltd co corp jr sr st al".split())
"""Abbreviations after which a sentence ends where the next word is one that begins sentences."""
_BEGINNERS = frozenset(
    """
    the a an this that these those it he she we they you i in on at if when but and so there his her its our their
    der die das ein eine es er sie wir ihr ich in im am wenn aber und so dies diese dieser
    """.split()
)
# A sentence ends after 。！？ or …… or . ! ? with what closes it (quotes, brackets); Latin marks need a space after it.
_END = re.compile(
    r"(?P<chinese>[。！？｡]+[。！？…]*|(?:…{2,}|…)(?=[^\W\d_]?[\u2e80-\u9fff“‘「『《（])|[；](?=\n))(?P<closed>[”’」』）》】\"')]*)"
    r"|(?P<western>\.\.\.+|…+|[.!?]+)(?:[\"'”’“‘»)\]]*(?=\s|$)|[\"'”’»)\]]*(?=[\u2e80-\u9fff“‘「『《（]))"
    r"|\n[^\S\n]*\n\s*|\n(?=\s*(?:[-*•–]|\d+[.)])\s)"
)
_WIDE = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef”’…]")
_INITIAL = re.compile(r"(?:^|[\s.(\"'“‘])[A-ZÄÖÜ]$")
_DOTTED = re.compile(r"^(?:[^\W\d_]\.)+[^\W\d_]$")
_ORDINAL = re.compile(r"(?:^|\s)\d{1,2}$")
_SPACED = re.compile(r"(?:^|\s)[a-zäöü]$")  # z. B., d. h.
_LETTER = re.compile(r"\s[^\W\d_]\.")
_MONTHS = frozenset("januar februar märz april mai juni juli august september oktober november dezember".split())
_WORD = re.compile(r"[\"'“‘„«(\[]*([^\W\d_]+|\d)")
# A speaker goes on after a closing quote: “好！”他说, "Stop!" she said.
_SAID = re.compile(r"\s*(?:[,，、]|[a-zäöüß])")


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Where the sentences of a text stand, (first character, the one after the last), in order, none empty.

    What lies outside the spans is white space. A full stop ends no sentence within numbers, after abbreviations and
    initials, nor where the next word goes on in lower case; an empty line always does, and so does the line before a
    list's item.

    >>> text = "It costs 3.5 million, i.e. much.  Really? “好！”他说。"
    >>> [text[start:end] for start, end in sentence_spans(text)]
    ['It costs 3.5 million, i.e. much.', 'Really?', '“好！”', '他说。']
    """
    spans, start = [], 0
    for match in _END.finditer(text):
        if match.start() < start or not _ends(text, start, match):
            continue
        spans.append((start, match.end()))
        start = match.end()
    spans.append((start, len(text)))
    return [stripped for begin, end in spans if (stripped := _stripped(text, begin, end))]


def split_sentences(text: str) -> list[str]:
    """Sentences of a text, in order, none empty, white space within them made single; see ``sentence_spans``.

    >>> split_sentences("Dr. Smith came. He left!  Why?")
    ['Dr. Smith came.', 'He left!', 'Why?']
    >>> split_sentences("今天天气很好。“我们走吧！”他说。")
    ['今天天气很好。', '“我们走吧！”', '他说。']
    """
    return [" ".join(text[start:end].split()) for start, end in sentence_spans(text)]


def space_between(space: str, left: str, right: str) -> str:
    """What stands between two sentences in another language, where ``space`` stood: none behind a Chinese one.

    >>> space_between("", "It rains.", "I stay."), space_between(" ", "下雨了。", "我不走。")
    (' ', '')
    """
    if space.strip() or "\n" in space or not left or not right:
        return space
    if _WIDE.match(left[-1]):
        return ""
    return space or " "


def _stripped(text: str, start: int, end: int) -> tuple[int, int] | None:
    """The span without the white space at its ends; ``None`` where nothing else is in it."""
    part = text[start:end]
    length = len(part.strip())
    start += len(part) - len(part.lstrip())
    return (start, start + length) if length else None


def _ends(text: str, start: int, match: re.Match[str]) -> bool:
    """Whether what looks like the end of a sentence that began at ``start`` is one."""
    mark = match["western"]
    if mark is None:
        return True
    after = text[match.end() : match.end() + NEARBY]
    following = _WORD.match(after.lstrip())
    if mark == ".":
        return not _goes_on(
            text[max(start, match.start() - NEARBY) : match.start()], following[1] if following else "", after
        )
    if mark.startswith(("..", "…")):
        return following is None or not following[1][0].islower()
    closed = match.end() - match.start() > len(mark)
    return not (closed and _SAID.match(after))


def _goes_on(before: str, word: str, after: str) -> bool:
    """Whether a full stop after ``before`` is that of an abbreviation, an initial or an ordinal."""
    if not before.strip():
        return True  # ". " by itself, as in a list's "1. "
    if word and word[0].islower() and word[0].isalpha():
        return True
    last = before.rsplit(None, 1)[-1].lstrip("([\"'“‘„«").lower()
    if last in ABBREVIATIONS:
        if last in MAY_END:
            return not (word and (word.lower() in _BEGINNERS or not word.isascii()))
        return bool(word)
    if _DOTTED.match(last):  # U.S., z.B.: the sentence may end with it
        return not (word and word[0].isupper() and word.lower() in _BEGINNERS)
    if _INITIAL.search(before):
        return bool(word)
    if _SPACED.search(before) and _LETTER.match(after):
        return True
    return bool(_ORDINAL.search(before)) and (word.lower() in _MONTHS or not before[: -len(last)].strip())
