"""Weights of 8 and 4 bits: what the kernels multiply is what rounding gave, and rounding keeps near the weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sensorium import native
from sensorium.config import DecoderConfig, LanguageModelHeadConfig, LearnedPositions, StackConfig, TokenStemConfig
from sensorium.infer.engine import fast
from sensorium.infer.fast_stack import FastVocabulary
from sensorium.infer.packing import GROUP, Dtype, PackedLinear, round_to_int4, round_to_int8
from sensorium.infer.quantise import agreement
from sensorium.models.build import new_model
from sensorium.packed import Packed

WEIGHT_ONLY: tuple[Dtype, ...] = ("int8_weight_only", "int4_weight_only")


def kernels_missing() -> str | None:
    try:
        native.library()
    except OSError as error:
        return str(error)
    return None


needs_kernels = pytest.mark.skipif(kernels_missing() is not None, reason=str(kernels_missing()))


def rounded(weight: Tensor, dtype: Dtype) -> Tensor:
    """The weights that the packed ones stand for."""
    if dtype == "int8_weight_only":
        numbers, scale = round_to_int8(weight)
        return numbers * scale[:, None]
    numbers, scale, middle = round_to_int4(weight)
    weights = (numbers * scale[..., None] + middle[..., None]).flatten(1)[:, : weight.shape[1]].contiguous()
    if native.on_matrix_unit(native.INT4_WEIGHTS, weight.shape[1]) == native.INT4_WEIGHTS:
        return weights
    # The matrix unit takes them as bfloat16: the nearest, and of two equally near the one further from zero.
    return ((weights.view(torch.int32) + 0x8000) & -0x10000).view(torch.float32)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def decoder(size: int = 128) -> Any:
    stack = StackConfig(
        hidden_size=size, num_layers=3, num_heads=4, mlp_size=4 * size, mask="causal", norm_place="pre",
        final_norm=True, activation="gelu_tanh",
    )  # fmt: skip
    stem = TokenStemConfig(300, size, LearnedPositions(512))
    model = new_model(DecoderConfig(stem, stack, LanguageModelHeadConfig()), seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.dim() == 2 else 1)
    return model


def batch_of(*lengths: int) -> Packed:
    generator = torch.Generator().manual_seed(0)
    return Packed.from_sequences([torch.randint(300, (n,), generator=generator) for n in lengths])


@needs_kernels
@settings(max_examples=80, deadline=None)
@given(rows=st.integers(1, 13), inputs=st.integers(1, 40).map(lambda n: 4 * n), outputs=st.integers(1, 200),
       dtype=st.sampled_from(WEIGHT_ONLY), bias=st.booleans())  # fmt: skip
def test_the_packed_product_is_that_of_the_rounded_weights(
    rows: int, inputs: int, outputs: int, dtype: Dtype, bias: bool
) -> None:
    weight, x = normal(outputs, inputs), normal(rows, inputs, seed=1).bfloat16().float()
    added = normal(outputs, seed=2) if bias else None
    expected = torch.nn.functional.linear(
        x.double(), rounded(weight, dtype).double(), None if added is None else added.double()
    )
    most = (x.abs() @ weight.abs().T).max()  # what float32 sums round against
    assert (FastVocabulary(weight, added, dtype)(x) - expected).abs().max() < 1e-5 * most


@needs_kernels
@pytest.mark.parametrize("dtype", WEIGHT_ONLY)
@pytest.mark.parametrize("inputs", [4, 32, 36, 60, 100])
def test_a_row_reads_nothing_of_the_next(dtype: Dtype, inputs: int) -> None:
    x = normal(8, inputs)
    linear = FastVocabulary(normal(70, inputs, seed=1), None, dtype)
    expected = linear(x)
    x[1::2] = float("nan")
    assert torch.equal(linear(x)[::2], expected[::2])


@needs_kernels
@pytest.mark.parametrize("dtype", WEIGHT_ONLY)
def test_a_row_is_the_same_bit_for_bit_whatever_the_neighbours_and_the_threads(dtype: Dtype) -> None:
    linear, x, before = FastVocabulary(normal(333, 100), None, dtype), normal(13, 100, seed=1), torch.get_num_threads()
    together = linear(x)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            for count in (1, 2, 5, 6, 7, 12):
                assert torch.equal(linear(x[:count]), together[:count])
    finally:
        torch.set_num_threads(before)


@needs_kernels
@pytest.mark.parametrize("dtype", WEIGHT_ONLY)
def test_a_stack_is_that_of_the_rounded_weights(dtype: Dtype) -> None:
    model, batch = decoder(), batch_of(3, 70, 20)
    got = fast(model, dtype)(batch)
    with torch.no_grad():
        for block in model.stack.layers:
            for linear in (block.attention.qkv, block.attention.output, block.mlp.up, block.mlp.down):
                linear.weight.copy_(rounded(linear.weight, dtype))
        expected = model(batch)
    assert (got - expected).abs().max() < 2e-2 * expected.abs().max()  # as far as bf16 activations are


@needs_kernels
@pytest.mark.parametrize(("dtype", "least"), [("int8_weight_only", 0.9999), ("int4_weight_only", 0.97)])
def test_a_random_model_keeps_its_vectors(dtype: str, least: float) -> None:
    model = decoder()
    found = agreement(model, fast(model, dtype), batch_of(40, 70, 20, 9))
    assert found.least > least
    assert found.same_token is not None
    assert found.same_token > 0.5


@pytest.mark.parametrize(("dtype", "bits"), [("int8_weight_only", 8.1), ("int4_weight_only", 5.0)])
def test_packed_weights_take_as_few_bytes_as_they_say(dtype: Dtype, bits: float) -> None:
    panels = PackedLinear(normal(640, 1024), None, dtype).panels
    assert 8 * panels.numel() * panels.element_size() <= bits * 640 * 1024


@settings(max_examples=50, deadline=None)
@given(outputs=st.integers(1, 9), inputs=st.integers(1, 30).map(lambda n: 4 * n), seed=st.integers(0, 99),
       size=st.sampled_from([1e-6, 1.0, 1e4]))  # fmt: skip
def test_four_bits_are_never_further_than_a_step_of_the_largest_weight(
    outputs: int, inputs: int, seed: int, size: float
) -> None:
    weight = size * normal(outputs, inputs, seed=seed)
    numbers, scale, middle = round_to_int4(weight)
    assert ((numbers >= -8) & (numbers <= 7) & (numbers == numbers.round())).all()
    assert all(torch.equal(part, part.bfloat16().float()) for part in (scale, middle))
    padded = torch.nn.functional.pad(weight, (0, -inputs % GROUP)).view(outputs, -1, GROUP)
    most = padded.abs().amax(dim=-1)
    root_mean_square = (numbers * scale[..., None] + middle[..., None] - padded).square().mean(dim=-1).sqrt()
    assert (root_mean_square <= most / 8 * 1.01).all()


@pytest.mark.parametrize(("dtype", "most"), [("int8_weight_only", 0.008), ("int4_weight_only", 0.09)])
def test_rounding_moves_normal_weights_little(dtype: Dtype, most: float) -> None:
    weight = normal(256, 768)
    assert (rounded(weight, dtype) - weight).norm() / weight.norm() < most


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1"])
def test_four_bits_of_a_gguf_file_come_out_as_they_were(kind: str) -> None:
    gguf = pytest.importorskip("gguf")
    name = gguf.GGMLQuantizationType[kind]
    blocks = gguf.quants.quantize(normal(64, 256).numpy(), name)
    weight = torch.from_numpy(gguf.quants.dequantize(blocks, name))
    # What is left is the rounding of scales to bf16: a twentieth of what four bits cost normal weights.
    assert (rounded(weight, "int4_weight_only") - weight).norm() / weight.norm() < 4e-3


@pytest.mark.parametrize("dtype", WEIGHT_ONLY)
def test_zeros_stay_zeros(dtype: Dtype) -> None:
    weight = normal(3, 64)
    weight[1], weight[2, :32] = 0, 0
    assert not rounded(weight, dtype)[weight == 0].any()
