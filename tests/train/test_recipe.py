"""Recipes are checked before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sensorium.data.splits import split_by_text
from sensorium.errors import DataError, UsageError
from sensorium.train.recipe import read_recipe
from sensorium.train.run import read_data

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
GOOD = '[data]\ntrain = "a.csv"\n[objective]\nkind = "sequence"\n[train]\noutput = "out"\nbatch_size = 8\n'


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_that_comes_with_the_project_is_valid(path: Path) -> None:
    assert read_recipe(path).train.output.startswith("runs/")


def test_overrides_take_the_place_of_what_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(GOOD)
    recipe = read_recipe(path, ["train.epochs=7", "data.train=b.csv", "train.freeze=['stem.*']", "model.open=./m"])
    assert (recipe.train.epochs, recipe.data.train, recipe.train.freeze, recipe.model.open) == (
        7,
        "b.csv",
        ["stem.*"],
        "./m",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.learning_rat=1", "train.learning_rat: there is no such key; did you mean 'learning_rate'"),
        ("trainn.epochs=1", "trainn: there is no such key; did you mean 'train'"),
        ("train.epochs=many", "train.epochs: input should be a valid integer.*not 'many'"),
        ("train.epochs=0", "train.epochs: input should be greater than 0, not 0"),
        ("objective.bpe_dropout=1", "objective.bpe_dropout: input should be less than 1, not 1"),
        ("objective.bpe_dropout=0.1", "objective.bpe_dropout: training of the kind 'sequence' does not read it"),
        ("objective.kind=poetry", "objective.kind: input should be 'masked_token'"),
        ("epochs", "'epochs' is not of the form section.key=value"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, change: str, message: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(GOOD)
    with pytest.raises(UsageError, match=message) as error:
        read_recipe(path, [change])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[data", "not valid TOML"),
        (GOOD.replace("batch_size = 8\n", ""), "train needs batch_tokens, batch_size, or both"),
        (GOOD.replace('output = "out"\n', ""), "train.output: is missing"),
        (GOOD + "patience = 2\n", "train.patience: needs data to validate on"),
        (
            GOOD.replace("sequence", "causal"),
            "model.family: 'causal' trains a model of the family gpt2, llama, .*not bert",
        ),
        (GOOD + '[model]\nfamily = "gpt2"\n', "'sequence' trains a model of the family bert, roberta or distilbert"),
        (GOOD.replace('"sequence"', '"sequence"\nunit = "word"'), "objective.unit: .*'sequence' does not read it"),
        (GOOD.replace("sequence", "seq2seq"), "'seq2seq' trains a model of the family marian or bart, not bert"),
        (GOOD.replace("sequence", "causal") + '[model]\nfamily = "gpt2"\n[lora]\nrank = 4\n', "lora: .*set model.open"),
        (
            GOOD + '[model]\nopen = "m"\n[lora]\nrank = 4\n',
            "lora: 'sequence' trains a new head.* causal, conversation, seq2seq or denoising",
        ),
        (GOOD.replace("sequence", "denoising"), "'denoising' trains a model of the family marian or bart, not bert"),
        (GOOD.replace('"sequence"', '"sequence"\nspan_length = 2'), "span_length: .*'sequence' does not read it"),
        (GOOD + "[lora]\nrnak = 4\n", "lora.rnak: there is no such key; did you mean 'rank'"),
        (GOOD + "[model]\nnum_kv_heads = 2\n", "model.num_kv_heads: a new bert model does not have it; llama, mistral"),
        (GOOD + "[model]\nhidden_size = 10\n", "model.num_heads: 4 heads must divide the hidden size 10"),
        (GOOD + '[tokenizer]\ntrain = "bpe"\n', "tokenizer.train: 'bpe' is for marian and bart, not for bert"),
        (
            GOOD.replace("sequence", "seq2seq") + '[model]\nfamily = "marian"\n[tokenizer]\ntrain = "wordpiece"\n',
            "tokenizer.train: 'wordpiece' has no end token",
        ),
        (
            GOOD.replace('"sequence"', '"masked_token"\nsentences = "next"') + '[model]\nfamily = "roberta"\n',
            "objective.sentences: a model of the family roberta has no head for it",
        ),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_recipe(path)


def test_an_empty_dataset_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n")
    path = tmp_path / "r.toml"
    path.write_text(GOOD)
    with pytest.raises(DataError, match=r"a\.csv: holds no records"):
        read_data(read_recipe(path, [f"data.train={tmp_path}/a.csv"]))


def test_records_are_held_out_of_what_an_earlier_split_left(tmp_path: Path) -> None:
    records = [{"text": f"text number {i}", "label": str(i % 2)} for i in range(400)]
    left, _ = split_by_text(records, 0.2, seed=0)
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, left)))
    path = tmp_path / "r.toml"
    path.write_text(GOOD)
    settings = [f"data.train={tmp_path}/a.jsonl", "data.validation_share=0.1"]
    train, validation = read_data(read_recipe(path, settings))
    assert validation is not None
    assert 10 < len(validation) < 60
    assert len(train) + len(validation) == len(left)


def test_a_share_that_holds_out_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\none,a\ntwo,b\n")
    path = tmp_path / "r.toml"
    path.write_text(GOOD)
    with pytest.raises(DataError, match=r"validation_share 0\.0001 of 2 records holds out none"):
        read_data(read_recipe(path, [f"data.train={tmp_path}/a.csv", "data.validation_share=0.0001"]))
