"""A new model of every family trains from a recipe, and what is saved opens in `transformers` and writes the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from sensorium import pipeline
from sensorium.checkpoint import open_checkpoint
from sensorium.errors import UsageError
from sensorium.infer.conditioned import Conditioned
from sensorium.infer.generate import generate
from sensorium.infer.settings import GenerationSettings
from sensorium.infer.write import write
from sensorium.packed import Packed
from sensorium.text import Tokenizer
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe
from tests.train.conftest import NOUNS, write_recipe

GERMAN = {"room": "zimmer", "food": "essen", "staff": "personal", "view": "ausblick", "bed": "bett"}
TRANSLATOR = """
[model]
family = "{family}"
hidden_size = 32
num_layers = 2
decoder_layers = 1
num_heads = 2
max_length = 32
[tokenizer]
train = "bpe"
vocabulary_size = 330
[data]
train = "{folder}/pairs.jsonl"
validation_share = 0.2
text = "en"
target = "de"
[objective]
kind = "seq2seq"
max_length = 24
[train]
output = "{folder}/model"
epochs = 25
batch_tokens = 256
learning_rate = 5e-3
schedule = "inverse_sqrt"
warmup_steps = 20
log_every = 1000
dropout = 0.0
attention_dropout = 0.0
"""


def write_translator(folder: Path, *, family: str = "marian") -> Path:
    """A recipe for a translator of a few words, and its data."""
    rows = []
    for a in NOUNS:
        for b in NOUNS:
            for c in NOUNS:
                rows.append({"en": f"the {a}, {b} {c}.", "de": f"{GERMAN[c]} {GERMAN[b]}: {GERMAN[a]}"})
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = folder / "translator.toml"
    path.write_text(TRANSLATOR.format(folder=folder, family=family))
    return path


def test_a_function_passed_in_judges_what_is_written_so_far(tmp_path: Path) -> None:
    path = write_translator(tmp_path)
    settings = GenerationSettings(max_new_tokens=8)

    def judge(model: Any, tokenizer: Tokenizer) -> dict[str, float]:
        conditioned = Conditioned(model, [tokenizer.encode("the food, bed view.").token_ids])
        [[written]] = write(conditioned, conditioned.prompts, settings, tokenizer)
        return {"letters": float(len(written.text or ""))}

    common = ["train.epochs=2", "train.dropout=0.3"]
    run_recipe(read_recipe(path, [*common, f"train.output={tmp_path}/alone"]), quiet=True)
    run_recipe(read_recipe(path, common), judge=judge, quiet=True)
    scores = [record for record in log_of(path) if record["kind"] == "validation"]
    assert [score["epoch"] for score in scores if score["letters"] >= 0] == [0, 1]
    alone = (tmp_path / "alone.training" / "train.jsonl").read_text()
    losses = [record["loss"] for record in map(json.loads, alone.splitlines())]
    assert [record["loss"] for record in log_of(path)] == losses


def log_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path.parent / "model.training" / "train.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("family", ["marian", "bart"])
def test_a_translator_learns_and_writes_the_same_in_transformers(tmp_path: Path, family: str) -> None:
    path = write_translator(tmp_path, family=family)
    run_recipe(read_recipe(path, ["data.source_language=en", "data.target_language=de"]), quiet=True)
    assert log_of(path)[-1]["accuracy"] > 0.9
    checkpoint = open_checkpoint(tmp_path / "model")
    tokenizer = checkpoint.require_tokenizer()
    texts = ["the food, bed view.", "the staff, staff room."]
    conditioned = Conditioned(checkpoint.model, [tokenizer.encode(text).token_ids for text in texts])
    ours = generate(
        conditioned, conditioned.prompts, GenerationSettings(max_new_tokens=16, eos_token_id=tokenizer.eos_id)
    )
    peer = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model").eval()
    reader = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "model")
    inputs = reader(texts, return_tensors="pt", padding=True)
    theirs = peer.generate(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=16, do_sample=False
    )
    written = [tokenizer.decode(ids) for ids in ours]
    assert written == reader.batch_decode(theirs, skip_special_tokens=True)
    assert "personal" in written[1]
    with pytest.raises(UsageError, match="does not translate en to fr; it translates en to de"):
        pipeline("translation_en_to_fr", tmp_path / "model")("the food, bed view.")


def test_a_translator_begins_with_a_model_that_was_pretrained_by_denoising(tmp_path: Path) -> None:
    path, pretrained = write_translator(tmp_path, family="bart"), tmp_path / "pretrained"
    denoising = ["objective.kind=denoising", "objective.probability=0.3", "tokenizer.train=byte_level_bpe"]
    run_recipe(read_recipe(path, [*denoising, "train.epochs=3", f"train.output={pretrained}"]), quiet=True)
    records = map(json.loads, (tmp_path / "pretrained.training" / "train.jsonl").read_text().splitlines())
    losses = [record["loss"] for record in records if record["kind"] == "validation"]
    assert losses == sorted(losses, reverse=True)
    with pytest.raises(UsageError, match="objective.kind must be 'seq2seq' or 'denoising'"):
        run_recipe(read_recipe(path, ["objective.kind=causal", f"model.open={pretrained}"]), quiet=True)
    path.write_text(path.read_text().replace('train = "bpe"', ""))
    run_recipe(read_recipe(path, [f"model.open={pretrained}"]), quiet=True)
    assert log_of(path)[-1]["accuracy"] > 0.9


@pytest.mark.parametrize("overrides", [["data.source_language=en"], ["data.target_language=de"]])
def test_a_translator_has_both_languages(tmp_path: Path, overrides: list[str]) -> None:
    with pytest.raises(UsageError, match="a translator \\(seq2seq\\) has both"):
        read_recipe(write_translator(tmp_path), overrides)


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "qwen2", "qwen3"])
def test_every_new_decoder_learns_and_opens_in_transformers(tmp_path: Path, family: str) -> None:
    path = write_recipe(tmp_path, kind="causal")
    shared = [] if family == "gpt2" else ["model.num_kv_heads=1", "model.rotary_base=5000"]
    run_recipe(
        read_recipe(path, [f"model.family={family}", "tokenizer.train=byte_level_bpe", "model.mlp_size=24", *shared]),
        quiet=True,
    )
    losses = [record["loss"] for record in log_of(path) if record["kind"] == "train"]
    assert losses[-1] < 0.95 * losses[0]
    checkpoint = open_checkpoint(tmp_path / "model")
    tokenizer = checkpoint.require_tokenizer()
    ids = tokenizer.encode_plain("The room was clean.")
    [ours] = generate(checkpoint.model, [ids], GenerationSettings(max_new_tokens=8, eos_token_id=tokenizer.eos_id))
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert peer.config.eos_token_id == tokenizer.eos_id
    [theirs] = peer.generate(
        input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=8, do_sample=False,
        pad_token_id=0,
    )  # fmt: skip
    assert [i for i in theirs[len(ids) :].tolist() if i != tokenizer.eos_id] == ours


def test_an_adapter_learns_beside_a_model_that_stays(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, kind="causal")
    common = ["model.family=llama", "tokenizer.train=byte_level_bpe", "model.mlp_size=24"]
    run_recipe(read_recipe(path, common), quiet=True)
    base = tmp_path / "base"
    (tmp_path / "model").rename(base)
    for merge in ("false", "true"):
        settings = [f"model.open={base}", "lora.rank=4", "lora.dropout=0.1", f"lora.merge={merge}"]
        run_recipe(read_recipe(path, [*settings, f"train.output={tmp_path}/{merge}"]), quiet=True)
    assert {file.name for file in (tmp_path / "false").iterdir()} >= {"adapter_config.json", "tokenizer.json"}
    assert not (tmp_path / "false" / "model.safetensors").exists()
    apart, whole, before = (open_checkpoint(tmp_path / name).model for name in ("false", "true", "base"))
    batch = Packed.from_sequences([[5, 6, 7, 8]])
    torch.testing.assert_close(apart(batch), whole(batch), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(apart(batch), before(batch), atol=1e-2)
    assert torch.equal(apart.stem.tokens.weight, before.stem.tokens.weight)
    losses = [
        json.loads(line)["loss"] for line in (tmp_path / "false.training" / "train.jsonl").read_text().splitlines()
    ]
    assert losses[-1] < losses[0]


TEMPLATE = """{%- for message in messages %}
    {{- message.role + ': ' + message.content + (eos_token if message.role == 'assistant' else '') + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"""


def test_a_decoder_learns_to_answer_and_keeps_its_template(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    rows = [
        {"messages": [{"role": "user", "content": noun}, {"role": "assistant", "content": GERMAN[noun]}]}
        for noun in NOUNS * 8
    ]
    (tmp_path / "data.csv").write_text("")
    path = write_recipe(tmp_path, kind="conversation")
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "chat.jinja").write_text(TEMPLATE)
    run_recipe(
        read_recipe(
            path,
            [
                "model.family=llama", "model.hidden_size=32", "tokenizer.train=byte_level_bpe", "train.epochs=30",
                f"data.train={tmp_path}/chats.jsonl", f"objective.chat_template={tmp_path}/chat.jinja",
                "train.dropout=0.0", "data.validation_share=0.0",
            ],
        ),
        quiet=True,
    )  # fmt: skip
    chat = pipeline("text-generation", tmp_path / "model")
    [answer] = chat([{"role": "user", "content": "bed"}], max_new_tokens=8)
    assert answer["generated_text"][-1]["content"].strip() == "bett"
