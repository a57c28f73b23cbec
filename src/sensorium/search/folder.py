"""What a folder holds: its images and texts, and what has changed since it was looked at last."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sensorium.errors import DataError, UsageError
from sensorium.search.store import Kind, Stamp
from sensorium.storage import read_text

KINDS: dict[str, Kind] = {
    ".png": "image", ".jpg": "image", ".jpeg": "image", ".webp": "image", ".gif": "image", ".bmp": "image",
    ".tif": "image", ".tiff": "image", ".ppm": "image", ".ico": "image", ".avif": "image", ".txt": "text",
    ".md": "text", ".markdown": "text", ".rst": "text",
}  # fmt: skip
"""By the ending of a name. What a file really is, its content says."""
MOST_TEXT = 4 * 2**20
"""Bytes of a text that is read."""
LONGEST_PART = 600
"""Characters of a text that are found together."""


@dataclass(frozen=True, slots=True)
class File:
    """One of a folder's files."""

    path: str
    """From the folder, with ``/``."""
    kind: Kind
    stamp: Stamp
    problem: str | None = None
    """Why it can't even be looked into."""


def files_of(folder: Path) -> Iterator[File]:
    """Images and texts of a folder and those in it, by name; what is hidden, or a link, is left alone.

    Raises ``UsageError`` where there is no folder.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder")
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            kind = KINDS.get(path.suffix.lower())
            if kind is None or name.startswith(".") or path.is_symlink():
                continue
            try:
                status = path.stat()
            except OSError:  # it went away meanwhile
                continue
            if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
                continue
            yield _file(path.relative_to(folder).as_posix(), kind, Stamp(status.st_size, status.st_mtime_ns))


def _file(path: str, kind: Kind, stamp: Stamp) -> File:
    """A name may be any bytes; what is no text can't be stored, and is shown with its bytes written out."""
    shown = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return File(shown, kind, stamp, None if shown == path else "its name is not UTF-8; rename it")


def changed(files: Iterable[File], known: Mapping[str, Stamp]) -> tuple[list[File], list[str], int]:
    """Files to read, as they are new or changed; paths to forget, as they are gone; and how many stay as they are."""
    gone, todo, same = set(known), [], 0
    for file in files:
        gone.discard(file.path)
        if known.get(file.path) == file.stamp:
            same += 1
        else:
            todo.append(file)
    return todo, sorted(gone), same


def parts_of(path: Path) -> list[tuple[int, str]]:
    """The paragraphs of a text, each with the line it begins on; long ones are cut between words.

    Raises ``DataError`` for a text that can't be read.
    """
    text = read_text(path, max_bytes=MOST_TEXT, error=DataError)
    parts: list[tuple[int, str]] = []
    waiting: list[str] = []
    begin = 1
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if line.strip():
            begin = number if not waiting else begin
            waiting.append(line.strip())
        elif waiting:
            parts += [(begin, part) for part in _cut(" ".join(waiting))]
            waiting = []
    return parts


def _cut(text: str) -> Iterator[str]:
    while len(text) > LONGEST_PART:
        end = text.rfind(" ", LONGEST_PART // 2, LONGEST_PART)
        end = LONGEST_PART if end < 0 else end  # Chinese has no spaces
        yield text[:end].strip()
        text = text[end:].strip()
    yield text
