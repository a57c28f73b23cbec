"""Keep an index up to date with a folder: read what is new or changed, forget what is gone, list what can't be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sensorium.errors import DataError, UsageError
from sensorium.search.folder import File, changed, files_of, parts_of
from sensorium.search.store import Entry, Item, Store
from sensorium.tasks.matching import ImageTextVectors

TOGETHER = 64
"""Files that are read, and kept, at a time."""
PROBE = "something to be found"
"""A text whose vector says whether an index was made by this model."""
NEAR = 1e-2
"""Vectors of one model in another precision, or on another processor, are nearer than this."""


@dataclass(frozen=True)
class Report:
    """What became of a folder's files."""

    read: int
    unchanged: int
    forgotten: int
    problems: dict[str, str]
    """Files that could not be read, and why; whether now or before."""


def update_index(
    folder: Path, store: Store, vectors: ImageTextVectors, *, progress: Callable[[int, int], None] | None = None
) -> Report:
    """Bring an index up to date with a folder. What was put is kept if it is interrupted; then call it again.

    ``progress`` is told how many files are done, of how many. Raises ``UsageError`` where another model made the index.
    """
    folder = folder.resolve()
    files = {file.path: file for file in files_of(folder)}
    check_model(store, vectors)
    store.note({"folder": str(folder), "model": str(vectors.checkpoint.folder), "probe": _probe(vectors)})
    todo, gone = changed(files, store.stamps())
    store.remove(gone)
    done = 0
    for first in range(0, len(todo), TOGETHER):
        some = todo[first : first + TOGETHER]
        store.put(list(_entries(folder, some, vectors)))
        done += len(some)
        if progress is not None:
            progress(done, len(todo))
    return Report(len(todo), len(files) - len(todo), len(gone), store.problems())


def check_model(store: Store, vectors: ImageTextVectors) -> None:
    """Raise ``UsageError`` where an index was made by another model: its vectors mean something else."""
    noted = store.settings()
    if "probe" not in noted:
        return
    theirs, ours = (np.array([float(x) for x in probe.split()]) for probe in (noted["probe"], _probe(vectors)))
    if theirs.shape != ours.shape or np.abs(theirs - ours).max() > NEAR:
        raise UsageError(
            f"the index was made with {noted.get('model')}, whose vectors {vectors.checkpoint.folder} does not share; "
            "use that model, or index anew with --anew"
        )


def _probe(vectors: ImageTextVectors) -> str:
    return " ".join(f"{x:.5f}" for x in vectors.texts([PROBE])[0])


def _entries(folder: Path, files: Sequence[File], vectors: ImageTextVectors) -> Iterator[Entry]:
    """Some files, read together: one that is broken costs the others nothing."""
    images, pixels = [], []
    for file in files:
        try:
            if file.kind == "image":
                pixels.append(vectors.pixels(folder / file.path, 1))
                images.append(file)
            else:
                yield _text_entry(folder, file, vectors)
        except (DataError, OSError) as error:
            yield Entry(file.path, file.stamp, problem=_said(error, folder / file.path))
    if images:
        for file, vector in zip(images, vectors.pixels_as_vectors(pixels), strict=True):
            yield Entry(file.path, file.stamp, [Item("image", vector)])


def _text_entry(folder: Path, file: File, vectors: ImageTextVectors) -> Entry:
    parts = parts_of(folder / file.path)
    found = vectors.texts([text for _, text in parts])
    items = [Item("text", vector, line, text) for (line, text), vector in zip(parts, found, strict=True)]
    return Entry(file.path, file.stamp, items)


def _said(error: Exception, path: Path) -> str:
    """What an error says beside the file's name."""
    return str(error).removeprefix(f"{path}: ")
