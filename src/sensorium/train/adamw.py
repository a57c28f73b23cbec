"""One step of AdamW (Loshchilov & Hutter, 2019) over all weights: on the compiled kernels in one pass, else by torch.

Both take gradients in the dtype of the model and move the model's weights along with their float32 masters.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sensorium import native


@dataclass
class Moments:
    """Moving averages of a gradient and of its square, float32, and how many steps they have seen."""

    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: int = 0


@dataclass(frozen=True)
class Learning:
    """One weight at a step."""

    master: Tensor
    """float32"""
    weight: Tensor
    """The model's own, in its dtype; it follows the master."""
    gradient: Tensor
    moments: Moments
    rate: float
    decay: float
    """Share of the master that goes at a step, before the rate."""


@dataclass(frozen=True)
class Betas:
    """What is the same for all weights."""

    mean: float
    square: float
    epsilon: float


def gradient_norm(gradients: Sequence[Tensor]) -> float:
    """√Σ gradient² over all of them."""
    if not _compiled(gradients):
        norms = torch._foreach_norm(list(gradients), 2, dtype=torch.float32)
        return float(torch.linalg.vector_norm(torch.stack(norms)))
    gradients = [gradient.contiguous() for gradient in gradients]
    parameters = (native.Parameter * len(gradients))()
    for struct, gradient in zip(parameters, gradients, strict=True):
        struct.gradient, struct.size = native.pointer(gradient), gradient.numel()
        struct.gradient_dtype = native.TRAINED[gradient.dtype]
    return math.sqrt(native.library().sensorium_squares(parameters, len(parameters), torch.get_num_threads()))


@torch.no_grad()
def step(learning: Sequence[Learning], betas: Betas, scale: float) -> None:
    """Move masters, moments and weights. Gradients are multiplied by ``scale`` first, which clips them."""
    for one in learning:
        one.moments.step += 1
    update = _update_compiled if _compiled([one.gradient for one in learning]) else _update
    update(learning, betas, scale)


def _compiled(gradients: Sequence[Tensor]) -> bool:
    known = all(gradient.dtype in native.TRAINED and not gradient.is_cuda for gradient in gradients)
    return known and native.available()


def _update_compiled(learning: Sequence[Learning], betas: Betas, scale: float) -> None:
    gradients = [one.gradient.contiguous() for one in learning]
    parameters = (native.Parameter * len(learning))(
        *(
            native.Parameter(
                native.pointer(one.master), native.pointer(one.moments.exp_avg), native.pointer(one.moments.exp_avg_sq),
                native.pointer(gradient), native.pointer(one.weight), native.TRAINED[gradient.dtype],
                native.TRAINED[one.weight.dtype], gradient.numel(), one.rate, one.rate * one.decay,
                1 - betas.mean**one.moments.step, 1 - betas.square**one.moments.step,
            )
            for one, gradient in zip(learning, gradients, strict=True)
        )
    )  # fmt: skip
    settings = native.AdamW(betas.mean, betas.square, betas.epsilon, scale)
    native.library().sensorium_adamw(parameters, len(parameters), ctypes.byref(settings), torch.get_num_threads())
    # torch did not see that they changed.
    torch.autograd.graph.increment_version([x for one in learning for x in (one.master, one.weight)])


def _update(learning: Sequence[Learning], betas: Betas, scale: float) -> None:
    """Each operator is called once for all weights: on a GPU a call costs more than its arithmetic."""
    masters, moments = [one.master for one in learning], [one.moments for one in learning]
    means, squares = [one.exp_avg for one in moments], [one.exp_avg_sq for one in moments]
    gradients = [torch.empty_like(master) for master in masters]
    torch._foreach_copy_(gradients, [one.gradient for one in learning])
    torch._foreach_mul_(gradients, scale)
    torch._foreach_mul_(masters, [1 - one.rate * one.decay for one in learning])
    torch._foreach_lerp_(means, gradients, 1 - betas.mean)
    torch._foreach_mul_(squares, betas.square)
    torch._foreach_addcmul_(squares, gradients, gradients, 1 - betas.square)
    roots = torch._foreach_sqrt(squares)
    torch._foreach_div_(roots, [math.sqrt(1 - betas.square**one.step) for one in moments])
    torch._foreach_add_(roots, betas.epsilon)
    rates = [-one.rate / (1 - betas.mean**one.moments.step) for one in learning]
    torch._foreach_addcdiv_(masters, means, roots, rates)
    torch._foreach_copy_([one.weight for one in learning], masters)
