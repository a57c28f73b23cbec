"""Where vectors lie: what any store can do, whatever database is behind it.

Shapes: P size of a vector; vectors have length 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Kind = Literal["image", "text"]
Vector = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Stamp:
    """What says that a file is still the one that was read."""

    size: int
    modified: int
    """Nanoseconds."""


@dataclass(frozen=True)
class Item:
    """Something that can be found: an image, or a part of a text."""

    kind: Kind
    vector: Vector
    """[P] float32."""
    part: int = 0
    """Of a text, the line it begins on; of an image, 0."""
    text: str = ""
    """What the part says."""


@dataclass(frozen=True)
class Entry:
    """A file: what it holds, or why it holds nothing."""

    path: str
    """From the folder, with ``/``."""
    stamp: Stamp
    items: Sequence[Item] = ()
    problem: str | None = None
    """Why it could not be read."""


@dataclass(frozen=True)
class Found:
    """An item that is like what was asked for."""

    path: str
    kind: Kind
    part: int
    text: str
    cosine: float


class Store(Protocol):
    """An index. What was put is there after a crash, whole files or not at all.

    Every method raises ``UsageError``, in a sentence, where the database refuses.
    """

    def writing(self, waits: Callable[[], None]) -> AbstractContextManager[None]:
        """While it lasts, no other indexer writes; it begins when the one that does is done, or its process is gone.

        ``waits`` is called once if there is another.
        """
        ...

    def settings(self) -> dict[str, str]:
        """What was noted about the index; empty for a new one."""
        ...

    def note(self, settings: Mapping[str, str]) -> None:
        """Note it, in place of what was noted under the same names."""
        ...

    def stamps(self) -> dict[str, Stamp]:
        """Every file that was read, by its path."""
        ...

    def put(self, entries: Iterable[Entry]) -> None:
        """Files in place of what was known of them, all together."""
        ...

    def remove(self, paths: Iterable[str]) -> None:
        """Forget files, all together."""
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...

    def problems(self) -> dict[str, str]:
        """Files that could not be read, and why."""
        ...

    def count(self, kind: Kind) -> int:
        """Items of a kind."""
        ...

    def nearest(self, vector: Vector, kind: Kind, most: int) -> list[Found]:
        """The items of a kind whose vectors are most alike to ``vector`` [P], exactly, the most alike first."""
        ...

    def background(self, vector: Vector, kind: Kind, scale: float) -> float:
        """log mean exp(scale · cosine) over all items of a kind."""
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...


SERVERS = ("postgresql://", "postgres://")
"""What the address of a server's database begins with; all else is a file."""


def open_store(place: str | Path, *, create: bool = False) -> Store:
    """The store in a file, or at ``postgresql://…``. Raises ``UsageError`` where there is none, unless one may be made,
    or for another file or database.
    """
    if isinstance(place, str) and place.startswith(SERVERS):
        from sensorium.search.postgres import PostgresStore

        return PostgresStore(place, create=create)
    from sensorium.search.sqlite import SqliteStore

    return SqliteStore(Path(place), create=create)
