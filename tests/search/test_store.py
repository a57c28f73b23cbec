"""The embedded store: exact, whole files or nothing, and no other database is taken for an index."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.errors import UsageError
from sensorium.search.store import Entry, Item, Kind, Stamp, Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "deep" / "index.sqlite", create=True)


def some(count: int, size: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def entry(path: str, *vectors: np.ndarray, kind: Kind = "image") -> Entry:
    return Entry(path, Stamp(len(path), 1), [Item(kind, v, i, f"part {i}") for i, v in enumerate(vectors)])


@given(
    count=st.integers(1, 60), size=st.integers(1, 40), most=st.integers(1, 70), seed=st.integers(0, 99),
    scale=st.floats(0.1, 100.0),
)  # fmt: skip
@settings(max_examples=25)
def test_it_finds_what_numpy_finds(
    tmp_path_factory: pytest.TempPathFactory, count: int, size: int, most: int, seed: int, scale: float
) -> None:
    store = open_store(tmp_path_factory.mktemp("store") / "index", create=True)
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
    store.close()


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


def test_an_index_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    store = open_store(tmp_path / "index", create=True)
    [vector] = some(1, 4, 0)
    store.put([entry("a", vector)])
    store.note({"model": "m", "folder": "f"})
    store.note({"model": "n"})
    reader = open_store(tmp_path / "index")  # while the first has it open
    assert reader.settings() == {"model": "n", "folder": "f"}
    assert [one.path for one in reader.nearest(vector, "image", 5)] == ["a"]
    store.close()
    reader.close()


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
