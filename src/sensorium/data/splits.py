"""Splits that do not leak: equal texts stay on one side, and what two sets share can be found.

Texts are compared after normalising: Unicode form, case, spaces and punctuation do not count.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

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
    """What counts of a text when two are compared: letters and digits, in lower case; all of it where it has none.

    >>> normalise("Hello,  WORLD!"), normalise("你好，世界。"), normalise("🙂 🙂")
    ('helloworld', '你好世界', '🙂🙂')
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = "".join(character for character in folded if character.isalnum())
    return kept or "".join(folded.split())


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
    if "messages" in record:  # their contents, and whatever else they hold
        return json.dumps(record["messages"], ensure_ascii=False, default=str)
    return "\n".join(str(record[key]) for key in ("text", "pair", "question", "context") if record.get(key))


def overlap(first: Sequence[str], second: Sequence[str]) -> Overlap:
    """Texts of ``second`` that stand in ``first``, exactly or nearly.

    Near duplicates are found through shared rare shingles: two texts with ``NEAR`` of their shingles in common must
    share one of the first (1 - NEAR) · n + 1 shingles in any fixed order (prefix filtering, Chaudhuri et al., 2006).
    The order is by rarity, and where the prefixes meet bounds what can still be shared (positional filtering, Xiao et
    al., 2008), so that texts from one template are told apart by what differs in them.
    """
    keys = defaultdict(list)
    for number, text in enumerate(first):
        keys[normalise(text)].append(number)
    exact = [(a, b) for b, text in enumerate(second) for a in keys.get(normalise(text), ())]
    matched = {b for _, b in exact}
    theirs = [_shingles(text) for text in first]
    counts = Counter(value for hashes in theirs for value in hashes)
    sizes = np.array([len(hashes) for hashes in theirs], dtype=np.int64)  # [A]
    index = _index(theirs, counts)
    near = []
    for b, text in enumerate(second):
        if b in matched:
            continue
        mine = _shingles(text)
        candidates = _candidates(_prefix(mine, counts), len(mine), index, sizes)
        near += [(a, b) for a in candidates if _jaccard(theirs[a], mine) >= NEAR]
    return Overlap(tuple(exact), tuple(near))


def _index(shingles: list[frozenset[int]], counts: Counter[int]) -> dict[int, np.ndarray]:
    """Shingle → [P, 2] int64: the texts whose prefix holds it, and its place there."""
    places: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for number, hashes in enumerate(shingles):
        for place, value in enumerate(_prefix(hashes, counts)):
            places[value].append((number, place))
    return {value: np.array(found, dtype=np.int64) for value, found in places.items()}


def _candidates(prefix: list[int], size: int, index: dict[int, np.ndarray], sizes: np.ndarray) -> list[int]:
    """The texts that may share ``NEAR`` of their shingles with one of ``size`` shingles, in order.

    A pair is bounded where its prefixes first meet: all shared shingles stand there or later in both texts.
    """
    found: list[np.ndarray] = []
    for place, value in enumerate(prefix):
        if (met := index.get(value)) is not None:
            mine = np.full(len(met), size - place)
            found.append(np.column_stack([met, mine]))  # [P, 3] text, its place, mine from here on
    if not found:
        return []
    meetings = np.concatenate(found)
    texts, first = np.unique(meetings[:, 0], return_index=True)  # the first meeting of each text
    _, place, mine = meetings[first].T
    most = np.minimum(sizes[texts] - place, mine)
    enough = most >= NEAR * (sizes[texts] + size - most) - 1e-6
    kept: list[int] = texts[enough].tolist()
    return kept


def _shingles(text: str) -> frozenset[int]:
    """Hashes of all runs of ``SHINGLE`` characters of the normalised text; none for shorter texts."""
    normal = normalise(text)
    runs = {normal[i : i + SHINGLE] for i in range(len(normal) - SHINGLE + 1)}
    return frozenset(int.from_bytes(hashlib.blake2b(run.encode(), digest_size=8).digest()) for run in runs)


def _prefix(hashes: frozenset[int], counts: Counter[int]) -> list[int]:
    """The first shingles by rarity, as many as cannot all be missing from a near duplicate."""
    return sorted(hashes, key=lambda value: (counts[value], value))[: int((1 - NEAR) * len(hashes) + 1e-6) + 1]


def _jaccard(first: frozenset[int], second: frozenset[int]) -> float:
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared) if first and second else 0.0
