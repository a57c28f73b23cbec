"""How far one model's next tokens are from another's, without ever holding all the logits.

Shapes: M rows, m rows of a chunk, D hidden size of the student and E of the teacher, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sensorium.nn.cross_entropy import CHUNK_BYTES


@dataclass(frozen=True)
class Vocabulary:
    """Hidden states and what makes logits of them."""

    hidden_states: Tensor
    """[M, D]"""
    weight: Tensor
    """[V, D]"""
    bias: Tensor | None
    """[V]"""


def linear_divergence(student: Vocabulary, teacher: Vocabulary, *, temperature: float) -> tuple[Tensor, int]:
    """Σ KL(teacher ‖ student) over rows, of softmax(logits / temperature), and in how many rows both have the same
    likeliest token.

    A float32 scalar, differentiable in everything of the student's; nothing goes back to the teacher. Gradients are
    worked out chunk by chunk in the forward pass, as in ``linear_cross_entropy``.
    """
    total: Tensor
    total, agree = _LinearDivergence.apply(  # type: ignore[no-untyped-call]
        student.hidden_states, student.weight, student.bias, teacher, temperature
    )
    return total, int(agree)


def divergence(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> tuple[Tensor, int]:
    """The same of logits [M, C] that are at hand."""
    ours = (student_logits.float() / temperature).log_softmax(dim=-1)
    theirs = (teacher_logits.detach().float() / temperature).log_softmax(dim=-1)
    agree = (ours.argmax(dim=-1) == theirs.argmax(dim=-1)).sum()
    return F.kl_div(ours, theirs, reduction="sum", log_target=True), int(agree)


class _LinearDivergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, teacher: Vocabulary, temperature: float
    ) -> tuple[Tensor, Tensor]:
        needed = any(ctx.needs_input_grad[:3])
        hidden_gradient, weight_gradient = torch.empty_like(hidden), torch.zeros_like(weight, dtype=torch.float32)
        bias_gradient = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        total, agree = torch.zeros((), device=hidden.device), torch.zeros((), dtype=torch.int64, device=hidden.device)
        chunks = max(1, min(-(-len(hidden) * len(weight) * 4 // CHUNK_BYTES), len(hidden)))
        for start, stop in pairwise(len(hidden) * i // chunks for i in range(chunks + 1)):
            h = hidden[start:stop]  # [m, D]
            logits = F.linear(h, weight, bias).float() / temperature  # [m, V]
            taught = F.linear(teacher.hidden_states[start:stop], teacher.weight, teacher.bias).float() / temperature
            ours, theirs = logits.log_softmax(dim=-1), taught.log_softmax(dim=-1)
            agree += (ours.argmax(dim=-1) == theirs.argmax(dim=-1)).sum()
            total += F.kl_div(ours, theirs, reduction="sum", log_target=True)
            if not needed:
                continue
            gradient = ours.exp_().sub_(theirs.exp_()).div_(temperature)  # [m, V] of the logits
            if bias_gradient is not None:
                bias_gradient += gradient.sum(dim=0)
            gradient = gradient.to(weight.dtype)
            hidden_gradient[start:stop] = gradient @ weight
            weight_gradient += gradient.t() @ h
        ctx.mark_non_differentiable(agree)
        ctx.save_for_backward(hidden_gradient, weight_gradient, bias_gradient)
        ctx.dtypes = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        return total, agree

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scaled = (
            None if saved is None else (saved * gradients[0]).to(dtype)
            for saved, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return (*scaled, None, None)
