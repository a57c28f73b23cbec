"""Laws of the stack: neighbours do not matter, and looking inside changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sensorium.config import (
    DecoderConfig,
    EncoderConfig,
    LanguageModelHeadConfig,
    LearnedPositions,
    RelativePositions,
    StackConfig,
    TokenStemConfig,
)
from sensorium.errors import UsageError
from sensorium.models.build import new_model
from sensorium.nn.stack import capture
from sensorium.packed import Packed

STEM = TokenStemConfig(
    vocabulary_size=50, hidden_size=16, positions=LearnedPositions(40), num_segments=2, norm_eps=1e-12
)
ENCODER = EncoderConfig(STEM, StackConfig(hidden_size=16, num_layers=2, num_heads=2, mlp_size=24))
DECODER = DecoderConfig(
    TokenStemConfig(vocabulary_size=50, hidden_size=16, positions=LearnedPositions(40)),
    StackConfig(16, 2, 2, 24, mask="causal", norm_place="pre", final_norm=True),
    LanguageModelHeadConfig(),
)
RELATIVE = EncoderConfig(
    TokenStemConfig(vocabulary_size=50, hidden_size=16, positions=None),
    StackConfig(16, 2, 2, 24, norm_place="pre", norm="rms", relative=RelativePositions(8, 20, 40)),
)
SEQUENCES = st.lists(st.lists(st.integers(0, 49), min_size=1, max_size=40), min_size=1, max_size=6)


def model_of(config: Any, dtype: torch.dtype = torch.float64) -> Any:
    model = new_model(config, seed=3).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)).to(dtype), alpha=0.2
            )
    return model


@pytest.mark.parametrize("config", [ENCODER, DECODER, RELATIVE], ids=["encoder", "decoder", "relative"])
@given(sequences=SEQUENCES)
@torch.no_grad()
def test_a_sequence_does_not_depend_on_its_neighbours(config: Any, sequences: list[list[int]]) -> None:
    model = model_of(config)
    batch = Packed.from_sequences(sequences)
    for together, sequence in zip(batch.split(model(batch)), sequences, strict=True):
        alone = model(Packed.from_sequences([sequence]))
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_causal_model_cannot_see_the_future() -> None:
    model = model_of(DECODER)
    first, second = (model(Packed.from_sequences([[1, 2, 3, last]])) for last in (4, 5))
    assert torch.equal(first[:3], second[:3])
    assert not torch.equal(first[3], second[3])


@pytest.mark.parametrize("config", [ENCODER, RELATIVE], ids=["learned", "relative"])
@torch.no_grad()
def test_capture_sees_weights_that_sum_to_one_and_changes_no_result(config: EncoderConfig) -> None:
    model = model_of(config)
    batch = Packed.from_sequences([[1, 2, 3], [4, 5]])
    plain = model(batch)
    with capture(model, layers=[1]) as seen:
        captured = model(batch)
    torch.testing.assert_close(captured, plain, rtol=0, atol=1e-12)
    assert list(seen.attention) == [1]
    assert [tuple(weights.shape) for weights in seen.attention[1]] == [(2, 3, 3), (2, 2, 2)]
    torch.testing.assert_close(seen.attention[1][0].sum(-1), torch.ones(2, 3, dtype=torch.float64))
    assert torch.equal(seen.hidden[1], captured)
    assert torch.equal(model(batch), plain)  # the hooks are gone


def test_capture_names_a_layer_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="no layer 9; the model has layers 0 to 1"), capture(model_of(ENCODER), [9]):
        pass


def test_a_sequence_longer_than_the_position_table_is_refused_with_both_numbers() -> None:
    with pytest.raises(UsageError, match="has 41 tokens; this model reads at most 40"):
        model_of(ENCODER)(Packed.from_sequences([[1] * 41]))


@torch.no_grad()
def test_bf16_stays_near_fp32() -> None:
    batch = Packed.from_sequences([[1, 2, 3, 4, 5], [6, 7]])
    exact, rough = model_of(ENCODER, torch.float32)(batch), model_of(ENCODER, torch.bfloat16)(batch)
    assert torch.nn.functional.cosine_similarity(exact, rough.float()).min() > 0.999
