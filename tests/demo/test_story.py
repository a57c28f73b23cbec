"""The demo, made small, from the packages it reads to the report."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from sensorium import pipeline
from sensorium.data.records import read_records
from sensorium.data.splits import overlap
from sensorium.demo import material, run_demo, story
from sensorium.demo.chapters import Chapters
from sensorium.demo.material import Sizes, descriptions, gather, strings
from sensorium.demo.pictures import ASKED, DRAWN, FOUND
from sensorium.demo.runs import train
from sensorium.errors import DataError, UsageError, missing_extra

SMALL = Sizes(
    english=60, chinese=60, reviews=200, topics=300, pretraining_steps=4, pretraining_tokens=1024, hidden_size=48,
    vocabulary_size=1500, strings=200, descriptions=200, written=8, translator_steps=4, summariser_steps=4,
    writer_hidden_size=64, icons=60, icons_found=20, icon_epochs=1, looking_hidden_size=48, shapes=60, questions=40,
    codec_steps=3, drawing_steps=3, drawing_hidden_size=32,
)  # fmt: skip
JUPYTER = "jupyterlab-language-pack-zh-CN"
needs_strings = pytest.mark.skipif(
    find_spec("jupyterlab_language_pack_zh_CN") is None, reason=f"{JUPYTER} is not installed"
)
NOTES = "# Notes\n\nOpen the `notebook.ipynb` file. Then *run* it.\n\n```\nrun()\n```\n"


@needs_strings
def test_the_whole_story_is_told_and_told_again_without_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes, output = tmp_path / "notes.md", tmp_path / "out"
    notes.write_text(NOTES)
    report = run_demo(output, document=notes, sizes=SMALL)
    page = report.read_text("utf-8")
    said = capsys.readouterr().out
    assert page.startswith("<!doctype html>")
    for name in (
        "own-reviews",
        "minilm-reviews",
        "minilm-topics",
        "translator",
        "summariser",
        "icon-search",
        "codec",
        "drawer",
    ):
        assert name in page
        assert name in said
        assert (output / name / "EVIDENCE.md").is_file()
    assert "kept from an earlier demo" not in said
    pictures = (output / "pictures.html").read_text("utf-8")
    assert pictures.count("<img") == 6 * FOUND + 6 * DRAWN + 2 * ASKED
    assert "a red rectangle" in pictures
    assert pipeline("text-classification", output / "own-reviews")("好")[0]["label"] in ("positive", "negative")
    assert (output / "notes.zh.md").read_text("utf-8").endswith("```\nrun()\n```\n")
    assert (output / "notes.summary.txt").is_file()

    weights = {path: path.read_bytes() for path in output.glob("*/model.safetensors")}
    shutil.rmtree(output / "translator")  # as if it had been interrupted
    asked = iter(["Open a zyzzyva", str(notes), ""])
    run_demo(output, text="Save all", ask=lambda question: next(asked), sizes=SMALL)
    said = capsys.readouterr().out
    assert said.count("kept from an earlier demo") == 8
    assert "zyzzyva" in said.partition("never saw in training")[2]
    assert {path: path.read_bytes() for path in output.glob("*/model.safetensors")} == weights


def test_a_model_is_trained_anew_when_its_settings_data_or_first_weights_changed(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(f'{{"text": "word {n}", "target": "word"}}\n' for n in range(9)))
    first = train(tables(tmp_path), quiet=True)
    assert not first.kept
    again = train(tables(tmp_path), quiet=True)
    assert again.kept
    assert again.outcome == first.outcome
    assert not train(tables(tmp_path, learning_rate=1e-4), quiet=True).kept
    assert train(tables(tmp_path, learning_rate=1e-4), quiet=True).kept
    assert not train(tables(tmp_path, learning_rate=1e-4), start=first, quiet=True).kept
    data.write_text(data.read_text() + '{"text": "one more", "target": "word"}\n')
    assert not train(tables(tmp_path, learning_rate=1e-4), start=first, quiet=True).kept


def tables(folder: Path, *, learning_rate: float = 1e-3) -> dict[str, Any]:
    return {
        "model": {"family": "marian", "hidden_size": 16, "num_layers": 1, "num_heads": 1},
        "tokenizer": {"train": "bpe", "vocabulary_size": 301},
        "data": {"train": str(folder / "data.jsonl")},
        "objective": {"kind": "seq2seq"},
        "train": {"output": str(folder / "model"), "steps": 1, "batch_size": 4, "learning_rate": learning_rate},
    }


def test_the_translator_is_left_out_with_a_sentence_where_its_strings_are_not_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(which: str) -> None:
        raise missing_extra(JUPYTER, "demo")

    monkeypatch.setattr(material, "jupyter_strings", missing)
    told = story.tell_of_writers(Chapters(quiet=False), tmp_path, SMALL, quiet=True)
    assert [writer.task for writer in told] == ["summarization"]
    assert f"left out: {JUPYTER} is not installed; install it with: pip install" in capsys.readouterr().out


def test_a_text_and_a_document_or_a_document_that_is_not_there_are_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(UsageError, match="a text and a document were both given; choose one"):
        run_demo(tmp_path / "out", text="a", document="b.md")
    with pytest.raises(DataError, match="nowhere.md"):
        run_demo(tmp_path / "out", document=tmp_path / "nowhere.md")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="holds something else than a demo"):
        run_demo(tmp_path, sizes=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_no_test_text_was_seen_in_training(tmp_path: Path) -> None:
    found = gather(tmp_path, Sizes())
    trained, test = read_records(found.reviews_train), read_records(found.reviews_test)
    seen = overlap(
        [record["text"] for record in [*trained, *read_records(found.pretraining)]],
        [record["text"] for record in test],
    )
    assert len(test) > 1000
    assert not seen.exact
    assert not seen.near


@needs_strings
def test_no_text_that_is_written_for_was_seen_in_training(tmp_path: Path) -> None:
    for pairs in (strings(tmp_path, Sizes()), descriptions(tmp_path, Sizes())):
        trained, test = read_records(pairs.train), read_records(pairs.test)
        assert (len(trained), len(test)) == (pairs.num_train, pairs.num_test)
        assert len(trained) > 2000
        assert len(test) > 100
        seen = overlap([record["text"] for record in trained], [record["text"] for record in test])
        assert not seen.exact
        assert not seen.near
