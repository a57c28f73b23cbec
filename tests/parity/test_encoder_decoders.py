"""Models that read one text and write another, against `transformers`: same numbers, same files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sensorium.checkpoint import open_checkpoint, save_checkpoint
from sensorium.errors import CheckpointError, SensoriumError
from sensorium.packed import Packed
from sensorium.storage import read_json, write_json
from tests.parity.laws import assert_saved_as_it_was_opened

CASES = [
    pytest.param("Bart", "Model", id="BartModel"),
    pytest.param("Bart", "ForConditionalGeneration", id="BartForConditionalGeneration"),
    pytest.param("MBart", "Model", id="MBartModel"),
    pytest.param("MBart", "ForConditionalGeneration", id="MBartForConditionalGeneration"),
    pytest.param("Marian", "Model", id="MarianModel"),
    pytest.param("Marian", "MTModel", id="MarianMTModel"),
    pytest.param("T5", "Model", id="T5Model"),
    pytest.param("T5", "ForConditionalGeneration", id="T5ForConditionalGeneration"),
    pytest.param("MT5", "Model", id="MT5Model"),
    pytest.param("MT5", "ForConditionalGeneration", id="MT5ForConditionalGeneration"),
]
EXACT = {"Bart": 1e-9, "MBart": 1e-9, "Marian": 1e-6, "T5": 1e-6, "MT5": 1e-6}
"""Of the output's size, in float64; the oracle rounds Marian's sinusoids and T5's norms to float32."""


@st.composite
def configurations(draw: Any, family: str) -> Any:
    """A small random published config."""
    heads = draw(st.sampled_from([1, 2, 4]))
    if family in ("T5", "MT5"):
        return getattr(transformers, f"{family}Config")(
            vocab_size=draw(st.integers(20, 50)), d_model=heads * draw(st.sampled_from([4, 6])),
            d_kv=draw(st.sampled_from([4, 6])), d_ff=draw(st.integers(3, 30)), num_layers=draw(st.integers(1, 3)),
            num_decoder_layers=draw(st.integers(1, 3)), num_heads=heads,
            relative_attention_num_buckets=draw(st.integers(4, 9)),
            relative_attention_max_distance=draw(st.integers(6, 30)),
            feed_forward_proj=draw(st.sampled_from(["relu", "gelu", "gated-gelu", "gated-silu"])),
            layer_norm_epsilon=draw(st.sampled_from([1e-6, 1e-2])), decoder_start_token_id=draw(st.integers(0, 2)),
            tie_word_embeddings=draw(st.booleans()),
        )  # fmt: skip
    own: dict[str, Any] = {"tie_word_embeddings": draw(st.booleans())}
    if family == "Marian" and draw(st.booleans()):
        own |= {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": draw(st.integers(20, 50))}
    return getattr(transformers, f"{family}Config")(
        **own, vocab_size=draw(st.integers(20, 50)), d_model=heads * draw(st.sampled_from([4, 6])),
        encoder_attention_heads=heads, decoder_attention_heads=heads, encoder_layers=draw(st.integers(1, 3)),
        decoder_layers=draw(st.integers(1, 3)), encoder_ffn_dim=draw(st.integers(3, 30)),
        decoder_ffn_dim=draw(st.integers(3, 30)), max_position_embeddings=24, scale_embedding=draw(st.booleans()),
        activation_function=draw(st.sampled_from(["gelu", "relu", "silu"])), pad_token_id=1, bos_token_id=0,
        eos_token_id=2, decoder_start_token_id=draw(st.sampled_from([1, 2])), forced_eos_token_id=2,
    )  # fmt: skip


def oracle(family: str, architecture: str, config: Any, seed: int) -> Any:
    """In float64, every weight random but the sinusoids."""
    torch.manual_seed(seed)
    model = getattr(transformers, family + architecture)(config).double().eval()
    if family in ("T5", "MT5") and architecture != "Model" and seed % 2:  # as version 1.1 is published
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if family != "Marian" or "embed_positions" not in name:
                tensor.normal_(0.0, 0.3)
    return model


def rectangle(sequences: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Padded ids and mask."""
    length = max(map(len, sequences))
    ids = torch.tensor([s + [1] * (length - len(s)) for s in sequences])
    return ids, torch.tensor([[1] * len(s) + [0] * (length - len(s)) for s in sequences])


@pytest.mark.parametrize(("family", "architecture"), CASES)
@given(data=st.data())
@settings(max_examples=10)
def test_outputs_equal_transformers(family: str, architecture: str, data: st.DataObject) -> None:
    config = data.draw(configurations(family))
    model = oracle(family, architecture, config, data.draw(st.integers(0, 99)))
    vocabularies = config.vocab_size, getattr(config, "decoder_vocab_size", config.vocab_size)
    texts = [st.lists(st.integers(3, size - 1), min_size=1, max_size=20) for size in vocabularies]
    pairs = data.draw(st.lists(st.tuples(*texts), min_size=1, max_size=5))
    sources, targets = [source for source, _ in pairs], [target for _, target in pairs]
    (ids, mask), (decoder_ids, decoder_mask) = rectangle(sources), rectangle(targets)
    with torch.no_grad():
        output = model(
            input_ids=ids, attention_mask=mask, decoder_input_ids=decoder_ids, decoder_attention_mask=decoder_mask
        )
    rows = output.last_hidden_state if architecture == "Model" else output.logits
    expected = torch.cat([row[: len(target)] for row, target in zip(rows, targets, strict=True)])
    scale = max(1.0, float(expected.abs().max()))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        for dtype, tolerance in ((torch.float64, EXACT[family]), (torch.float32, 1e-5)):
            ours = open_checkpoint(folder, dtype=dtype).model
            with torch.no_grad():
                memory = ours.encode(Packed.from_sequences(sources))
                hidden_states = ours(Packed.from_sequences(targets), memory)
                found = hidden_states if architecture == "Model" else ours.next_token_logits(hidden_states)
            torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize(("family", "architecture"), CASES)
@given(data=st.data())
@settings(max_examples=5)
def test_saving_what_was_opened_gives_the_same_bytes_and_opens_in_transformers(
    family: str, architecture: str, data: st.DataObject
) -> None:
    model = oracle(family, architecture, data.draw(configurations(family)), data.draw(st.integers(0, 1))).float()
    tied = model.config.tie_word_embeddings
    assert_saved_as_it_was_opened(
        model, () if tied else [key for key in model.state_dict() if key.endswith("shared.weight")]
    )


def test_a_table_of_sinusoids_that_are_none_is_refused(tmp_path: Path) -> None:
    config = transformers.MarianConfig(
        vocab_size=20, d_model=8, encoder_attention_heads=2, decoder_attention_heads=2, encoder_layers=1,
        decoder_layers=1, encoder_ffn_dim=8, decoder_ffn_dim=8, max_position_embeddings=12, pad_token_id=1,
        decoder_start_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = transformers.MarianModel(config)
    with torch.no_grad():
        model.encoder.embed_positions.weight.zero_()
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="embed_positions.weight' follows from the config"):
        open_checkpoint(tmp_path)


def test_a_model_that_a_family_cannot_say_is_not_saved_as_one(tmp_path: Path) -> None:
    config = transformers.MarianConfig(
        vocab_size=20, decoder_vocab_size=22, share_encoder_decoder_embeddings=False, d_model=8,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=8,
        decoder_ffn_dim=8, max_position_embeddings=12, pad_token_id=1, decoder_start_token_id=1, eos_token_id=2,
    )  # fmt: skip
    transformers.MarianMTModel(config).save_pretrained(tmp_path / "marian")
    model = open_checkpoint(tmp_path / "marian").model
    for family, sentence in (("t5", "this family has relative positions"), ("bart", "no table of positions")):
        with pytest.raises(SensoriumError, match=sentence):
            save_checkpoint(tmp_path / family, model, None, family=family)


@pytest.mark.parametrize(("key", "value"), [("is_gated_act", True), ("dense_act_fn", "silu")])
def test_a_file_that_contradicts_itself_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    config = transformers.T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    transformers.T5Model(config).save_pretrained(tmp_path)
    write_json(tmp_path / "config.json", {**read_json(tmp_path / "config.json"), key: value})
    with pytest.raises(CheckpointError, match="feed_forward_proj is 'relu', and"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(("tied", "scaled"), [(True, True), (False, False)])
def test_a_file_of_version_4_says_by_its_ties_what_is_scaled(tmp_path: Path, tied: bool, scaled: bool) -> None:
    config = transformers.T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    model = transformers.T5ForConditionalGeneration(config)
    if not tied:
        model.lm_head.weight = torch.nn.Parameter(torch.randn(20, 8))
    model.save_pretrained(tmp_path)
    written = read_json(tmp_path / "config.json")
    del written["scale_decoder_outputs"]
    write_json(tmp_path / "config.json", {**written, "tie_word_embeddings": tied})
    ours: Any = open_checkpoint(tmp_path).model
    assert (ours.config.language_model.tied, ours.config.language_model.scaled) == (tied, scaled)


def test_what_changes_the_arithmetic_and_is_not_implemented_is_named(tmp_path: Path) -> None:
    config = transformers.BartConfig(
        vocab_size=20, d_model=8, encoder_attention_heads=2, decoder_attention_heads=2, encoder_layers=1,
        decoder_layers=1, encoder_ffn_dim=8, decoder_ffn_dim=8, max_position_embeddings=12,
    )  # fmt: skip
    transformers.BartModel(config).save_pretrained(tmp_path)
    written = read_json(tmp_path / "config.json")
    write_json(tmp_path / "config.json", {**written, "normalize_before": True})
    with pytest.raises(CheckpointError, match="normalize_before is True; only False is supported for family bart"):
        open_checkpoint(tmp_path)
