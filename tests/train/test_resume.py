"""A run that is killed goes on bit for bit; one that is asked to stop saves first."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from sensorium.data.records import read_records
from sensorium.errors import TrainingError
from sensorium.storage import read_tensors
from sensorium.text_training import train_wordpiece
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe
from sensorium.train.state import Position, load_state, save_state
from tests.train.conftest import write_recipe

# A run that kills itself, without a chance to tidy up, once it has made so many updates.
KILLED = """
import os, signal, sys
from sensorium.train import loop
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe
path, step, resume, precision, when = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "1", sys.argv[4], sys.argv[5]
original = getattr(loop.Trainer, when)
def killing(self, *arguments):
    result = original(self, *arguments)
    if self.position.step == step:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(loop.Trainer, when, killing)
settings = ["train.precision=" + precision, "train.average_from=0.5", *sys.argv[6:]]
run_recipe(read_recipe(path, settings), resume=resume, quiet=True)
"""


def run(path: Path, step: int, *, resume: bool, precision: str, when: str) -> int:
    # Learning a vocabulary orders equally frequent tokens by chance: both runs open the same one.
    tokenizer = f"tokenizer.open={path.parent.parent / 'tokenizer'}"
    command = [sys.executable, "-c", KILLED, str(path), str(step), str(int(resume)), precision, when, tokenizer]
    return subprocess.run(command, capture_output=True, timeout=120).returncode


def log_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path.parent / "model.training" / "train.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("kind", "sentences", "precision", "kills"),
    [
        ("sequence", "none", "fp32", [(5, "_step"), (13, "_save")]),
        ("masked_token", "next", "bf16", [(3, "_save"), (11, "_step")]),
    ],
)
def test_after_kill_9_the_loss_curve_goes_on_bit_for_bit(
    tmp_path: Path, kind: str, sentences: str, precision: str, kills: list[tuple[int, str]]
) -> None:
    for name in ("whole", "killed", "tokenizer"):
        (tmp_path / name).mkdir()
    whole = write_recipe(tmp_path / "whole", kind=kind, sentences=sentences)
    killed = write_recipe(tmp_path / "killed", kind=kind, sentences=sentences)
    texts = [record["text"] for record in read_records(whole.parent / "data.csv")]
    train_wordpiece(texts, 400).save(tmp_path / "tokenizer")
    assert run(whole, -1, resume=False, precision=precision, when="_step") == 0
    for number, (step, when) in enumerate(kills):
        assert run(killed, step, resume=number > 0, precision=precision, when=when) == -signal.SIGKILL
        assert not (killed.parent / "model").exists()
    assert run(killed, -1, resume=True, precision=precision, when="_step") == 0
    assert log_of(killed) == log_of(whole)
    ours, theirs = read_tensors(killed.parent / "model"), read_tensors(whole.parent / "model")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


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
