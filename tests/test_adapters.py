"""Adapters: alone they learn, merged they give the same, and what is saved is what `peft` publishes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from sensorium.adapters import adapt, read_adapter
from sensorium.checkpoint import open_checkpoint, save_adapter, save_checkpoint
from sensorium.config import ImageCodecConfig
from sensorium.errors import CheckpointError, UsageError
from sensorium.image.settings import ImageSettings
from sensorium.models.build import Model, new_model
from sensorium.nn.lora import LoRALinear, LoRASettings, adapted_maps, merge_lora
from sensorium.packed import Packed
from sensorium.storage import read_tensor_file, write_tensors

SETTINGS = LoRASettings(rank=2, alpha=6.0)
BATCH = Packed.from_sequences([[3, 4, 5, 6], [7, 8]])
LLAMA: dict[str, Any] = {
    "vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 32, "initializer_range": 0.3,
}  # fmt: skip
GPT2: dict[str, Any] = {
    "vocab_size": 30, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32, "initializer_range": 0.3,
    "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
}  # fmt: skip


@pytest.fixture(params=["llama", "gpt2"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    peer = (
        transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA))
        if request.param == "llama"
        else transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2))
    )
    peer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def adapted(base: Path, *targets: str) -> tuple[Model, str]:
    """A model whose adapters have learnt something."""
    checkpoint = open_checkpoint(base)
    adapt(checkpoint.model, checkpoint.family, SETTINGS, targets, seed=0)
    generator = torch.Generator().manual_seed(1)
    for module in adapted_maps(checkpoint.model).values():
        for b in module.lora_b:
            b.data.normal_(0.0, 0.3, generator=generator)
    return checkpoint.model, checkpoint.family


def test_a_map_with_adapters_is_the_formula() -> None:
    linear = torch.nn.Linear(5, 9)
    module = LoRALinear(linear, [slice(2, 4), slice(6, 9)], SETTINGS)
    for parameter in (module.lora_a, *module.lora_b):
        torch.nn.init.normal_(parameter)
    weight = linear.weight.detach().clone()
    for part, a, b in zip(module.parts, module.lora_a.split(2), module.lora_b, strict=True):
        weight[part] += 6.0 / 2 * b @ a
    x = torch.randn(7, 5)
    torch.testing.assert_close(module(x), torch.nn.functional.linear(x, weight, linear.bias))
    torch.testing.assert_close(module.merged().weight, weight)


def test_a_new_adapter_changes_nothing_and_is_all_that_learns(base: Path) -> None:
    checkpoint = open_checkpoint(base)
    before = checkpoint.model(BATCH)
    adapt(checkpoint.model, checkpoint.family, SETTINGS, seed=0)
    assert torch.equal(checkpoint.model(BATCH), before)
    learning = [name for name, parameter in checkpoint.model.named_parameters() if parameter.requires_grad]
    assert learning
    assert all(".lora_" in name for name in learning)


def test_saved_opened_and_merged_it_gives_the_same(base: Path, tmp_path: Path) -> None:
    model, family = adapted(base)
    expected = model(BATCH).detach()
    save_adapter(tmp_path / "adapter", model, None, family=family, base=str(base))
    opened = open_checkpoint(tmp_path / "adapter")
    assert not adapted_maps(opened.model)
    torch.testing.assert_close(opened.model(BATCH), expected, rtol=1e-4, atol=1e-5)
    merge_lora(model)
    save_checkpoint(tmp_path / "whole", model, None, family=family)
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "whole").eval()
    logits = torch.cat([peer(sequence[None]).logits[0] for sequence in BATCH.split(BATCH.values)])
    torch.testing.assert_close(model.next_token_logits(expected), logits, rtol=1e-4, atol=1e-4)


def test_chosen_targets_have_their_published_names(base: Path, tmp_path: Path) -> None:
    is_gpt2 = open_checkpoint(base).family == "gpt2"
    target = "c_attn" if is_gpt2 else "k_proj"
    model, family = adapted(base, target)
    save_adapter(tmp_path / "adapter", model, None, family=family, base=str(base))
    tensors = read_tensor_file(tmp_path / "adapter" / "adapter_model.safetensors")
    path = "transformer.h.{}.attn.c_attn" if is_gpt2 else "model.layers.{}.self_attn.k_proj"
    width = 48 if is_gpt2 else 8
    expected = {
        f"base_model.model.{path.format(layer)}.lora_{side}.weight": shape
        for layer in range(2)
        for side, shape in (("A", (2, 16)), ("B", (width, 2)))
    }
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == expected
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (2, 6.0, [target])
    with pytest.raises(UsageError, match=f"no linear map is called '{target}s'; did you mean '{target}'"):
        adapt(open_checkpoint(base).model, family, SETTINGS, [f"{target}s"], seed=0)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_peft_opens_it_and_computes_the_same(base: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    model, family = adapted(base)
    save_adapter(tmp_path / "adapter", model, None, family=family, base=str(base))
    peer = peft.PeftModel.from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter"
    ).eval()
    logits = torch.cat([peer(sequence[None]).logits[0] for sequence in BATCH.split(BATCH.values)])
    torch.testing.assert_close(model.next_token_logits(model(BATCH)), logits, rtol=1e-4, atol=1e-4)
    peer.save_pretrained(tmp_path / "theirs")
    opened = open_checkpoint(tmp_path / "theirs").model
    torch.testing.assert_close(opened.next_token_logits(opened(BATCH)), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "only LORA without biases"),
        ({"bias": "all"}, "only LORA without biases"),
        ({"use_dora": True}, "use_dora is True; it is not supported"),
        ({"rank_pattern": {"q": 3}}, "rank_pattern is .* not supported"),
        ({"r": "8"}, "must be numbers"),
        ({"r": 0}, "the rank must be 1 or more"),
        ({"r": 3}, "of the shape"),
        ({"base_model_name_or_path": None}, "does not say which model"),
        ({"base_model_name_or_path": "adapter"}, "is an adapter itself"),
    ],
)
def test_what_cannot_be_opened_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)).save_pretrained(tmp_path / "base")
    model, family = adapted(tmp_path / "base")
    folder = tmp_path / "adapter"
    save_adapter(folder, model, None, family=family, base=str(tmp_path / "base"))
    config = json.loads((folder / "adapter_config.json").read_text())
    if change.get("base_model_name_or_path") == "adapter":
        change = {"base_model_name_or_path": str(folder)}
    (folder / "adapter_config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(folder)


def test_every_tensor_is_accounted_for(base: Path, tmp_path: Path) -> None:
    model, family = adapted(base)
    folder = tmp_path / "adapter"
    save_adapter(folder, model, None, family=family, base=str(base))
    tensors = dict(read_adapter(folder).tensors)
    name = sorted(tensors)[0]
    for wrong in (
        {k: v for k, v in tensors.items() if k != name},
        {**tensors, "base_model.model.x.lora_A.weight": torch.ones(2, 2)},
    ):
        write_tensors(folder / "adapter_model.safetensors", wrong)
        with pytest.raises(CheckpointError, match="is not there|is no adapter of a linear map"):
            open_checkpoint(folder)


def test_a_codec_has_nothing_that_an_adapter_is_for(tmp_path: Path) -> None:
    codec = new_model(ImageCodecConfig(4, 12, 4, 32, (1, 1, 1), 1, 8), seed=0)
    with pytest.raises(UsageError, match="lora: a janus_vqgan model has no blocks of linear maps"):
        adapt(codec, "janus_vqgan", SETTINGS, seed=0)
    save_checkpoint(tmp_path / "codec", codec, None, family="janus_vqgan", images=ImageSettings(size=(16, 16)))
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA)).save_pretrained(tmp_path / "base")
    model, family = adapted(tmp_path / "base")
    save_adapter(tmp_path / "adapter", model, None, family=family, base=str(tmp_path / "codec"))
    with pytest.raises(CheckpointError, match="is no adapter of a linear map of this janus_vqgan model"):
        open_checkpoint(tmp_path / "adapter")
