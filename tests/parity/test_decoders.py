"""Decoders of today against `transformers`: what they write, greedily and by beams, alone and together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from sensorium.checkpoint import open_checkpoint, save_checkpoint
from sensorium.errors import CheckpointError
from sensorium.infer.beam import beam_search
from sensorium.infer.engine import fast
from sensorium.infer.generate import generate
from sensorium.infer.settings import GenerationSettings
from sensorium.storage import read_json, write_json

PROMPTS = [[5, 6, 7, 8, 9, 10], [20], [11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21], [30, 31]]
NEW, EOS = 24, 1
OWN: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Mistral": {"sliding_window": 6},
    "Qwen2": {},
    "Qwen3": {"head_dim": 12},
}


def oracle(family: str) -> Any:
    """A small random model of the family."""
    torch.manual_seed(3)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=60, hidden_size=32, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2,
        intermediate_size=48, max_position_embeddings=64, bos_token_id=0, eos_token_id=EOS, pad_token_id=EOS,
        **OWN[family],
    )  # fmt: skip
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.4)
    return model


def cut(tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(EOS)] if EOS in tokens else tokens


@pytest.mark.parametrize("family", OWN)
def test_generation_writes_what_transformers_writes(family: str, tmp_path: Path) -> None:
    theirs = oracle(family)
    theirs.save_pretrained(tmp_path)
    model = open_checkpoint(tmp_path).model
    options = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": EOS}
    for num_beams in (1, 3):
        expected = []
        for prompt in PROMPTS:
            ids = torch.tensor([prompt])
            output = theirs.generate(ids, attention_mask=torch.ones_like(ids), num_beams=num_beams, **options)
            expected.append(cut(output[0, len(prompt) :].tolist()))
        for one in (model, fast(model)):
            settings = GenerationSettings(max_new_tokens=NEW, eos_token_id=EOS, num_beams=num_beams)
            if num_beams == 1:
                found = [cut(new) for new in generate(one, PROMPTS, settings)]
            else:
                answers = beam_search(one, PROMPTS, settings)
                found = [cut(list(best.token_ids)) for best, *_ in answers]
            assert found == expected


def test_a_scaling_that_is_not_implemented_is_named(tmp_path: Path) -> None:
    oracle("Llama").save_pretrained(tmp_path)
    config = read_json(tmp_path / "config.json")
    write_json(tmp_path / "config.json", {**config, "rope_parameters": {"rope_type": "longrope", "factor": 4.0}})
    with pytest.raises(CheckpointError, match="positions of type 'longrope'; known are default, linear, llama3, yarn"):
        open_checkpoint(tmp_path)


def test_a_setting_of_a_scaling_that_is_not_known_is_named(tmp_path: Path) -> None:
    oracle("Llama").save_pretrained(tmp_path)
    config = read_json(tmp_path / "config.json")
    write_json(
        tmp_path / "config.json", {**config, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "beta_fast": 9}}
    )
    with pytest.raises(CheckpointError, match="positions of type 'linear' say 'beta_fast', which is not known"):
        open_checkpoint(tmp_path)


def test_windows_of_some_layers_are_refused(tmp_path: Path) -> None:
    oracle("Qwen2").save_pretrained(tmp_path)
    config = read_json(tmp_path / "config.json")
    write_json(tmp_path / "config.json", {**config, "layer_types": ["full_attention", "sliding_attention"]})
    with pytest.raises(CheckpointError, match="only full attention is supported"):
        open_checkpoint(tmp_path)


def test_a_file_of_version_4_opens_and_what_is_saved_says_the_same(tmp_path: Path) -> None:
    scaling = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }  # fmt: skip
    oracle("Llama").save_pretrained(tmp_path / "first")
    config = read_json(tmp_path / "first" / "config.json")
    del config["rope_parameters"]
    write_json(tmp_path / "first" / "config.json", {**config, "rope_theta": 500_000.0, "rope_scaling": scaling})
    opened = open_checkpoint(tmp_path / "first")
    save_checkpoint(tmp_path / "second", opened.model, None, family=opened.family)
    saved = read_json(tmp_path / "second" / "config.json")
    assert (saved["rope_theta"], saved["rope_scaling"]) == (500_000.0, scaling)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "second")
    assert theirs.config.rope_parameters == {"rope_theta": 500_000.0, **scaling}
