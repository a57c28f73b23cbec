"""AdamW on float32 master weights beside a model that computes in bf16.

The model's weights are cast once a step, when the masters change, not at every use. Gradients are added up in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sensorium.errors import UsageError

Schedule = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW (Loshchilov & Hutter, 2019) and its schedule."""

    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    """Not on biases and norms."""
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = 1e-8
    clip: float = 1.0
    """Largest norm of the whole gradient; 0: no clipping."""
    schedule: Schedule = "linear"
    warmup: float = 0.1
    """Share of the steps over which the rate rises from 0."""
    layer_decay: float = 1.0
    """Each layer learns at this share of the rate of the one above it (Howard & Ruder, 2018)."""
    head_factor: float = 1.0
    """The heads learn at this multiple of the rate."""
    freeze: tuple[str, ...] = ()
    """Patterns of parameter names that do not learn: ``stem.*``."""


def learning_rate_factor(step: int, total: int, warmup: float, schedule: Schedule) -> float:
    """Share of the full rate at a step (0-based) of ``total``.

    >>> [round(learning_rate_factor(step, 10, 0.2, "linear"), 2) for step in (0, 1, 2, 9)]
    [0.5, 1.0, 1.0, 0.12]
    """
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / rising
    if schedule == "constant":
        return 1.0
    share = (step - rising) / max(1, total - rising)
    return 1.0 - share if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * share))


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Parameters whose names match a pattern do not learn. Raises ``UsageError`` for a pattern that matches none."""
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in names):
            raise UsageError(f"freeze: {pattern!r} matches no parameter; they are named like {names[0]}, {names[-1]}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(fnmatch(name, pattern) for pattern in patterns))


def rate_factor(name: str, num_layers: int, settings: OptimizerSettings) -> float:
    """Multiple of the learning rate for a parameter, by its depth: stem lowest, heads highest."""
    if name.startswith("stem."):
        return settings.layer_decay ** (num_layers + 1)
    if name.startswith("stack.layers."):
        return settings.layer_decay ** (num_layers - int(name.split(".")[2]))
    return 1.0 if name.startswith(("stack.", "pooler.")) else settings.head_factor


class MasterAdamW:
    """The masters, their gradients and moments, and the model that follows them."""

    def __init__(self, model: nn.Module, settings: OptimizerSettings, num_layers: int, dtype: torch.dtype) -> None:
        """The model's trainable weights go to ``dtype``; with float32 they are their own masters."""
        freeze(model, settings.freeze)
        self.model, self.settings = model, settings
        self.masters: dict[str, Tensor] = {
            name: parameter.detach().float().clone().requires_grad_()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        # A frozen weight must come out as it went in, not rounded to bf16.
        self.frozen: dict[str, Tensor] = {
            name: parameter.detach().clone()
            for name, parameter in model.named_parameters()
            if not parameter.requires_grad
        }
        if not self.masters:
            raise UsageError(f"freeze: {', '.join(settings.freeze)} leave no parameter to learn")
        model.to(dtype)
        self.parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        groups = [
            {
                "params": [master],
                "factor": rate_factor(name, num_layers, settings),
                "weight_decay": settings.weight_decay if master.dim() > 1 else 0.0,
            }
            for name, master in self.masters.items()
        ]
        self.adamw = torch.optim.AdamW(
            groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.epsilon, fused=True
        )

    @torch.no_grad()
    def accumulate(self) -> None:
        """Move the model's gradients to the masters, adding to what is there."""
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            master = self.masters[name]
            if master.grad is None:
                master.grad = parameter.grad.float()  # float32 gradients move over without a copy
            else:
                master.grad += parameter.grad
            parameter.grad = None

    @torch.no_grad()
    def step(self, factor: float) -> float:
        """One update at ``factor`` of the learning rate; returns the gradient's norm before clipping.

        Where that norm is infinite or NaN, the weights stay as they are.
        """
        gradients = [master.grad for master in self.masters.values() if master.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        if not math.isfinite(norm):
            self.adamw.zero_grad(set_to_none=True)
            return float(norm)
        clip = self.settings.clip
        # The fused kernel divides gradients by this scale on its way: clipping costs no pass over memory.
        scale = (norm / clip).clamp(min=1.0) if clip else None
        self.adamw.grad_scale = scale  # type: ignore[attr-defined]
        for group in self.adamw.param_groups:
            group["lr"] = self.settings.learning_rate * group["factor"] * factor
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        self.follow(self.masters)
        return float(norm)

    @torch.no_grad()
    def finish(self, weights: dict[str, Tensor]) -> None:
        """Give the model these weights in float32, and the frozen ones as they came."""
        self.model.float()
        final = {**self.frozen, **weights}
        for name, parameter in self.model.named_parameters():
            parameter.copy_(final[name])

    @torch.no_grad()
    def follow(self, weights: dict[str, Tensor]) -> None:
        """Give the model these weights."""
        torch._foreach_copy_(list(self.parameters.values()), [weights[name] for name in self.parameters])

    def tensors(self) -> dict[str, Tensor]:
        """Masters and moments under flat names, to be saved."""
        tensors: dict[str, Tensor] = {}
        for name, master in self.masters.items():
            tensors[f"master/{name}"] = master.detach()
            for key, value in self.adamw.state.get(master, {}).items():
                tensors[f"{key}/{name}"] = value
        return tensors

    @torch.no_grad()
    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take back what ``tensors`` gave. Raises ``UsageError`` when it belongs to another model."""
        missing = [name for name in self.masters if f"master/{name}" not in tensors]
        if missing:
            raise UsageError(f"the training state holds no {missing[0]}; it belongs to another model")
        for name, master in self.masters.items():
            master.copy_(tensors[f"master/{name}"])
            state: dict[str, Any] = {
                key: tensors[f"{key}/{name}"] for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}/{name}" in tensors
            }
            if state:
                self.adamw.state[master] = state
        self.follow(self.masters)


class MovingAverage:
    """An average of the masters over the last part of a run: often a little better than any of them.

    The plain mean of the weights after each step since it began (Izmailov et al., 2018).
    """

    def __init__(self, masters: dict[str, Tensor]) -> None:
        self.weights = {name: master.detach().clone() for name, master in masters.items()}
        self.count = 1

    @torch.no_grad()
    def update(self, masters: dict[str, Tensor]) -> None:
        """Take one more set of weights into the mean."""
        self.count += 1
        torch._foreach_lerp_(list(self.weights.values()), [masters[n] for n in self.weights], 1.0 / self.count)
