"""`sensorium train` runs a recipe, and says what to do when it cannot or was stopped."""

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

from sensorium import open_checkpoint

RECIPE = """
[model]
open = "{model}"
[data]
train = "{data}"
[objective]
kind = "sequence"
max_length = 32
[train]
output = "{output}"
batch_size = 4
epochs = 2
learning_rate = 1e-3
precision = "fp32"
"""


@pytest.fixture
def recipe(tiny_hub: Path, tmp_path: Path) -> Path:
    """A recipe for the tiny classifier, on eight rows."""
    rows = [f"room {i} is {label},{label}" for i in range(4) for label in ("bad", "good")]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows]))
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(model=tiny_hub / "reviews", data=tmp_path / "rows.csv", output=tmp_path / "out"))
    return path


def test_a_recipe_becomes_a_checkpoint(recipe: Path, call: Any) -> None:
    answer = call("train", recipe, "--quiet", "train.epochs=3")
    assert answer.status == 0, answer.err
    assert answer.out.startswith(f"{recipe.parent / 'out'}: 6 steps")
    assert open_checkpoint(recipe.parent / "out").config.sequence.labels == ("bad", "good")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("train.learning_rat=1", "did you mean 'learning_rate'?"),
        ("train.epochs=0", "train.epochs: input should be greater than 0, not 0"),
        ("data.train=no-such.csv", "no-such.csv: No such file or directory"),
        ("epochs", "'epochs' is not of the form section.key=value"),
    ],
)
def test_a_wrong_setting_is_one_sentence(override: str, sentence: str, recipe: Path, call: Any) -> None:
    answer = call("train", recipe, override)
    assert (answer.status, answer.out) == (2, "")
    assert sentence in answer.err
    assert answer.err.count("\n") == 1
    assert not (recipe.parent / "out").exists()


def test_a_wrong_recipe_is_found_before_torch_is_loaded(recipe: Path) -> None:
    code = "import sys; from sensorium.cli import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "train", str(recipe), "train.epoch=1"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (2, "False")


def test_ctrl_c_saves_and_says_how_to_go_on(recipe: Path) -> None:
    command = [sys.executable, "-m", "sensorium", "train", str(recipe), "train.epochs=100000", "train.log_every=1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    log = recipe.parent / "out.training" / "train.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1].endswith(f"sensorium train {recipe} train.epochs=100000 train.log_every=1 --resume")
    assert list((recipe.parent / "out.training").glob("state-*"))
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1))
