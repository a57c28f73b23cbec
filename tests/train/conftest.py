"""A tiny run: a model of a few thousand weights on sentences made up here."""

from __future__ import annotations

from pathlib import Path

import pytest

RECIPE = """
[model]
hidden_size = 16
num_layers = 2
num_heads = 2
max_length = 32
[tokenizer]
train = "wordpiece"
vocabulary_size = 400
[data]
train = "{folder}/data.csv"
validation_share = 0.2
[objective]
kind = "{kind}"
max_length = 24
sentences = "{sentences}"
[train]
output = "{folder}/model"
epochs = 3
batch_tokens = 128
learning_rate = 3e-3
log_every = 1000
checkpoint_every = 1
dropout = 0.1
"""
NOUNS, GOOD, BAD = ("room", "food", "staff", "view", "bed"), ("clean", "kind", "lovely"), ("dirty", "rude", "awful")


def write_recipe(folder: Path, *, kind: str = "sequence", sentences: str = "none") -> Path:
    """The recipe and its data."""
    rows = ["text,label"]
    for i in range(120):
        words = GOOD if i % 2 else BAD
        noun, other = NOUNS[i % 5], NOUNS[(i * 7) % 5]
        text = f"The {noun} was {words[i % 3]}. We found number {i}. The {other} was {words[(i + 1) % 3]} too."
        rows.append(f"{text},{'good' if i % 2 else 'bad'}")
    (folder / "data.csv").write_text("\n".join(rows) + "\n")
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(folder=folder, kind=kind, sentences=sentences))
    return path


@pytest.fixture
def recipe_path(tmp_path: Path) -> Path:
    return write_recipe(tmp_path)
