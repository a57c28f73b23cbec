"""Keep an index up to date with a folder: read what is new or changed, forget what is gone, list what can't be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

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
    folder: Path,
    store: Store,
    vectors: ImageTextVectors,
    *,
    anew: bool = False,
    progress: Callable[[int, int], None] | None = None,
    waits: Callable[[], None] | None = None,
) -> Report:
    """Bring an index up to date with a folder. What was put is kept if it is interrupted; then call it again.

    ``anew`` forgets all that was there before. Where another process is indexing into the store, ``waits`` is called,
    and this one begins when that one is done. ``progress`` is told how many files are done, of how many. Raises
    ``UsageError`` where another model made the index, or where it is another folder's.
    """
    folder = folder.resolve()
    with store.writing(waits or _nobody):
        if anew:
            store.clear()
        check_model(store, vectors)
        known = store.stamps()
        todo, gone, same = changed(files_of(folder), known)
        _check_folder(store, folder, lost=bool(known) and len(gone) == len(known))
        store.note({"folder": str(folder), "model": str(vectors.checkpoint.folder), "probe": _probe(vectors)})
        store.remove(gone)
        done = 0
        for entries in _read(folder, todo, vectors):
            store.put(entries)
            done += len(entries)
            if progress is not None:
                progress(done, len(todo))
        return Report(len(todo), same, len(gone), store.problems())


def _nobody() -> None:
    """Nobody is told that another process is waited for."""


def _check_folder(store: Store, folder: Path, *, lost: bool) -> None:
    """Raise ``UsageError`` where an index is another folder's, whose files would all be forgotten.

    A folder that was moved may be gone on with: the old one is no more, and the files are those that were known
    (``lost`` says that none of them is).
    """
    noted = store.settings().get("folder", str(folder))
    if noted != str(folder) and (lost or Path(noted).is_dir()):
        raise UsageError(f"the index is that of {noted}; name another one with --store, or index anew with --anew")


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


def _read(folder: Path, files: Sequence[File], vectors: ImageTextVectors) -> Iterator[list[Entry]]:
    """What files hold, so many together; images are decoded ahead, side by side."""
    opened = vectors.opened(folder / file.path for file in files if _is_image(file))
    for first in range(0, len(files), TOGETHER):
        yield list(_entries(folder, files[first : first + TOGETHER], opened, vectors))


def _is_image(file: File) -> bool:
    return file.kind == "image" and file.problem is None


def _entries(
    folder: Path, files: Sequence[File], opened: Iterator[Tensor | DataError], vectors: ImageTextVectors
) -> Iterator[Entry]:
    """Some files, together: one that is broken costs the others nothing. ``opened`` has their images next."""
    images, pixels = [], []
    for file in files:
        if file.problem is not None:
            yield Entry(file.path, file.stamp, problem=file.problem)
        elif file.kind == "text":
            yield _text_entry(folder, file, vectors)
        elif isinstance(image := next(opened), DataError):
            yield Entry(file.path, file.stamp, problem=_said(image, folder / file.path))
        else:
            images.append(file)
            pixels.append(image)
    if images:
        for file, vector in zip(images, vectors.pixels_as_vectors(pixels), strict=True):
            yield Entry(file.path, file.stamp, [Item("image", vector)])


def _text_entry(folder: Path, file: File, vectors: ImageTextVectors) -> Entry:
    try:
        parts = parts_of(folder / file.path)
    except DataError as error:
        return Entry(file.path, file.stamp, problem=_said(error, folder / file.path))
    found = vectors.texts([text for _, text in parts])
    items = [Item("text", vector, line, text) for (line, text), vector in zip(parts, found, strict=True)]
    return Entry(file.path, file.stamp, items)


def _said(error: Exception, path: Path) -> str:
    """What an error says beside the file's name."""
    return str(error).removeprefix(f"{path}: ")
