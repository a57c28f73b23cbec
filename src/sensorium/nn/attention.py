"""Scaled dot-product attention over packed sequences: one interface, several kernels.

Every kernel is a function ``(q, k, v, layout, *, causal, scale, dropout, window, bias) -> [T, H, Dh]``. The reference
is the formula softmax(QKᵀ · scale + bias)V written plainly; every other kernel is tested against it.

Shapes: T packed query tokens, S packed key tokens, H heads, Dh head size, n sequences of a group, Lq/Lk their lengths.

The worked example: the two tokens of "The cat", one head of size 2.

>>> from sensorium.packed import Layout
>>> q = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])  # [T=2, H=1, Dh=2]  the queries of "The", "cat"
>>> k = torch.tensor([[[1.0, 1.0]], [[0.0, 2.0]]])  # the keys
>>> v = torch.tensor([[[10.0, 0.0]], [[0.0, 20.0]]])  # the values

QKᵀ: "The" scores 1·1+0·1 = 1 with "The" and 1·0+0·2 = 0 with "cat"; "cat" scores 1 with "The" and 2 with "cat".
Scaled by 1/√2: [0.7071, 0] and [0.7071, 1.4142]. The softmax of each row:
e^0.7071 / (e^0.7071 + e^0) = 2.0281 / 3.0281 = 0.6698, so "The" looks at itself with weight 0.6698 and at "cat" with
0.3302; "cat" looks at "The" with 0.3302 and at itself with 0.6698.

>>> layout = Layout(query_lengths=(2,), key_lengths=(2,))
>>> [weights] = attention_weights(q, k, layout, causal=False, scale=2**-0.5)
>>> [[round(w, 4) for w in row] for row in weights[0].tolist()]
[[0.6698, 0.3302], [0.3302, 0.6698]]

The weighted sum of the values: "The" = 0.6698·[10, 0] + 0.3302·[0, 20] = [6.698, 6.605].

>>> output = reference_attention(q, k, v, layout, causal=False, scale=2**-0.5)
>>> [[round(x, 3) for x in row] for row in output[:, 0].tolist()]
[[6.698, 6.605], [3.302, 13.395]]

A causal model hides "cat" from "The", which then sees itself alone:

>>> output = reference_attention(q, k, v, layout, causal=True, scale=2**-0.5)
>>> [[round(x, 3) for x in row] for row in output[:, 0].tolist()]
[[10.0, 0.0], [3.302, 13.395]]
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from sensorium.packed import Group, Layout, Rows


class DistanceBias:
    """What is added to scores by how far a key stands from its query: the same for all layers of a stack."""

    def __init__(self, by_distance: Tensor) -> None:
        """``by_distance`` [H, 2R - 1]: for keys R - 1 places after the query, R - 2, …, 1 - R places after it."""
        self.by_distance = by_distance
        self._of_groups: dict[int, tuple[Group, Tensor]] = {}

    def at(self, distances: Tensor) -> Tensor:
        """[…, Lq, Lk] places that each key stands before the query → […, H, Lq, Lk]."""
        middle = self.by_distance.shape[1] // 2
        # What is farther away than any key of the batch is padding.
        columns = (distances + middle).clamp(0, 2 * middle).to(self.by_distance.device)
        return self.by_distance[:, columns].movedim(0, -3)

    def of(self, group: Group) -> Tensor:
        """[n or 1, H, Lq, Lk], worked out once for all layers."""
        if id(group) not in self._of_groups:
            shifts = {key - query for key, query in zip(group.key.lengths, group.query.lengths, strict=True)}
            distances = group.distances[:, 0]  # [n, Lq, Lk]
            added = self.at(distances[:1] if len(shifts) == 1 else distances)
            self._of_groups[id(group)] = group, added  # the group is kept, so that no other can have its id
        return self._of_groups[id(group)][1]


class AttentionKernel(Protocol):
    """What every attention kernel is."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, layout: Layout, *, causal: bool, scale: float, dropout: float = 0.0,
        window: int | None = None, bias: DistanceBias | None = None,
    ) -> Tensor:  # fmt: skip
        """Queries [T, H, Dh], keys and values [S, H, Dh] → [T, H, Dh]."""
        ...


def attention_weights(
    q: Tensor, k: Tensor, layout: Layout, *, causal: bool, scale: float, window: int | None = None,
    bias: DistanceBias | None = None,
) -> list[Tensor]:  # fmt: skip
    """softmax(QKᵀ · scale + bias) of each sequence, [H, Lq, Lk] each (Vaswani et al., 2017, equation 1).

    Causal: query i of Lq sees key j of Lk when j ≤ p with p = i + Lk - Lq, so the last query stands at the last key;
    with a window of w keys, when also j > p - w.
    """
    weights = []
    for queries, keys in zip(q.split(list(layout.query_lengths)), k.split(list(layout.key_lengths)), strict=True):
        scores = torch.einsum("qhd,khd->hqk", queries, keys) * scale  # [H, Lq, Lk]
        shift = len(keys) - len(queries)
        if bias is not None:
            places = torch.arange(len(queries), device=q.device) + shift  # of the queries among the keys
            scores = scores + bias.at(places[:, None] - torch.arange(len(keys), device=q.device))
        if causal:
            everything = torch.ones(scores.shape[1:], dtype=torch.bool, device=q.device)
            hidden = everything.triu(shift + 1)  # the future
            if window is not None:
                hidden = hidden | everything.tril(shift - window)
            scores = scores.masked_fill(hidden, float("-inf"))
        weights.append(scores.softmax(dim=-1))
    return weights


def reference_attention(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, *, causal: bool, scale: float, dropout: float = 0.0,
    window: int | None = None, bias: DistanceBias | None = None,
) -> Tensor:  # fmt: skip
    """The formula, written plainly: one sequence after another. The oracle of every other kernel."""
    weights = attention_weights(q, k, layout, causal=causal, scale=scale, window=window, bias=bias)
    values = v.split(list(layout.key_lengths))
    outputs = [
        torch.einsum("hqk,khd->qhd", F.dropout(weight, dropout), value)
        for weight, value in zip(weights, values, strict=True)
    ]
    return torch.cat(outputs)  # [T, H, Dh]


def packed_attention(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, *, causal: bool, scale: float, dropout: float = 0.0,
    window: int | None = None, bias: DistanceBias | None = None,
) -> Tensor:  # fmt: skip
    """The kernel that is fastest where the tensors are: on a GPU the one without padding, if it takes them."""
    if q.is_cuda and bias is None and not dropout and q.dtype in FLASH_DTYPES and q.shape[-1] in FLASH_HEADS:
        return varlen_attention(q, k, v, layout, causal=causal, scale=scale, window=window)
    return grouped_attention(q, k, v, layout, causal=causal, scale=scale, dropout=dropout, window=window, bias=bias)


FLASH_DTYPES, FLASH_HEADS = (torch.bfloat16, torch.float16), range(8, 257, 8)
"""What torch's flash kernel takes: dtypes, and sizes of a head."""


def varlen_attention(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, *, causal: bool, scale: float, dropout: float = 0.0,
    window: int | None = None, bias: DistanceBias | None = None,
) -> Tensor:  # fmt: skip
    """torch's flash kernel for sequences of any length end to end, on a GPU. It puts the last query at the last key, as
    ours do; it takes no dropout and no bias.
    """
    assert not dropout
    assert bias is None
    from torch.nn.attention.varlen import varlen_attn

    before = -1 if window is None else window - 1  # keys before a query's own
    output: Any = varlen_attn(
        q, k, v, *layout.offsets(q.device), max(layout.query_lengths), max(layout.key_lengths), scale=scale,
        window_size=(before, 0 if causal else -1),
    )  # fmt: skip
    attended: Tensor = output  # [T, H, Dh]; a tuple only where more is asked for
    return attended


def grouped_attention(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, *, causal: bool, scale: float, dropout: float = 0.0,
    window: int | None = None, bias: DistanceBias | None = None,
) -> Tensor:  # fmt: skip
    """torch's fused kernel, called once for each group of sequences of similar length.

    A group of equal lengths that lie end to end is a view, without a copy (batches sorted by length are mostly that);
    other groups are gathered into a rectangle with a little padding, and scattered back.
    """
    groups = layout.groups
    if window is not None and max(layout.key_lengths) <= window:
        window = None  # nobody looks further back
    if len(groups) == 1 and groups[0].query.start is not None:
        return _attend(q, k, v, groups[0], causal, scale, dropout, window, bias).flatten(0, 1)
    outputs = []
    for group in groups:
        output = _attend(q, k, v, group, causal, scale, dropout, window, bias)  # [n, Lq, H, Dh]
        rows: Tensor = _Unpad.apply(output.flatten(0, 1), group.query)  # type: ignore[no-untyped-call]
        outputs.append(rows)  # [Σ Lq, H, Dh]
    places = torch.cat([group.query.rows for group in groups])  # [T] where each output row belongs
    scattered: Tensor = _Scatter.apply(torch.cat(outputs), places.to(q.device))  # type: ignore[no-untyped-call]
    return scattered


def _attend(
    q: Tensor, k: Tensor, v: Tensor, group: Group, causal: bool, scale: float, dropout: float, window: int | None,
    bias: DistanceBias | None,
) -> Tensor:  # fmt: skip
    """One group → [n, Lq, H, Dh], by whichever of torch's ways is fast for it."""
    query, key, value = (
        _rectangle(x, rows).transpose(1, 2) for x, rows in ((q, group.query), (k, group.key), (v, group.key))
    )
    # [n, H, L, Dh]. As many queries as keys: padding stands to the right of every query, the triangle hides it.
    whole = causal and window is None
    triangle = whole and group.query.lengths == group.key.lengths and bias is None
    one_query = whole and group.uniform and group.query.shape[1] == 1  # a decoding step sees all its keys
    if q.dtype == torch.bfloat16 and group.query.shape[1] * group.key.shape[1] <= BATCHED_SCORES:
        mask = None if one_query else group.mask(causal=causal, window=window)
        return _batched(query, key, value, _added(mask, bias, group, q), scale, dropout).transpose(1, 2)
    mask = None if triangle or one_query else group.mask(causal=causal, window=window)
    output = F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=_added(mask, bias, group, q),
        is_causal=triangle,
        scale=scale,
        dropout_p=dropout,
    )  # [n, H, Lq, Dh]
    return output.transpose(1, 2)


BATCHED_SCORES = 512 * 512
"""Up to this many scores a head, bf16 batched products beat torch's fused CPU kernel: measured on two Zen 5 cores at
64 × 4 heads × 128 tokens × 64, forwards and backwards 16 ms against 55 ms; at 512 tokens 78 ms against 93 ms."""


def _added(mask: Tensor | None, bias: DistanceBias | None, group: Group, q: Tensor) -> Tensor | None:
    """What the fused kernel takes: the mask (bool, True where a query may look), or what is added to scores."""
    mask = None if mask is None else mask.to(q.device)
    if bias is None:
        return mask
    added = bias.of(group).to(q.dtype)  # [n or 1, H, Lq, Lk]
    return added if mask is None else added.masked_fill(~mask, float("-inf"))


def _batched(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, dropout: float) -> Tensor:
    """The formula as two batched products over [n · H] rectangles → [n, H, Lq, Dh]; ``mask`` as ``_added`` gives it."""
    n, heads, num_queries, _ = query.shape
    scores = torch.matmul(query * scale, key.transpose(-1, -2))  # [n, H, Lq, Lk]
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    weights = scores.softmax(dim=-1)
    if dropout:
        weights = F.dropout(weights, dropout)
    return torch.matmul(weights, value).view(n, heads, num_queries, -1)


def _rectangle(x: Tensor, rows: Rows) -> Tensor:
    """[T, H, Dh] → [n, L, H, Dh]: a view where the rows allow it, else a gather."""
    n, length = rows.shape
    cells: Tensor = _Pad.apply(x, rows) if rows.start is None else x[rows.start : rows.start + n * length]  # type: ignore[no-untyped-call]
    return cells.view(n, length, *x.shape[1:])


# Every real cell stands for exactly one row, so the gradient of a gather is a gather too: much faster on a CPU than the
# scatter-add that autograd would use.


class _Pad(torch.autograd.Function):
    """Rows [T, …] → cells [n · L, …]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Rows) -> Tensor:
        ctx.rows, ctx.shape = rows, x.shape
        return x.index_select(0, rows.index.to(x.device))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        result = gradient.new_zeros(ctx.shape)
        real = gradient.index_select(0, ctx.rows.inverse.to(gradient.device))
        return result.index_copy_(0, ctx.rows.rows.to(gradient.device), real), None


class _Unpad(torch.autograd.Function):
    """Cells [n · L, …] → rows [Σ lengths, …]; padding is dropped and gets no gradient."""

    @staticmethod
    def forward(ctx: Any, cells: Tensor, rows: Rows) -> Tensor:
        ctx.rows, ctx.shape = rows, cells.shape
        return cells.index_select(0, rows.inverse.to(cells.device))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        result = gradient.new_zeros(ctx.shape)
        return result.index_copy_(0, ctx.rows.inverse.to(gradient.device), gradient), None


class _Scatter(torch.autograd.Function):
    """Row i → row ``rows[i]``, a permutation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.rows = rows
        return torch.empty_like(x, memory_format=torch.contiguous_format).index_copy_(0, rows, x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].index_select(0, ctx.rows), None
