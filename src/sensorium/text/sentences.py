"""Cutting text into sentences, English and Chinese."""

from __future__ import annotations

import re

ABBREVIATIONS = frozenset(
    """
    mr mrs ms dr prof st sr jr vs etc e.g i.e fig no vol pp ed eds cf al inc ltd co corp gen col sgt u.s u.k
    """.split()
)
# A sentence ends after 。！？… or . ! ? with what closes it (quotes, brackets); Latin marks need a space after them.
_END = re.compile(r"(?:[。！？…]+[”’」』）)]*|[.!?]+[\"'”’)\]]*(?=\s)|\n\s*\n|\n(?=\s*[-*•\d]))")
_INITIAL = re.compile(r"(?:^|[\s.(])[A-Z]$")


def split_sentences(text: str) -> list[str]:
    """Sentences of a text, in order, none empty; nothing but white space between them is lost.

    >>> split_sentences("Dr. Smith came. He left!  Why?")
    ['Dr. Smith came.', 'He left!', 'Why?']
    >>> split_sentences("今天天气很好。“我们走吧！”他说。")
    ['今天天气很好。', '“我们走吧！”', '他说。']
    """
    sentences, start = [], 0
    for match in _END.finditer(text):
        if match.group().startswith(".") and _is_abbreviation(text[start : match.start()]):
            continue
        sentences.append(text[start : match.end()])
        start = match.end()
    sentences.append(text[start:])
    return [stripped for sentence in sentences if (stripped := " ".join(sentence.split()))]


def _is_abbreviation(before: str) -> bool:
    """Whether a full stop after this text ends an abbreviation or an initial rather than a sentence."""
    word = before.rsplit(None, 1)[-1].lstrip("(\"'“‘").lower() if before.strip() else ""
    return word in ABBREVIATIONS or bool(_INITIAL.search(before))
