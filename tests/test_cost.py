"""Cost is arithmetic; counting is its oracle."""

from __future__ import annotations

from typing import Any

import pytest
from torch.utils.flop_counter import FlopCounterMode

from sensorium import cost
from sensorium.config import (
    DecoderConfig,
    EncoderConfig,
    LanguageModelHeadConfig,
    LearnedPositions,
    MaskedTokenHeadConfig,
    NextSentenceHeadConfig,
    SequenceHeadConfig,
    SpanHeadConfig,
    StackConfig,
    TokenHeadConfig,
    TokenStemConfig,
)
from sensorium.models.build import new_model
from sensorium.nn.attention import reference_attention
from sensorium.nn.block import Attention
from sensorium.packed import Packed

STEM = TokenStemConfig(50, 16, LearnedPositions(40), num_segments=2, norm_eps=1e-12)
STACK = StackConfig(16, 3, 2, 24)
HEADS: dict[str, Any] = {
    "masked_token": MaskedTokenHeadConfig(tied=False),
    "next_sentence": NextSentenceHeadConfig(),
    "sequence": SequenceHeadConfig(("a", "b", "c"), dense="tanh"),
    "token": TokenHeadConfig(("a", "b")),
    "span": SpanHeadConfig(),
}
CONFIGS = [
    EncoderConfig(STEM, STACK),
    EncoderConfig(STEM, STACK).with_heads(**HEADS),
    DecoderConfig(STEM, StackConfig(16, 2, 2, 24, mask="causal", final_norm=True), LanguageModelHeadConfig(tied=False)),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_parameters_are_counted_right(config: Any) -> None:
    model = new_model(config, seed=0)
    assert cost.parameters(config) == sum(parameter.numel() for parameter in model.parameters())
    assert cost.weight_bytes(config) == 4 * cost.parameters(config)


def test_flops_of_an_encoder_are_those_torch_counts() -> None:
    model = new_model(CONFIGS[0], seed=0)
    for module in model.modules():
        if isinstance(module, Attention):
            module.kernel = reference_attention  # torch counts nothing inside its fused kernel on a CPU
    lengths = [7, 7, 12]
    batch = Packed.from_sequences([[1] * length for length in lengths])
    with FlopCounterMode(display=False) as counter:
        model(batch)
    assert cost.forward_flops(CONFIGS[0], lengths) == counter.get_total_flops()


def test_the_peak_of_this_machine_is_measured_and_remembered() -> None:
    assert cost.peak_flops("float32") == cost.peak_flops("float32") > 1e8
