"""Two towers in folders of their own: what is refused, and with which words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from sensorium.checkpoint import open_checkpoint, save_checkpoint
from sensorium.config import (
    DualEncoderConfig,
    EncoderConfig,
    ImageEncoderConfig,
    LearnedPositions,
    PatchStemConfig,
    SequenceHeadConfig,
    StackConfig,
    TokenStemConfig,
)
from sensorium.errors import CheckpointError, UsageError
from sensorium.image.settings import ImageSettings
from sensorium.models.build import new_model
from sensorium.storage import read_tensors, write_weights

STACK = StackConfig(hidden_size=8, num_layers=1, num_heads=2, mlp_size=12)
SEEING = StackConfig(8, 1, 2, 12, norm_place="pre", final_norm=True)
CONFIG = DualEncoderConfig(
    ImageEncoderConfig(PatchStemConfig(8, 8, 4), SEEING),
    EncoderConfig(TokenStemConfig(30, 8, LearnedPositions(16), num_segments=2, norm_eps=1e-12), STACK),
    projection_size=6,
    text_vector="mean",
)


KINDS = ("Transformer", "Pooling", "Dense", "Normalize")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    save_checkpoint(path, new_model(CONFIG, seed=1), None, family="vit+bert", images=ImageSettings(size=(8, 8)))
    return path


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def structure(**routes: Any) -> dict[str, Any]:
    return {**{route: [f"{route}_{i}_{kind}" for i, kind in enumerate(KINDS)] for route in ("text", "image")}, **routes}


def types(**strange: str) -> dict[str, str]:
    return {f"{route}_{i}_{kind}": f"a.{kind}" for route in ("text", "image") for i, kind in enumerate(KINDS)} | strange


def test_what_was_saved_opens_equal(folder: Path) -> None:
    opened = open_checkpoint(folder)
    assert opened.config == CONFIG
    assert opened.family == "vit+bert"
    assert opened.images == ImageSettings(size=(8, 8))
    saved = new_model(CONFIG, seed=1).state_dict()
    assert all(torch.equal(saved[name], tensor) for name, tensor in opened.model.state_dict().items())
    assert opened.model.state_dict().keys() == saved.keys()


BROKEN: dict[str, tuple[str, dict[str, Any], str]] = {
    "another route": (
        "router_config.json", {"structure": {"text": [], "sound": []}},
        "a route 'text' and a route 'image' are expected",
    ),
    "no modules": ("router_config.json", {"structure": structure(text=[])}, "a route is empty; Transformer, Pooling"),
    "modules in another order": (
        "router_config.json",
        {"structure": structure(text=["text_0_Transformer", "text_2_Dense", "text_1_Pooling"])},
        "a route is ['Transformer', 'Dense', 'Pooling']",
    ),
    "a folder outside": (
        "router_config.json",
        {
            "structure": structure(text=["../../x", "text_1_Pooling", "text_2_Dense"]),
            "types": types(**{"../../x": "a.Transformer"}),
        },
        "../../x",
    ),
    "a bent map": (
        "text_2_Dense/config.json", {"activation_function": "torch.nn.modules.activation.Tanh"},
        "Tanh after the map; a plain linear map is expected",
    ),
    "images by their mean": (
        "image_1_Pooling/config.json", {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True},
        "the first vector of an image",
    ),
    "texts by their largest": (
        "text_1_Pooling/config.json", {"pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True},
        "texts are pooled by 'max'; known are mean, cls, lasttoken",
    ),
    "a scale that is no number": ("matching.json", {"logit_scale": "large"}, "logit_scale is 'large'"),
    "a tower of another size": (
        "image_0_Transformer/config.json", {"hidden_size": 6, "pooler_output_size": 6}, "the config asks for [1, 1, 6]"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_router_that_is_not_known_is_refused_in_a_sentence(folder: Path, case: str) -> None:
    file, changes, words = BROKEN[case]
    edit(folder / file, **changes)
    with pytest.raises(CheckpointError, match=re.escape(words)):
        open_checkpoint(folder)


def test_a_map_of_another_size_is_named(folder: Path) -> None:
    dense = folder / "text_2_Dense"
    write_weights(dense, {"linear.weight": read_tensors(dense)["linear.weight"][:, :5].contiguous()})
    with pytest.raises(CheckpointError, match=re.escape("text_projection.weight is [6, 5]; [6, 8] is expected")):
        open_checkpoint(folder)
    write_weights(dense, {"linear.weight": torch.zeros(5, 8)})
    with pytest.raises(CheckpointError, match="texts become vectors of 5, images of 6 numbers"):
        open_checkpoint(folder)


def test_towers_of_the_wrong_kind_are_refused(folder: Path, tmp_path: Path) -> None:
    text, image = (folder / f"{route}_0_Transformer" for route in ("text", "image"))
    image.rename(tmp_path / "image")
    text.rename(tmp_path / "text")
    (tmp_path / "image").rename(text)
    (tmp_path / "text").rename(image)
    with pytest.raises(CheckpointError, match="what looks at images has no first vector that stands for one; vit has"):
        open_checkpoint(folder)


def test_two_towers_take_no_heads(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"a vit\+bert model cannot take the heads sequence"):
        open_checkpoint(folder, add_heads={"sequence": SequenceHeadConfig(("no", "yes"))})


def test_a_model_is_saved_over_another_but_over_nothing_else(folder: Path) -> None:
    model = new_model(CONFIG, seed=2)
    save_checkpoint(folder, model, None, family="vit+bert")
    assert torch.equal(open_checkpoint(folder).model.state_dict()["logit_scale"], model.state_dict()["logit_scale"])
    (folder / "router_config.json").unlink()
    with pytest.raises(UsageError, match="holds something else than a checkpoint"):
        save_checkpoint(folder, model, None, family="vit+bert")
