"""What is validated on is cut into the pieces that a user's text is, whatever training leaves out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sensorium.errors import UsageError
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe
from tests.train.test_new_models import write_translator

# So low a rate that the model stays what it was: scores then differ by the data alone.
STILL = ["train.steps=1", "train.learning_rate=1e-12", "train.precision=fp32"]


def losses(path: Path, name: str, *settings: str) -> dict[str, float]:
    run_recipe(read_recipe(path, [*STILL, *settings, f"train.output={path.parent / name}"]), quiet=True)
    lines = (path.parent / f"{name}.training" / "train.jsonl").read_text().splitlines()
    return {record["kind"]: record["loss"] for record in map(json.loads, lines)}


def test_merges_are_left_out_while_training_only(tmp_path: Path) -> None:
    path = write_translator(tmp_path)
    plain = losses(path, "plain")
    teacher = [f"distillation.teacher={tmp_path / 'plain'}", "distillation.share=0.5"]
    taught = losses(path, "taught", *teacher)
    for name, settings, expected in (("alone", [], plain), ("both", teacher, taught)):
        found = losses(path, name, *settings, "objective.bpe_dropout=0.5")
        assert found["validation"] == pytest.approx(expected["validation"], rel=1e-6)
        assert found["train"] != pytest.approx(expected["train"], rel=1e-4)


def test_a_recipe_without_merges_is_refused(tmp_path: Path) -> None:
    path = write_translator(tmp_path)
    with pytest.raises(UsageError, match="bpe_dropout needs a tokenizer with merges, this one is Unigram"):
        losses(path, "unigram", "tokenizer.train=unigram", "tokenizer.vocabulary_size=320", "objective.bpe_dropout=0.1")
