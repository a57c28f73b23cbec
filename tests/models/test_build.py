"""New weights: the same for a seed, and such that a model can begin to learn."""

from __future__ import annotations

import math

import pytest
import torch

from sensorium.config import (
    EncoderDecoderConfig,
    LanguageModelHeadConfig,
    SinusoidalPositions,
    StackConfig,
    TokenStemConfig,
)
from sensorium.models.build import new_model
from sensorium.models.encoder_decoder import EncoderDecoder
from sensorium.packed import Packed

LAYERS = 6


def translator(seed: int = 0) -> EncoderDecoder:
    """A post-norm encoder–decoder as Marian's, 128 wide."""
    stem = TokenStemConfig(300, 128, SinusoidalPositions(64), scaled=True)
    made = new_model(
        EncoderDecoderConfig(
            stem, StackConfig(128, LAYERS, 4, 256),
            stem, StackConfig(128, LAYERS, 4, 256, mask="causal", memory_size=128), 1, LanguageModelHeadConfig(),
        ),
        seed=seed,
    )  # fmt: skip
    assert isinstance(made, EncoderDecoder)
    return made


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    first, again, other = (translator(seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_keys_of_a_source_begin_as_queries_and_values_do_not() -> None:
    for block in translator().decoder.stack.layers:
        attention = block.memory_attention
        key, value = attention.key_value.weight.chunk(2)
        assert torch.equal(key, attention.query.weight)
        assert not torch.equal(value, attention.query.weight)


def test_what_writes_to_the_residual_stream_begins_smaller_the_more_layers_there_are() -> None:
    for block in translator().decoder.stack.layers:
        for part in (block.attention.output, block.memory_attention.output, block.mlp.down):
            glorot = math.sqrt(2 / (part.in_features + part.out_features))
            assert part.weight.std().item() == pytest.approx(glorot / math.sqrt(2 * LAYERS), rel=0.05)
        assert block.mlp.up.weight.std().item() == pytest.approx(math.sqrt(2 / (128 + 256)), rel=0.05)


@torch.no_grad()
def test_at_the_top_of_a_new_encoder_a_token_still_resembles_itself_more_than_any_other() -> None:
    model = translator()
    tokens = Packed.from_sequences([torch.randperm(300, generator=torch.Generator().manual_seed(0))[:60].tolist()])
    below = model.encoder.stem(tokens)  # [T, D]
    above = model.encode(tokens).states  # [T, D]
    alike = torch.nn.functional.cosine_similarity(above[:, None], below[None], dim=-1)  # [T, T]
    assert torch.equal(alike.argmax(dim=1), torch.arange(60))
    assert alike.diagonal().mean() > 0.7
