"""Matching images with texts: the published losses, and memory that does not grow with the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from sensorium import pipeline
from sensorium.errors import CheckpointError, DataError
from sensorium.image.settings import ImageSettings
from sensorium.models.build import new_model
from sensorium.nn.dropout import Dropout
from sensorium.objectives.contrastive import Contrastive
from sensorium.text.training import train_byte_level_bpe
from sensorium.train.new_models import new_config
from sensorium.train.recipe import ModelSection, read_recipe
from sensorium.train.run import run_recipe
from sensorium.train.stack_kernel import compile_stacks
from tests.train.test_new_models import log_of

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 220), "yellow": (240, 220, 40)}
SHAPES = ("left", "right")


def picture(colour: str, place: str, noise: np.random.Generator) -> np.ndarray[Any, Any]:
    """16 × 16 pixels: a half of them coloured."""
    pixels = np.full((16, 16, 3), 255, np.int64)
    half = {"left": np.s_[:, :8], "right": np.s_[:, 8:]}[place]
    pixels[half] = COLOURS[colour]
    return (pixels + noise.integers(-20, 20, pixels.shape)).clip(0, 255).astype(np.uint8)


def records(count: int) -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    pairs = [(colour, place) for colour in COLOURS for place in SHAPES]
    return [
        {"image": picture(*pairs[i % 8], draw), "text": f"{pairs[i % 8][0]} on the {pairs[i % 8][1]}"}
        for i in range(count)
    ]


def parts(family: str, **how: Any) -> tuple[Any, Contrastive, Any]:
    """A random model, its objective, and a batch of eight pairs, two of which have the same text."""
    data = [*records(7), records(9)[8]]
    tokenizer = train_byte_level_bpe((record["text"] for record in data), 300, family="roberta")
    sizes = ModelSection(family=family, hidden_size=32, num_layers=2, num_heads=2, max_length=16, image_size=16,
                         patch_size=4)  # type: ignore[arg-type]  # fmt: skip
    model = new_model(new_config(sizes, {}, tokenizer), seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.1)
    for module in model.modules():
        if isinstance(module, Dropout):
            module.p = 0.0
        elif hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.0
    stem = model.config.image.stem  # type: ignore[union-attr]
    objective = Contrastive(ImageSettings(size=(16, 16)), stem, 16, **how)
    examples = objective.prepare(data, tokenizer)
    return model, objective, objective.collate(examples, tokenizer, np.random.default_rng(0))


@pytest.mark.parametrize("family", ["clip", "siglip"])
@torch.no_grad()
def test_the_loss_is_the_published_one_and_equal_texts_share_their_images(family: str) -> None:
    model, objective, batch = parts(family)
    model.eval()
    logits = model.logits(model.image_vectors(batch.images), model.text_vectors(batch.packed))
    found = objective.losses(model, batch)["contrastive"]
    same = torch.eye(8)
    same[0, 7] = same[7, 0] = 1.0
    if family == "clip":
        share = same / same.sum(dim=1, keepdim=True)
        expected = (F.cross_entropy(logits, share) + F.cross_entropy(logits.t(), share)) / 2 * 8
    else:
        expected = F.binary_cross_entropy_with_logits(logits, same, reduction="sum")
    torch.testing.assert_close(found.total, expected)
    assert found.count == 8
    assert found.correct == sum(bool(same[i, row.argmax()]) for i, row in enumerate(logits))


@pytest.mark.parametrize("on_kernels", [False, True])
@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_a_batch_in_chunks_has_the_gradients_of_the_whole_batch(family: str, on_kernels: bool) -> None:
    gradients = []
    for chunk in (None, 3):
        model, objective, batch = parts(family, chunk=chunk)
        model.train()
        if on_kernels:
            compile_stacks(model)
        objective.losses(model, batch)["contrastive"].total.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, whole in gradients[0].items():
        assert whole is not None, name
        torch.testing.assert_close(gradients[1][name], whole, rtol=1e-4, atol=1e-4, msg=name)


RECIPE = """
[model]
family = "{family}"
hidden_size = 32
num_layers = 2
num_heads = 2
max_length = 16
image_size = 16
patch_size = 4
[tokenizer]
train = "byte_level_bpe"
vocabulary_size = 320
[data]
train = "{folder}/pairs.jsonl"
validation = "{folder}/more.jsonl"
[objective]
kind = "contrastive"
max_length = 16
[train]
output = "{folder}/model"
epochs = 60
batch_size = 32
learning_rate = 7e-4
log_every = 1000
"""


def write_pairs(folder: Path) -> None:
    """Pictures as files, and two lists of them with their texts."""
    (folder / "pictures").mkdir()
    lines = []
    for i, record in enumerate(records(160)):
        Image.fromarray(record["image"]).save(folder / "pictures" / f"{i}.png")
        lines.append(f'{{"image": "pictures/{i}.png", "text": "{record["text"]}"}}')
    (folder / "pairs.jsonl").write_text("\n".join(lines[:128]))
    (folder / "more.jsonl").write_text("\n".join(lines[128:]))


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_a_model_learns_to_match_from_a_recipe_and_its_checkpoint_answers(tmp_path: Path, family: str) -> None:
    write_pairs(tmp_path)
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(family=family, folder=tmp_path))
    assert run_recipe(read_recipe(path), quiet=True).finished
    last = [record for record in log_of(path) if record["kind"] == "validation"][-1]
    assert last["accuracy"] > 0.8
    matcher = pipeline("zero-shot-image-classification", tmp_path / "model", hypothesis_template="{} on the left")
    generator = np.random.default_rng(5)
    images = {colour: picture(colour, "left", generator) for colour in COLOURS}
    right = sum(matcher(image, list(COLOURS))[0]["label"] == colour for colour, image in images.items())
    assert right >= 0.8 * len(COLOURS)


def test_a_clip_whose_end_token_its_config_cannot_say_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    """There, 2 means the token with the largest number; RoBERTa's vocabularies end their texts with token 2."""
    write_pairs(tmp_path)
    (tmp_path / "tokenizer").mkdir()
    train_byte_level_bpe(["something red"], 300, family="roberta").save(tmp_path / "tokenizer")
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(family="clip", folder=tmp_path))
    with pytest.raises(CheckpointError, match="a clip model whose texts end with token 2 can't be saved"):
        run_recipe(read_recipe(path, [f"tokenizer.open={tmp_path / 'tokenizer'}"]), quiet=True)
    assert not (tmp_path / "model").exists()


def test_a_record_without_an_image_or_with_a_broken_one_is_named() -> None:
    _, objective, _ = parts("clip")
    tokenizer = train_byte_level_bpe(["a text"], 300, family="roberta")
    with pytest.raises(DataError, match="record 2 has no 'image'; it has 'text'"):
        objective.prepare([records(1)[0], {"text": "nothing"}], tokenizer)
    with pytest.raises(DataError, match=r"nothing\.png: .*No such file"):
        objective.prepare([{"image": "nothing.png", "text": "a"}], tokenizer)
