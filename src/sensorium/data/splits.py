"""Splits that do not leak: equal texts stay on one side, and what two sets share can be found.

Texts are compared after normalising: Unicode form, case, spaces and punctuation do not count.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

Record = TypeVar("Record", bound=Mapping[str, Any])

SHINGLE = 5
"""Characters of a shingle."""
NEAR = 0.8
"""Share of shingles (Jaccard) from which two texts are nearly the same."""


@dataclass(frozen=True)
class Overlap:
    """What two sets of texts share, as pairs (number in the first, number in the second)."""

    exact: tuple[tuple[int, int], ...]
    """Equal after normalising."""
    near: tuple[tuple[int, int], ...]
    """At least ``NEAR`` of their shingles in common."""


def normalise(text: str) -> str:
    """What counts of a text when two are compared: letters and digits, in lower case.

    >>> normalise("Hello,  WORLD!"), normalise("你好，世界。")
    ('helloworld', '你好世界')
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(character for character in folded if character.isalnum())


def split_by_text(records: Sequence[Record], share: float, *, seed: int) -> tuple[list[Record], list[Record]]:
    """(the rest, about ``share`` of the records), chosen by a hash of the normalised text.

    Equal texts are on one side, and a record stays where it is when others are added.
    """
    rest: list[Record] = []
    held: list[Record] = []
    for record in records:
        digest = hashlib.blake2b(f"{seed}:{normalise(record_text(record))}".encode(), digest_size=8).digest()
        (held if int.from_bytes(digest) / 2**64 < share else rest).append(record)
    return rest, held


def remove_overlap(records: Sequence[Record], others: Sequence[Mapping[str, Any]]) -> list[Record]:
    """The records whose text is not, exactly or nearly, that of one of the others."""
    found = overlap([record_text(record) for record in records], [record_text(record) for record in others])
    shared = {number for number, _ in (*found.exact, *found.near)}
    return [record for number, record in enumerate(records) if number not in shared]


def deduplicate(records: Sequence[Record]) -> list[Record]:
    """The first record of each normalised text."""
    seen: dict[str, Record] = {}
    for record in records:
        seen.setdefault(normalise(record_text(record)), record)
    return list(seen.values())


def record_text(record: Mapping[str, Any]) -> str:
    """The text of a record, whatever its kind."""
    if "tokens" in record:
        return " ".join(map(str, record["tokens"]))
    return "\n".join(str(record[key]) for key in ("text", "pair", "question", "context") if record.get(key))


def overlap(first: Sequence[str], second: Sequence[str]) -> Overlap:
    """Texts of ``second`` that stand in ``first``, exactly or nearly.

    Near duplicates are found through shared rare shingles: two texts with ``NEAR`` of their shingles in common must
    share one of the (1 - NEAR) · n + 1 first shingles in any fixed order (prefix filtering, Chaudhuri et al., 2006);
    the order by hash makes these prefixes small and selective.
    """
    keys = defaultdict(list)
    for number, text in enumerate(first):
        keys[normalise(text)].append(number)
    exact = [(a, b) for b, text in enumerate(second) for a in keys.get(normalise(text), ())]
    matched = {b for _, b in exact}
    index: dict[int, list[int]] = defaultdict(list)
    shingles = [_shingles(text) for text in first]
    for number, hashes in enumerate(shingles):
        for value in _prefix(hashes):
            index[value].append(number)
    near = []
    for b, text in enumerate(second):
        if b in matched:
            continue
        mine = _shingles(text)
        candidates = {a for value in _prefix(mine) for a in index.get(value, ())}
        near += [(a, b) for a in sorted(candidates) if _jaccard(shingles[a], mine) >= NEAR]
    return Overlap(tuple(exact), tuple(near))


def _shingles(text: str) -> frozenset[int]:
    """Hashes of all runs of ``SHINGLE`` characters of the normalised text; none for shorter texts."""
    normal = normalise(text)
    runs = {normal[i : i + SHINGLE] for i in range(len(normal) - SHINGLE + 1)}
    return frozenset(int.from_bytes(hashlib.blake2b(run.encode(), digest_size=8).digest()) for run in runs)


def _prefix(hashes: frozenset[int]) -> list[int]:
    return sorted(hashes)[: int((1 - NEAR) * len(hashes)) + 1]


def _jaccard(first: frozenset[int], second: frozenset[int]) -> float:
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared) if first and second else 0.0
