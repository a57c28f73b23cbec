"""The stack on the compiled kernels is the stack, forwards and backwards."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sensorium import native
from sensorium.config import StackConfig
from sensorium.errors import UsageError
from sensorium.nn.memory import Memory
from sensorium.nn.stack import Stack, capture
from sensorium.packed import Layout
from sensorium.train.stack_kernel import CompiledStack, compile_stacks, unsupported

pytestmark = pytest.mark.skipif(not native.available(), reason="the compiled kernels can't run here")
CONFIG = StackConfig(24, 2, 3, 52, dropout=0.0, attention_dropout=0.0)
WHOLE = replace(CONFIG, hidden_size=96, mlp_size=160)
"""A shape whose products the matrix unit takes, where there is one."""


def random_stack(config: StackConfig, seed: int = 0) -> Stack:
    """Weights, biases and norms all away from where they begin."""
    torch.manual_seed(seed)
    stack = Stack(config)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return stack


def run(
    stack: Stack, lengths: tuple[int, ...], x: Tensor, gradient: Tensor, sources: dict[str, Any] | None = None
) -> dict[str, Tensor]:
    """Output and all gradients; ``sources``: states and lengths of a memory."""
    leaves = {"input": x.clone().requires_grad_()}
    memory = None
    if sources is not None:
        leaves["memory"] = sources["states"].to(x.dtype, copy=True).requires_grad_()
        memory = Memory(leaves["memory"], sources["lengths"])
    output = stack(leaves["input"], Layout(lengths, lengths), memory=memory)
    output.backward(gradient)
    gradients = {name: leaf.grad for name, leaf in [*leaves.items(), *stack.named_parameters()]}
    return {"output": output.detach(), **{name: value for name, value in gradients.items() if value is not None}}


def compiled(stack: Stack, dtype: torch.dtype = torch.float32) -> Stack:
    """The same on the kernels."""
    result = copy.deepcopy(stack).to(dtype)
    result.kernel = CompiledStack(result)
    return result


def distance(found: Tensor, wanted: Tensor) -> float:
    """Size of the difference, as a share of what is wanted."""
    return float((found.double() - wanted).norm() / wanted.norm().clamp_min(1e-9))


def inputs(config: StackConfig, lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Vectors and a gradient for them, [T, D]."""
    generator = torch.Generator().manual_seed(1)
    x, gradient = (torch.randn(sum(lengths), config.hidden_size, generator=generator) for _ in range(2))
    return x, gradient


def memory_of(config: StackConfig, lengths: tuple[int, ...]) -> dict[str, Any] | None:
    """A source for each sequence, where the stack attends to one: ``run`` makes a ``Memory`` of it."""
    if config.memory_size is None:
        return None
    states = torch.randn(sum(lengths), config.memory_size, generator=torch.Generator().manual_seed(2))
    return {"states": states, "lengths": lengths}


def assert_equal_but_for_rounding(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Equal but for rounding in float32."""
    assert found.keys() == wanted.keys()
    # A gradient that is zero in theory (a key's bias) is all rounding: it is compared with the largest of its kind.
    largest = max(float(value.norm()) for value in wanted.values())
    for name, value in wanted.items():
        assert float((found[name].double() - value).norm()) < 1e-5 * max(float(value.norm()), 1e-2 * largest), name


@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 200), min_size=1, max_size=5),
    norm=st.sampled_from(["pre", "post"]),
    mask=st.sampled_from(["bidirectional", "causal"]),
    activation=st.sampled_from(["gelu", "gelu_tanh", "gelu_quick", "relu", "silu", "tanh"]),
    heads=st.sampled_from([(1, 6), (3, 20), (2, 66)]),
    mlp=st.sampled_from([4, 52, 132]),
)
def test_output_and_gradients_equal_autograd_s_in_float64(
    lengths: list[int], norm: Any, mask: Any, activation: Any, heads: tuple[int, int], mlp: int
) -> None:
    number, size = heads
    config = StackConfig(
        number * size, 2, number, mlp, norm_place=norm, mask=mask, activation=activation, dropout=0.0,
        attention_dropout=0.0,
    )  # fmt: skip
    if config.hidden_size % 4:
        config = replace(config, hidden_size=2 * config.hidden_size, num_heads=2 * number)
    stack, (x, gradient) = random_stack(config), inputs(config, tuple(lengths))
    wanted = run(copy.deepcopy(stack).double(), tuple(lengths), x.double(), gradient.double())
    found = run(compiled(stack), tuple(lengths), x, gradient)
    assert_equal_but_for_rounding(found, wanted)


@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 120), st.integers(1, 200)), min_size=1, max_size=5),
    norm=st.sampled_from(["pre", "post"]),
    heads=st.sampled_from([(1, 6), (3, 20), (2, 66)]),
    memory=st.sampled_from([4, 36, 132]),
)
def test_what_is_learned_of_a_memory_equals_autograd_s_in_float64(
    lengths: list[tuple[int, int]], norm: Any, heads: tuple[int, int], memory: int
) -> None:
    number, size = heads
    config = StackConfig(
        2 * number * size, 2, 2 * number, 52, norm_place=norm, mask="causal", memory_size=memory, dropout=0.0,
        attention_dropout=0.0,
    )  # fmt: skip
    written, read = zip(*lengths, strict=True)
    stack, (x, gradient), sources = random_stack(config), inputs(config, written), memory_of(config, read)
    wanted = run(copy.deepcopy(stack).double(), written, x.double(), gradient.double(), sources)
    assert_equal_but_for_rounding(run(compiled(stack), written, x, gradient, sources), wanted)


@pytest.mark.parametrize("shape", [CONFIG, WHOLE, replace(WHOLE, num_heads=1)])
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize(("mask", "memory"), [("bidirectional", None), ("causal", None), ("causal", 64)])
def test_bf16_is_as_near_to_float64_as_torch_s_bf16(norm: Any, mask: Any, memory: Any, shape: StackConfig) -> None:
    config, lengths = replace(shape, norm_place=norm, mask=mask, memory_size=memory), (5, 70, 1, 130, 33, 16, 300, 32)
    stack, (x, gradient) = random_stack(config), inputs(config, lengths)
    sources = memory_of(config, (40, 7, 90, 1, 33, 260, 12, 64))
    wanted = run(copy.deepcopy(stack).double(), lengths, x.double(), gradient.double(), sources)
    theirs = run(copy.deepcopy(stack).bfloat16(), lengths, x.bfloat16(), gradient.bfloat16(), sources)
    ours = run(compiled(stack, torch.bfloat16), lengths, x.bfloat16(), gradient.bfloat16(), sources)
    for name, value in wanted.items():
        assert distance(ours[name], value) < max(1.2 * distance(theirs[name], value), 0.02), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("shape", [CONFIG, WHOLE, replace(WHOLE, memory_size=64)])
def test_neither_threads_nor_neighbours_change_a_sequence(norm: Any, dtype: torch.dtype, shape: StackConfig) -> None:
    config, lengths = replace(shape, norm_place=norm, dropout=0.2, attention_dropout=0.2), (150, 80, 90, 7, 200)
    stack, (x, gradient) = compiled(random_stack(config), dtype), inputs(config, lengths)
    sources, first = memory_of(config, (60, 9, 200, 31, 1)), None
    if sources is not None:
        first = {"states": sources["states"][:60], "lengths": (60,)}
    results, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            torch.manual_seed(3)
            stack.zero_grad()
            results.append(run(stack, lengths, x.to(dtype), gradient.to(dtype), sources))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(other[name].equal(value) for name, value in results[0].items())
    torch.manual_seed(3)
    alone = run(stack, lengths[:1], x[:150].to(dtype), gradient[:150].to(dtype), first)
    assert alone["output"].equal(results[0]["output"][:150])
    assert alone["input"].equal(results[0]["input"][:150])
    if first is not None:
        assert alone["memory"].equal(results[0]["memory"][:60])


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("memory", [None, 12])
def test_with_dropout_gradients_are_those_of_the_numbers_that_stayed(norm: Any, memory: int | None) -> None:
    config, lengths = replace(CONFIG, norm_place=norm, dropout=0.3, attention_dropout=0.3, memory_size=memory), (40, 9)
    stack, (x, gradient) = compiled(random_stack(config)), inputs(config, lengths)
    sources = memory_of(config, (5, 30))

    def output() -> Tensor:
        torch.manual_seed(5)  # the same numbers go each time
        read = None if sources is None else Memory(sources["states"], sources["lengths"])
        with torch.no_grad():
            return (stack(x, Layout(lengths, lengths), memory=read).double() * gradient).sum()

    torch.manual_seed(5)
    found = run(stack, lengths, x, gradient, sources)
    names = ["layers.0.attention.qkv.weight", "layers.1.attention.output.bias", "layers.0.mlp.down.weight"]
    if memory is not None:
        names += [f"layers.0.memory_attention.{name}.weight" for name in ("query", "key_value", "output")]
    for name in names:
        weight, direction = stack.get_parameter(name), torch.randn_like(stack.get_parameter(name))
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight.add_(sign * 1e-2 * direction)
            values.append(output())
            with torch.no_grad():
                weight.sub_(sign * 1e-2 * direction)
        slope = (values[0] - values[1]) / 2e-2
        assert float(slope) == pytest.approx(float((found[name] * direction).sum()), rel=2e-2, abs=0.1), name


@pytest.mark.skipif(not native.matrix_unit(), reason="this processor has no AMX")
def test_dropout_on_the_matrix_unit_drops_what_the_vector_units_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = (70, 9, 33)
    results, (x, gradient) = [], inputs(WHOLE, lengths)
    for amx in (True, False):
        monkeypatch.setattr(native, "matrix_unit", lambda amx=amx: amx)
        torch.manual_seed(3)
        stack = compiled(random_stack(replace(WHOLE, dropout=0.3, attention_dropout=0.3)), torch.bfloat16)
        torch.manual_seed(3)
        results.append(run(stack, lengths, x.bfloat16(), gradient.bfloat16()))
    for name, value in results[0].items():
        assert distance(value, results[1][name].double()) < 0.02, name


def test_dropout_happens_in_training_alone_and_follows_the_seed() -> None:
    config, lengths = replace(CONFIG, dropout=0.5), (30,)
    stack, (x, _) = compiled(random_stack(config)), inputs(CONFIG, (30,))
    layout = Layout(lengths, lengths)

    def seeded(seed: int) -> Tensor:
        torch.manual_seed(seed)
        output: Tensor = stack(x, layout)
        return output

    assert seeded(1).equal(seeded(1))
    assert not seeded(1).equal(seeded(2))
    stack.eval()
    assert seeded(1).equal(seeded(2))


def test_changed_weights_are_packed_again() -> None:
    lengths = (12, 30)
    stack, (x, gradient) = compiled(random_stack(CONFIG)), inputs(CONFIG, (12, 30))
    before = run(stack, lengths, x, gradient)["output"]
    with torch.no_grad():
        stack.get_parameter("layers.1.mlp.up.weight").mul_(1.5)
    after = stack(x, Layout(lengths, lengths))
    stack.kernel = None
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, stack(x, Layout(lengths, lengths)), rtol=1e-4, atol=1e-5)


def test_frozen_parameters_get_no_gradient_and_the_others_the_same() -> None:
    lengths, (x, gradient) = (12, 30), inputs(CONFIG, (12, 30))
    whole = run(compiled(random_stack(CONFIG)), lengths, x, gradient)
    stack = compiled(random_stack(CONFIG))
    for name, parameter in stack.named_parameters():
        parameter.requires_grad_(name.startswith("layers.1.mlp") or name == "layers.1.attention.output.weight")
    stack(x, Layout(lengths, lengths)).backward(gradient)
    for name, parameter in stack.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None
            assert parameter.grad.equal(whole[name]), name
        else:
            assert parameter.grad is None, name


def test_a_frozen_encoder_gets_no_gradient_and_the_decoder_the_same() -> None:
    config, lengths = replace(CONFIG, memory_size=24), (12, 30)
    (x, gradient), sources = inputs(config, lengths), memory_of(config, (7, 40))
    whole, stack = run(compiled(random_stack(config)), lengths, x, gradient, sources), compiled(random_stack(config))
    assert sources is not None
    stack(x, Layout(lengths, lengths), memory=Memory(sources["states"], sources["lengths"])).backward(gradient)
    for name, parameter in stack.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.equal(whole[name]), name


def test_sequences_that_share_a_source_both_teach_it() -> None:
    config, lengths = replace(CONFIG, memory_size=24), (12, 30, 4)
    (x, gradient), sources = inputs(config, lengths), memory_of(config, (7, 40))
    assert sources is not None
    results = []
    for stack in (random_stack(config), compiled(random_stack(config))):
        states = sources["states"].clone().requires_grad_()
        memory = Memory(states, sources["lengths"])
        memory.owners = [0, 1, 1]
        output = stack(x, Layout(lengths, lengths), memory=memory)
        output.backward(gradient)
        assert states.grad is not None
        results.append((output.detach(), states.grad))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)


def test_a_decoder_without_its_memory_is_refused() -> None:
    stack, (x, _) = compiled(random_stack(replace(CONFIG, memory_size=24))), inputs(CONFIG, (12,))
    with pytest.raises(UsageError, match="none were given"):
        stack(x, Layout((12,), (12,)))


def test_capture_looks_into_blocks_that_run_on_the_kernels() -> None:
    stack, (x, _) = compiled(random_stack(CONFIG)), inputs(CONFIG, (12,))
    kernel = stack.kernel
    with capture(stack) as seen:
        output = stack(x, Layout((12,), (12,)))
    torch.testing.assert_close(seen.hidden[1], output)
    assert stack.kernel is kernel


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"hidden_size": 6, "num_heads": 1}, "multiples of 4"), ({"hidden_size": 12, "num_heads": 4}, "even")],
)
def test_a_stack_the_kernels_do_not_know_stays_as_it_is(change: dict[str, Any], reason: str) -> None:
    model = nn.Module()
    model.stack = Stack(replace(CONFIG, **change))
    assert reason in (unsupported(model.stack) or "")
    compile_stacks(model)
    assert model.stack.kernel is None


def test_layers_with_different_dropouts_stay_with_torch() -> None:
    stack = Stack(CONFIG)
    block: Any = stack.layers[1]
    block.dropout.p = 0.4
    assert "different dropouts" in (unsupported(stack) or "")
