"""The kernels against the formula, and the laws of attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sensorium.errors import UsageError
from sensorium.nn.attention import (
    DistanceBias,
    grouped_attention,
    packed_attention,
    reference_attention,
    varlen_attention,
)
from sensorium.packed import Layout


@st.composite
def problems(draw: Any) -> Any:
    """Random queries, keys, values; as many queries as keys, or fewer (decoding with a cache); mask, window, bias."""
    keys = draw(st.lists(st.integers(1, 70), min_size=1, max_size=9))
    cached = draw(st.booleans())
    queries = [draw(st.integers(1, length)) for length in keys] if cached else keys
    heads, size = draw(st.integers(1, 3)), draw(st.sampled_from([2, 8]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    q = torch.randn(sum(queries), heads, size, generator=generator, dtype=torch.float64)
    k, v = torch.randn(2, sum(keys), heads, size, generator=generator, dtype=torch.float64)
    causal = draw(st.booleans())
    window = draw(st.sampled_from([None, 1, 3, 40])) if causal else None
    by_distance = torch.randn(heads, 2 * max(keys) - 1, generator=generator, dtype=torch.float64)
    bias = DistanceBias(by_distance) if draw(st.booleans()) else None
    return q, k, v, Layout(tuple(queries), tuple(keys)), {"causal": causal, "window": window, "bias": bias}


@given(problem=problems())
def test_the_grouped_kernel_is_the_formula_forwards_and_backwards(problem: Any) -> None:
    q, k, v, layout, mask = problem
    results = []
    for kernel in (reference_attention, grouped_attention):
        inputs = [x.clone().requires_grad_() for x in (q, k, v)]
        output = kernel(*inputs, layout, scale=0.3, **mask)
        weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
        (output * weights).sum().backward()
        results.append([output.detach(), *(x.grad for x in inputs)])
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@given(problem=problems())
def test_the_bf16_path_is_the_formula_within_bf16_rounding_forwards_and_backwards(problem: Any) -> None:
    q, k, v, layout, mask = problem
    results = []
    for kernel, dtype in ((reference_attention, torch.float64), (grouped_attention, torch.bfloat16)):
        inputs = [x.bfloat16().to(dtype).requires_grad_() for x in (q, k, v)]
        output = kernel(*inputs, layout, scale=0.3, **mask)
        output.sum().backward()
        results.append([output.detach().double(), *(x.grad.double() for x in inputs)])
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.1, atol=0.1 * max(1.0, float(theirs.abs().max()) / 4))


@given(problem=problems())
def test_every_token_is_in_exactly_one_group(problem: Any) -> None:
    layout = problem[3]
    for side, lengths in (("query", layout.query_lengths), ("key", layout.key_lengths)):
        rows = torch.cat([getattr(group, side).rows for group in layout.groups])
        assert sorted(rows.tolist()) == list(range(sum(lengths)))


def test_a_window_hides_what_lies_further_back() -> None:
    k, v = torch.randn(2, 6, 1, 4)
    q = torch.randn(6, 1, 4)
    layout = Layout((6,), (6,))
    seen = reference_attention(q, k, v, layout, causal=True, scale=0.5, window=2)
    assert torch.equal(seen[0], v[0])
    v[:4] = 100.0  # beyond the last query's window
    again = reference_attention(q, k, v, layout, causal=True, scale=0.5, window=2)
    assert torch.equal(seen[-1], again[-1])
    assert not torch.equal(seen[-2], again[-2])


def test_a_bias_is_added_by_how_far_the_key_stands_from_the_query() -> None:
    q = k = torch.zeros(3, 1, 2)
    v = torch.eye(3)[:, None, :]
    bias = DistanceBias(torch.tensor([[5.0, 4.0, 0.0, 1.0, 2.0]]))  # two places after, one after, itself, before, …
    weights = reference_attention(q, k, v, Layout((3,), (3,)), causal=False, scale=1.0, bias=bias)[:, 0]
    expected = torch.tensor([[0.0, 4.0, 5.0], [1.0, 0.0, 4.0], [2.0, 1.0, 0.0]]).softmax(dim=-1)
    torch.testing.assert_close(weights, expected)


def test_sequences_of_one_length_are_one_view_without_a_copy() -> None:
    [group] = Layout((5,) * 8, (5,) * 8).groups
    assert (group.query.start, group.query.shape, group.uniform) == (0, (8, 5), True)


def test_sequences_of_very_different_length_do_not_share_a_group() -> None:
    groups = Layout((4,) * 50 + (400,), (4,) * 50 + (400,)).groups
    assert [group.key.shape for group in groups] == [(50, 4), (1, 400)]


def test_layouts_that_do_not_match_are_refused_with_both_counts() -> None:
    with pytest.raises(UsageError, match="2 sequences of queries attend to 1 of keys"):
        Layout((1, 2), (3,))


@pytest.mark.parametrize("causal", [False, True])
def test_the_gpu_kernel_is_called_with_the_boundaries_of_the_sequences(
    causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's variable-length attention needs a GPU: here its published meaning stands in for it."""
    import torch.nn.attention.varlen as varlen

    def stand_in(q: Any, k: Any, v: Any, cu_q: Any, cu_k: Any, max_q: int, max_k: int, *, scale: Any,
                 window_size: Any) -> Any:  # fmt: skip
        assert cu_q.dtype == cu_k.dtype == torch.int32
        assert (max_q, max_k) == (int(cu_q.diff().max()), int(cu_k.diff().max()))
        return torch.cat([
            torch.nn.functional.scaled_dot_product_attention(
                q[a:b].transpose(0, 1), k[c:d].transpose(0, 1), v[c:d].transpose(0, 1), scale=scale,
                attn_mask=torch.ones(b - a, d - c).tril(d - c - b + a).bool() if window_size[1] == 0 else None,
            ).transpose(0, 1)
            for a, b, c, d in zip(cu_q, cu_q[1:], cu_k, cu_k[1:], strict=False)
        ])  # fmt: skip

    monkeypatch.setattr(varlen, "varlen_attn", stand_in)
    layout = Layout(query_lengths=(2, 1, 5), key_lengths=(4, 6, 5))
    q, k, v = (torch.randn(n, 3, 8) for n in (8, 15, 15))
    options: Any = {"causal": causal, "scale": 0.3}
    expected = reference_attention(q, k, v, layout, **options)
    assert torch.allclose(varlen_attention(q, k, v, layout, **options), expected, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that torch can use")
@pytest.mark.parametrize("size", [8, 32, 2])
@pytest.mark.parametrize("mask", [{"causal": False}, {"causal": True}, {"causal": True, "window": 5}])
def test_on_a_gpu_attention_is_the_formula_within_bf16_rounding_forwards_and_backwards(size: int, mask: Any) -> None:
    layout = Layout(query_lengths=(2, 1, 150, 7), key_lengths=(4, 6, 150, 90))
    results = []
    for kernel, device, dtype in (
        (reference_attention, "cpu", torch.float64), (packed_attention, "cuda", torch.bfloat16),
    ):  # fmt: skip
        generator = torch.Generator().manual_seed(0)
        inputs = [
            torch.randn(n, 3, size, generator=generator).bfloat16().to(device, dtype).requires_grad_()
            for n in (160, 250, 250)
        ]
        output = kernel(*inputs, layout, scale=0.3, **mask)
        output.sum().backward()
        results.append([x.double().cpu() for x in (output.detach(), *(x.grad for x in inputs))])
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.1, atol=0.1 * max(1.0, float(theirs.abs().max()) / 4))
