"""An index follows its folder: what is new, changed or gone; and one bad file costs the others nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sensorium.checkpoint import open_checkpoint
from sensorium.errors import UsageError
from sensorium.search import Report, open_store, update_index
from sensorium.search import index as module
from sensorium.search.folder import parts_of
from sensorium.search.store import Store
from sensorium.tasks.matching import ImageTextVectors
from tests.search.conftest import square


@pytest.fixture
def store(place: str) -> Iterator[Store]:
    opened = open_store(place, create=True)
    yield opened
    opened.close()


def test_a_folder_is_read_once_and_then_what_changed(folder: Path, store: Store, vectors: ImageTextVectors) -> None:
    assert update_index(folder, store, vectors) == Report(5, 0, 0, {})
    assert set(store.stamps()) == {"red.png", "green.png", "blue.png", "more/black.png", "notes.md"}
    assert (store.count("image"), store.count("text")) == (4, 2)
    assert update_index(folder, store, vectors) == Report(0, 5, 0, {})
    (folder / "red.png").unlink()
    square(folder / "blue.png", (0, 0, 99))
    os.utime(folder / "blue.png", ns=(1, 1))
    square(folder / "new.png", (9, 9, 9))
    assert update_index(folder, store, vectors) == Report(2, 3, 1, {})
    assert set(store.stamps()) == {"green.png", "blue.png", "new.png", "more/black.png", "notes.md"}


def test_bad_files_are_listed_and_the_others_are_there(folder: Path, store: Store, vectors: ImageTextVectors) -> None:
    (folder / "cut.png").write_bytes((folder / "red.png").read_bytes()[:60])
    (folder / "lies.png").write_text("I am a text")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "strange.txt").write_bytes(b"\xff\xfe\xff\xff")
    Image.new("RGB", (16, 16)).save(folder / "really_a.jpg", format="PNG")
    report = update_index(folder, store, vectors)
    assert set(report.problems) == {"cut.png", "lies.png", "empty.jpg", "strange.txt"}
    assert "is no image that can be read" in report.problems["lies.png"]
    assert not any(str(folder) in problem for problem in report.problems.values())
    assert store.count("image") == 5
    again = update_index(folder, store, vectors)
    assert (again.read, again.problems) == (0, report.problems)
    square(folder / "cut.png", (1, 2, 3))
    assert set(update_index(folder, store, vectors).problems) == {"lies.png", "empty.jpg", "strange.txt"}


def test_an_index_that_was_interrupted_goes_on(
    folder: Path, store: Store, vectors: ImageTextVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOGETHER", 2)

    def stop(done: int, total: int) -> None:
        assert total == 5
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update_index(folder, store, vectors, progress=stop)
    assert len(store.stamps()) == 2
    seen: list[int] = []
    assert update_index(folder, store, vectors, progress=lambda done, total: seen.append(done)).read == 3
    assert seen == [2, 3]


def test_vectors_do_not_depend_on_what_was_read_together(
    folder: Path, tmp_path: Path, vectors: ImageTextVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for together in (1, 64):
        monkeypatch.setattr(module, "TOGETHER", together)
        store = open_store(tmp_path / f"index{together}", create=True)
        update_index(folder, store, vectors)
        [query] = vectors.texts(["a red square"])
        found.append({one.path: one.cosine for one in store.nearest(query, "image", 9)})
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_another_model_is_refused(folder: Path, store: Store, vectors: ImageTextVectors, tiny_hub: Path) -> None:
    update_index(folder, store, vectors)
    other = ImageTextVectors(open_checkpoint(tiny_hub / "clip"))
    with pytest.raises(UsageError, match="the index was made with .*, whose vectors .* does not share; use that model"):
        update_index(folder, store, other)
    store.clear()
    assert update_index(folder, store, other).read == 5


@pytest.mark.parametrize(("name", "words"), [("vit", "a vit model does not match images"), ("gpt2", "a gpt2 model")])
def test_a_model_without_two_towers_is_refused(tiny_hub: Path, name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ImageTextVectors(open_checkpoint(tiny_hub / name))


def test_links_are_not_followed(folder: Path, tmp_path: Path, store: Store, vectors: ImageTextVectors) -> None:
    square(tmp_path / "secret.png", (0, 0, 0))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "out").symlink_to(tmp_path)
    assert update_index(folder, store, vectors).read == 5


def test_texts_are_parts_with_the_lines_they_begin_on(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n\n\n  three\n\n" + "word " * 300 + "\n\n" + "字" * 700)
    parts: list[tuple[int, Any]] = parts_of(path)
    assert parts[:2] == [(1, "one two"), (5, "three")]
    assert [line for line, _ in parts[2:]] == [7, 7, 7, 9, 9]
    assert max(len(text) for _, text in parts) <= 600
    assert "".join(text for line, text in parts if line == 9) == "字" * 700
    assert " ".join(text for line, text in parts if line == 7) == ("word " * 300).strip()
