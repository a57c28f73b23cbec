"""Sampling against the logits processors of transformers, and its laws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation import logits_process

from sensorium.errors import UsageError
from sensorium.infer.sampling import SamplingSettings, make_sampler


def drawn_from(settings: SamplingSettings, logits: torch.Tensor, history: list[torch.Tensor], times: int) -> set[int]:
    sample = make_sampler(settings)
    generators = [settings.generator(i) for i in range(times)]
    rows = logits.expand(times, -1)
    return set(sample(rows, history * times, generators).tolist())


@pytest.mark.parametrize(
    ("options", "oracle"),
    [
        ({"top_k": 3}, logits_process.TopKLogitsWarper(3)),
        ({"top_k": 0, "top_p": 0.6}, logits_process.TopPLogitsWarper(0.6)),
        ({"top_k": 0, "top_p": 0.01}, logits_process.TopPLogitsWarper(0.01)),
    ],
)
@given(seed=st.integers(0, 1000))
def test_only_what_transformers_leaves_is_drawn(options: dict[str, Any], oracle: Any, seed: int) -> None:
    logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(seed))
    left = oracle(torch.empty(1, 0, dtype=torch.int64), logits.clone()).isfinite()[0].nonzero()[:, 0].tolist()
    settings = SamplingSettings(do_sample=True, seed=seed, **options)
    drawn = drawn_from(settings, logits, [torch.tensor([0])], times=400)
    assert drawn <= set(left)
    assert int(logits.argmax()) in drawn


@given(seed=st.integers(0, 1000), penalty=st.floats(0.5, 3.0))
def test_greedy_with_a_repetition_penalty_is_that_of_transformers(seed: int, penalty: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits, history = torch.randn(1, 12, generator=generator), torch.randint(0, 12, (1, 6), generator=generator)
    expected = logits_process.RepetitionPenaltyLogitsProcessor(penalty)(history, logits.clone()).argmax()
    settings = SamplingSettings(repetition_penalty=penalty)
    assert drawn_from(settings, logits, [history[0]], times=1) == {int(expected)}


def test_frequencies_are_the_probabilities() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    settings = SamplingSettings(do_sample=True, temperature=2.0, seed=0)
    times = 4000
    drawn = make_sampler(settings)(
        logits.expand(times, -1), [torch.tensor([0])] * times, [settings.generator(i) for i in range(times)]
    )
    shares = torch.bincount(drawn, minlength=3) / times
    assert torch.allclose(shares, (logits[0] / 2).softmax(dim=0), atol=0.03)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0.0; it must be above 0"),
        ({"top_p": 0.0}, "top_p above 0"),
        ({"top_k": -1}, "top_k must be 0 or more"),
        ({"repetition_penalty": 0.0}, "repetition_penalty above 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_setting_outside_its_range_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SamplingSettings(**options)
