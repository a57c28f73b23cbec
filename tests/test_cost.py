"""Cost is arithmetic; counting is its oracle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sensorium import cost
from sensorium.config import (
    CaptionerConfig,
    DecoderConfig,
    DualEncoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    ImageEncoderConfig,
    LanguageModelHeadConfig,
    LearnedPositions,
    MaskedTokenHeadConfig,
    NextSentenceHeadConfig,
    PatchStemConfig,
    PoolerConfig,
    ProbePoolerConfig,
    RelativePositions,
    RotaryPositions,
    SequenceHeadConfig,
    SinusoidalPositions,
    SpanHeadConfig,
    StackConfig,
    TokenHeadConfig,
    TokenStemConfig,
)
from sensorium.image.patches import pack_images
from sensorium.models.build import new_model
from sensorium.models.captioner import Captioner
from sensorium.models.encoder_decoder import EncoderDecoder
from sensorium.nn.attention import reference_attention
from sensorium.nn.block import Attention, MemoryAttention
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
    DecoderConfig(
        TokenStemConfig(50, 16, None),
        StackConfig(
            16, 2, 4, 24, mask="causal", final_norm=True, norm="rms", mlp="gated", biases=frozenset({"qkv", "mlp"}),
            num_kv_heads=2, own_head_size=6, qk_norm=True, rotary=RotaryPositions(32), attention_scale=1.0,
        ),
        LanguageModelHeadConfig(),
    ),
    EncoderDecoderConfig(
        STEM, STACK, TokenStemConfig(50, 16, SinusoidalPositions(40)),
        StackConfig(16, 2, 2, 20, mask="causal", memory_size=16), 0, LanguageModelHeadConfig(bias=True),
    ),
    EncoderDecoderConfig(
        TokenStemConfig(50, 16, None), StackConfig(16, 2, 2, 24, relative=RelativePositions(8, 20, 40)),
        TokenStemConfig(50, 16, None),
        StackConfig(16, 2, 2, 20, mask="causal", memory_size=16, relative=RelativePositions(8, 20, 40)),
        0, LanguageModelHeadConfig(tied=False, scaled=True),
    ),
    EncoderDecoderConfig(
        STEM, STACK, TokenStemConfig(30, 16, SinusoidalPositions(40)),
        StackConfig(16, 2, 2, 20, mask="causal", memory_size=16), 0, LanguageModelHeadConfig(bias=True),
        shared_tokens=False,
    ),
    ImageEncoderConfig(PatchStemConfig(16, 12, 4), STACK, PoolerConfig(), SequenceHeadConfig(("a", "b", "c"))),
    DualEncoderConfig(
        ImageEncoderConfig(PatchStemConfig(16, 13, 4, 1, bias=False, norm_eps=1e-5), STACK),
        EncoderConfig(STEM, STACK), 9,
    ),
    DualEncoderConfig(
        ImageEncoderConfig(PatchStemConfig(16, 12, 3, class_token=False), STACK, ProbePoolerConfig()),
        EncoderConfig(STEM, STACK), 16, "last", text_length=8, image_projection=False, text_bias=True, logit_bias=True,
    ),
    *(
        CaptionerConfig(
            ImageEncoderConfig(PatchStemConfig(16, 12, 4), STACK), TokenStemConfig(50, 20, LearnedPositions(30)),
            StackConfig(20, 2, 2, 24, mask="causal", memory_size=16), 1, 2, MaskedTokenHeadConfig(tied=tied),
        )
        for tied in (True, False)
    ),
]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS)
def test_parameters_are_counted_right(config: Any) -> None:
    model = new_model(config, seed=0)
    assert cost.parameters(config) == sum(parameter.numel() for parameter in model.parameters())
    assert cost.weight_bytes(config) == 4 * cost.parameters(config)


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[3]])
def test_flops_are_those_torch_counts(config: Any) -> None:
    model = new_model(config, seed=0)
    for module in model.modules():
        if isinstance(module, Attention):
            module.kernel = reference_attention  # torch counts nothing inside its fused kernel on a CPU
    lengths = [7, 7, 12]
    batch = Packed.from_sequences([[1] * length for length in lengths])
    with FlopCounterMode(display=False) as counter:
        model(batch)
    if config.stack.mask == "causal":  # the formula's scores are all worked out, and half of them hidden
        hidden = sum(4 * config.stack.qkv_sizes[0] * n * n for n in lengths) * config.stack.num_layers // 2
        assert cost.forward_flops(config, lengths) + hidden == counter.get_total_flops()
    else:
        assert cost.forward_flops(config, lengths) == counter.get_total_flops()


def test_flops_of_both_sides_are_those_torch_counts() -> None:
    config = next(config for config in CONFIGS if isinstance(config, EncoderDecoderConfig))
    model = new_model(config, seed=0)
    assert isinstance(model, EncoderDecoder)
    for module in model.modules():
        if isinstance(module, Attention | MemoryAttention):
            module.kernel = reference_attention
    sources, lengths = [7, 7, 12], [5, 9, 3]
    with FlopCounterMode(display=False) as counter:
        memory = model.encode(Packed.from_sequences([[1] * length for length in sources]))
        model(Packed.from_sequences([[1] * length for length in lengths]), memory)
    stack = config.decoder_stack
    hidden = sum(4 * stack.qkv_sizes[0] * n * n for n in lengths) * stack.num_layers // 2
    assert cost.forward_flops(config, lengths, source_lengths=sources) + hidden == counter.get_total_flops()
    with pytest.raises(TypeError, match="lengths of both texts"):
        cost.forward_flops(config, lengths)


def test_flops_of_a_caption_are_those_torch_counts() -> None:
    config = next(config for config in CONFIGS if isinstance(config, CaptionerConfig))
    model = new_model(config, seed=0)
    assert isinstance(model, Captioner)
    for module in model.modules():
        if isinstance(module, Attention | MemoryAttention):
            module.kernel = reference_attention
    images = pack_images([torch.zeros(3, 12, 8), torch.zeros(3, 4, 4)], 4, class_token=True)
    lengths = [5, 9]
    with FlopCounterMode(display=False) as counter:
        states = model(Packed.from_sequences([[1] * length for length in lengths]), model.encode(images))
        model.next_token_logits(states)
    stack = config.decoder_stack
    hidden = sum(4 * stack.qkv_sizes[0] * n * n for n in lengths) * stack.num_layers // 2
    counted = cost.forward_flops(config, lengths, vocabulary_rows=sum(lengths), source_lengths=images.lengths)
    assert counted + hidden == counter.get_total_flops()


def test_the_peak_of_this_machine_is_measured_and_remembered() -> None:
    assert cost.peak_flops("float32") == cost.peak_flops("float32") > 1e8
