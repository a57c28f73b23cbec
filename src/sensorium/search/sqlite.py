"""The embedded store: one SQLite file, whose vectors sqlite-vec compares.

Python's own ``sqlite3`` is often built without extensions, and with a version whose write-ahead log can be corrupted
(before 3.51.3); apsw brings a newer one with its wheel.
"""

from __future__ import annotations

import fcntl
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sensorium.errors import UsageError, missing_extra
from sensorium.search.store import Entry, Found, Kind, Stamp, Vector

SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE files (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, modified INTEGER NOT NULL, problem TEXT
) WITHOUT ROWID;
CREATE TABLE items (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL REFERENCES files (path) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    part INTEGER NOT NULL,
    text TEXT NOT NULL,
    vector BLOB NOT NULL
);
CREATE INDEX items_by_path ON items (path);
"""
APPLICATION = 0x53454E53
"""Says in the file's header whose it is: "SENS"."""
VERSION = 1
BUSY_MILLISECONDS = 5_000


class SqliteStore:
    """One file; several processes may read it while one writes."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Raises ``UsageError`` where there is no index, unless it may be created, or the file is something else."""
        try:
            import apsw
            import sqlite_vec
        except ImportError as error:
            raise missing_extra("apsw or sqlite-vec", "search") from error
        if not path.is_file() and not create:
            raise UsageError(f"{path}: there is no index; make one with: sensorium index FOLDER --model …")
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._error = apsw.Error
        try:
            self._connection = apsw.Connection(str(path))
            self._connection.set_busy_timeout(BUSY_MILLISECONDS)
            self._connection.enable_load_extension(True)
            self._connection.load_extension(sqlite_vec.loadable_path())
            self._connection.enable_load_extension(False)
            self._open()
        except apsw.Error as error:
            raise UsageError(f"{path}: is no index that can be read ({error})") from error

    def _open(self) -> None:
        if self._is_new():
            with self.writing(_nothing):  # of two that would make it, the second finds it made
                if self._is_new():
                    self._rows("PRAGMA journal_mode = WAL")
                    with self._connection:
                        self._connection.execute(SCHEMA)
                        self._rows(f"PRAGMA application_id = {APPLICATION}")
                        self._rows(f"PRAGMA user_version = {VERSION}")
        [[application]] = self._rows("PRAGMA application_id")
        [[version]] = self._rows("PRAGMA user_version")
        if application != APPLICATION:
            raise UsageError(f"{self.path}: is a database, and no index of Sensorium's")
        if version != VERSION:
            raise UsageError(f"{self.path}: is an index of version {version}, and this reads {VERSION}; index anew")
        self._rows("PRAGMA foreign_keys = ON")
        self._rows("PRAGMA synchronous = FULL")

    def _is_new(self) -> bool:
        [[application]] = self._rows("PRAGMA application_id")
        return application == 0 and not self._rows("SELECT 1 FROM sqlite_master LIMIT 1")

    def _rows(self, statement: str, values: Any = ()) -> list[Any]:
        return self._connection.execute(statement, values).fetchall()

    def _all(self, statement: str, values: Any = ()) -> list[Any]:
        with self._sentences():
            return self._rows(statement, values)

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            raise UsageError(f"{self.path}: {error}") from error

    @contextmanager
    def _together(self) -> Iterator[Any]:
        """A connection whose statements are kept all, or none."""
        with self._sentences(), self._connection:
            yield self._connection

    @contextmanager
    def writing(self, waits: Callable[[], None]) -> Iterator[None]:
        """A lock on a file beside the index: the system lets go of it when its process ends."""
        with self.path.with_name(f"{self.path.name}-lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waits()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def settings(self) -> dict[str, str]:
        """What was noted about the index; empty for a new one."""
        return dict(self._all("SELECT name, value FROM settings"))

    def note(self, settings: Mapping[str, str]) -> None:
        """Note it, in place of what was noted under the same names."""
        with self._together() as connection:
            connection.executemany("REPLACE INTO settings VALUES (?, ?)", settings.items())

    def stamps(self) -> dict[str, Stamp]:
        """Every file that was read, by its path."""
        return {path: Stamp(size, at) for path, size, at in self._all("SELECT path, size, modified FROM files")}

    def put(self, entries: Iterable[Entry]) -> None:
        """Files in place of what was known of them, all together."""
        with self._together() as connection:
            for entry in entries:
                self._all("DELETE FROM files WHERE path = ?", (entry.path,))
                stamp = entry.stamp
                values = (entry.path, stamp.size, stamp.modified, entry.problem)
                self._all("INSERT INTO files VALUES (?, ?, ?, ?)", values)
                connection.executemany(
                    "INSERT INTO items (path, kind, part, text, vector) VALUES (?, ?, ?, ?, ?)",
                    [(entry.path, i.kind, i.part, i.text, _blob(i.vector)) for i in entry.items],
                )

    def remove(self, paths: Iterable[str]) -> None:
        """Forget files, all together."""
        with self._together() as connection:
            connection.executemany("DELETE FROM files WHERE path = ?", [(path,) for path in paths])

    def clear(self) -> None:
        """Forget everything."""
        with self._together():
            for table in ("items", "files", "settings"):
                self._all(f"DELETE FROM {table}")

    def problems(self) -> dict[str, str]:
        """Files that could not be read, and why."""
        return dict(self._all("SELECT path, problem FROM files WHERE problem IS NOT NULL ORDER BY path"))

    def count(self, kind: Kind) -> int:
        """Items of a kind."""
        [[count]] = self._all("SELECT count(*) FROM items WHERE kind = ?", (kind,))
        return int(count)

    def nearest(self, vector: Vector, kind: Kind, most: int) -> list[Found]:
        """The items of a kind whose vectors are most alike to ``vector`` [P], exactly, the most alike first."""
        rows = self._all(
            "SELECT path, kind, part, text, 1 - vec_distance_cosine(vector, ?) AS cosine FROM items WHERE kind = ? "
            "ORDER BY cosine DESC, path, part LIMIT ?",
            (_blob(vector), kind, most),
        )
        return [Found(*row) for row in rows]

    def background(self, vector: Vector, kind: Kind, scale: float) -> float:
        """log mean exp(scale · cosine) over all items of a kind."""
        [[mean]] = self._all(
            "SELECT avg(exp(-? * vec_distance_cosine(vector, ?))) FROM items WHERE kind = ?",
            (scale, _blob(vector), kind),
        )
        return scale + math.log(max(mean, 1e-300))

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


def _nothing() -> None:
    """Making the tables takes a moment; nobody is told that it is waited for."""


def _blob(vector: Vector) -> bytes:
    return np.ascontiguousarray(vector, np.float32).tobytes()
