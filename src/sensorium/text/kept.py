"""What a translation must keep: numbers, and the terms of a glossary.

>>> lost_numbers("1,500 dogs and 3.5 million cats", "1500只狗和350万只猫")
[]
>>> lost_numbers("room 12", "房间 13")
['12']
>>> lost_terms("Open the door of the Hub.", "Öffne die Tür.", {"hub": "Zentrale", "door": "Tür", "window": "Fenster"})
['hub']
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

Glossary = Mapping[str, str | Sequence[str]]
"""A term of the source language → what it must become; any one of several."""
Reading = Decimal | str
"""A value; the digits as they stand where they are no quantity (2.0.1)."""

_UNITS: Mapping[str, tuple[int, ...]] = {
    "hundred": (2,), "thousand": (3,), "million": (6,), "millions": (6,), "billion": (9, 12), "trillion": (12, 18),
    "tausend": (3,), "millionen": (6,), "mio": (6,), "milliarde": (9,), "milliarden": (9,), "mrd": (9,),
    "billionen": (12,), "百万": (6,), "千万": (7,), "万亿": (12,), "百": (2,), "千": (3,), "万": (4,), "亿": (8,),
    "萬": (4,), "億": (8,),
}  # fmt: skip
"""Words after a number → powers of ten they may stand for: a German *Billion* is an English trillion."""
_NUMBER = re.compile(
    r"\d+(?:[.,'’\u00a0\u202f]\d+)*(?:\s?(?P<unit>" + "|".join(sorted(_UNITS, key=len, reverse=True)) + r")(?![a-z]))?",
    re.IGNORECASE,
)
_WORDS: Mapping[str, int] = {
    word: value
    for words in (
        "zero one two three four five six seven eight nine ten eleven twelve",
        "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf",
    )
    for value, word in enumerate(words.split())
} | {"a": 1, "an": 1, "ein": 1, "eine": 1, "einen": 1, "einem": 1, "einer": 1, "hundred": 100, "thousand": 1000,
     "first": 1, "second": 2, "third": 3, "erste": 1, "zweite": 2, "dritte": 3}  # fmt: skip
_DIGITS = {character: value for value, character in enumerate("〇一二三四五六七八九")} | {"零": 0, "两": 2, "俩": 2}
_POWERS = {"十": 10, "百": 100, "千": 1_000, "万": 10_000, "亿": 100_000_000}
_NUMERALS = re.compile(f"[{''.join(_DIGITS)}{''.join(_POWERS)}]+")


def numbers(text: str) -> list[tuple[str, frozenset[Reading]]]:
    """The numbers in a text that are written in digits, each with the values it can mean: 1.500 is 1500 or 1.5.

    >>> numbers("2.5 Mio. Euro")
    [('2.5 Mio', frozenset({Decimal('2500000')}))]
    """
    found = []
    for match in _NUMBER.finditer(unicodedata.normalize("NFKC", text)):
        unit = match["unit"]
        digits = match[0] if unit is None else match[0][: match.start("unit") - match.start()]
        readings = _readings(digits.strip())
        if unit is not None:
            powers = _UNITS[unit.lower()]
            values = [one for one in readings if isinstance(one, Decimal)]
            readings = {(one * 10**power).normalize() for one in values for power in powers} or readings
            readings = {one if isinstance(one, str) else _plain(one) for one in readings}
        found.append((match[0], frozenset(readings)))
    return found


def lost_numbers(source: str, translation: str) -> list[str]:
    """Numbers of the source that the translation has not, each as often as it is missing.

    A number may be written otherwise: with other separators, with a unit (3.5 million, 350万), or in words where it is
    small (three, drei, 三).
    """
    left = [readings for _, readings in numbers(translation)]
    spelled: set[Reading] | None = None
    lost = []
    for written, readings in numbers(source):
        match = next((n for n, others in enumerate(left) if readings & others), None)
        if match is not None:
            del left[match]
            continue
        spelled = _spelled(translation) if spelled is None else spelled
        if not readings & spelled:
            lost.append(written)
    return lost


def terms_in(text: str, glossary: Glossary) -> list[str]:
    """The terms of a glossary that a text holds, as whole words, whatever their case; the longest where they overlap.

    >>> terms_in("A power supply unit needs power.", {"power": "Strom", "power supply": "Netzteil", "unit": "Einheit"})
    ['power', 'power supply', 'unit']
    """
    found: set[str] = set()
    for term in sorted((term for term in glossary if term.strip()), key=len, reverse=True):
        pattern = _whole(term)
        if pattern.search(text):
            found.add(term)
            text = pattern.sub("\0", text)
    return [term for term in glossary if term in found]


def lost_terms(source: str, translation: str, glossary: Glossary) -> list[str]:
    """Terms of the source for which the translation has none of the glossary's words, whatever their case."""
    written = translation.casefold()
    return [
        term
        for term in terms_in(source, glossary)
        if not any(accepted.casefold() in written for accepted in accepted_for(term, glossary))
    ]


def num_lost(source: str, translation: str, glossary: Glossary) -> int:
    """How many terms and numbers of the source the translation does not keep."""
    return len(lost_terms(source, translation, glossary)) + len(lost_numbers(source, translation))


def kept_best(source: str, translations: Sequence[str], glossary: Glossary) -> list[str]:
    """Translations by how few terms and numbers they lose, equal ones in the order they have."""
    return sorted(translations, key=lambda translation: num_lost(source, translation, glossary))


def accepted_for(term: str, glossary: Glossary) -> tuple[str, ...]:
    """What a term may become."""
    accepted = glossary[term]
    return (accepted,) if isinstance(accepted, str) else tuple(accepted)


# --- details ---------------------------------------------------------------------------------------------------------


def _readings(digits: str) -> set[Reading]:
    """What digits with separators can mean."""
    parts = re.split(r"[.,'’\u00a0\u202f]", digits)
    marks = re.findall(r"[.,'’\u00a0\u202f]", digits)
    if not marks:
        return {_plain(Decimal(digits))}
    found: set[Reading] = set()
    if all(len(part) == 3 for part in parts[1:]) and len(parts[0]) <= 3 and len(set(marks)) == 1:
        found.add(_plain(Decimal("".join(parts))))  # 1,500,000
    last_is_decimal = marks[-1] in ".," and marks[-1] not in marks[:-1]
    if last_is_decimal and all(len(part) == 3 for part in parts[1:-1]):
        found.add(_plain(Decimal("".join(parts[:-1]) + "." + parts[-1])))  # 1.500,25
    return found or {digits}


def _plain(value: Decimal) -> Decimal:
    """Equal values as equal objects, without an exponent."""
    return Decimal(format(value.normalize(), "f"))


def _spelled(text: str) -> set[Reading]:
    """Values that a text says in words or in Chinese numerals."""
    words: Iterable[str] = re.findall(r"[^\W\d_]+", text.lower())
    values = {Decimal(_WORDS[word]) for word in words if word in _WORDS}
    values |= {Decimal(_numeral(run)) for run in _NUMERALS.findall(text) if len(run) <= 24}
    return set(values)


def _numeral(run: str) -> int:
    """A Chinese numeral: 三千零五 → 3005, 二〇二三 → 2023."""
    if not any(character in _POWERS for character in run):
        return int("".join(str(_DIGITS[character]) for character in run))
    total = section = digit = 0
    for character in run:
        if character in _DIGITS:
            digit = _DIGITS[character]
        elif (power := _POWERS[character]) < 10_000:
            section += (digit or 1) * power
            digit = 0
        else:
            total = (total + section + digit or 1) * power
            section = digit = 0
    return total + section + digit


def _whole(term: str) -> re.Pattern[str]:
    before = r"(?<![^\W_])" if term[0].isascii() and term[0].isalnum() else ""
    after = r"(?![^\W_])" if term[-1].isascii() and term[-1].isalnum() else ""
    return re.compile(before + r"\s+".join(map(re.escape, term.split())) + after, re.IGNORECASE)
