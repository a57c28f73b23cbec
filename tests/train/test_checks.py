"""What cannot work is said before the first step."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensorium.errors import SensoriumError
from sensorium.text.training import train_wordpiece
from sensorium.train.recipe import Recipe, read_recipe
from sensorium.train.run import run_recipe
from tests.train.conftest import write_recipe


@pytest.mark.parametrize(
    ("kind", "setting", "message"),
    [
        ("causal", "train.epochs=1", "a bert model cannot be trained for this objective; it has no place for a lang"),
        ("sequence", "objective.max_length=500", "max_length is 500; this model reads at most 128 tokens"),
        ("sequence", "tokenizer.open={folder}/large", r"tokenizer has \d+ tokens, the model's table \d+ rows"),
        ("sequence", "train.output={folder}", "holds something else than a checkpoint"),
        ("sequence", "train.output=.", "'.' is no name for a new folder"),
        ("sequence", "data.validation={folder}/other.csv", r"/other\.csv: record 1 has the label 'odd'"),
        ("sequence", "train.freeze=['*']", "leave no parameter to learn"),
        ("sequence", "train.freeze=['stems.*']", "'stems.*' matches no parameter"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, tiny_hub: Path, kind: str, setting: str, message: str) -> None:
    path = write_recipe(tmp_path, kind=kind)
    (tmp_path / "large").mkdir()
    (tmp_path / "other.csv").write_text("text,label\nhello,odd\n")
    train_wordpiece(["".join(map(chr, range(0x4E00, 0x5200)))], 1500).save(tmp_path / "large")
    with pytest.raises(SensoriumError, match=message):
        run_recipe(opening(tiny_hub / "bert-base-uncased", path, setting.format(folder=tmp_path)), quiet=True)
    assert not (tmp_path / "model").exists()


def test_a_head_that_the_family_cannot_save_is_named_before_training(tmp_path: Path, tiny_hub: Path) -> None:
    path = write_recipe(tmp_path, kind="masked_token", sentences="next")
    with pytest.raises(SensoriumError, match="a DistilBERT has no segments, no pooler"):
        run_recipe(opening(tiny_hub / "distilbert-base-cased-distilled-squad", path), quiet=True)
    assert not (tmp_path / "model.training" / "train.jsonl").exists()


def opening(model: Path, path: Path, *overrides: str) -> Recipe:
    """The recipe, on a model that is there, with its own tokenizer unless an override brings one."""
    recipe = read_recipe(path, [f"model.open={model}", *overrides])
    return recipe.model_copy(update={"tokenizer": recipe.tokenizer.model_copy(update={"train": None})})
