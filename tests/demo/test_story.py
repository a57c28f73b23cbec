"""The demo, made small, from the packages it reads to the report."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sensorium import pipeline
from sensorium.data.records import read_records
from sensorium.data.splits import overlap
from sensorium.demo import run_demo
from sensorium.demo.material import Sizes, gather
from sensorium.errors import UsageError

SMALL = Sizes(
    english=60, chinese=60, reviews=200, topics=300, pretraining_steps=4, pretraining_tokens=1024, hidden_size=48,
    vocabulary_size=1500,
)  # fmt: skip


def test_the_whole_story_can_be_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = run_demo(tmp_path / "out", sizes=SMALL)
    page = report.read_text("utf-8")
    said = capsys.readouterr().out
    assert page.startswith("<!doctype html>")
    for name in ("own-reviews", "minilm-reviews", "minilm-topics"):
        assert name in page
        assert name in said
        assert (tmp_path / "out" / name / "EVIDENCE.md").is_file()
    assert pipeline("text-classification", tmp_path / "out" / "own-reviews")("好")[0]["label"] in (
        "positive",
        "negative",
    )
    shutil.rmtree(tmp_path / "out" / "base")  # as if it had been interrupted: it can be told again, over the first
    run_demo(tmp_path / "out", sizes=SMALL, quiet=True)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="holds something else than a demo"):
        run_demo(tmp_path, sizes=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_no_test_text_was_seen_in_training(tmp_path: Path) -> None:
    material = gather(tmp_path, Sizes())
    train, test = read_records(material.reviews_train), read_records(material.reviews_test)
    seen = overlap(
        [record["text"] for record in [*train, *read_records(material.pretraining)]],
        [record["text"] for record in test],
    )
    assert len(test) > 1000
    assert not seen.exact
    assert not seen.near
