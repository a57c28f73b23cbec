"""A random GPT-2 on each of its engines, for what must hold on all of them."""

from __future__ import annotations

from typing import Any

import pytest

from sensorium import native
from sensorium.infer.engine import fast
from tests.infer.random_models import random_decoder


@pytest.fixture(scope="session", params=["torch", "fp32", "bf16", "int8"])
def decoder(request: pytest.FixtureRequest) -> Any:
    """50 tokens, 200 positions: plain in float64, where the cache is torch's; or on the kernels, where it has pages."""
    model = random_decoder(1, num_layers=2)
    if request.param == "torch":
        return model.double()
    try:
        native.library()
    except OSError as error:
        pytest.skip(str(error))
    return fast(model, request.param)
