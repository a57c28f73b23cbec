"""The optimiser is AdamW, whatever the model computes in."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sensorium import native
from sensorium.errors import UsageError
from sensorium.train import adamw
from sensorium.train.optim import (
    MasterAdamW,
    MovingAverage,
    OptimizerSettings,
    Schedule,
    freeze,
    learning_rate_factor,
    rate_factor,
)


def small_model() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3))


@pytest.fixture(params=["as here", "without kernels"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the compiled kernels, where they can run, and by torch."""
    if request.param == "without kernels":
        monkeypatch.setattr(adamw, "_compiled", lambda gradients: False)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_fp32_steps_are_those_of_torch_adamw_with_clipping(clip: float) -> None:
    ours, theirs = small_model(), small_model()
    optimizer = MasterAdamW(
        ours, OptimizerSettings(learning_rate=0.01, weight_decay=0.1, clip=clip), {"": 1}, torch.float32
    )
    decayed = [p for p in theirs.parameters() if p.dim() > 1]
    plain = [p for p in theirs.parameters() if p.dim() == 1]
    groups: Any = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    oracle = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.98), eps=1e-8)
    for step in range(8):
        x = torch.randn(4, 5, generator=torch.Generator().manual_seed(step))
        (ours(x) ** 2).sum().backward()
        optimizer.accumulate()
        norm = optimizer.step(0.5)
        (theirs(x) ** 2).sum().backward()
        expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), clip or 1e9)
        for group in oracle.param_groups:
            group["lr"] = 0.005
        oracle.step()
        oracle.zero_grad()
        assert norm == pytest.approx(float(expected), rel=1e-5)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("kernels")
def test_a_bf16_model_keeps_float32_masters_that_small_steps_move() -> None:
    model = small_model()
    optimizer = MasterAdamW(model, OptimizerSettings(learning_rate=1e-5), {"": 1}, torch.bfloat16)
    before = {name: master.detach().clone() for name, master in optimizer.masters.items()}
    for _ in range(3):
        model(torch.ones(2, 5, dtype=torch.bfloat16)).sum().backward()
        optimizer.accumulate()
        optimizer.step(1.0)
    assert all(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
    assert any(not torch.equal(before[name], master) for name, master in optimizer.masters.items())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, optimizer.masters[name].bfloat16())


@pytest.mark.usefixtures("kernels")
def test_an_infinite_gradient_moves_nothing() -> None:
    model = small_model()
    optimizer = MasterAdamW(model, OptimizerSettings(), {"": 1}, torch.float32)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    (model(torch.ones(1, 5)).sum() * float("inf")).backward()
    optimizer.accumulate()
    assert not math.isfinite(optimizer.step(1.0))
    assert all(one.equal(other) for one, other in zip(before, model.parameters(), strict=True))
    assert not optimizer.gradients


@pytest.mark.skipif(not native.available(), reason="the compiled kernels can't run here")
def test_the_number_of_threads_changes_no_bit_of_a_step() -> None:
    results, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            torch.manual_seed(0)
            model = torch.nn.Linear(300, 301)
            optimizer = MasterAdamW(model, OptimizerSettings(clip=0.1), {"": 1}, torch.bfloat16)
            model.weight.grad = torch.randn_like(model.weight)
            optimizer.accumulate()
            results.append((optimizer.step(1.0), optimizer.masters["weight"]))
    finally:
        torch.set_num_threads(threads)
    assert all(norm == results[0][0] and master.equal(results[0][1]) for norm, master in results)


def test_gradients_add_up_over_batches() -> None:
    once, twice = small_model(), small_model()
    x = torch.randn(6, 5)
    optimizers = [MasterAdamW(model, OptimizerSettings(), {"": 1}, torch.float32) for model in (once, twice)]
    once(x).sum().backward()
    optimizers[0].accumulate()
    for half in (x[:3], x[3:]):
        twice(half).sum().backward()
        optimizers[1].accumulate()
    for name in optimizers[0].masters:
        torch.testing.assert_close(optimizers[0].gradients[name], optimizers[1].gradients[name])


@given(total=st.integers(1, 200), warmup=st.floats(0, 0.9), schedule=st.sampled_from(get_args(Schedule)))
def test_the_rate_rises_to_one_and_then_never_rises_again(total: int, warmup: float, schedule: Any) -> None:
    factors = [learning_rate_factor(step, total, round(warmup * total), schedule) for step in range(total)]
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert all(0 < factor <= 1 for factor in factors)


def test_layers_learn_more_slowly_the_deeper_they_lie() -> None:
    settings = OptimizerSettings(layer_decay=0.5, head_factor=3.0)
    names = [
        "stem.tokens.weight",
        "stack.layers.0.mlp.up.weight",
        "stack.layers.1.mlp.up.weight",
        "pooler.dense.weight",
    ]
    assert [rate_factor(name, {"": 2}, settings) for name in [*names, "sequence.classifier.weight"]] == [
        0.125,
        0.25,
        0.5,
        1,
        3,
    ]


def test_patterns_name_what_learns_at_another_rate() -> None:
    model = small_model()
    names = [name for name, _ in model.named_parameters()]
    optimizer = MasterAdamW(model, OptimizerSettings(rates={"*": 0.5, names[0]: 0.1}), {"": 1}, torch.float32)
    assert optimizer.factors[names[0]] == pytest.approx(0.05)
    assert {optimizer.factors[name] for name in names[1:]} == {0.5}
    with pytest.raises(UsageError, match="rates: 'nothing' matches no parameter"):
        MasterAdamW(small_model(), OptimizerSettings(rates={"nothing": 0.1}), {"": 1}, torch.float32)


def test_frozen_parameters_get_no_gradient_and_a_wrong_pattern_is_named() -> None:
    model = small_model()
    freeze(model, ["0.*"])
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, False, True, True]
    with pytest.raises(UsageError, match="'stem.*' matches no parameter"):
        freeze(model, ["stem.*"])


def test_the_moving_average_is_the_mean() -> None:
    values = [torch.full((3,), float(i)) for i in (1, 2, 6)]
    average = MovingAverage({"w": values[0]})
    for value in values[1:]:
        average.update({"w": value})
    torch.testing.assert_close(average.weights["w"], torch.full((3,), 3.0))
