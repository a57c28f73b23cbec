"""A server's store: tables of a PostgreSQL database, whose vectors pgvector compares."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString

from sensorium.errors import UsageError, missing_extra
from sensorium.search.store import Entry, Found, Kind, Stamp, Vector

# Text is compared byte by byte, as SQLite does, so that both stores break ties alike. MAIN: vectors stay in their rows,
# where a scan of all of them finds them.
SCHEMA = """
CREATE TABLE sensorium_settings (name text PRIMARY KEY, value text NOT NULL);
CREATE TABLE sensorium_files (
    path text COLLATE "C" PRIMARY KEY, size bigint NOT NULL, modified bigint NOT NULL, problem text
);
CREATE TABLE sensorium_items (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    path text COLLATE "C" NOT NULL REFERENCES sensorium_files (path) ON DELETE CASCADE,
    kind text NOT NULL,
    part integer NOT NULL,
    text text NOT NULL,
    vector vector NOT NULL
);
ALTER TABLE sensorium_items ALTER COLUMN vector SET STORAGE MAIN;
CREATE INDEX sensorium_items_by_path ON sensorium_items (path);
COMMENT ON TABLE sensorium_files IS 'Sensorium index, version 1';
"""
VERSION = "Sensorium index, version 1"
CONNECT_SECONDS = 10
LEAST_EXPONENT = -700.0
"""Below it, PostgreSQL's exp is an error."""


class PostgresStore:
    """A database, or the schema of one that comes first in its search path; others may read it while one writes."""

    def __init__(self, address: str, *, create: bool = False) -> None:
        """``address``: a libpq URI. Raises ``UsageError`` where there is no server, no pgvector, or no index, unless it
        may be created.
        """
        try:
            import psycopg
        except ImportError as error:
            raise missing_extra("psycopg", "postgres") from error
        self._error = psycopg.Error
        self.place = "the address of the database"
        with self._sentences():
            known = psycopg.conninfo.conninfo_to_dict(address)
            self.place = f"postgresql://{known.get('host', '')}/{known.get('dbname', '')}"  # without the password
            self._connection = psycopg.connect(address, autocommit=True, connect_timeout=CONNECT_SECONDS)
        try:
            with self._sentences():
                self._open(create)
        except BaseException:
            self._connection.close()
            raise

    def _open(self, create: bool) -> None:
        """Find the tables, or make them: of two that would, the second waits for the first."""
        with self._connection.transaction():
            if create:
                self._all("SELECT pg_advisory_xact_lock(hashtext('sensorium index: tables'))")
            [[found]] = self._all("SELECT to_regclass('sensorium_files')::oid")
            if found is None and not create:
                raise UsageError(f"{self.place}: there is no index; make one with: sensorium index FOLDER --store …")
            if found is None:
                self._extend()
                self._find_type()
                self._connection.execute(SCHEMA)
        self._find_type()
        [[version]] = self._all("SELECT obj_description('sensorium_files'::regclass, 'pg_class')")
        if version != VERSION:
            raise UsageError(f"{self.place}: holds {version!r}, and this reads {VERSION!r}; use another database")

    def _extend(self) -> None:
        import psycopg.errors as said

        try:
            with self._connection.transaction():
                self._connection.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
        except (said.FeatureNotSupported, said.UndefinedFile, said.InsufficientPrivilege) as error:
            raise UsageError(
                f"{self.place}: the server has no pgvector for this database ({_first_line(error)}); install it there, "
                "and let its administrator say: CREATE EXTENSION vector"
            ) from error

    def _find_type(self) -> None:
        """The search path may be the index's schema alone, and pgvector lie in another."""
        self._all(
            "SELECT set_config('search_path', concat_ws(', ', nullif(current_setting('search_path'), ''), "
            "quote_ident(nspname)), false) FROM pg_extension JOIN pg_namespace ON extnamespace = pg_namespace.oid "
            "WHERE extname = 'vector'"
        )

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            raise UsageError(f"{self.place}: {_first_line(error)}") from error

    def _all(self, statement: LiteralString, values: Sequence[Any] = ()) -> list[Any]:
        return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def _together(self) -> Iterator[Any]:
        """A cursor whose statements are kept all, or none."""
        with self._sentences(), self._connection.transaction(), self._connection.cursor() as cursor:
            yield cursor

    @contextmanager
    def writing(self, waits: Callable[[], None]) -> Iterator[None]:
        """A lock of the session, on this index's tables: the server lets go of it when the connection ends."""
        lock = "'sensorium_files'::regclass::oid::bigint"
        with self._sentences():
            [[alone]] = self._all(f"SELECT pg_try_advisory_lock({lock})")
            if not alone:
                waits()
                self._all(f"SELECT pg_advisory_lock({lock})")
        try:
            yield
        finally:
            if not self._connection.closed:
                with self._sentences():
                    self._all(f"SELECT pg_advisory_unlock({lock})")

    def settings(self) -> dict[str, str]:
        """What was noted about the index; empty for a new one."""
        with self._sentences():
            return dict(self._all("SELECT name, value FROM sensorium_settings"))

    def note(self, settings: Mapping[str, str]) -> None:
        """Note it, in place of what was noted under the same names."""
        with self._together() as cursor:
            cursor.executemany(
                "INSERT INTO sensorium_settings VALUES (%s, %s) "
                "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                [(name, _storable(value)) for name, value in settings.items()],
            )

    def stamps(self) -> dict[str, Stamp]:
        """Every file that was read, by its path."""
        with self._sentences():
            rows = self._all("SELECT path, size, modified FROM sensorium_files")
        return {path: Stamp(size, at) for path, size, at in rows}

    def put(self, entries: Iterable[Entry]) -> None:
        """Files in place of what was known of them, all together."""
        with self._together() as cursor:
            some = list(entries)
            cursor.executemany("DELETE FROM sensorium_files WHERE path = %s", [(entry.path,) for entry in some])
            cursor.executemany(
                "INSERT INTO sensorium_files VALUES (%s, %s, %s, %s)",
                [(e.path, e.stamp.size, e.stamp.modified, e.problem and _storable(e.problem)) for e in some],
            )
            cursor.executemany(
                "INSERT INTO sensorium_items (path, kind, part, text, vector) VALUES (%s, %s, %s, %s, %s)",
                [(e.path, i.kind, i.part, _storable(i.text), _written(i.vector)) for e in some for i in e.items],
            )

    def remove(self, paths: Iterable[str]) -> None:
        """Forget files, all together."""
        with self._together() as cursor:
            cursor.executemany("DELETE FROM sensorium_files WHERE path = %s", [(path,) for path in paths])

    def clear(self) -> None:
        """Forget everything."""
        with self._together() as cursor:
            for table in ("sensorium_items", "sensorium_files", "sensorium_settings"):
                cursor.execute(f"DELETE FROM {table}")

    def problems(self) -> dict[str, str]:
        """Files that could not be read, and why."""
        with self._sentences():
            return dict(self._all("SELECT path, problem FROM sensorium_files WHERE problem IS NOT NULL ORDER BY path"))

    def count(self, kind: Kind) -> int:
        """Items of a kind."""
        with self._sentences():
            [[count]] = self._all("SELECT count(*) FROM sensorium_items WHERE kind = %s", (kind,))
        return int(count)

    def nearest(self, vector: Vector, kind: Kind, most: int) -> list[Found]:
        """The items of a kind whose vectors are most alike to ``vector`` [P], exactly, the most alike first."""
        with self._sentences():
            rows = self._all(
                "SELECT path, kind, part, text, 1 - (vector <=> %s::vector) AS cosine FROM sensorium_items "
                "WHERE kind = %s ORDER BY cosine DESC, path, part LIMIT %s",
                (_written(vector), kind, most),
            )
        return [Found(*row) for row in rows]

    def background(self, vector: Vector, kind: Kind, scale: float) -> float:
        """log mean exp(scale · cosine) over all items of a kind."""
        with self._sentences():
            [[mean]] = self._all(
                "SELECT avg(exp(greatest(-%s::float8 * (vector <=> %s::vector), %s::float8))) FROM sensorium_items "
                "WHERE kind = %s",
                (scale, _written(vector), LEAST_EXPONENT, kind),
            )
        return scale + math.log(mean)

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()


def _written(vector: Vector) -> str:
    """As pgvector reads it; each number comes back to the same bits."""
    return "[" + ",".join(map(repr, vector.tolist())) + "]"


def _storable(text: str) -> str:
    """PostgreSQL's text holds no NUL."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
