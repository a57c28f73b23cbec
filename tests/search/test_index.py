"""An index follows its folder: what is new, changed or gone; and one bad file costs the others nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
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
from tests.image.test_opening import KINDS, WRONG, bomb
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


def test_every_kind_of_image_is_there_and_every_broken_one_is_listed(
    tmp_path: Path, store: Store, vectors: ImageTextVectors
) -> None:
    place = tmp_path / "all"
    place.mkdir()
    for number, (make, _) in enumerate([*KINDS.values(), *WRONG.values()]):
        (place / f"{number:02}.png").write_bytes(make())
    report = update_index(place, store, vectors)
    assert store.count("image") == len(KINDS)
    assert len(report.problems) == len(WRONG)
    for number, (_, said) in enumerate(WRONG.values(), len(KINDS)):
        assert any(word in report.problems[f"{number:02}.png"] for word in said.replace("\\", "").split("|"))


def test_three_bad_files_among_thousands_are_skipped_listed_and_counted(
    tmp_path: Path, vectors: ImageTextVectors
) -> None:
    place, count = tmp_path / "many", 2_000
    square(tmp_path / "good.png", (200, 0, 0))
    good = (tmp_path / "good.png").read_bytes()
    bad = {500: (good[: len(good) // 2], "is damaged"), 1000: (b"text", "is no image"), 1999: (bomb(), "pixels")}
    for number in range(count):
        inner = place / f"{number // 500}"
        inner.mkdir(parents=True, exist_ok=True)
        (inner / f"{number:04}.png").write_bytes(bad[number][0] if number in bad else good)
    store = open_store(tmp_path / "index", create=True)
    update_index(tmp_path / "many" / "0", open_store(tmp_path / "warm", create=True), vectors)
    handles, memory = len(os.listdir("/proc/self/fd")), resident()
    report = update_index(place, store, vectors)
    assert (report.read, report.unchanged, store.count("image")) == (count, 0, count - 3)
    assert set(report.problems) == {f"{number // 500}/{number:04}.png" for number in bad}
    for number, (_, said) in bad.items():
        assert said in report.problems[f"{number // 500}/{number:04}.png"]
    assert len(os.listdir("/proc/self/fd")) == handles
    assert resident() - memory < 64 * 2**20
    assert update_index(place, store, vectors) == Report(0, count, 0, report.problems)
    store.close()


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_two_indexers_at_once_lose_nothing(
    folder: Path, place: str, vectors: ImageTextVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOGETHER", 1)
    begun, waits = threading.Event(), threading.Event()
    reports: dict[str, Report] = {}

    def run(name: str, progress: Callable[[int, int], object]) -> None:
        store = open_store(place, create=True)
        reports[name] = update_index(folder, store, vectors, progress=progress, waits=waits.set)
        store.close()

    def first_goes_on_when_the_second_waits(done: int, total: int) -> None:
        begun.set()
        assert waits.wait(60)

    first = threading.Thread(target=run, args=("first", first_goes_on_when_the_second_waits))
    second = threading.Thread(target=run, args=("second", lambda done, total: None))
    first.start()
    assert begun.wait(60)
    second.start()
    first.join(60)
    second.join(60)
    assert reports == {"first": Report(5, 0, 0, {}), "second": Report(0, 5, 0, {})}
    store = open_store(place)
    assert (len(store.stamps()), store.count("image"), store.count("text")) == (5, 4, 2)
    store.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from sensorium.checkpoint import open_checkpoint
from sensorium.search import index, open_store, update_index
from sensorium.tasks.matching import ImageTextVectors
index.TOGETHER = 2
store = open_store(sys.argv[2], create=True)
put = store.put
def killed(entries):
    def some():
        for number, entry in enumerate(entries):
            if len(store.stamps()) >= 2 and number == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            yield entry
    put(some())
store.put = killed
update_index(Path(sys.argv[1]), store, ImageTextVectors(open_checkpoint(sys.argv[3])))
"""


def test_an_indexer_that_was_killed_leaves_whole_files_and_no_lock(
    folder: Path, place: str, vectors: ImageTextVectors
) -> None:
    command = [sys.executable, "-c", KILLED, str(folder), place, str(vectors.checkpoint.folder)]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    store = open_store(place)
    assert set(store.stamps()) == {"blue.png", "green.png"}  # and nothing of the next two
    assert (store.count("image"), store.count("text")) == (2, 0)
    report = update_index(folder, store, vectors, waits=lambda: pytest.fail("the one that was killed holds a lock"))
    assert (report.read, report.unchanged) == (3, 2)
    assert (store.count("image"), store.count("text")) == (4, 2)
    store.close()


def test_another_folder_does_not_take_the_place_of_the_first_but_a_moved_one_is_gone_on_with(
    folder: Path, tmp_path: Path, store: Store, vectors: ImageTextVectors
) -> None:
    update_index(folder, store, vectors)
    other = tmp_path / "others"
    other.mkdir()
    square(other / "red.png", (1, 2, 3))
    with pytest.raises(UsageError, match=f"the index is that of {folder}; name another one with --store, or .* --anew"):
        update_index(other, store, vectors)
    assert len(store.stamps()) == 5
    moved = folder.rename(tmp_path / "moved")
    assert update_index(moved, store, vectors) == Report(0, 5, 0, {})
    moved.rename(tmp_path / "away")
    (other / "red.png").rename(other / "unknown.png")
    with pytest.raises(UsageError, match="the index is that of"):  # it holds none of the files
        update_index(other, store, vectors)
    assert update_index(other, store, vectors, anew=True) == Report(1, 0, 0, {})
    assert set(store.stamps()) == {"unknown.png"}


def test_names_that_are_no_text_are_listed_and_pipes_are_left_alone(
    folder: Path, store: Store, vectors: ImageTextVectors
) -> None:
    os.mkfifo(folder / "pipe.png")
    with open(os.fsencode(folder) + b"/\xff.png", "wb") as file:
        file.write((folder / "red.png").read_bytes())
    (folder / "nul.txt").write_text("a\0b")
    report = update_index(folder, store, vectors)
    assert report.problems == {"\\xff.png": "its name is not UTF-8; rename it"}
    assert (report.read, store.count("image"), store.count("text")) == (7, 4, 3)
    assert update_index(folder, store, vectors).unchanged == 7


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
