"""The divergence in chunks is the formula, and so are its gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sensorium.nn import divergence as module
from sensorium.nn.divergence import Vocabulary, divergence, linear_divergence


@pytest.mark.parametrize("chunk_bytes", [1, 300, 2**26])
@pytest.mark.parametrize("has_bias", [False, True])
def test_in_chunks_it_is_the_formula(chunk_bytes: int, has_bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", chunk_bytes)
    torch.manual_seed(0)
    ours = [torch.randn(7, 5), torch.randn(11, 5), torch.randn(11) if has_bias else None]
    theirs = Vocabulary(torch.randn(7, 6), torch.randn(11, 6), torch.randn(11))
    for tensor in ours:
        if tensor is not None:
            tensor.requires_grad_()
    found, agree = linear_divergence(Vocabulary(*ours), theirs, temperature=3.0)
    gradients = torch.autograd.grad(2.0 * found, [t for t in ours if t is not None])
    logits, taught = F.linear(*ours), F.linear(theirs.hidden_states, theirs.weight, theirs.bias)
    p, q = (taught / 3.0).softmax(-1), (logits / 3.0).softmax(-1)
    expected = (p * (p.log() - q.log())).sum()
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(2.0 * expected, [t for t in ours if t is not None])
    for gradient, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, other)
    assert agree == int((logits.argmax(-1) == taught.argmax(-1)).sum())
    at_hand = divergence(logits, taught, temperature=3.0)
    torch.testing.assert_close(at_hand[0], expected)
    assert at_hand[1] == agree


def test_a_model_is_nowhere_from_itself() -> None:
    weight = torch.randn(9, 4, requires_grad=True)
    hidden_states = torch.randn(3, 4)
    found, agree = linear_divergence(
        Vocabulary(hidden_states, weight, None), Vocabulary(hidden_states, weight.detach(), None), temperature=2.0
    )
    [gradient] = torch.autograd.grad(found, weight)
    assert abs(float(found.detach())) < 1e-5
    assert float(gradient.abs().max()) < 1e-5
    assert agree == 3
