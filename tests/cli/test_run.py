"""`sensorium run` gives the answers of the pipeline, from arguments, files and pipes."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sensorium import open_checkpoint, pipeline, save_checkpoint
from sensorium.cli.run import as_inputs

TEXTS = ["The room was clean.", "很好"]


def answers(output: str) -> list[Any]:
    return [json.loads(line) for line in output.splitlines()]


def assert_close(one: Any, other: Any) -> None:
    """Equal but for what batching does to the last digits."""
    for a, b in zip(one, other, strict=True):
        assert a["label"] == b["label"]
        assert a["score"] == pytest.approx(b["score"], abs=1e-6)


def test_texts_as_arguments(call: Any, tiny_hub: Path) -> None:
    expected = pipeline("text-classification", model=tiny_hub / "reviews")(TEXTS)
    shown = call("run", "text-classification", "--model", tiny_hub / "reviews", "--json", *TEXTS)
    assert_close(answers(shown.out), expected)


def test_texts_from_a_file(call: Any, tiny_hub: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text("text\n" + "\n".join(TEXTS), encoding="utf-8")
    expected = pipeline("text-classification", model=tiny_hub / "reviews")(TEXTS)
    arguments = ["--model", tiny_hub / "reviews", "--json", "--file", tmp_path / "texts.csv"]
    assert_close(answers(call("run", "text-classification", *arguments).out), expected)


def test_texts_from_a_pipe(call: Any, tiny_hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(TEXTS)))
    expected = pipeline("text-classification", model=tiny_hub / "reviews")(TEXTS)
    assert_close(answers(call("run", "text-classification", "--model", tiny_hub / "reviews", "--json").out), expected)


def test_settings_reach_the_task(call: Any, tiny_hub: Path) -> None:
    shown = call("run", "text-classification", "--model", tiny_hub / "reviews", "--set", "top_k=2", TEXTS[0])
    assert {line.split()[1] for line in shown.out.splitlines()} == {"bad", "good"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--set", "top_p=2", "x"], "text-classification has no argument 'top_p'; did you mean 'top_k'?"),
        (["--set", "top_k", "x"], "--set 'top_k' is not of the form key=value"),
        (["--file", "no-such.csv"], "no-such.csv: No such file or directory"),
        (["--file", "some.csv", "a text"], "texts and --file were both given; choose one"),
        ([""], "input 1 is empty"),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments: list[str], sentence: str, call: Any, tiny_hub: Path) -> None:
    answer = call("run", "text-classification", "--model", tiny_hub / "reviews", *arguments)
    assert answer.status == 2
    assert answer.err.startswith(f"sensorium: {sentence}")
    assert answer.err.count("\n") == 1


def test_an_unknown_task_is_one_sentence(call: Any, tiny_hub: Path) -> None:
    answer = call("run", "text-clasification", "--model", tiny_hub / "reviews", "x")
    assert (answer.status, "did you mean 'text-classification'?" in answer.err) == (2, True)


def test_an_argument_the_task_needs_is_asked_for(call: Any, tiny_hub: Path) -> None:
    answer = call("run", "zero-shot-classification", "--model", tiny_hub / "reviews", "x")
    assert (answer.status, "needs --set candidate_labels=…" in answer.err) == (2, True)


@pytest.mark.parametrize(
    ("task", "records", "expected"),
    [
        ("fill-mask", [{"text": "a"}], ["a"]),
        ("text-classification", [{"text": "a", "pair": "b"}], [{"text": "a", "text_pair": "b"}]),
        ("question-answering", [{"text": "c"}], [{"question": "q", "context": "c"}]),
        ("question-answering", [{"question": "r", "context": "c"}], [{"question": "r", "context": "c"}]),
        ("next-sentence-prediction", [{"text": "a"}, {"text": "b"}], [{"text": "a", "text_pair": "b"}]),
        ("next-sentence-prediction", [{"text": "a", "pair": "b"}], [{"text": "a", "text_pair": "b"}]),
        (
            "sentence-similarity",
            [{"text": "a"}, {"text": "b"}, {"text": "c"}],
            [{"source_sentence": "a", "sentences": ["b", "c"]}],
        ),
    ],
)
def test_records_become_what_the_task_takes(task: str, records: list[dict[str, str]], expected: list[Any]) -> None:
    assert list(as_inputs(task, records, question="q")) == expected


def test_a_chat_is_answered(call: Any, tiny_hub: Path, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    checkpoint = open_checkpoint(tiny_hub / "gpt2")
    template = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    save_checkpoint(tmp_path / "chat", checkpoint.model, checkpoint.tokenizer, family="gpt2", chat_template=template)
    own = ["run", "text-generation", "--model", tmp_path / "chat", "--set", "max_new_tokens=3"]
    expected = pipeline("text-generation", tmp_path / "chat", max_new_tokens=3)("user: Hello\n")[0]["generated_text"]
    assert call(*own, "--chat", "Hello").out.rstrip("\n") == expected.removeprefix("user: Hello\n").rstrip("\n")
    (tmp_path / "chats.jsonl").write_text('{"messages": [{"role": "user", "content": "Hello"}]}\n')
    whole = json.loads(call(*own, "--json", "--file", tmp_path / "chats.jsonl").out)
    assert [message["role"] for message in whole[0]["generated_text"]] == ["user", "assistant"]
    refused = call("run", "text-classification", "--model", tiny_hub / "reviews", "--chat", "Hello")
    assert (refused.status, "--chat is for text-generation" in refused.err) == (2, True)


PAGE = "# A heading\n\nSome *text* about `code`.\n\n```\nstays\n```\n"
SHORT = ["--set", "max_new_tokens=5", "--set", "num_beams=2"]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text(PAGE, encoding="utf-8")
    return path


def test_a_document_is_translated_to_a_file(call: Any, tiny_hub: Path, page: Path, tmp_path: Path) -> None:
    output = tmp_path / "page.de.md"
    arguments = ["--model", tiny_hub / "translator", *SHORT, "--document", page]
    answer = call("run", "translation", *arguments, "--output", output)
    assert answer.status == 0, answer.err
    assert (answer.out, "2 sentences; 0 of 0 numbers lost" in answer.err) == ("", True)
    written = output.read_text("utf-8")
    assert written.startswith("# ")
    assert written.endswith("\n\n```\nstays\n```\n")
    assert "`code`" in written
    assert call("run", "translation", *arguments).out == written
    expected = pipeline("translation", tiny_hub / "translator", max_new_tokens=5, num_beams=2).document(page)
    assert expected.text == written


def test_a_document_is_summarised_with_its_links(call: Any, tiny_hub: Path, page: Path) -> None:
    answer = call("run", "summarization", "--model", tiny_hub / "translator", *SHORT, "--document", page, "--json")
    assert answer.status == 0, answer.err
    found = json.loads(answer.out)
    assert set(found) == {"text", "sections", "source", "sentences"}
    assert found["source"] == "A heading\nSome text about code."


@pytest.mark.parametrize(
    ("task", "arguments", "sentence"),
    [
        ("translation", ["--document", "no.md"], "no.md: No such file or directory"),
        ("translation", ["--document", "no.docx"], "no.docx: not a known kind of document"),
        ("translation", ["--document", "no.md", "a text"], "--document and texts or --file were both given"),
        ("translation", ["--output", "x.md", "a text"], "--output is for a --document"),
        ("text2text-generation", ["--document", "no.md"], "text2text-generation takes no document"),
    ],
)
def test_a_document_that_cannot_be_worked_on_is_one_sentence(
    task: str, arguments: list[str], sentence: str, call: Any, tiny_hub: Path
) -> None:
    answer = call("run", task, "--model", tiny_hub / "translator", *arguments)
    assert (answer.status, answer.err.startswith(f"sensorium: {sentence}")) == (2, True), answer.err
