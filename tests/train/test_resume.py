"""A run that is killed goes on bit for bit; one that is asked to stop saves first."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from sensorium.data.records import read_records, texts_of
from sensorium.errors import TrainingError
from sensorium.storage import read_tensors
from sensorium.text.pieces import train_pieces
from sensorium.text.training import train_byte_level_bpe, train_wordpiece
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe
from sensorium.train.state import Position, load_state, save_state
from tests.train.conftest import write_recipe
from tests.train.test_new_models import write_translator

# A run that kills itself, without a chance to tidy up, once it has made so many updates.
KILLED = """
import os, signal, sys
from sensorium.train import loop
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe
path, step, when, resume = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4] == "1"
original = getattr(loop.Trainer, when)
def killing(self, *arguments):
    result = original(self, *arguments)
    if self.position.step == step:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(loop.Trainer, when, killing)
run_recipe(read_recipe(path, sys.argv[5:]), resume=resume, quiet=True)
"""
NEVER = -1


def run(path: Path, step: int, when: str, settings: list[str], *, resume: bool) -> int:
    # Learning a vocabulary orders equally frequent tokens by chance: both runs open the same one.
    tokenizer = f"tokenizer.open={path.parent.parent / 'tokenizer'}"
    command = [sys.executable, "-c", KILLED, str(path), str(step), when, str(int(resume)), tokenizer, *settings]
    return subprocess.run(command, capture_output=True, timeout=120).returncode


def assert_a_killed_run_ends_as_a_whole_one(whole: Path, killed: Path, settings: list[str], *, seed: str) -> None:
    """Kill a run in the midst of two steps, and between the last state and the checkpoint; it must end as the other."""
    assert run(whole, NEVER, "_step", settings, resume=False) == 0
    assert log_of(whole)[-1]["kind"] == "final_validation"  # of the averaged, or the best, weights
    last = log_of(whole)[-1]["step"]
    first, second = sorted(random.Random(seed).sample(range(2, last), 2))
    for number, (step, when) in enumerate([(first, "_step"), (second, "_step"), (last, "_save")]):
        assert run(killed, step, when, settings, resume=number > 0) == -signal.SIGKILL
        assert not (killed.parent / "model").exists()
    assert run(killed, NEVER, "_step", settings, resume=True) == 0
    assert log_of(killed) == log_of(whole)
    ours, theirs = read_tensors(killed.parent / "model"), read_tensors(whole.parent / "model")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def log_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path.parent / "model.training" / "train.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("kind", "sentences", "settings"),
    [
        ("sequence", "none", ["train.precision=fp32", "train.average_from=0.5", "train.checkpoint_every=3"]),
        ("masked_token", "next", ["train.precision=bf16", "train.patience=3", "train.accumulation=2"]),
    ],
)
def test_after_kill_9_the_loss_curve_goes_on_bit_for_bit(
    tmp_path: Path, kind: str, sentences: str, settings: list[str]
) -> None:
    for name in ("whole", "killed", "tokenizer"):
        (tmp_path / name).mkdir()
    whole = write_recipe(tmp_path / "whole", kind=kind, sentences=sentences)
    killed = write_recipe(tmp_path / "killed", kind=kind, sentences=sentences)
    texts = [record["text"] for record in read_records(whole.parent / "data.csv")]
    train_wordpiece(texts, 400).save(tmp_path / "tokenizer")
    assert_a_killed_run_ends_as_a_whole_one(whole, killed, settings, seed=kind)


def test_a_translator_that_was_killed_goes_on_bit_for_bit(tmp_path: Path) -> None:
    for name in ("whole", "killed", "tokenizer"):
        (tmp_path / name).mkdir()
    whole, killed = write_translator(tmp_path / "whole"), write_translator(tmp_path / "killed")
    texts = [
        text
        for record in read_records(whole.parent / "pairs.jsonl", text="en", target="de")
        for text in texts_of(record)
    ]
    train_pieces(texts, 330).save(tmp_path / "tokenizer")
    settings = ["train.precision=bf16", "train.epochs=3", "train.dropout=0.2", "train.average_from=0.5"]
    settings += ["objective.bpe_dropout=0.2"]
    assert_a_killed_run_ends_as_a_whole_one(whole, killed, [*settings, "train.attention_dropout=0.1"], seed="seq2seq")


@pytest.mark.parametrize("part", ["lora", "distillation"])
def test_what_learns_beside_another_model_goes_on_bit_for_bit(tmp_path: Path, part: str) -> None:
    for name in ("whole", "killed", "tokenizer"):
        (tmp_path / name).mkdir()
    whole, killed = (write_recipe(tmp_path / name, kind="causal") for name in ("whole", "killed"))
    texts = [record["text"] for record in read_records(whole.parent / "data.csv")]
    train_byte_level_bpe(texts, 300).save(tmp_path / "tokenizer")
    family, opened = "model.family=llama", f"tokenizer.open={tmp_path}/tokenizer"
    run_recipe(read_recipe(whole, [family, opened, "train.steps=5", f"train.output={tmp_path}/base"]), quiet=True)
    beside = {"lora": f"model.open={tmp_path}/base", "distillation": f"distillation.teacher={tmp_path}/base"}
    more = ["lora.dropout=0.1", "lora.rank=2", "lora.merge=true"] if part == "lora" else [family, "model.num_layers=1"]
    settings = [beside[part], *more, "train.average_from=0.5", "train.checkpoint_every=2", "train.epochs=2"]
    assert_a_killed_run_ends_as_a_whole_one(whole, killed, settings, seed=part)


def test_a_run_that_ran_out_of_patience_stays_ended(recipe_path: Path) -> None:
    # A rate so high that the first validations are the best ones.
    recipe = read_recipe(
        recipe_path, ["train.patience=1", "train.epochs=60", "train.learning_rate=0.05", "train.validate_every=2"]
    )
    first = run_recipe(recipe, quiet=True)
    again = run_recipe(recipe, resume=True, quiet=True)
    assert again.finished
    assert again.position.step == first.position.step < 60 * 8


def test_a_new_run_over_a_finished_one_keeps_its_own_states(recipe_path: Path) -> None:
    run_recipe(read_recipe(recipe_path), quiet=True)
    run_recipe(read_recipe(recipe_path, ["train.steps=3"]), quiet=True)
    states = (recipe_path.parent / "model.training").glob("state-*")
    assert sorted(state.name for state in states) == ["state-00000002", "state-00000003"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_first_and_the_run_goes_on_from_there(recipe_path: Path, number: signal.Signals) -> None:
    settings = ["train.epochs=2000", "train.checkpoint_every=100000", "train.validate_every=100000"]
    command = [sys.executable, "-m", "sensorium", "train", str(recipe_path), *settings, "--quiet"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = recipe_path.parent / "model.training" / "train.jsonl"
    deadline = time.monotonic() + 60
    while (not log.exists() or not log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "everything is saved" in errors
    assert "--resume" in errors
    kept = recipe_path.parent / "model.training" / "tokenizer" / "tokenizer.json"
    vocabulary = kept.read_bytes()
    resumed = [*command[:5], "train.steps=1", *command[5:], "--resume"]  # another recipe: refused, nothing lost
    assert subprocess.run(resumed, capture_output=True).returncode == 2
    assert kept.read_bytes() == vocabulary
    [state] = (recipe_path.parent / "model.training").glob("state-*")
    assert int(state.name.removeprefix("state-")) == log_of(recipe_path)[-1]["step"] > 0


def test_a_damaged_state_falls_back_to_the_one_before(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_state(tmp_path, Position(step=step), {"w": torch.full((4,), float(step))}, "recipe")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state-00000002", "state-00000003"]
    with (tmp_path / "state-00000003" / "tensors.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    loaded = load_state(tmp_path, "recipe")
    assert loaded is not None
    assert loaded[0].step == 2
    assert loaded[1]["w"].tolist() == [2.0] * 4


def test_a_state_of_another_recipe_is_refused(tmp_path: Path) -> None:
    save_state(tmp_path, Position(step=1), {"w": torch.ones(1)}, "one recipe")
    with pytest.raises(TrainingError, match="belongs to another recipe or other data"):
        load_state(tmp_path, "another")


def test_only_damaged_states_say_what_is_wrong(tmp_path: Path) -> None:
    save_state(tmp_path, Position(step=1), {"w": torch.ones(1)}, "recipe")
    (tmp_path / "state-00000001" / "state.json").write_text("{")
    with pytest.raises(TrainingError, match="no state can be read: .*not valid JSON"):
        load_state(tmp_path, "recipe")


def test_an_interrupted_run_is_not_overwritten_unless_asked(recipe_path: Path) -> None:
    save_state(recipe_path.parent / "model.training", Position(step=1), {"w": torch.ones(1)}, "recipe")
    with pytest.raises(Exception, match="add --resume to go on"):
        run_recipe(read_recipe(recipe_path), quiet=True)
