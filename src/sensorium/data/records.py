"""Records from files: text, CSV, TSV, JSON lines, Parquet, each perhaps gzipped, or a folder of them.

A record is a dict with ``text`` (and ``label``, ``pair`` …). Every error names file and line.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sensorium.errors import DataError, missing_extra, nearest

MAX_BYTES = 4 * 2**30
"""Of one file, after unpacking."""
MAX_FIELD = 2**31 - 1
"""Characters of a CSV field (the csv module stops at 131 072 otherwise)."""
CHUNK = 2**20


def read_records(
    source: str | Path,
    *,
    text: str = "text",
    label: str = "label",
    pair: str | None = None,
    target: str | None = None,
    image: str | None = None,
) -> list[dict[str, Any]]:
    """All records of a file or a folder of files, in order of name and line.

    ``text``, ``label``, ``pair``, ``target`` and ``image`` name the columns that become fields of these names; other
    columns keep theirs. An image is a path, from the folder of the file that names it. A ``.txt`` file gives a record a
    line. Raises ``DataError`` for a missing file, broken UTF-8, a missing column, a broken line, an empty file or an
    unknown kind of file.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and _kind(file) in READERS)
        if not files:
            raise DataError(f"{path}: no file of a known kind ({', '.join(READERS)}) in this folder")
    else:
        files = [path]
    asked = {pair: "pair", target: "target", image: "image"}
    names = {text: "text", label: "label", **{name: role for name, role in asked.items() if name is not None}}
    records = [_renamed(row, names, file, number) for file in files for number, row in _read(file)]
    if image is not None:
        folder = path if path.is_dir() else path.parent
        records = [{**record, "image": str(folder / str(record["image"]))} for record in records]
    if not records:
        raise DataError(f"{path}: holds no records")
    return records


def texts_of(record: Mapping[str, Any]) -> list[str]:
    """Everything in a record that a tokenizer can learn from, whatever its objective calls it.

    >>> texts_of({"question": "Who?", "context": "Anna.", "start": 3}), texts_of({"tokens": ["a", "b"], "tags": [0, 1]})
    (['Who?', 'Anna.'], ['a b'])
    """
    texts = [str(record[name]) for name in ("text", "pair", "target", "question", "context") if record.get(name)]
    said = record["messages"] if isinstance(record.get("messages"), list) else []
    texts += [m["content"] for m in said if isinstance(m, Mapping) and isinstance(m.get("content"), str)]
    return [*texts, " ".join(map(str, record["tokens"]))] if record.get("tokens") else texts


def _read(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    kind = _kind(file)
    if kind not in READERS:
        raise DataError(f"{file}: not a known kind of file; known are {', '.join(READERS)}, each perhaps with .gz")
    return READERS[kind](file)


def _kind(file: Path) -> str:
    suffixes = [suffix for suffix in file.suffixes if suffix != ".gz"]
    return suffixes[-1].lower() if suffixes else ""


def _renamed(row: Mapping[str, Any], names: Mapping[str, str], file: Path, number: int) -> dict[str, Any]:
    """The row under the names tasks know; a column that was asked for wins over one that bears its new name."""
    for name, role in names.items():
        if name not in row and not _may_lack(row, name, role):
            raise DataError(
                f"{file}:{number}: no column {name!r}{nearest(name, map(str, row))}; there are "
                + ", ".join(repr(known) for known in row)
            )
    chosen = {names[name]: value for name, value in row.items() if name in names}
    record = {names.get(name, name): value for name, value in row.items() if name in names or name not in chosen}
    for key in {"text", "pair", *names.values()} - {"label"}:
        if key in record:
            _check_text(record[key], key, file, number)
    return record


def _may_lack(row: Mapping[str, Any], name: str, role: str) -> bool:
    """Whether a row may do without a column: labels nobody named, and the text of records that have other fields."""
    return (role == "label" and name == "label") or (
        role == "text" and bool({"tokens", "context", "messages"} & row.keys())
    )


def _check_text(value: object, key: str, file: Path, number: int) -> None:
    if not isinstance(value, str):
        raise DataError(f"{file}:{number}: {key} is {type(value).__name__}, not text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{file}:{number}: {key} holds half of a surrogate pair, which is not Unicode text") from error


# --- kinds -----------------------------------------------------------------------------------------------------------


def read_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of a UTF-8 file, unpacked within bounds. Raises ``DataError``."""
    content = io.BytesIO(read_bytes(file))
    for number, raw in enumerate(content, 1):
        try:
            yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError(f"{file}:{number}: not UTF-8 at byte {error.start + 1} of the line") from error


def read_bytes(file: Path) -> bytes:
    """A file, unpacked where its name ends in ``.gz``, within bounds. Raises ``DataError``."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            parts, size = [], 0
            while part := stream.read(CHUNK):
                size += len(part)
                if size > MAX_BYTES:
                    raise DataError(f"{file}: more than {MAX_BYTES:,} bytes; cut it into several files")
                parts.append(part)
            return b"".join(parts)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{file}: cannot be unpacked: {error}") from error
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}") from error


def _read_text(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in read_lines(file):
        if line.strip():
            yield number, {"text": line.strip()}


def _read_csv(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    lines = "\n".join(line for _, line in read_lines(file))
    reader = csv.reader(io.StringIO(lines, newline=""), strict=True)
    limit = csv.field_size_limit(MAX_FIELD)  # the process's, so it is set back
    try:
        header = _header(next(reader, []), file, 1)
        for row in reader:
            if row:
                yield reader.line_num, _row(header, row, file, reader.line_num)
    except csv.Error as error:
        raise DataError(f"{file}:{reader.line_num}: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _read_tsv(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    header: list[str] | None = None
    for number, line in read_lines(file):
        if not line:
            continue
        row = line.split("\t")
        if header is None:
            header = _header(row, file, number)
        else:
            yield number, _row(header, row, file, number)


def _header(names: list[str], file: Path, number: int) -> list[str]:
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{file}:{number}: two columns are named {name!r}")
    return names


def _row(header: list[str], row: list[str], file: Path, number: int) -> dict[str, str]:
    if len(row) != len(header):
        raise DataError(f"{file}:{number}: {len(row)} fields, the header has {len(header)}")
    return dict(zip(header, row, strict=True))


def read_json_lines(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Numbered JSON objects, one a line."""
    for number, line in read_lines(file):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}:{number}: not valid JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{file}:{number}: expected a JSON object, found {type(row).__name__}")
        yield number, row


def _read_parquet(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "data") from error
    try:
        rows = parquet.read_table(file).to_pylist()
    except (ArrowException, OSError) as error:
        raise DataError(f"{file}: cannot be read as Parquet: {error}") from error
    yield from enumerate(rows, 1)


READERS: dict[str, Callable[[Path], Iterator[tuple[int, Mapping[str, Any]]]]] = {
    ".txt": _read_text,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": read_json_lines,
    ".parquet": _read_parquet,
}
