"""GGUF files against `transformers`: the model they were written from, and its own reading of the same file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import transformers

from sensorium.checkpoint import open_checkpoint, save_checkpoint
from sensorium.errors import CheckpointError
from sensorium.families.gguf import NAMES
from sensorium.packed import Packed

gguf = pytest.importorskip("gguf")

PROMPT = [5, 6, 7, 8, 9, 10, 20, 3]
OWN: dict[str, dict[str, Any]] = {"llama": {}, "qwen2": {}, "qwen3": {"head_dim": 16}}
CLASSES = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}
SAID_BY_BOTH = (
    "max_position_embeddings", "num_hidden_layers", "intermediate_size", "hidden_size", "rope_theta",
    "num_attention_heads", "num_key_value_heads", "rms_norm_eps", "tie_word_embeddings",
)  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip


def oracle(family: str, **own: Any) -> Any:
    """A small random model of the family."""
    torch.manual_seed(3)
    config = getattr(transformers, f"{CLASSES[family]}Config")(
        **{
            "vocab_size": 64, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
            "num_hidden_layers": 2, "intermediate_size": 96, "max_position_embeddings": 64, **OWN[family], **own,
        }
    )  # fmt: skip
    model = getattr(transformers, f"{CLASSES[family]}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.15)
    return model


def permuted(weights: Any, heads: int) -> Any:
    """llama.cpp's order of a head's rows, as its converter makes it."""
    return (
        weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
        .swapaxes(1, 2)
        .reshape(weights.shape)
    )


def write(path: Path, family: str, model: Any, kind: str = "F32", **keys: Any) -> Path:
    """The model as llama.cpp's converter would write it; matrices quantised as ``kind``."""
    config, writer = model.config, gguf.GGUFWriter(path, family)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if family == "qwen3":
        writer.add_key_length(head_size)
        writer.add_value_length(head_size)
    if family == "llama":
        writer.add_rope_dimension_count(head_size)
        writer.add_vocab_size(config.vocab_size)
    for name, value in keys.items():
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        add[type(value)](name.replace("__", "."), value)
    theirs = {published: name for name, published in NAMES.items()}
    for name, parameter in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, _, ending = name.rpartition(".")
        layer = next((part for part in stem.split(".") if part.isdecimal()), "")
        stem = theirs[stem.replace(f".{layer}.", ".{i}.")].replace("{i}", layer)
        values = parameter.float().numpy()
        if family == "llama" and ("attn_q." in f"{stem}." or "attn_k." in f"{stem}."):
            values = permuted(values, config.num_attention_heads if "_q" in stem else config.num_key_value_heads)
        matrix = gguf.GGMLQuantizationType[kind if values.ndim == 2 else "F32"]
        writer.add_tensor(f"{stem}.{ending}", gguf.quants.quantize(values, matrix), raw_dtype=matrix)
    if config.rope_parameters["rope_type"] == "llama3":
        inverse = 1.0 / config.rope_parameters["rope_theta"] ** (numpy.arange(0, head_size, 2) / head_size)
        factors = torch.from_numpy(inverse) / model.model.rotary_emb.inv_freq
        writer.add_tensor("rope_freqs.weight", factors.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def logits(path: Path) -> torch.Tensor:
    model: Any = open_checkpoint(path).model
    with torch.no_grad():
        return model.next_token_logits(model(Packed.from_sequences([PROMPT])))


def their_logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([PROMPT])).logits[0]


@pytest.mark.parametrize("family", OWN)
@pytest.mark.parametrize("tied", [False, True])
def test_logits_are_those_of_the_model_it_was_written_from(family: str, tied: bool, tmp_path: Path) -> None:
    model = oracle(family, tie_word_embeddings=tied)
    path = write(tmp_path / "model.gguf", family, model)
    torch.testing.assert_close(logits(path), their_logits(model), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", OWN)
@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_0", "Q4_1", "Q5_1"])
def test_logits_are_those_of_transformers_on_the_same_file(family: str, kind: str, tmp_path: Path) -> None:
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    theirs = oracle(family)
    path = write(tmp_path / "model.gguf", family, theirs, kind)
    read = load_gguf_checkpoint(path, return_tensors=True, model_to_load=theirs)
    theirs.load_state_dict(read["tensors"])
    said, ours = read["config"], open_checkpoint(path).raw_config
    assert {key: ours[key] for key in SAID_BY_BOTH} == {key: said[key] for key in SAID_BY_BOTH}
    torch.testing.assert_close(logits(path), their_logits(theirs), atol=2e-5, rtol=1e-4)


def test_llama_with_biases_and_llama_3_scaling_opens(tmp_path: Path) -> None:
    rope = {"rope_theta": 500_000.0, **LLAMA3}
    model = oracle("llama", attention_bias=True, mlp_bias=True, rope_parameters=rope, head_dim=32)
    path = write(tmp_path / "model.gguf", "llama", model, llama__attention__key_length=32)
    torch.testing.assert_close(logits(path), their_logits(model), atol=2e-5, rtol=1e-4)
    assert open_checkpoint(path).raw_config["rope_scaling"] == LLAMA3


def test_linear_scaling_is_read(tmp_path: Path) -> None:
    rope = {"rope_theta": 10_000.0, "rope_type": "linear", "factor": 2.0}
    model = oracle("qwen2", rope_parameters=rope)
    said: dict[str, Any] = {"qwen2__rope__scaling__type": "linear", "qwen2__rope__scaling__factor": 2.0}
    path = write(tmp_path / "model.gguf", "qwen2", model, **said)
    torch.testing.assert_close(logits(path), their_logits(model), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", OWN)
def test_yarn_is_read_from_its_keys(family: str, tmp_path: Path) -> None:
    factor, original = 4.0, 16
    for more, said in (
        ({}, {}),
        ({"attention_factor": 1.5 * (0.1 * math.log(factor) + 1)}, {"attn_factor": 1.5}),
        ({"beta_fast": 8.0, "beta_slow": 2.0}, {"yarn_beta_fast": 8.0, "yarn_beta_slow": 2.0, "yarn_ext_factor": 1.0}),
    ):
        rope = {"rope_theta": 10_000.0, "rope_type": "yarn", "factor": factor, **more}
        model = oracle(family, rope_parameters={**rope, "original_max_position_embeddings": original})
        keys: dict[str, Any] = {"type": "yarn", "factor": factor, "original_context_length": original, **said}
        path = write(
            tmp_path / "model.gguf", family, model, **{f"{family}__rope__scaling__{k}": v for k, v in keys.items()}
        )
        torch.testing.assert_close(logits(path), their_logits(model), atol=2e-5, rtol=1e-4)
        assert gguf.Keys.Rope.SCALING_TYPE.format(arch=family) in gguf.GGUFReader(path).fields
        plain = write(tmp_path / "plain.gguf", family, model)
        assert not torch.allclose(logits(path), logits(plain), atol=1e-3)


def test_what_was_opened_is_saved_in_the_published_form_and_opens_in_transformers(tmp_path: Path) -> None:
    model = oracle("llama")
    opened = open_checkpoint(write(tmp_path / "model.gguf", "llama", model, "Q8_0"))
    save_checkpoint(tmp_path / "saved", opened.model, None, family=opened.family)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(logits(tmp_path / "saved"), their_logits(theirs), atol=2e-5, rtol=1e-4)
    assert torch.equal(logits(tmp_path / "saved"), logits(tmp_path / "model.gguf"))


def test_a_folder_that_holds_one_file_is_that_file(tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf", "llama", oracle("llama"))
    assert torch.equal(logits(tmp_path), logits(path))
    write(tmp_path / "other.gguf", "llama", oracle("llama"))
    with pytest.raises(CheckpointError, match=r"holds 2 GGUF files; give the path of one, such as model\.gguf"):
        open_checkpoint(tmp_path)


def test_the_weights_come_in_the_dtype_that_was_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf", "llama", oracle("llama"), "Q8_0")
    assert {weight.dtype for weight in open_checkpoint(path, dtype=torch.bfloat16).model.parameters()} == {
        torch.bfloat16
    }


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "experts": ({"llama__expert_count": 8}, "llama.expert_count is 8; only 0 is supported"),
    "a window": ({"llama__attention__sliding_window": 4096}, "attention.sliding_window is 4096; only 0"),
    "longrope": ({"llama__rope__scaling__type": "longrope"}, "type is 'longrope'; known are none, linear and yarn"),
    "a yarn that shrinks": (
        {"llama__rope__scaling__type": "yarn", "llama__rope__scaling__factor": 0.5}, "factor is 0.5; yarn needs one"
    ),
    "a yarn of DeepSeek's": (
        {"llama__rope__scaling__type": "yarn", "llama__rope__scaling__yarn_log_multiplier": 0.1},
        "yarn_log_multiplier' is not known for llama",
    ),
    "growth without yarn": ({"llama__rope__scaling__attn_factor": 2.0}, "attn_factor is 2.0; only with yarn"),
    "half-turned heads": ({"llama__rope__dimension_count": 8}, "dimension_count is 8; only the size of a head, 16"),
    "wider values": ({"llama__attention__value_length": 32}, "value_length is 32; only the size of a head"),
    "both ways": ({"llama__attention__causal": False}, "attention.causal is False; only True"),
    "a key of tomorrow": ({"llama__logit_scale": 2.0}, "'llama.logit_scale' is not known for llama"),
    "another room": ({"clip__has_vision_encoder": True}, "'clip.has_vision_encoder' is not known"),
    "an adapter": ({"general__type": "adapter"}, "general.type is 'adapter'; only a model"),
    "a part": ({"split__count": 3}, "one of 3 parts of a model"),
    "another vocabulary": ({"llama__vocab_size": 65}, "vocab_size is 65, token_embd has 64 rows"),
    "more layers": ({"llama__block_count": 3}, "9 missing: "),
    "a million layers": ({"llama__block_count": 10**6}, "claims 1,000,000 layers"),
    "fewer layers": ({"llama__block_count": 1}, "9 left over"),
    "other heads": ({"llama__attention__head_count": 8}, "head_count_kv|rope.dimension_count is 16"),
    "no heads": ({"llama__attention__head_count": 0}, "attention.head_count is 0; a whole number from 1 up"),
    "other heads of keys": ({"llama__attention__head_count_kv": 4}, "'blk.0.attn_k.weight' has 32 rows; 4 heads of 16"),
    "a list of heads": ({"llama__attention__head_count": "4"}, "head_count is '4'; a whole number"),
    "an epsilon in words": ({"llama__attention__layer_norm_rms_epsilon": "small"}, "is 'small'; a number is expected"),
    "an endless base": ({"llama__rope__freq_base": float("inf")}, "freq_base is inf; a number is expected"),
    "another architecture": ({"general__architecture": "mamba"}, "general.architecture is 'mamba'; known are llama"),
}  # fmt: skip


@pytest.mark.parametrize(("keys", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.filterwarnings("ignore:Duplicated key name")
def test_what_would_change_the_arithmetic_is_refused_by_name(
    keys: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.gguf"
    monkeypatch.setattr(gguf.GGUFWriter, "add_key_value", replacing)
    write(path, "llama", oracle("llama"), **keys)
    with pytest.raises(CheckpointError, match=message) as error:
        open_checkpoint(path)
    assert "\n" not in str(error.value)


def replacing(writer: Any, key: str, value: Any, kind: Any, sub_type: Any = None) -> None:
    """``GGUFWriter.add_key_value``, but a later value takes the place of an earlier one."""
    writer.kv_data[0][key] = gguf.gguf_writer.GGUFValue(value=value, type=kind, sub_type=sub_type)


def test_a_scaling_of_other_frequencies_is_refused(tmp_path: Path) -> None:
    rope = {"rope_theta": 500_000.0, **LLAMA3, "low_freq_factor": 2.0}
    path = write(tmp_path / "model.gguf", "llama", oracle("llama", rope_parameters=rope))
    with pytest.raises(CheckpointError, match="is not the scaling of Llama 3.1; no other is supported"):
        open_checkpoint(path)


def test_a_tensor_without_a_published_name_is_named(tmp_path: Path) -> None:
    model = oracle("llama")
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    write(path, "llama", model)
    content = path.read_bytes().replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_up.wright")
    path.write_bytes(content)
    writer.close()
    with pytest.raises(CheckpointError, match=r"'blk\.1\.ffn_up\.wright' is not known for llama"):
        open_checkpoint(path)
