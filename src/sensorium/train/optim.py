"""AdamW on float32 master weights beside a model that computes in bf16.

The model's weights are cast once a step, when the masters change, not at every use. Gradients are added up in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Literal

import torch
from torch import Tensor, nn

from sensorium.errors import UsageError
from sensorium.train import adamw

Schedule = Literal["cosine", "linear", "constant", "inverse_sqrt"]


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
    """How the rate falls once it has risen; ``inverse_sqrt``: with 1/√step (Vaswani et al., 2017, §5.3)."""
    warmup: float = 0.1
    """Share of the steps over which the rate rises from 0."""
    warmup_steps: int | None = None
    """The same as a number of steps; ``None``: ``warmup`` says."""
    layer_decay: float = 1.0
    """Each layer learns at this share of the rate of the one above it (Howard & Ruder, 2018)."""
    head_factor: float = 1.0
    """The heads learn at this multiple of the rate."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """Patterns of parameter names, and at which multiple of the rate they learn: ``{"text.*": 0.1}``."""
    freeze: tuple[str, ...] = ()
    """Patterns of parameter names that do not learn: ``stem.*``."""


def learning_rate_factor(step: int, total: int, rising: int, schedule: Schedule) -> float:
    """Share of the full rate at a step (0-based) of ``total``, over the first ``rising`` of which it rises from 0.

    >>> [round(learning_rate_factor(step, 10, 2, "linear"), 2) for step in (0, 1, 2, 9)]
    [0.5, 1.0, 1.0, 0.12]
    >>> [round(learning_rate_factor(step, 10, 2, "inverse_sqrt"), 2) for step in (0, 1, 7)]
    [0.5, 1.0, 0.5]
    """
    if step < rising:
        return (step + 1) / rising
    if schedule == "constant":
        return 1.0
    if schedule == "inverse_sqrt":
        return math.sqrt(max(1, rising) / (step + 1))
    share = (step - rising) / max(1, total - rising)
    return 1.0 - share if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * share))


def rising_steps(settings: OptimizerSettings, total: int) -> int:
    """Over how many of ``total`` steps the rate rises."""
    return round(settings.warmup * total) if settings.warmup_steps is None else settings.warmup_steps


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Parameters whose names match a pattern do not learn. Raises ``UsageError`` for a pattern that matches none."""
    check_patterns("freeze", patterns, [name for name, _ in model.named_parameters()])
    for name, parameter in model.named_parameters():
        if any(fnmatch(name, pattern) for pattern in patterns):
            parameter.requires_grad_(False)


def check_patterns(key: str, patterns: Iterable[str], names: Sequence[str]) -> None:
    """Raise ``UsageError`` for a pattern of parameter names that matches none."""
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in names):
            raise UsageError(f"{key}: {pattern!r} matches no parameter; they are named like {names[0]}, {names[-1]}")


def rate_factor(name: str, layers: Mapping[str, int], settings: OptimizerSettings) -> float:
    """Multiple of the learning rate for a parameter, by its depth: stem lowest, heads highest.

    ``layers`` has the blocks of each stack by the prefix of its parameters, the lower stack first.
    """
    above = sum(layers.values())
    for prefix, count in layers.items():
        own = name.removeprefix(prefix)
        if prefix and own == name:  # of another stack
            above -= count
        elif own.startswith("stem."):
            return settings.layer_decay ** (sum(layers.values()) + 1)
        elif own.startswith("stack.layers."):
            return settings.layer_decay ** (above - int(own.split(".")[2]))
        elif own.startswith(("stack.", "pooler.")):
            return settings.layer_decay ** (above - count)
    return settings.head_factor


class MasterAdamW:
    """The masters, their gradients and moments, and the model that follows them."""

    def __init__(
        self, model: nn.Module, settings: OptimizerSettings, layers: Mapping[str, int], dtype: torch.dtype
    ) -> None:
        """The model's trainable weights go to ``dtype``; with float32 they are their own masters."""
        freeze(model, settings.freeze)
        check_patterns("rates", settings.rates, [name for name, _ in model.named_parameters()])
        self.model, self.settings = model, settings
        self.masters: dict[str, Tensor] = {
            name: parameter.detach().float().clone()
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
        self.factors = {
            name: rate_factor(name, layers, settings)
            * math.prod(times for pattern, times in settings.rates.items() if fnmatch(name, pattern))
            for name in self.masters
        }
        self.gradients: dict[str, Tensor] = {}
        """Of the update so far, by weight: as the model gave them, or added up in float32."""
        self.moments: dict[str, adamw.Moments] = {}

    @torch.no_grad()
    def accumulate(self) -> None:
        """Take the model's gradients, adding to what is there."""
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            if name in self.gradients:
                self.gradients[name] = self.gradients[name].float().add_(parameter.grad)
            else:
                self.gradients[name] = parameter.grad
            parameter.grad = None

    def step(self, factor: float) -> float:
        """One update at ``factor`` of the learning rate; returns the gradient's norm before clipping.

        Where that norm is infinite or NaN, the weights stay as they are.
        """
        settings, gradients, self.gradients = self.settings, self.gradients, {}
        norm = adamw.gradient_norm(list(gradients.values()))
        if not math.isfinite(norm):
            return norm
        for name in gradients:
            if name not in self.moments:
                master = self.masters[name]
                self.moments[name] = adamw.Moments(torch.zeros_like(master), torch.zeros_like(master))
        learning = [
            adamw.Learning(
                self.masters[name], self.parameters[name], gradient, self.moments[name],
                settings.learning_rate * self.factors[name] * factor,
                settings.weight_decay if gradient.dim() > 1 else 0.0,
            )
            for name, gradient in gradients.items()
        ]  # fmt: skip
        scale = 1.0 / max(norm / settings.clip, 1.0) if settings.clip else 1.0
        adamw.step(learning, adamw.Betas(*settings.betas, settings.epsilon), scale)
        return norm

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
        tensors: dict[str, Tensor] = {f"master/{name}": master for name, master in self.masters.items()}
        for name, moments in self.moments.items():
            tensors[f"step/{name}"] = torch.tensor(float(moments.step))
            tensors[f"exp_avg/{name}"], tensors[f"exp_avg_sq/{name}"] = moments.exp_avg, moments.exp_avg_sq
        return tensors

    @torch.no_grad()
    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take back what ``tensors`` gave. Raises ``UsageError`` when it belongs to another model."""
        missing = [name for name in self.masters if f"master/{name}" not in tensors]
        if missing:
            raise UsageError(f"the training state holds no {missing[0]}; it belongs to another model")
        for name, master in self.masters.items():
            master.copy_(tensors[f"master/{name}"])
            if f"step/{name}" in tensors:
                mean, square = (tensors[f"{key}/{name}"].clone() for key in ("exp_avg", "exp_avg_sq"))
                self.moments[name] = adamw.Moments(mean, square, int(tensors[f"step/{name}"]))
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
