"""What is done to logits between two steps, on the kernels, is what torch does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.infer import likeliest as module
from sensorium.infer.likeliest import likeliest, log_probabilities


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 5), size=st.integers(1, 400), seed=st.integers(0, 2**31), scale=st.floats(0.01, 50))
def test_log_probabilities_are_those_of_torch(rows: int, size: int, seed: int, scale: float) -> None:
    logits = torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)) * scale
    before = logits.clone()
    # Logits go up to 200, where the next float32 is 1.5e-5 away.
    torch.testing.assert_close(log_probabilities(logits), logits.log_softmax(dim=-1), rtol=1e-5, atol=5e-5)
    assert torch.equal(logits, before)


def test_what_can_never_come_stays_so() -> None:
    logits = torch.full((1, 40), float("-inf"))
    logits[0, 7] = 3.0
    expected = torch.full((1, 40), float("-inf"))
    expected[0, 7] = 0.0
    torch.testing.assert_close(log_probabilities(logits), expected)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 5), size=st.integers(1, 400), most=st.integers(0, 40), seed=st.integers(0, 2**31))
def test_the_likeliest_are_those_of_torch(rows: int, size: int, most: int, seed: int) -> None:
    scores = torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))
    values, ids = likeliest(scores, most)
    expected = scores.topk(min(most, size), dim=-1)
    assert torch.equal(values, expected.values)
    assert torch.equal(ids, expected.indices)


@pytest.mark.parametrize("most", [1, 3, 6])
def test_of_equal_ones_the_first_is_taken(most: int) -> None:
    scores = torch.zeros(2, 50)
    scores[1, [9, 20, 33]] = 1.0
    values, ids = likeliest(scores, most)
    if module._by_kernel(scores):
        assert ids[0].tolist() == [*range(most)]
        assert ids[1].tolist() == [9, 20, 33, 0, 1, 2][:most]
    assert values[1].tolist() == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0][:most]


def test_tokens_that_can_never_come_fill_up_what_is_asked_for() -> None:
    scores = torch.full((1, 30), float("-inf"))
    scores[0, 12] = -1.0
    values, ids = likeliest(scores, 4)
    assert values[0, 0] == -1.0
    assert ids[0, 0] == 12
    assert values[0, 1:].isinf().all()
    assert len(set(ids[0].tolist())) == 4
