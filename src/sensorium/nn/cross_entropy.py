"""Cross-entropy over a vocabulary without ever holding all the logits.

Shapes: M labelled rows, m rows of a chunk, D hidden size, V vocabulary.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sensorium import native

CHUNK_BYTES = 64 * 2**20
"""Logits of one chunk: few enough to be reused by the next chunk, enough for products at full speed."""


def linear_cross_entropy(
    hidden_states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, *, label_smoothing: float = 0.0,
    agreement: float = 0.0,
) -> tuple[Tensor, int]:  # fmt: skip
    """Σ -log softmax(h Wᵀ + b)[target] over rows, and how many rows have it as their likeliest.

    ``hidden_states`` [M, D], ``weight`` [V, D], ``bias`` [V], ``targets`` [M] → (float32 scalar, count). The gradient
    is worked out chunk by chunk in the forward pass, while the logits are at hand (the idea of Hsu et al., 2024,
    "Liger Kernel"); memory is one chunk of logits, not M × V.

    With ``agreement`` the second half of the rows is the first half read again under other dropout, and
    ``agreement`` · (KL(p‖q) + KL(q‖p)) / 2 of each pair is added ("R-Drop", Liang et al., 2021, equation 2).
    """
    total: Tensor
    how = _How(label_smoothing, agreement)
    total, correct = _LinearCrossEntropy.apply(hidden_states, weight, bias, targets, how)  # type: ignore[no-untyped-call]
    return total, int(correct)


@dataclass(frozen=True)
class _How:
    """What the loss is beside the likelihood of targets."""

    smoothing: float
    agreement: float


@dataclass
class _Sums:
    """What the chunks add up to. Gradients are ``None`` where nobody needs them."""

    hidden: Tensor | None
    """[M, D]"""
    weight: Tensor | None
    """[V, D] float32: bf16 would lose what a chunk adds."""
    bias: Tensor | None
    """[V] float32"""
    total: Tensor
    correct: Tensor


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, how: _How
    ) -> tuple[Tensor, Tensor]:
        needed = any(ctx.needs_input_grad[:3])
        device = hidden.device
        sums = _Sums(
            torch.empty_like(hidden) if needed else None,
            torch.empty(weight.shape, dtype=torch.float32, device=device) if needed else None,
            torch.empty(bias.shape, dtype=torch.float32, device=device) if needed and bias is not None else None,
            torch.zeros((), device=device),
            torch.zeros((), dtype=torch.int64, device=device),
        )
        add_chunk = _add_chunk_compiled if _compiled(hidden, weight) and len(hidden) else _add_chunk
        wanted = -(-len(hidden) * weight.shape[0] * weight.element_size() // CHUNK_BYTES)
        rows = torch.arange(len(hidden), device=device)
        if how.agreement:
            rows = rows.view(2, -1).t()  # [M / 2, 2]: the two readings of a row are in one chunk
        for number, chunk in enumerate(rows.tensor_split(max(1, min(wanted, len(rows))))):
            chosen = chunk.t().flatten()
            add_chunk(sums, hidden.detach()[chosen], weight.detach(), bias, targets[chosen], chosen, how, number == 0)
        ctx.mark_non_differentiable(sums.correct)
        if needed:
            ctx.save_for_backward(sums.hidden, sums.weight, sums.bias)
        ctx.dtypes = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        return sums.total, sums.correct

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scaled = (
            None if saved is None else torch.mul(saved, gradients[0], out=torch.empty_like(saved, dtype=dtype))
            for saved, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return (*scaled, None, None)


def _add_chunk(
    sums: _Sums, h: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, rows: Tensor, how: _How, first: bool
) -> None:
    """One chunk with torch's operators: hidden states [m, D] and targets [m], which stand at ``rows`` [m] of all."""
    smoothing = how.smoothing
    logits = torch.nn.functional.linear(h, weight, bias).float()  # [m, V]
    log_probabilities = logits.log_softmax(dim=-1)
    picked = log_probabilities.gather(1, target[:, None]).sum()
    sums.total -= (1 - smoothing) * picked
    if smoothing:
        sums.total -= smoothing * log_probabilities.mean(dim=-1).sum()
    sums.correct += (logits.argmax(dim=-1) == target).sum()
    disagreement = None
    if how.agreement:
        total, disagreement = _disagreement(log_probabilities)
        sums.total += how.agreement * total
    if sums.hidden is None or sums.weight is None:
        return
    gradient = log_probabilities.exp_()  # [m, V] softmax, in place
    if disagreement is not None:
        gradient.add_(disagreement, alpha=how.agreement)
    if smoothing:
        gradient.sub_(smoothing / weight.shape[0])
    gradient.scatter_add_(1, target[:, None], torch.full((len(h), 1), smoothing - 1.0, device=h.device))
    if sums.bias is not None:
        _add(sums.bias, gradient.sum(dim=0), first)
    gradient = gradient.to(weight.dtype)
    sums.hidden[rows] = gradient @ weight
    _add(sums.weight, gradient.t() @ h, first)


def _disagreement(log_probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Σ (KL(p‖q) + KL(q‖p)) / 2 where p is the first half of the rows and q the second, and its gradient [m, V]."""
    p, q = log_probabilities.chunk(2)  # [m / 2, V]
    ratio = torch.cat([p - q, q - p])
    likelihood = log_probabilities.exp()
    divergence = (likelihood * ratio).sum(dim=-1, keepdim=True)  # [m, 1]
    others = likelihood.roll(len(p), dims=0)
    return divergence.sum() / 2, (likelihood * (ratio - divergence) + likelihood - others) / 2


def _add(total: Tensor, part: Tensor, first: bool) -> None:
    if first:
        total.copy_(part)
    else:
        total.add_(part)


def _compiled(hidden: Tensor, weight: Tensor) -> bool:
    """Whether the compiled kernels can take this."""
    same = hidden.dtype == weight.dtype and hidden.dtype in native.TRAINED
    return same and not hidden.is_cuda and hidden.shape[1] % 4 == 0 and native.available()


def _add_chunk_compiled(
    sums: _Sums, h: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, rows: Tensor, how: _How, first: bool
) -> None:
    """One chunk on the compiled kernels: logits, softmax and both products of the way back."""
    vocabulary = weight.contiguous()
    bias = None if bias is None else bias.detach().float().contiguous()
    losses, likeliest = torch.empty(len(h)), torch.empty(len(h), dtype=torch.int64)
    stride = -(-len(h) // native.PANEL) * native.PANEL
    logits = torch.empty(len(weight) + native.SPARE, stride, dtype=weight.dtype)
    gradient = None if sums.hidden is None else torch.empty(h.shape)
    struct = native.CrossEntropy(
        *map(native.pointer, (h, vocabulary, bias, target)), *h.shape, len(weight), how.smoothing, how.agreement,
        not first, *map(native.pointer, (losses, likeliest, logits, gradient, sums.weight, sums.bias)),
    )  # fmt: skip
    code = native.on_matrix_unit(native.TRAINED[weight.dtype], weight.shape[1])
    native.library().sensorium_cross_entropy(code, ctypes.byref(struct), torch.get_num_threads())
    sums.total += losses.sum(dtype=torch.float64).float()
    sums.correct += (likeliest == target).sum()
    if sums.hidden is not None and gradient is not None:
        sums.hidden[rows] = gradient.to(sums.hidden.dtype)
