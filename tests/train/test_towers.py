"""Images learn to be found by a language model's vectors: frozen, slowed down, or from nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer

from sensorium.checkpoint import open_checkpoint
from sensorium.config import DualEncoderConfig
from sensorium.errors import SensoriumError
from sensorium.evaluate.matching import matcher
from sensorium.storage import read_tensors
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe
from tests.train.conftest import write_matcher

READER = "bert-base-uncased"
"""With a head for masked tokens, which a tower leaves behind."""


def beside(path: Path, hub: Path, *overrides: str) -> Any:
    """The recipe with a language model for its texts."""
    recipe = read_recipe(path, ["tokenizer.train=wordpiece", "model.family=clip"])
    tables = recipe.model_dump(exclude_unset=True)
    del tables["tokenizer"]
    tables["model"] |= {"family": "vit", "text": str(hub / READER)}
    lines = [
        f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
        for section, keys in tables.items()
    ]
    path.write_text("".join(lines))
    return read_recipe(path, ["train.precision=fp32", *overrides])


@pytest.mark.parametrize(("family", "epochs"), [("clip", 30), ("siglip", 150)])
def test_squares_are_told_apart_by_what_they_are_called(tmp_path: Path, family: str, epochs: int) -> None:
    path = write_matcher(tmp_path)
    settings = [f"model.family={family}", f"train.epochs={epochs}", "train.precision=fp32"]
    settings += ["train.validate_every=1000", "train.checkpoint_every=1000"]
    run_recipe(read_recipe(path, settings), quiet=True)
    score = matcher(open_checkpoint(tmp_path / "model"))
    records = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    scores = np.asarray(score([tmp_path / r["image"] for r in records], [r["text"] for r in records]))
    colours = [record["text"].split()[1] for record in records]
    right = np.array([[a == b for b in colours] for a in colours])
    assert scores[right].mean() > scores[~right].mean() + 0.2


@pytest.mark.parametrize("learner", ["byte_level_bpe", "wordpiece"])
def test_texts_end_where_they_did_when_the_model_is_opened_again(tmp_path: Path, learner: str) -> None:
    path = write_matcher(tmp_path)
    run_recipe(read_recipe(path, ["train.steps=1", f"tokenizer.train={learner}"]), quiet=True)
    opened = open_checkpoint(tmp_path / "model")
    assert isinstance(opened.config, DualEncoderConfig)
    assert opened.config.end_token_id == opened.require_tokenizer().encode("a red square").token_ids[-1]


def test_a_frozen_reader_stays_as_it_was_and_opens_elsewhere(tmp_path: Path, tiny_hub: Path) -> None:
    path = write_matcher(tmp_path)
    run_recipe(beside(path, tiny_hub, 'train.freeze=["text.*"]'), quiet=True)
    before = open_checkpoint(tiny_hub / READER).model.state_dict()
    after = open_checkpoint(tmp_path / "model" / "text_0_Transformer").model.state_dict()
    assert {name.partition(".")[0] for name in before.keys() - after.keys()} == {"masked_token"}
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
    opened = open_checkpoint(tmp_path / "model")
    assert opened.family == "vit+bert"
    picture = Image.open(tmp_path / "red top left.png")
    theirs = SentenceTransformer(str(tmp_path / "model"))
    scores = matcher(opened)([picture], ["a red square"])
    expected = theirs.encode([picture]) @ theirs.encode(["a red square"]).T  # type: ignore[call-overload]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=2e-6)


def test_a_reader_can_learn_more_slowly_and_in_part(tmp_path: Path, tiny_hub: Path) -> None:
    moved = {}
    before = {f"text.{n}": p.detach().clone() for n, p in open_checkpoint(tiny_hub / READER).model.named_parameters()}
    settings = {"whole": [], "slow": ['train.rates={"text.*" = 0.01}'], "part": ['train.freeze=["text.stem.*"]']}
    for name, overrides in settings.items():
        (tmp_path / name).mkdir()
        path = write_matcher(tmp_path / name)
        run_recipe(beside(path, tiny_hub, "train.epochs=1", "train.weight_decay=0", *overrides), quiet=True)
        after = dict(open_checkpoint(tmp_path / name / "model").model.named_parameters())
        moved[name] = {n: float((after[n] - before[n]).detach().abs().sum()) for n in before if n in after}
    stem = [name for name in moved["part"] if name.startswith("text.stem.")]
    assert stem
    assert all(moved["part"][name] == 0 for name in stem)
    assert sum(moved["part"].values()) > 0
    assert 0 < sum(moved["slow"].values()) < sum(moved["whole"].values()) / 20


def test_the_image_tower_begins_alike_beside_any_reader(tmp_path: Path, tiny_hub: Path) -> None:
    path = write_matcher(tmp_path)
    recipe = beside(path, tiny_hub, "train.learning_rate=1e-12", "train.steps=1")
    run_recipe(recipe, quiet=True)
    first = read_tensors(tmp_path / "model" / "image_0_Transformer")
    elsewhere = recipe.train.model_copy(update={"output": str(tmp_path / "b")})
    run_recipe(recipe.model_copy(update={"train": elsewhere}), quiet=True)
    second = read_tensors(tmp_path / "b" / "image_0_Transformer")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_image_tower_begins_as_that_of_another_model(tmp_path: Path, tiny_hub: Path) -> None:
    path = write_matcher(tmp_path)
    run_recipe(beside(path, tiny_hub), quiet=True)
    learnt = read_tensors(tmp_path / "model" / "image_0_Transformer")
    for n, looker in enumerate((tmp_path / "model", tmp_path / "model" / "image_0_Transformer")):
        still = ["train.learning_rate=1e-12", "train.weight_decay=0", "train.steps=1", "train.seed=7"]
        recipe = read_recipe(path, [*still, f"model.image={looker}", f"train.output={tmp_path}/again{n}"])
        run_recipe(recipe, quiet=True)
        found = read_tensors(tmp_path / f"again{n}" / "image_0_Transformer")
        assert learnt.keys() == found.keys()
        for name, weight in learnt.items():
            torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-9)


def test_crops_are_for_training_alone(tmp_path: Path) -> None:
    path, found = write_matcher(tmp_path), {}
    for name, crop in (("whole", 1.0), ("cropped", 0.3)):
        still = ["train.steps=1", "train.learning_rate=1e-12", "train.precision=fp32", "model.family=clip"]
        run_recipe(read_recipe(path, [*still, f"objective.crop={crop}", f"train.output={tmp_path}/{name}"]), quiet=True)
        lines = (tmp_path / f"{name}.training" / "train.jsonl").read_text().splitlines()
        found[name] = {record["kind"]: record["loss"] for record in map(json.loads, lines)}
    assert found["cropped"]["validation"] == found["whole"]["validation"]
    assert found["cropped"]["train"] != found["whole"]["train"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.family=clip"], "model.text: a new vit looks at images, and needs a model that reads the texts"),
        (["tokenizer.train=wordpiece"], r"tokenizer: the model that reads the texts \(model.text\) has its own"),
        (["train.layer_decay=0.9"], "train.layer_decay: two towers stand side by side"),
        (["model.text=nowhere/at/all"], "nowhere/at/all: there is no such checkpoint folder"),
        (['train.rates={"texts.*" = 0.1}'], r"rates: 'texts.\*' matches no parameter; they are named like"),
        (['train.rates={"text.*" = 0}'], "train.rates.text.*: input should be greater than 0, not 0"),
        (["model.image={hub}/bert-base-uncased"], "a bert model has no image tower that another begins as"),
        (["model.image={hub}/clip"], "its image tower has .* layers of .*, which the recipe does not ask for"),
        (["objective.crop=0"], "objective.crop: input should be greater than 0, not 0"),
    ],
)
def test_what_cannot_be_meant_is_said(tmp_path: Path, tiny_hub: Path, overrides: list[str], message: str) -> None:
    path = write_matcher(tmp_path)
    with pytest.raises(SensoriumError, match=message):
        run_recipe(beside(path, tiny_hub, *(o.replace("{hub}", str(tiny_hub)) for o in overrides)), quiet=True)
    assert not (tmp_path / "model").exists()


def test_a_vit_alone_is_told_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(SensoriumError, match="model.text: a new vit looks at images, and needs"):
        read_recipe(write_matcher(tmp_path), ["model.family=vit"])
    with pytest.raises(SensoriumError, match="model.image: a new clip model begins as no other; vit does"):
        read_recipe(write_matcher(tmp_path), ["model.image=runs/clip-icons", "model.family=clip"])


def test_a_reader_that_writes_too_is_refused(tmp_path: Path, tiny_hub: Path) -> None:
    path = write_matcher(tmp_path)
    with pytest.raises(SensoriumError, match="a bart model does not read one text and nothing else"):
        run_recipe(beside(path, tiny_hub, f"model.text={tiny_hub / 'translator'}"), quiet=True)
