"""Sequences that share a beginning give, forwards and backwards, what whole copies of them give."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sensorium.config import RotaryPositions, StackConfig
from sensorium.errors import UsageError
from sensorium.nn.beginnings import SharedBeginnings
from sensorium.nn.stack import Stack
from sensorium.packed import Layout

BEGINNINGS, OWNERS, RESTS = (3, 5), (1, 0, 1, 1), (2, 4, 1, 2)


def stack() -> Stack:
    torch.manual_seed(0)
    config = StackConfig(
        hidden_size=16, num_layers=3, num_heads=4, num_kv_heads=2, mlp_size=24, mask="causal", norm_place="pre",
        norm="rms", mlp="gated", final_norm=True, rotary=RotaryPositions(32),
    )  # fmt: skip
    made = Stack(config).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0.0, 0.4)
    return made


def gradients(made: Stack, loss: Tensor, x: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [x, *made.parameters()]))


def test_states_and_gradients_are_those_of_whole_copies() -> None:
    made = stack()
    lengths = (*BEGINNINGS, *RESTS)
    x = torch.randn(sum(lengths), 16, dtype=torch.float64, requires_grad=True)
    cache = SharedBeginnings(OWNERS)
    shared = made(x, cache.layout(lengths), cache).split(list(lengths))[len(BEGINNINGS) :]

    parts = x.split(list(lengths))
    whole = [torch.cat([parts[owner], parts[2 + n]]) for n, owner in enumerate(OWNERS)]
    sizes = tuple(map(len, whole))
    copies = made(torch.cat(whole), Layout(sizes, sizes)).split(list(sizes))
    rests = [copy[-rest:] for copy, rest in zip(copies, RESTS, strict=True)]
    for found, expected in zip(shared, rests, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)

    weight = torch.randn(sum(RESTS), 16, dtype=torch.float64)
    ours, theirs = (gradients(made, (torch.cat(list(states)) * weight).sum(), x) for states in (shared, rests))
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


def test_an_owner_that_is_no_beginning_is_refused() -> None:
    with pytest.raises(UsageError, match="a sequence goes on from beginning 2; there are 2"):
        SharedBeginnings([0, 2]).layout((3, 5, 1, 1))
