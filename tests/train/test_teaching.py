"""Students of every kind learn from a teacher, from a recipe; a teacher that does not fit is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensorium.checkpoint import open_checkpoint
from sensorium.errors import UsageError
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe
from tests.train.conftest import write_recipe
from tests.train.test_new_models import log_of, write_translator

SMALLER = ["model.num_layers=1", "model.hidden_size=8", "model.num_heads=1"]


def teach(path: Path, settings: list[str]) -> list[float]:
    """Train a teacher, then a student; how far they were apart at each step."""
    run_recipe(read_recipe(path, [*settings, f"train.output={path.parent}/teacher"]), quiet=True)
    kept = path.read_text().partition("[tokenizer]")
    path.write_text(kept[0] + "[data]" + kept[2].partition("[data]")[2])  # no tokenizer: the teacher's
    taught = [f"distillation.teacher={path.parent}/teacher", "distillation.temperature=1.5", *SMALLER]
    run_recipe(read_recipe(path, [*(s for s in settings if "tokenizer" not in s), *taught]), quiet=True)
    return [record["distillation"] for record in log_of(path) if record["kind"] == "train"]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("sequence", ["train.epochs=10"]),
        ("causal", ["model.family=llama", "tokenizer.train=byte_level_bpe", "train.epochs=5", "train.precision=fp32"]),
    ],
)
def test_a_student_comes_nearer_to_its_teacher(tmp_path: Path, kind: str, settings: list[str]) -> None:
    apart = teach(write_recipe(tmp_path, kind=kind), settings)
    assert sum(apart[-5:]) < 0.8 * sum(apart[:5])
    student, teacher = (open_checkpoint(tmp_path / name) for name in ("model", "teacher"))
    assert student.require_tokenizer().backend.to_str() == teacher.require_tokenizer().backend.to_str()


def test_a_small_translator_learns_from_a_larger_one(tmp_path: Path) -> None:
    apart = teach(write_translator(tmp_path), ["train.epochs=8"])
    assert sum(apart[-5:]) < 0.8 * sum(apart[:5])


def test_a_teacher_that_does_not_fit_is_named(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    run_recipe(read_recipe(path, ["train.steps=1", f"train.output={tmp_path}/teacher"]), quiet=True)
    taught = f"distillation.teacher={tmp_path}/teacher"
    with pytest.raises(UsageError, match="has another vocabulary; leave .tokenizer. out"):
        run_recipe(read_recipe(path, [taught, "tokenizer.lowercase=false"]), quiet=True)
    same = f"tokenizer.open={tmp_path}/teacher"
    causal = ["objective.kind=causal", "model.family=gpt2"]
    with pytest.raises(UsageError, match="a teacher needs a language-model head"):
        run_recipe(read_recipe(path, [taught, same, *causal]), quiet=True)
    (tmp_path / "data.csv").write_text("text,label\nThe room,fair\nThe bed,good\n" * 6)
    with pytest.raises(UsageError, match="tells bad, good apart, the data fair, good"):
        run_recipe(read_recipe(path, [taught, same]), quiet=True)
    with pytest.raises(UsageError, match="distillation: it is for sequence, .*not for 'masked_token'"):
        read_recipe(path, [taught, "objective.kind=masked_token"])
