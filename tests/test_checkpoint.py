"""Opening and saving checkpoints: what is accounted for, what is refused, and with which words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from sensorium import storage
from sensorium.checkpoint import open_checkpoint, save_checkpoint
from sensorium.config import (
    EncoderConfig,
    LearnedPositions,
    MaskedTokenHeadConfig,
    PoolerConfig,
    SequenceHeadConfig,
    StackConfig,
    TokenHeadConfig,
    TokenStemConfig,
)
from sensorium.errors import CheckpointError, UsageError
from sensorium.models.build import new_model
from sensorium.sentence import SentenceSettings

CONFIG = EncoderConfig(
    TokenStemConfig(vocabulary_size=30, hidden_size=8, positions=LearnedPositions(16), num_segments=2, norm_eps=1e-12),
    StackConfig(hidden_size=8, num_layers=2, num_heads=2, mlp_size=12),
    pooler=PoolerConfig(),
    masked_token=MaskedTokenHeadConfig(),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    save_checkpoint(path, new_model(CONFIG, seed=1), None, family="bert")
    return path


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(folder: Path, change: Any) -> None:
    tensors = storage.read_tensors(folder)
    change(tensors)
    storage.write_tensors(folder / storage.WEIGHTS, tensors)


def test_what_was_saved_opens_equal(folder: Path) -> None:
    opened = open_checkpoint(folder)
    assert opened.config == CONFIG
    assert opened.family == "bert"
    assert not opened.untrained
    assert not opened.model.training
    for (name, saved), (_, loaded) in zip(
        new_model(CONFIG, seed=1).named_parameters(), opened.model.named_parameters(), strict=True
    ):
        assert torch.equal(saved, loaded), name


def test_tied_weights_are_one_tensor_after_opening(folder: Path) -> None:
    model: Any = open_checkpoint(folder).model
    assert model.masked_token.vocabulary.weight is model.stem.tokens.weight


def test_an_added_head_is_fresh_reproducible_and_named(folder: Path) -> None:
    head = {"sequence": SequenceHeadConfig(labels=("no", "yes"))}
    first, second, other = (open_checkpoint(folder, add_heads=head, seed=seed) for seed in (1, 1, 2))
    assert first.untrained == {"sequence"}
    weights: list[Any] = [opened.model.sequence.classifier.weight for opened in (first, second, other)]  # type: ignore[union-attr]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_an_added_head_takes_the_place_of_one_with_other_labels(folder: Path, tmp_path: Path) -> None:
    two = open_checkpoint(folder, add_heads={"sequence": SequenceHeadConfig(labels=("no", "yes"))})
    save_checkpoint(tmp_path / "two", two.model, None, family="bert")
    three = open_checkpoint(tmp_path / "two", add_heads={"sequence": SequenceHeadConfig(labels=("a", "b", "c"))})
    assert three.config.sequence.labels == ("a", "b", "c")  # type: ignore[union-attr]
    assert three.untrained == {"sequence"}


def test_labels_dropout_and_problem_survive_the_round_trip(tmp_path: Path) -> None:
    head = SequenceHeadConfig(labels=("差评", "好评"), dropout=0.25, problem="multi_label")
    save_checkpoint(tmp_path / "m", new_model(CONFIG.with_heads(sequence=head), seed=0), None, family="bert")
    assert open_checkpoint(tmp_path / "m").config.sequence == head  # type: ignore[union-attr]


def test_sentence_settings_survive_the_round_trip(folder: Path, tmp_path: Path) -> None:
    settings = SentenceSettings(pooling="cls", normalize=False, max_length=12)
    save_checkpoint(tmp_path / "s", open_checkpoint(folder).model, None, family="bert", sentence=settings)
    assert open_checkpoint(tmp_path / "s").sentence == settings


def test_a_chat_template_survives_the_round_trip(folder: Path, tmp_path: Path) -> None:
    assert open_checkpoint(folder).chat_template is None
    template = "{% for message in messages %}<{{ message.role }}> {{ message.content }}\n{% endfor %}"
    save_checkpoint(tmp_path / "c", open_checkpoint(folder).model, None, family="bert", chat_template=template)
    assert open_checkpoint(tmp_path / "c").chat_template == template


CONFIG_ATTACKS: dict[str, tuple[dict[str, Any], str]] = {
    "wrong family": ({"model_type": "bort"}, "'bort', which is not a known family .*did you mean 'bert'"),
    "no family": ({"model_type": None}, "model_type is None"),
    "a family that is a list": ({"model_type": ["bert"]}, "not a known family"),
    "another arithmetic": ({"position_embedding_type": "relative_key"}, "only 'absolute' is supported"),
    "a decoder": ({"is_decoder": True}, "is_decoder is True; only False"),
    "code": ({"auto_map": {"AutoModel": "evil.py"}}, "auto_map"),
    "an unknown key": ({"logit_softcap": 3.0}, "'logit_softcap' is not known"),
    "an unknown activation": ({"hidden_act": "swoosh"}, "hidden_act is 'swoosh'; known are gelu"),
    "a million layers": ({"num_hidden_layers": 10**6}, "claims 1,000,000 layers"),
    "a text for a number": ({"hidden_size": "8"}, "hidden_size is '8'; a whole number"),
    "a negative number": ({"num_hidden_layers": -1}, "num_hidden_layers is -1"),
    "heads that do not divide": ({"num_attention_heads": 3}, "not a multiple of num_heads 3"),
    "another width": ({"intermediate_size": 13}, r"mlp.up.weight has shape \[12, 8\], the config asks for \[13, 8\]"),
    "a huge vocabulary": ({"vocab_size": 10**12}, r"has shape \[30, 8\], the config asks for \[1000000000000, 8\]"),
    "fewer layers than weights": ({"num_hidden_layers": 1}, "16 left over: .*encoder.layer.1"),
    "more layers than weights": ({"num_hidden_layers": 3}, "16 missing: .*encoder.layer.2"),
}


@pytest.mark.parametrize(("changes", "message"), CONFIG_ATTACKS.values(), ids=CONFIG_ATTACKS)
def test_a_config_that_lies_is_refused_in_one_sentence(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit_config(folder, **changes)
    with pytest.raises(CheckpointError, match=message) as error:
        open_checkpoint(folder)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_and_a_misspelt_weight_are_named_together(folder: Path) -> None:
    def misspell(tensors: dict[str, Any]) -> None:
        tensors["bert.pooler.densee.weight"] = tensors.pop("bert.pooler.dense.weight")

    edit_weights(folder, misspell)
    # Without its weight there is no pooler, so its bias is left over too: both are named.
    with pytest.raises(CheckpointError, match=r"2 left over: .*bert\.pooler\.dense"):
        open_checkpoint(folder)


def test_a_tied_copy_that_differs_is_refused(folder: Path) -> None:
    edit_weights(folder, lambda tensors: tensors.update({"cls.predictions.decoder.weight": torch.ones(30, 8)}))
    with pytest.raises(CheckpointError, match="repeats a tied weight, but it differs"):
        open_checkpoint(folder)


def test_weights_of_the_original_release_open_with_their_old_names(folder: Path) -> None:
    expected = storage.read_tensors(folder)

    def age(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if "LayerNorm" in name]:
            tensors[re.sub("weight$", "gamma", re.sub("bias$", "beta", name))] = tensors.pop(name)
        tensors["bert.embeddings.position_ids"] = torch.arange(16)[None]

    edit_weights(folder, age)
    model = open_checkpoint(folder).model
    assert torch.equal(model.stem.norm.weight, expected["bert.embeddings.LayerNorm.weight"])  # type: ignore[arg-type]


def test_a_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"\./nowhere: there is no such checkpoint folder"):
        open_checkpoint("./nowhere")


def test_a_hub_name_without_a_hub_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="no local folder of that name, and the hub did not give it"):
        open_checkpoint("nobody/no-such-model")


def test_a_folder_that_holds_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(UsageError, match="holds something else than a checkpoint"):
        save_checkpoint(tmp_path, new_model(CONFIG, seed=0), None, family="bert")
    assert (tmp_path / "thesis.txt").read_text() == "irreplaceable"


def test_what_a_family_cannot_say_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    heads = CONFIG.with_heads(sequence=SequenceHeadConfig(("a",)), token=TokenHeadConfig(("b",)))
    for family, config in (("bert", heads), ("distilbert", CONFIG)):
        with pytest.raises(CheckpointError):
            save_checkpoint(tmp_path / "m", new_model(config, seed=0), None, family=family)
    assert not list(tmp_path.iterdir())


def test_an_unsupported_pooling_is_named(folder: Path) -> None:
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]')
    with pytest.raises(CheckpointError, match="module 'Dense' is not supported"):
        open_checkpoint(folder)
