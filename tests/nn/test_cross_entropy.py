"""The chunked loss is torch's loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from sensorium.nn import cross_entropy
from sensorium.nn.cross_entropy import linear_cross_entropy


@given(
    rows=st.integers(1, 17),
    vocabulary=st.integers(2, 33),
    smoothing=st.sampled_from([0.0, 0.1]),
    with_bias=st.booleans(),
    chunk=st.sampled_from([1, 400, 10**6]),
)
def test_loss_count_and_gradients_equal_torch(
    rows: int, vocabulary: int, smoothing: float, with_bias: bool, chunk: int
) -> None:
    generator = torch.Generator().manual_seed(rows * 100 + vocabulary)
    hidden, weight = torch.randn(rows, 5, generator=generator), torch.randn(vocabulary, 5, generator=generator)
    bias = torch.randn(vocabulary, generator=generator) if with_bias else None
    targets = torch.randint(vocabulary, (rows,), generator=generator)
    results: list[list[Any]] = []
    for ours in (True, False):
        inputs = [None if x is None else x.clone().requires_grad_() for x in (hidden, weight, bias)]
        h, w, b = inputs
        assert h is not None
        assert w is not None
        if ours:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(cross_entropy, "CHUNK_BYTES", chunk)
                loss, correct = linear_cross_entropy(h, w, b, targets, label_smoothing=smoothing)
        else:
            logits = F.linear(h, w, b)
            loss = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)
            correct = int((logits.argmax(-1) == targets).sum())
        (loss * 0.5).backward()
        results.append([loss.detach(), torch.tensor(correct), *(x.grad for x in inputs if x is not None)])
    for ours_value, theirs_value in zip(*results, strict=True):
        torch.testing.assert_close(ours_value, theirs_value, rtol=1e-4, atol=1e-5)


def test_without_gradients_none_are_worked_out() -> None:
    loss, _ = linear_cross_entropy(torch.randn(3, 4), torch.randn(6, 4), None, torch.tensor([0, 1, 2]))
    assert not loss.requires_grad
