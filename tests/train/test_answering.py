"""A new model learns to answer questions about pictures, from both of them, and its checkpoint answers elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image

from sensorium import open_checkpoint, pipeline
from sensorium.errors import SensoriumError
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe
from tests.train.conftest import write_answerer, write_matcher


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answering")
    run_recipe(read_recipe(write_answerer(folder), ["train.precision=fp32", "train.epochs=60"]), quiet=True)
    return folder


def questions(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]


def test_it_answers_from_the_picture_and_the_question(trained: Path) -> None:
    task = pipeline("visual-question-answering", trained / "model")
    records = questions(trained)
    images = [trained / record["image"] for record in records]
    answers = task(images, question=[record["text"] for record in records])
    right = [answer["answer"] == record["target"] for [answer], record in zip(answers, records, strict=True)]
    assert sum(right) / len(right) > 0.95
    grey = Image.new("RGB", (16, 16), "grey")  # from the question alone, nobody can know
    blind = task([grey] * len(records), question=[record["text"] for record in records])
    assert sum(b["answer"] == r["target"] for [b], r in zip(blind, records, strict=True)) / len(records) < 0.6


def test_several_answers_have_falling_probabilities(trained: Path) -> None:
    task = pipeline("visual-question-answering", trained / "model", question="what colour is it?")
    answers = task(trained / "red top left.png", top_k=3)
    assert answers[0]["answer"] == "red"
    assert [a["score"] for a in answers] == sorted((a["score"] for a in answers), reverse=True)
    assert 0.5 < answers[0]["score"] <= 1
    assert sum(a["score"] for a in answers) <= 1 + 1e-6
    assert task(trained / "red top left.png")[0]["score"] == pytest.approx(answers[0]["score"], abs=1e-4)


def test_transformers_answers_the_same(trained: Path) -> None:
    opened = open_checkpoint(trained / "model")
    model = transformers.LlavaForConditionalGeneration.from_pretrained(trained / "model").eval()
    tokenizer = opened.require_tokenizer()
    answer = pipeline("visual-question-answering", opened)
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil.from_pretrained(trained / "model")
    for record in questions(trained)[:6]:
        image = Image.open(trained / record["image"]).convert("RGB")
        ids = tokenizer.encode("<image>" * 4 + f"\n{record['text']}\n").token_ids
        pixels = processor([image], return_tensors="pt")["pixel_values"]
        written = model.generate(
            input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            pixel_values=pixels, max_new_tokens=16, do_sample=False, eos_token_id=tokenizer.eos_id,
        )  # fmt: skip
        theirs = tokenizer.decode([int(i) for i in written[0, len(ids) :] if i != tokenizer.eos_id])
        assert answer(image, question=record["text"])[0]["answer"] == theirs.strip()


def test_a_checkpoint_goes_on_learning(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    path = write_answerer(tmp_path / "x")
    recipe = read_recipe(path, [f"model.open={trained / 'model'}", "train.steps=3", "train.learning_rate=1e-6"])
    recipe = recipe.model_copy(update={"tokenizer": recipe.tokenizer.model_copy(update={"train": None})})
    run_recipe(recipe, quiet=True)
    log = [json.loads(line) for line in (tmp_path / "x" / "model.training" / "train.jsonl").read_text().splitlines()]
    assert log[0]["loss"] < 0.3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.family=clip"], "'answering' trains a model of the family llava or janus, not clip"),
        (["objective.max_length=10"], r"record 1 has \d+ tokens and patches; objective.max_length is 10"),
        (["data.target=reply"], "reply"),
        (["tokenizer.train=wordpiece"], "tokenizer.train: 'wordpiece' has no end token"),
        (["objective.kind=contrastive"], "'contrastive' trains a model of the family clip, siglip or vit, not llava"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, overrides: list[str], message: str) -> None:
    path = write_answerer(tmp_path)
    with pytest.raises(SensoriumError, match=message):
        run_recipe(read_recipe(path, overrides), quiet=True)


def test_other_models_are_refused(tmp_path: Path, tiny_hub: Path) -> None:
    for name, message in (("clip", "looks at images; 'answering' does not train it"), ("gpt2", "does not read images")):
        recipe = read_recipe(write_answerer(tmp_path), [f"model.open={tiny_hub / name}"])
        with pytest.raises(SensoriumError, match=message):
            run_recipe(recipe, quiet=True)
    recipe = read_recipe(write_matcher(tmp_path), [f"model.open={tiny_hub / 'llava'}"])
    with pytest.raises(SensoriumError, match="a llava model looks at images; 'contrastive' does not train it"):
        run_recipe(recipe, quiet=True)
