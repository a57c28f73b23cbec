"""Cross-entropy over a vocabulary without ever holding all the logits.

Shapes: M labelled rows, m rows of a chunk, D hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = 64 * 2**20
"""Logits of one chunk, in float32: few enough to be reused by the next chunk, enough for products at full speed."""


def linear_cross_entropy(
    hidden_states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, *, label_smoothing: float = 0.0
) -> tuple[Tensor, int]:
    """Σ -log softmax(h Wᵀ + b)[target] over rows, and how many rows have it as their likeliest.

    ``hidden_states`` [M, D], ``weight`` [V, D], ``bias`` [V], ``targets`` [M] → (float32 scalar, count). The gradient
    is worked out chunk by chunk in the forward pass, while the logits are at hand (the idea of Hsu et al., 2024,
    "Liger Kernel"); memory is one chunk of logits, not M × V.
    """
    total: Tensor
    total, correct = _LinearCrossEntropy.apply(hidden_states, weight, bias, targets, label_smoothing)  # type: ignore[no-untyped-call]
    return total, int(correct)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        rows = max(1, CHUNK_BYTES // (4 * weight.shape[0]))
        needed = any(ctx.needs_input_grad[:3])
        total, correct = torch.zeros((), dtype=torch.float32), torch.zeros((), dtype=torch.int64)
        # Sums over chunks are kept in float32: bf16 would lose what a chunk adds.
        hidden_gradient = torch.empty_like(hidden) if needed else None
        weight_gradient: Tensor | None = None
        bias_gradient = None if bias is None else torch.zeros(bias.shape, dtype=torch.float32)
        for start in range(0, len(hidden), rows):
            h, target = hidden[start : start + rows], targets[start : start + rows]  # [m, D], [m]
            logits = torch.nn.functional.linear(h, weight, bias).float()  # [m, V]
            log_probabilities = logits.log_softmax(dim=-1)
            picked = log_probabilities.gather(1, target[:, None]).sum()
            mean = log_probabilities.mean(dim=-1).sum() if smoothing else torch.zeros(())
            total = total - (1 - smoothing) * picked - smoothing * mean
            correct = correct + (logits.argmax(dim=-1) == target).sum()
            if hidden_gradient is None:
                continue
            gradient = log_probabilities.exp_()  # softmax, in place
            if smoothing:
                gradient.sub_(smoothing / weight.shape[0])
            gradient.scatter_add_(1, target[:, None], torch.full((len(h), 1), smoothing - 1.0))
            if bias_gradient is not None:
                bias_gradient += gradient.sum(dim=0)
            gradient = gradient.to(weight.dtype)
            hidden_gradient[start : start + rows] = gradient @ weight
            chunk = gradient.t() @ h  # [V, D]
            weight_gradient = chunk if weight_gradient is None else weight_gradient.float().add_(chunk)
        ctx.mark_non_differentiable(correct)
        if needed:
            ctx.save_for_backward(
                hidden_gradient,
                None if weight_gradient is None else weight_gradient.to(weight.dtype),
                None if bias_gradient is None or bias is None else bias_gradient.to(bias.dtype),
            )
        return total, correct

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scale = gradients[0]
        scaled = (None if saved is None else saved * scale.to(saved.dtype) for saved in ctx.saved_tensors)
        return (*scaled, None, None)
