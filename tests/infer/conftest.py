"""A random GPT-2 on each of its engines, for what must hold on all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sensorium import native
from sensorium.config import DecoderConfig, LanguageModelHeadConfig, LearnedPositions, StackConfig, TokenStemConfig
from sensorium.infer.engine import fast
from sensorium.models.build import new_model


@pytest.fixture(scope="session", params=["torch", "fp32", "bf16", "int8"])
def decoder(request: pytest.FixtureRequest) -> Any:
    """50 tokens, 200 positions: plain in float64, where the cache is torch's; or on the kernels, where it has pages."""
    config = DecoderConfig(
        TokenStemConfig(50, 16, LearnedPositions(200)),
        StackConfig(16, 2, 2, 32, mask="causal", norm_place="pre", final_norm=True),
        LanguageModelHeadConfig(),
    )
    model = new_model(config, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    if request.param == "torch":
        return model.double()
    try:
        native.library()
    except OSError as error:
        pytest.skip(str(error))
    return fast(model, request.param)
