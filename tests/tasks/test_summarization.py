"""Summaries of texts of any length, and the sentences they rest on."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium import pipeline
from sensorium.errors import DataError
from sensorium.tasks._links import LEAST, _common, links

ROOT = Path(__file__).parents[1]
SENTENCES = ["Anna lives in paris.", "The cat runs over the river.", "The yellow dog is in the sea!"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build = runpy.run_path(str(ROOT / "goldens" / "transformers_4_writers.py"))["build"]
    made: Path = build("BartForConditionalGeneration", tmp_path_factory.mktemp("writer"))
    return made


def test_a_long_text_is_read_to_its_end_in_stretches_of_whole_sentences(folder: Path) -> None:
    run = pipeline("summarization", folder, max_length=8, num_beams=1)
    text = " ".join(SENTENCES * 20)
    manner = run.manner(run.task, {"max_length": 8}, False, False)
    stretches = run._stretches(text, manner)
    assert " ".join(stretches) == text
    assert all(run.fits(stretch, manner) for stretch in stretches)
    assert max(map(len, stretches)) < 2 * min(map(len, stretches))
    assert all(stretch.endswith((".", "!")) for stretch in stretches)
    assert len(run(text)) == 1


def test_a_document_gives_its_summary_its_sections_and_links(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("# The cat\n\n" + " ".join(SENTENCES * 6) + "\n\n```\ncode\n```\n", encoding="utf-8")
    summary = pipeline("summarization", folder, max_length=8, num_beams=1).document(path)
    assert len(summary.sections) > 1
    assert "code" not in summary.source  # of the block
    assert summary.source.startswith("The cat\nAnna lives")
    for sentence in summary.sentences:
        assert summary.text[sentence["start"] : sentence["end"]] == sentence["text"]
    summary.save(tmp_path / "summary.txt")
    assert (tmp_path / "summary.txt").read_text("utf-8") == summary.text + "\n"


def test_a_document_without_text_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.md").write_text("```\ncode\n```\n")
    with pytest.raises(DataError, match="is empty"):
        pipeline("summarization", folder).document(tmp_path / "empty.md")


def test_links_are_asked_for(folder: Path) -> None:
    run = pipeline("summarization", folder, max_length=8, num_beams=1)
    [plain], [linked] = run(SENTENCES[0]), run(SENTENCES[0], links=True)
    assert set(plain) == {"summary_text"}
    assert plain["summary_text"] == linked["summary_text"]
    assert set(linked["sentences"][0]) == {"text", "start", "end", "sources"}


def test_a_summary_s_sentences_find_what_they_rest_on() -> None:
    source = "It rained all day. The old dog slept in the kitchen. A cat came in. 北京今天很热。明天会下雨。"
    found = links("The dog slept in the kitchen. 明天下雨。 Nobody flew to Mars.", source)
    assert [[source[one["start"] : one["end"]] for one in sentence["sources"]] for sentence in found] == [  # type: ignore[attr-defined]
        ["The old dog slept in the kitchen."], ["明天会下雨。"], [],
    ]  # fmt: skip
    assert found[0]["sources"][0]["score"] == 1.0  # type: ignore[index]
    assert found[1]["sources"][0]["score"] == 1.0  # type: ignore[index]


@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=8))
def test_the_score_is_that_of_rouge_score(a: list[str], b: list[str]) -> None:
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
    scores = rouge_scorer.RougeScorer(["rougeL"]).score(" ".join(a), " ".join(b))["rougeL"]
    assert _common(a, b) / max(len(a), 1) == pytest.approx(scores.recall)


def test_a_sentence_is_linked_only_where_enough_of_it_is_there() -> None:
    words = "one two three four five six seven eight nine ten"
    assert links(words, "one two zebra zebra.")[0]["sources"] == []
    [link] = links(words, "one two three and more.")[0]["sources"]  # type: ignore[misc]
    assert link["score"] == pytest.approx(LEAST)
