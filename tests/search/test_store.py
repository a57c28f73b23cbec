"""Stores, embedded and on a server: exact, whole files or nothing; and no other database is taken for an index."""

from __future__ import annotations

import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sensorium.errors import UsageError
from sensorium.search.store import Entry, Item, Kind, Stamp, Store, open_store


@pytest.fixture
def store(place: str) -> Iterator[Store]:
    opened = open_store(place, create=True)
    yield opened
    opened.close()


def some(count: int, size: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def entry(path: str, *vectors: np.ndarray, kind: Kind = "image") -> Entry:
    return Entry(path, Stamp(len(path), 1), [Item(kind, v, i, f"part {i}") for i, v in enumerate(vectors)])


@given(
    count=st.integers(1, 60), size=st.integers(1, 40), most=st.integers(1, 70), seed=st.integers(0, 99),
    scale=st.floats(0.1, 100.0),
)  # fmt: skip
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_finds_what_numpy_finds(store: Store, count: int, size: int, most: int, seed: int, scale: float) -> None:
    store.clear()
    vectors, [query] = some(count, size, seed), some(1, size, seed + 100)
    store.put(entry(f"{i:03}.png", vector) for i, vector in enumerate(vectors))
    store.put([entry("text.txt", *some(3, size, seed + 200), kind="text")])
    cosines = vectors.astype(np.float64) @ query
    found = store.nearest(query, "image", most)
    assert [one.cosine for one in found] == pytest.approx(sorted(cosines, reverse=True)[:most], abs=1e-5)
    assert all(abs(cosines[int(one.path[:3])] - one.cosine) < 1e-5 for one in found)
    expected = np.log(np.mean(np.exp(scale * cosines)))
    assert store.background(query, "image", scale) == pytest.approx(expected, abs=1e-3 + 1e-4 * scale)
    assert (store.count("image"), store.count("text")) == (count, 3)


def test_a_file_takes_the_place_of_what_was_known_of_it(store: Store) -> None:
    first, second, third = some(3, 4, 0)
    store.put([entry("a", first, second), entry("b", third)])
    store.put([Entry("a", Stamp(9, 9), [Item("image", third)])])
    assert store.count("image") == 2
    assert store.stamps() == {"a": Stamp(9, 9), "b": Stamp(1, 1)}
    store.put([Entry("b", Stamp(1, 2), problem="is broken")])
    assert store.count("image") == 1
    assert store.problems() == {"b": "is broken"}
    store.remove(["a", "not there"])
    assert store.count("image") == 0
    assert store.stamps() == {"b": Stamp(1, 2)}
    store.clear()
    assert store.stamps() == store.settings() == {}


def test_files_are_put_together_or_not_at_all(store: Store) -> None:
    [vector] = some(1, 4, 0)

    def failing() -> object:
        yield entry("a", vector)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.put(failing())  # type: ignore[arg-type]
    assert store.stamps() == {}
    assert store.count("image") == 0


def test_an_index_is_there_when_it_is_opened_again(place: str) -> None:
    store = open_store(place, create=True)
    [vector] = some(1, 4, 0)
    store.put([entry("a", vector)])
    store.note({"model": "m", "folder": "f"})
    store.note({"model": "n"})
    reader = open_store(place)  # while the first has it open
    assert reader.settings() == {"model": "n", "folder": "f"}
    assert [one.path for one in reader.nearest(vector, "image", 5)] == ["a"]
    store.close()
    reader.close()


def test_both_stores_give_the_same_answers(tmp_path: Path, database: Callable[[], str]) -> None:
    stores = [open_store(tmp_path / "index", create=True), open_store(database(), create=True)]
    vectors, [query] = some(9, 5, 0), some(1, 5, 1)
    names = ["Ü.png", "a/b.png", "a.png", "B.png", "b.png", "一.png", "a b.png", "'.png", "%s.png"]
    text = 'two\nlines, "quoted", \\ and {braces}'
    found = []
    for store in stores:
        store.put([entry(name, vectors[0], vectors[i]) for i, name in enumerate(names)])
        store.put([Entry("t", Stamp(2**40, 2**62), [Item("text", vectors[1], 7, text)])])
        nearest = store.nearest(query, "image", 99) + store.nearest(query, "text", 99)
        found.append([(one.path, one.kind, one.part, one.text, round(one.cosine, 5)) for one in nearest])
        assert store.stamps()["t"] == Stamp(2**40, 2**62)
        store.close()
    assert found[0] == found[1]
    assert found[0][-1][3] == text


def test_an_indexer_waits_for_another_and_for_none_that_is_gone(place: str) -> None:
    first, second = open_store(place, create=True), open_store(place, create=True)
    told, begun = threading.Event(), []

    def other() -> None:
        with second.writing(told.set):
            begun.append("second")

    thread = threading.Thread(target=other)
    with first.writing(lambda: pytest.fail("there is no other")):
        thread.start()
        assert told.wait(20)
        begun.append("first")
    thread.join(20)
    assert begun == ["first", "second"]
    with first.writing(lambda: pytest.fail("the other is done")):
        first.close()  # as if its process had ended; a file's lock ends with it, too
    second.close()


def test_of_many_that_make_an_index_at_once_all_find_it_made(place: str) -> None:
    opened, failed = [], []

    def make() -> None:
        try:
            opened.append(open_store(place, create=True))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []
    for store in opened:
        store.close()


def test_an_index_on_a_server_is_refused_in_a_sentence(
    server: str, database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    with pytest.raises(UsageError, match="^postgresql://.*/postgres: there is no index; make one with: sensorium"):
        open_store(database())
    with pytest.raises(UsageError, match="the address of the database: .*nonsense"):
        open_store("postgresql://a/b?nonsense=1")
    with pytest.raises(UsageError, match=r"^postgresql:///nowhere/b: connection is bad[^\n]*$") as refused:
        open_store("postgresql:///b?host=/nowhere&password=hush")
    assert "hush" not in str(refused.value)
    address = database()
    open_store(address, create=True).close()
    with psycopg.connect(address) as connection:
        connection.execute("COMMENT ON TABLE sensorium_files IS 'Sensorium index, version 7'")
    with pytest.raises(UsageError, match="holds 'Sensorium index, version 7', and this reads .*; use another database"):
        open_store(address)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE bare")
        connection.execute("CREATE ROLE guest LOGIN")
    bare = server.replace("/postgres?", "/bare?").replace("user=tester", "user=guest")
    with pytest.raises(UsageError, match="no pgvector for this database .*let its administrator say: CREATE EXTENSION"):
        open_store(bare, create=True)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UsageError, match=r"psycopg is not installed; install it with: pip install 'sensorium\[postg"):
        open_store(address)


def test_a_server_that_goes_away_is_said(database: Callable[[], str], server: str) -> None:
    import psycopg

    store = open_store(database(), create=True)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    with pytest.raises(UsageError, match=r"^postgresql://[^\n]*$"):
        store.put([entry("a", *some(1, 3, 0))])
    store.close()


def test_what_is_no_index_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none: there is no index; make one with: sensorium index FOLDER"):
        open_store(tmp_path / "none")
    (tmp_path / "notes").write_text(
        "This is no database, but it is long enough to be looked at as if it were one. " * 9
    )
    with pytest.raises(UsageError, match=r"notes: is no index that can be read \("):
        open_store(tmp_path / "notes", create=True)
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE items (id INTEGER)")
    other.close()
    with pytest.raises(UsageError, match="other: is a database, and no index of Sensorium's"):
        open_store(tmp_path / "other", create=True)
    store = open_store(tmp_path / "newer", create=True)
    store.close()
    newer = sqlite3.connect(tmp_path / "newer")
    newer.execute("PRAGMA user_version = 7")
    newer.close()
    with pytest.raises(UsageError, match="is an index of version 7, and this reads 1; index anew"):
        open_store(tmp_path / "newer")
