"""A tiny run: a model of a few thousand weights on sentences made up here."""

from __future__ import annotations

import json
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


MATCHER = """
[model]
family = "clip"
hidden_size = 16
num_layers = 1
num_heads = 2
max_length = 32
image_size = 16
patch_size = 8
[tokenizer]
train = "byte_level_bpe"
vocabulary_size = 400
[data]
train = "{folder}/pairs.jsonl"
validation = "{folder}/pairs.jsonl"
[objective]
kind = "{kind}"
max_length = 32
[train]
output = "{folder}/model"
epochs = 6
batch_size = 8
learning_rate = 3e-3
checkpoint_every = 1
"""
COLOURS = {"red": (220, 30, 30), "green": (30, 180, 30), "blue": (30, 30, 220), "black": (0, 0, 0)}


def write_matcher(folder: Path, *, kind: str = "contrastive") -> Path:
    """A recipe that matches squares of four colours in four corners with what they are called, and its pictures."""
    from PIL import Image

    lines = []
    for colour, rgb in COLOURS.items():
        for corner, place in {"top left": (0, 0), "top right": (8, 0), "low left": (0, 8), "low right": (8, 8)}.items():
            picture = Image.new("RGB", (16, 16), "white")
            picture.paste(rgb, (*place, place[0] + 8, place[1] + 8))
            name = f"{colour} {corner}.png"
            picture.save(folder / name)
            lines.append(json.dumps({"image": name, "text": f"a {colour} square, {corner}"}))
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    path = folder / "matcher.toml"
    path.write_text(MATCHER.format(folder=folder, kind=kind))
    return path


ANSWERER = """
[model]
family = "llava"
hidden_size = 32
num_layers = 2
num_heads = 2
max_length = 64
image_size = 16
patch_size = 8
[tokenizer]
train = "byte_level_bpe"
vocabulary_size = 400
[data]
train = "{folder}/questions.jsonl"
validation = "{folder}/questions.jsonl"
[objective]
kind = "answering"
max_length = 64
[train]
output = "{folder}/model"
epochs = 30
batch_size = 16
learning_rate = 3e-3
validate_every = 1000
checkpoint_every = 1000
"""


def write_answerer(folder: Path) -> Path:
    """A recipe that answers which colour a square has and where it is, and its pictures and questions."""
    write_matcher(folder)
    lines = []
    for line in (folder / "pairs.jsonl").read_text().splitlines():
        pair = json.loads(line)
        colour, corner = pair["text"].removeprefix("a ").split(" square, ")
        for question, answer in (("what colour is it?", colour), ("where is it?", corner), ("is it red?", "yes")):
            answer = "no" if answer == "yes" and colour != "red" else answer
            lines.append(json.dumps({"image": pair["image"], "text": question, "target": answer}))
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n")
    path = folder / "answerer.toml"
    path.write_text(ANSWERER.format(folder=folder))
    return path


CODEC = """
[model]
family = "janus_vqgan"
image_size = 16
patch_size = 4
channels = [64, 64, 64]
num_codes = 32
code_size = 4
[data]
train = "{folder}/pairs.jsonl"
validation = "{folder}/pairs.jsonl"
[objective]
kind = "codec"
[train]
output = "{folder}/codec"
epochs = 120
batch_size = 8
learning_rate = 3e-3
weight_decay = 0.0
rates = {{ "codes.*" = 10.0 }}
validate_every = 1000
checkpoint_every = 10
"""
DRAWER = """
[model]
family = "janus"
codec = "{folder}/codec"
hidden_size = 32
num_layers = 2
num_heads = 2
max_length = 64
image_size = 16
patch_size = 4
[tokenizer]
train = "byte_level_bpe"
vocabulary_size = 400
[data]
train = "{folder}/pairs.jsonl"
validation = "{folder}/pairs.jsonl"
[objective]
kind = "drawing"
max_length = 64
[train]
output = "{folder}/drawer"
epochs = 150
batch_size = 8
learning_rate = 3e-3
validate_every = 1000
checkpoint_every = 10
"""


def write_codec(folder: Path) -> Path:
    """A recipe for a codec of those squares, and their pictures."""
    write_matcher(folder)
    path = folder / "codec.toml"
    path.write_text(CODEC.format(folder=folder))
    return path


def write_drawer(folder: Path) -> Path:
    """A recipe that draws those squares in the tokens of that codec."""
    path = folder / "drawer.toml"
    path.write_text(DRAWER.format(folder=folder))
    return path
