"""The loop learns, stops when it should, and says what went wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sensorium import pipeline
from sensorium.errors import TrainingError
from sensorium.objectives._base import Loss, weighted
from sensorium.objectives.sequence import SequenceClassification
from sensorium.storage import read_tensors
from sensorium.train.optim import MasterAdamW
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe
from tests.train.conftest import write_recipe


def trained(path: Path, *overrides: str) -> list[dict[str, Any]]:
    outcome = run_recipe(read_recipe(path, overrides), quiet=True)
    assert outcome.finished
    return [json.loads(line) for line in outcome.log.read_text().splitlines()]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_classifier_learns_and_its_checkpoint_answers(recipe_path: Path, precision: str) -> None:
    log = trained(recipe_path, f"train.precision={precision}", "train.epochs=15")
    validation = [record for record in log if record["kind"] == "validation"]
    assert validation[-1]["accuracy"] > 0.9
    classifier = pipeline("text-classification", recipe_path.parent / "model")
    assert classifier("The room was dirty. The staff was rude.")[0]["label"] == "bad"
    assert classifier("The bed was lovely. The staff was kind.")[0]["label"] == "good"


@pytest.mark.parametrize(
    ("kind", "family", "tokenizer"),
    [
        ("masked_token", "bert", "wordpiece"),
        ("causal", "gpt2", "byte_level_bpe"),
        ("masked_token", "distilbert", "wordpiece"),
    ],
)
def test_every_pretraining_objective_learns(tmp_path: Path, kind: str, family: str, tokenizer: str) -> None:
    path = write_recipe(tmp_path, kind=kind)
    log = trained(path, f"model.family={family}", f"tokenizer.train={tokenizer}", "train.epochs=8")
    losses = [record["loss"] for record in log if record["kind"] == "train"]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_accumulation_makes_the_update_of_the_whole_batch(tmp_path: Path) -> None:
    results = []
    for name, settings in (("one", ["train.batch_size=8"]), ("four", ["train.batch_size=2", "train.accumulation=4"])):
        (tmp_path / name).mkdir()
        path = write_recipe(tmp_path / name)
        common = ["train.batch_tokens=100000", "train.steps=1", "train.dropout=0.0", "train.attention_dropout=0.0"]
        log = trained(path, *common, *settings, "train.precision=fp32", "objective.head_dropout=0.0", "data.limit=8",
                      "data.validation_share=0.0")  # fmt: skip
        results.append(log[0])
    assert results[0]["loss"] == pytest.approx(results[1]["loss"], rel=1e-4)
    assert results[0]["gradient_norm"] == pytest.approx(results[1]["gradient_norm"], rel=1e-3)


def test_losses_are_divided_by_the_items_of_the_whole_update() -> None:
    parts = [{"a": Loss(torch.tensor(6.0), 2, 0)}, {"a": Loss(torch.tensor(2.0), 6, 0)}]
    assert sum(float(weighted(part, {"a": 8})) for part in parts) == 1.0


def test_a_nan_stops_the_run_and_names_the_batch(recipe_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = SequenceClassification.losses
    calls = 0

    def poisoned(self: Any, model: Any, batch: Any) -> dict[str, Loss]:
        nonlocal calls
        calls += 1
        losses = original(self, model, batch)
        return (
            {name: Loss(loss.total * float("nan"), loss.count, 0) for name, loss in losses.items()}
            if calls == 3
            else losses
        )

    monkeypatch.setattr(SequenceClassification, "losses", poisoned)
    with pytest.raises(TrainingError, match=r"sequence loss is nan at step 3 \(epoch 0, batch 2\)"):
        run_recipe(read_recipe(recipe_path, ["train.validate_every=1000"]), quiet=True)
    assert not (recipe_path.parent / "model").exists()


def test_an_infinite_gradient_stops_the_run_before_it_reaches_the_weights(
    recipe_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = MasterAdamW.accumulate

    def poisoned(self: Any) -> None:
        original(self)
        next(iter(self.gradients.values())).view(-1)[0] = float("inf")

    monkeypatch.setattr(MasterAdamW, "accumulate", poisoned)
    with pytest.raises(TrainingError, match=r"the norm of the gradient is inf at step 1 \(epoch 0, batch 0\)"):
        run_recipe(read_recipe(recipe_path), quiet=True)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_frozen_weights_come_out_as_they_went_in(tmp_path: Path, precision: str) -> None:
    paths = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        paths.append(write_recipe(tmp_path / name))
    trained(paths[0], "train.epochs=1")
    source = f"model.open={tmp_path}/first/model"
    trained(paths[1], source, "train.epochs=1", "train.freeze=['stem.*']", f"train.precision={precision}")
    before, after = (read_tensors(path.parent / "model") for path in paths)
    frozen = [name for name in before if ".embeddings." in name]
    assert len(frozen) == 5
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert not torch.equal(before["classifier.weight"], after["classifier.weight"])


def test_words_are_tagged_after_training(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, kind="token")
    names, places = ["Anna", "Bob", "Clara"], ["Bonn", "Rome", "Oslo", "Bern"]
    rows = [
        {"tokens": [names[i % 3], "lives", "in", places[i % 4], "."], "tags": ["PER", "O", "O", "LOC", "O"]}
        for i in range(120)
    ]
    (tmp_path / "words.jsonl").write_text("\n".join(map(json.dumps, rows)))
    log = trained(path, f"data.train={tmp_path}/words.jsonl", "train.epochs=12", "train.learning_rate=1e-2")
    assert log[-1]["accuracy"] == 1.0
    found = pipeline("token-classification", tmp_path / "model")("Clara lives in Rome .", ignore_labels=["O"])
    assert {entity["entity"] for entity in found} == {"PER", "LOC"}


def test_answers_are_found_after_training(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, kind="span")
    rows = []
    for i in range(240):
        context = f"{'The staff was kind. ' * (i % 2)}The key is {chr(97 + i % 26)}{chr(97 + i % 11)} today."
        answer = context.split(" key is ")[1].split()[0]
        rows.append({"question": "Which key?", "context": context, "answer": answer,
                     "answer_start": context.index(f" {answer} ") + 1})  # fmt: skip
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    log = trained(path, f"data.train={tmp_path}/questions.jsonl", "train.epochs=8", "train.learning_rate=1e-2",
                  "objective.max_length=32")  # fmt: skip
    assert log[-1]["accuracy"] > 0.9


def test_patience_stops_early_and_keeps_the_best_weights(recipe_path: Path) -> None:
    # A rate so high that the first validations are the best ones.
    log = trained(
        recipe_path, "train.patience=2", "train.epochs=60", "train.learning_rate=0.05", "train.validate_every=2"
    )
    scores = [record["loss"] for record in log if record["kind"] == "validation"]
    assert scores.index(min(scores)) == len(scores) - 3
    assert log[-1]["step"] < 60 * 8


def test_tensorboard_gets_the_same_numbers(recipe_path: Path) -> None:
    pytest.importorskip("tensorboard")
    trained(recipe_path, "train.tensorboard=true", "train.epochs=1")
    assert list((recipe_path.parent / "model.training" / "tensorboard").glob("events*"))
