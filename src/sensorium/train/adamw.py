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
        return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm([g.float() for g in gradients]))))
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
    for one in learning:
        moments, gradient = one.moments, one.gradient.float() * scale
        one.master.mul_(1 - one.rate * one.decay)
        moments.exp_avg.lerp_(gradient, 1 - betas.mean)
        moments.exp_avg_sq.mul_(betas.square).addcmul_(gradient, gradient, value=1 - betas.square)
        root = moments.exp_avg_sq.sqrt().div_(math.sqrt(1 - betas.square**moments.step)).add_(betas.epsilon)
        one.master.addcdiv_(moments.exp_avg, root, value=-one.rate / (1 - betas.mean**moments.step))
        one.weight.copy_(one.master)
