"""A new model learns to say what a picture shows, and its checkpoint says it elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from sensorium import open_checkpoint, pipeline
from sensorium.errors import SensoriumError
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe
from tests.train.conftest import write_matcher

RECIPE = """
[model]
family = "blip"
hidden_size = 32
num_layers = 2
num_heads = 2
decoder_layers = 1
max_length = 32
image_size = 16
patch_size = 8
[tokenizer]
train = "wordpiece"
vocabulary_size = 320
[data]
train = "{folder}/pairs.jsonl"
validation = "{folder}/pairs.jsonl"
[objective]
kind = "captioning"
max_length = 32
[train]
output = "{folder}/model"
epochs = 120
batch_size = 8
learning_rate = 3e-3
precision = "fp32"
validate_every = 1000
"""


def write_captioner(folder: Path) -> Path:
    """A recipe for captions of squares of four colours in four corners."""
    write_matcher(folder)
    path = folder / "captioner.toml"
    path.write_text(RECIPE.format(folder=folder))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captioning")
    run_recipe(read_recipe(write_captioner(folder)), quiet=True)
    return folder


def pairs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]


def test_it_says_what_a_picture_shows(trained: Path) -> None:
    records = pairs(trained)
    answers = pipeline("image-to-text", trained / "model")([trained / record["image"] for record in records])
    assert [answer["generated_text"] for [answer] in answers] == [record["text"] for record in records]


def test_it_goes_on_from_what_it_is_given(trained: Path) -> None:
    task = pipeline("image-to-text", trained / "model")
    [answer] = task(trained / "red top left.png", prompt="a red square, top")
    assert answer["generated_text"] == "a red square, top left"


def test_transformers_writes_the_same(trained: Path) -> None:
    model = transformers.BlipForConditionalGeneration.from_pretrained(trained / "model").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained / "model")
    processor = BlipImageProcessorPil.from_pretrained(trained / "model")
    said = pipeline("image-to-text", trained / "model")
    for record in pairs(trained)[:5]:
        image = Image.open(trained / record["image"]).convert("RGB")
        pixels = processor([image], return_tensors="pt")["pixel_values"]
        [written] = model.generate(pixel_values=pixels, max_new_tokens=20, do_sample=False)
        assert tokenizer.decode(written, skip_special_tokens=True).strip() == said(image)[0]["generated_text"]


def test_its_start_token_lies_behind_those_of_the_tokenizer(trained: Path) -> None:
    opened = open_checkpoint(trained / "model")
    config: Any = opened.config
    tokenizer = opened.require_tokenizer()
    assert config.start_token_id == tokenizer.vocabulary_size == config.stem.vocabulary_size - 1
    assert config.end_token_id == tokenizer.sep_id


def test_a_checkpoint_goes_on_learning(trained: Path, tmp_path: Path) -> None:
    path = write_captioner(tmp_path)
    recipe = read_recipe(path, [f"model.open={trained / 'model'}", "train.steps=3", "train.learning_rate=1e-6"])
    recipe = recipe.model_copy(update={"tokenizer": recipe.tokenizer.model_copy(update={"train": None})})
    run_recipe(recipe, quiet=True)
    log = [json.loads(line) for line in (tmp_path / "model.training" / "train.jsonl").read_text().splitlines()]
    assert log[0]["loss"] < 0.1


def test_another_tokenizer_is_refused(trained: Path, tmp_path: Path, tiny_hub: Path) -> None:
    recipe = read_recipe(
        write_captioner(tmp_path), [f"model.open={trained / 'model'}", f"tokenizer.open={tiny_hub / 'gpt2'}"]
    )
    recipe = recipe.model_copy(update={"tokenizer": recipe.tokenizer.model_copy(update={"train": None})})
    with pytest.raises(
        SensoriumError, match=r"captions of this model end with token 2, texts of the tokenizer with 256"
    ):
        run_recipe(recipe, quiet=True)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.family=clip"], "'captioning' trains a model of the family blip, not clip"),
        (["objective.max_length=64"], "objective.max_length is 64; this model reads at most 32 tokens"),
        (["objective.chunk=4"], "objective.chunk: training of the kind 'captioning' does not read it"),
        (["objective.kind=contrastive"], "'contrastive' trains a model of the family clip, siglip or vit, not blip"),
        (["model.image_size=20"], "model.image_size: 20 is no multiple of patch_size 8"),
        (["tokenizer.train=bpe"], "tokenizer.train: 'bpe' is for marian and bart, not for blip"),
        (["model.open=gpt2"], "a gpt2 model does not write about images; blip does"),
        (["model.open=clip"], "a clip model looks at images; 'captioning' does not train it"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, tiny_hub: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    monkeypatch.chdir(tiny_hub)
    with pytest.raises(SensoriumError, match=message):
        run_recipe(read_recipe(write_captioner(tmp_path), overrides), quiet=True)


def test_a_captioner_learns_nothing_else(tmp_path: Path, tiny_hub: Path) -> None:
    recipe = read_recipe(write_matcher(tmp_path), [f"model.open={tiny_hub / 'blip'}"])
    with pytest.raises(SensoriumError, match="a blip model looks at images; 'contrastive' does not train it"):
        run_recipe(recipe, quiet=True)


def test_a_byte_level_vocabulary_serves_too(tmp_path: Path) -> None:
    path = write_captioner(tmp_path)
    overrides = ["tokenizer.train=byte_level_bpe", "tokenizer.vocabulary_size=400", "train.steps=2"]
    run_recipe(read_recipe(path, overrides), quiet=True)
    opened = open_checkpoint(tmp_path / "model")
    assert opened.config.end_token_id == opened.require_tokenizer().sep_id  # type: ignore[union-attr]
    with torch.inference_mode():
        [answer] = pipeline("image-to-text", opened)(tmp_path / "red top left.png", max_new_tokens=3)
    assert isinstance(answer["generated_text"], str)
