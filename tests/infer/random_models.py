"""Random models and batches that the tests of inference share."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sensorium.config import DecoderConfig, LanguageModelHeadConfig, LearnedPositions, StackConfig, TokenStemConfig
from sensorium.models.build import new_model
from sensorium.packed import Packed

VOCABULARY = 300
"""Of the batches."""
TORCH_BF16 = pytest.param(
    "bf16",
    marks=pytest.mark.skipif(
        not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="torch has no bf16 products for this processor"
    ),
)
"""The dtype, where torch's own products have it."""


def random_decoder(
    seed: int, *, vocabulary_size: int = 50, positions: int = 200, spread: float = 0.3, num_layers: int = 1
) -> Any:
    """A small GPT-2 whose every parameter is normal with this deviation."""
    config = DecoderConfig(
        TokenStemConfig(vocabulary_size, 16, LearnedPositions(positions)),
        StackConfig(16, num_layers, 2, 32, mask="causal", norm_place="pre", final_norm=True),
        LanguageModelHeadConfig(),
    )
    model = new_model(config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, spread, generator=generator)
    return model


def batch_of(*lengths: int, seed: int = 0) -> Packed:
    """Random token ids."""
    generator = torch.Generator().manual_seed(seed)
    return Packed.from_sequences([torch.randint(VOCABULARY, (n,), generator=generator) for n in lengths])


def distance(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Of the largest value."""
    return float((got - expected).abs().max() / expected.abs().max())
