"""Public data in its published form becomes the records that objectives and evaluations read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from sensorium.data.corpora import read_corpus
from sensorium.data.corpora.published import SLOTS
from sensorium.errors import DataError, UsageError

SHARED = Path(__file__).parents[4] / "shared" / "data"


def turn(text: str, requested: list[str] | None, **spans: tuple[int, int]) -> dict[str, Any]:
    labels = [
        {"slot": slot, "valueSpan": {"endIndex": end} if start == 0 else {"startIndex": start, "endIndex": end}}
        for slot, (start, end) in spans.items()
    ]
    return {"userInput": {"text": text}, "labels": labels} | (
        {} if requested is None else {"context": {"requestedSlots": requested}}
    )


def test_spans_move_with_what_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "turns.json.gz"
    turns = [
        turn("13", ["people"], people=(0, 2)),
        turn("Ann Li", ["first_name", "last_name", "last_name"], first_name=(0, 3), last_name=(4, 6)),
        turn("hello", None),
    ]  # fmt: skip
    path.write_bytes(gzip.compress(json.dumps(turns).encode()))
    records = read_corpus(f"restaurant8k:{path}")
    assert [record["text"] for record in records] == ["people: 13", "first name, last name: Ann Li", "hello"]
    values = [[record["text"][e["start"] : e["end"]] for e in record["entities"]] for record in records]
    assert values == [["13"], ["Ann", "Li"], []]


def test_lines_of_two_files_are_pairs(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("A dog.\n\nA cat.\nA cow.\n")
    (tmp_path / "a.de").write_text("Ein Hund.\nnichts\n Eine Katze. \n\n")
    assert read_corpus(f"lines:{tmp_path}/a.{{en,de}}") == [
        {"text": "A dog.", "target": "Ein Hund."},
        {"text": "A cat.", "target": "Eine Katze."},
    ]
    assert read_corpus(f"lines:{tmp_path}/a.{{de,en}}")[1] == {"text": "Eine Katze.", "target": "A cat."}
    (tmp_path / "a.de").write_text("Ein Hund.\n")
    with pytest.raises(DataError, match="4 lines beside 1; they must agree"):
        read_corpus(f"lines:{tmp_path}/a.{{en,de}}")
    with pytest.raises(UsageError, match=r"written as folder/train\.\{en,de\}\.gz"):
        read_corpus(f"lines:{tmp_path}/a.en")


def test_an_abstract_is_joined_and_keeps_all_its_summaries(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"source": ["We do this.", "It works."], "target": ["It works.", "This works."]}))
    [record] = read_corpus(f"scitldr:{path}")
    assert record == {"text": "We do this. It works.", "target": "It works.", "targets": ("It works.", "This works.")}
    path.write_text(json.dumps({"source": "We do this.", "target": []}))
    with pytest.raises(DataError, match=r"a\.jsonl:1: not a record of SciTLDR"):
        read_corpus(f"scitldr:{path}")


@pytest.mark.parametrize(
    "content", ["{}x", "5", '[{"userInput": {}}]', '[{"userInput": {"text": ""}, "labels": [{"slot": "time"}]}]', "[3]"]
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "turns.json").write_text(content)
    with pytest.raises(DataError, match=r"turns\.json: not a file of Restaurant8k"):
        read_corpus(f"restaurant8k:{tmp_path / 'turns.json'}")


def test_a_corpus_that_needs_a_file_and_one_that_takes_none_say_so() -> None:
    with pytest.raises(UsageError, match="corpus:restaurant8k:path/to/file"):
        read_corpus("restaurant8k")
    with pytest.raises(UsageError, match="wikipedia is one thing; leave out ':x'"):
        read_corpus("wikipedia:x")


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the public data is not at {SHARED}")
def test_the_public_data_has_as_many_records_as_are_published() -> None:
    for name, count in (("train_0", 8198), ("test", 3731)):
        records = read_corpus(f"restaurant8k:{SHARED}/restaurant8k/{name}.json.gz")
        assert len(records) == count
        assert {entity["entity_group"] for record in records for entity in record["entities"]} == set(SLOTS)
    for part, count in (("train", 29_000), ("val", 1014), ("test_2016_flickr", 1000)):
        assert len(read_corpus(f"lines:{SHARED}/multi30k/{part}.{{en,de}}.gz")) == count
    assert len(read_corpus(f"scitldr:{SHARED}/scitldr/dev.jsonl.gz")) == 619
