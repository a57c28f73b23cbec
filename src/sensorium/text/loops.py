"""Loops: a model that says the same again and again until it may write no more."""

from __future__ import annotations

from typing import NamedTuple

LEAST_REPEATS = 3
LEAST_WEIGHT = 16
"""Letters of all repeats together, a Chinese or Japanese character counted twice: "no, no, no" is no loop."""
LONGEST_PERIOD = 400
"""Characters of what is repeated."""


class Loop(NamedTuple):
    """The end of a text that repeats itself: where it begins, how many characters one turn has, how many turns."""

    start: int
    period: int
    repeats: int


def find_loop(text: str) -> Loop | None:
    """The loop a text ends in, of the shortest period; the last turn may be broken off.

    >>> find_loop("We go to the house, the house, the house, the house, the ho")
    Loop(start=8, period=11, repeats=4)
    >>> find_loop("No, no, no!") is None
    True
    """
    body = text.rstrip()
    for period in range(1, min(LONGEST_PERIOD, len(body) // LEAST_REPEATS) + 1):
        if body[-1] != body[-1 - period]:
            continue
        same = 0  # trailing characters that equal the one a period before
        while same < len(body) - period and body[-1 - same] == body[-1 - same - period]:
            same += 1
        repeats = same // period + 1
        start = len(body) - same - period
        if repeats >= LEAST_REPEATS and _weight(body[start:]) >= LEAST_WEIGHT:
            return Loop(start, period, repeats)
    return None


def cut_loop(text: str, source: str = "") -> str:
    """The text with one turn of the loop it ends in; as it is where there is none, or where the source ends in one too.

    >>> cut_loop("我喜欢它，我喜欢它，我喜欢它，我喜欢它，")
    '我喜欢它，'
    """
    loop = find_loop(text)
    if loop is None:
        return text
    own = find_loop(source) if source else None
    if own is not None and 2 * own.repeats >= loop.repeats:
        return text
    return text[: loop.start + loop.period].rstrip()


def _weight(part: str) -> int:
    return sum(2 if "\u2e80" <= character <= "\u9fff" else 1 for character in part if character.isalnum())
