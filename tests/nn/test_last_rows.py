"""The last block for one row of each sequence is the last block, forwards and backwards."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sensorium import native
from sensorium.config import RotaryPositions, StackConfig
from sensorium.nn.last_rows import can_read_rows
from sensorium.nn.stack import Stack
from sensorium.packed import Layout
from sensorium.train.stack_kernel import CompiledStack
from tests.objectives.test_contrastive import parts
from tests.train.test_stack_kernel import random_stack

LENGTHS = (5, 1, 9, 9)
ROWS = torch.tensor([0, 5, 6, 15])
CONFIGS = {
    "pre": StackConfig(24, 3, 3, 52, norm_place="pre", final_norm=True, dropout=0.0, attention_dropout=0.0),
    "post": StackConfig(24, 2, 3, 52, dropout=0.0, attention_dropout=0.0),
    "one block": StackConfig(24, 1, 3, 52, norm_place="pre", final_norm=True, dropout=0.0, attention_dropout=0.0),
    "no biases": StackConfig(24, 2, 3, 52, biases=frozenset(), dropout=0.0, attention_dropout=0.0),
}


def gradients(stack: Stack, *, of_rows: bool) -> dict[str, torch.Tensor]:
    """The rows' vectors, and what they ask of the input and of all weights."""
    stack.zero_grad()
    x = torch.randn(sum(LENGTHS), 24, generator=torch.Generator().manual_seed(1)).requires_grad_()
    layout = Layout(LENGTHS, LENGTHS)
    output = stack.at(x, layout, ROWS) if of_rows else stack(x, layout)[ROWS]
    output.backward(torch.randn(output.shape, generator=torch.Generator().manual_seed(2)))
    found = {name: parameter.grad for name, parameter in stack.named_parameters() if parameter.grad is not None}
    assert x.grad is not None
    return {"output": output.detach(), "input": x.grad, **found}


@pytest.mark.parametrize("on_kernels", [False, pytest.param(True, marks=pytest.mark.skipif(
    not native.available(), reason="the compiled kernels can't run here"))])  # fmt: skip
@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "no biases"])
def test_rows_alone_have_the_values_and_gradients_of_rows_among_all(name: str, on_kernels: bool) -> None:
    stack = random_stack(CONFIGS[name]).train()
    expected = gradients(stack, of_rows=False)
    if on_kernels:
        stack.kernel = CompiledStack(stack)
    assert can_read_rows(stack.config, stack.layers[-1])
    found = gradients(stack, of_rows=True)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5, msg=key)


def test_maps_without_biases_have_none_here() -> None:
    stack = random_stack(CONFIGS["no biases"])
    expected = gradients(stack, of_rows=False)
    for key, value in gradients(stack, of_rows=True).items():
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize(
    "changes", [{"mask": "causal"}, {"rotary": RotaryPositions(32)}, {"qk_norm": True}, {"num_kv_heads": 1}]
)
def test_other_stacks_compute_all_rows_and_give_the_same(changes: dict[str, object]) -> None:
    stack = random_stack(replace(CONFIGS["pre"], **changes))  # type: ignore[arg-type]
    assert not can_read_rows(stack.config, stack.layers[-1])
    x, layout = torch.randn(sum(LENGTHS), 24), Layout(LENGTHS, LENGTHS)
    assert torch.equal(stack.at(x, layout, ROWS), stack(x, layout)[ROWS])


def test_only_the_rows_that_are_read_pass_the_last_mlp() -> None:
    stack, seen = random_stack(CONFIGS["pre"]), []
    stack.layers[-1].mlp.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    stack.at(torch.randn(sum(LENGTHS), 24), Layout(LENGTHS, LENGTHS), ROWS)
    assert seen == [len(LENGTHS)]


@torch.no_grad()
def test_an_image_has_the_same_vector_in_training_as_in_use() -> None:
    model, _, batch = parts("clip")
    in_training, in_use = (model.train(mode).image_vectors(batch.images) for mode in (True, False))
    torch.testing.assert_close(in_training, in_use, rtol=1e-5, atol=1e-6)
