"""The chunked loss is torch's loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from sensorium import native
from sensorium.nn import cross_entropy
from sensorium.nn.cross_entropy import linear_cross_entropy


def divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """What R-Drop adds, of log probabilities."""
    both = [F.kl_div(*pair, reduction="sum", log_target=True) for pair in ((p, q), (q, p))]
    return (both[0] + both[1]) / 2


@given(
    rows=st.one_of(st.integers(1, 17), st.integers(60, 200)),
    vocabulary=st.one_of(st.integers(2, 33), st.integers(250, 900)),
    size=st.sampled_from([5, 8, 68]),
    smoothing=st.sampled_from([0.0, 0.1]),
    agreement=st.sampled_from([0.0, 3.0]),
    with_bias=st.booleans(),
    chunk=st.sampled_from([1, 400, 10**6]),
)
def test_loss_count_and_gradients_equal_torch(
    rows: int, vocabulary: int, size: int, smoothing: float, agreement: float, with_bias: bool, chunk: int
) -> None:
    rows = 2 * rows if agreement else rows
    generator = torch.Generator().manual_seed(rows * 100 + vocabulary)
    hidden, weight = torch.randn(rows, size, generator=generator), torch.randn(vocabulary, size, generator=generator)
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
                loss, correct = linear_cross_entropy(
                    h, w, b, targets, label_smoothing=smoothing, agreement=agreement
                )  # fmt: skip
        else:
            logits = F.linear(h, w, b)
            loss = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)
            loss = loss + agreement * divergence(*logits.log_softmax(-1).chunk(2)) if agreement else loss
            correct = int((logits.argmax(-1) == targets).sum())
        (loss * 0.5).backward()
        results.append([loss.detach(), torch.tensor(correct), *(x.grad for x in inputs if x is not None)])
    for ours_value, theirs_value in zip(*results, strict=True):
        # Divergences are differences of likelihoods, in which more is rounded away.
        torch.testing.assert_close(ours_value, theirs_value, rtol=1e-4, atol=2e-4 if agreement else 1e-5)


def test_without_gradients_none_are_worked_out() -> None:
    loss, _ = linear_cross_entropy(torch.randn(3, 4), torch.randn(6, 4), None, torch.tensor([0, 1, 2]))
    assert not loss.requires_grad


@pytest.mark.skipif(not native.available(), reason="the compiled kernels can't run here")
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("agreement", [0.0, 3.0])
@pytest.mark.parametrize("chunk", [10**9, 100_000])
def test_in_bf16_the_kernels_are_as_near_to_float64_as_torch(smoothing: float, agreement: float, chunk: int) -> None:
    torch.manual_seed(0)
    hidden, weight, bias = torch.randn(150, 64), torch.randn(700, 64), torch.randn(700)
    targets = torch.randint(700, (150,))
    found: list[list[torch.Tensor]] = []
    for dtype, compiled in ((torch.float64, False), (torch.bfloat16, False), (torch.bfloat16, True)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cross_entropy, "CHUNK_BYTES", chunk)
            if not compiled:
                patch.setattr(cross_entropy, "_compiled", lambda hidden, weight: False)
            inputs = [x.to(torch.bfloat16).to(dtype).requires_grad_() for x in (hidden, weight, bias)]
            loss, _ = linear_cross_entropy(
                inputs[0], inputs[1], inputs[2], targets, label_smoothing=smoothing, agreement=agreement
            )  # fmt: skip
            loss.backward()
        found.append([loss.detach().double(), *(x.grad.double() for x in inputs if x.grad is not None)])
    for exact, theirs, ours in zip(*found, strict=True):
        assert float((ours - exact).norm()) <= max(1.2 * float((theirs - exact).norm()), 1e-3 * float(exact.norm()))


@pytest.mark.skipif(not native.available(), reason="the compiled kernels can't run here")
def test_among_equal_logits_the_first_counts_as_the_likeliest() -> None:
    weight = torch.ones(600, 4)
    hidden = torch.ones(3, 4)
    assert linear_cross_entropy(hidden, weight, None, torch.tensor([0, 599, 0]))[1] == 2


def test_no_rows_have_no_loss_and_no_gradient() -> None:
    weight = torch.randn(6, 4, requires_grad=True)
    loss, correct = linear_cross_entropy(torch.empty(0, 4), weight, None, torch.empty(0, dtype=torch.int64))
    loss.backward()
    assert (float(loss.detach()), correct) == (0.0, 0)
    assert weight.grad is not None
    assert not weight.grad.any()
