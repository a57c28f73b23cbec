"""The sides of a corpus: what is trained on, what settings are chosen on, what is measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from sensorium.errors import UsageError

Item = TypeVar("Item")

SIDES = ("train", "validation", "test")


def side_of(key: str, held_out: float) -> str:
    """The side of everything that shares a key: ``held_out`` of all keys are for validation, as many for the test.

    It is decided by a hash of the key alone: it stays when other keys come or go, and two corpora agree on it.

    >>> [side_of(key, 0.2) for key in ("save", "open", "close", "print")]
    ['validation', 'test', 'train', 'train']
    """
    place = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) / 2**64
    if place < held_out:
        return "test"
    return "validation" if place >= 1 - held_out else "train"


def on_side(items: Sequence[Item], key: Callable[[Item], str], side: str, *, held_out: float) -> list[Item]:
    """The items on one side, all of them where no side is named. Raises ``UsageError`` for an unknown one."""
    check_side(side)
    return [item for item in items if not side or side_of(key(item), held_out) == side]


def check_side(side: str) -> None:
    """Raises ``UsageError`` for a side there is not."""
    if side and side not in SIDES:
        raise UsageError(f"the side of a corpus is {', '.join(SIDES)}, or left out; not {side!r}")
