"""`sensorium evaluate` measures what the pipeline answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sensorium import pipeline

ROWS = [("the room is clean", "good"), ("noisy all night", "bad"), ("很好", "good"), ("the bill was wrong", "bad")] * 5


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twenty labelled rows, under names of their own."""
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(["review,verdict", *(f"{text} {i},{label}" for i, (text, label) in enumerate(ROWS))]))
    return path


COLUMNS = ["--text", "review", "--label", "verdict"]


def test_accuracy_is_that_of_the_answers(call: Any, tiny_hub: Path, data: Path) -> None:
    answer = call(
        "evaluate", "text-classification", "--model", tiny_hub / "reviews", "--data", data, *COLUMNS, "--json"
    )
    assert answer.status == 0, answer.err
    [evaluation] = json.loads(answer.out)["evaluations"]
    classify = pipeline("text-classification", model=tiny_hub / "reviews")
    answers = classify([f"{text} {i}" for i, (text, _) in enumerate(ROWS)])
    hits = sum(answer["label"] == label for answer, (_, label) in zip(answers, ROWS, strict=True))
    assert evaluation["metrics"]["accuracy"]["value"] == pytest.approx(hits / len(ROWS))
    assert evaluation["provenance"]["num_items"] == len(ROWS)


def test_a_model_against_itself_shows_no_difference(call: Any, tiny_hub: Path, data: Path) -> None:
    model = tiny_hub / "reviews"
    answer = call("evaluate", "text-classification", "--model", model, "--data", data, *COLUMNS, "--compare", model)
    assert answer.status == 0, answer.err
    assert "Accuracy" in answer.out
    assert "no difference shown" in answer.out


def test_the_page_and_the_evidence_are_written(call: Any, tiny_hub: Path, data: Path, tmp_path: Path) -> None:
    import shutil

    model = shutil.copytree(tiny_hub / "reviews", tmp_path / "reviews")
    arguments = ["--model", model, "--data", data, *COLUMNS, "--train", data]
    answer = call("evaluate", "text-classification", *arguments, "--report", tmp_path / "page.html", "--evidence")
    assert answer.status == 0, answer.err
    assert "<html" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert json.loads((model / "evidence.json").read_text())["evaluations"][0]["leakage"]["exact"] == len(ROWS)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["text-classifikation"], "did you mean 'text-classification'?"),
        (["text-classification"], "no column 'text'"),
        (["question-answering", "--text", "review"], "no text in its column 'question'"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    arguments: list[str], sentence: str, call: Any, tiny_hub: Path, data: Path
) -> None:
    model = tiny_hub / "distilbert-base-cased-distilled-squad"
    answer = call("evaluate", *arguments, "--model", model, "--data", data)
    assert answer.status == 2
    assert sentence in answer.err
    assert answer.err.count("\n") == 1


def test_a_model_without_a_classifier_is_refused(call: Any, tiny_hub: Path, data: Path) -> None:
    answer = call("evaluate", "text-classification", "--model", tiny_hub / "gpt2", "--data", data, *COLUMNS)
    assert (answer.status, "no sequence classifier" in answer.err) == (2, True)


def test_a_decoder_is_measured_with_and_without_examples(call: Any, tiny_hub: Path, data: Path) -> None:
    arguments = ["--model", tiny_hub / "gpt2", "--data", data, "--train", data, *COLUMNS, "--shots", "0,1"]
    answer = call("evaluate", "few-shot", *arguments, "--prompt", "{text} :", "--json")
    assert answer.status == 0, answer.err
    found = json.loads(answer.out)
    assert [one["model"].rpartition(", ")[2] for one in found["evaluations"]] == ["0-shot", "1-shot"]
    assert {one["metric"] for one in found["comparisons"]} == {"accuracy", "accuracy_norm"}
    shown = call("evaluate", "few-shot", *arguments)
    assert "Accuracy, by length" in shown.out
    for wrong, sentence in (
        (["few-shot", "--shots", "a"], "--shots is 'a'"),
        (["text-classification"], "few-shot, not"),
    ):
        answer = call(
            "evaluate",
            *wrong,
            "--model",
            tiny_hub / "gpt2",
            "--data",
            data,
            *COLUMNS,
            *(["--shots", "1"] if len(wrong) == 1 else []),
        )
        assert answer.status == 2
        assert sentence in answer.err


@pytest.mark.parametrize("task", ["translation", "translation_en_to_de", "summarization", "text2text-generation"])
def test_what_a_model_writes_is_measured(task: str, call: Any, tiny_hub: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [{"text": f"a room number {n}", "target": f"ein Raum Nummer {n}"} for n in range(4)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    answer = call("evaluate", task, "--model", tiny_hub / "translator", "--data", path, "--train", path, "--json")
    assert answer.status == 0, answer.err
    [evaluation] = json.loads(answer.out)["evaluations"]
    assert evaluation["provenance"]["num_items"] == 4
    memory = next(one for one in evaluation["baselines"] if "nearest" in one["name"])
    best = 100 if task.startswith("translation") else 1
    assert memory["metrics"][evaluation["headline"]]["value"] == pytest.approx(best)
