"""LoRA: a linear map learns a small difference, two thin matrices, and stays as it is itself (Hu et al., 2021).

Shapes: T rows, K inputs and N outputs of a linear map, n outputs of a part of it, P parts, r rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sensorium.errors import UsageError
from sensorium.nn.dropout import Dropout


@dataclass(frozen=True)
class LoRASettings:
    """How large the differences are."""

    rank: int = 8
    alpha: float = 16.0
    """The difference is multiplied by alpha / rank, so that the learning rate need not follow the rank."""
    dropout: float = 0.0
    """On what the adapters read."""

    def __post_init__(self) -> None:
        """Raises ``UsageError`` for a value outside its range."""
        if self.rank < 1 or not 0.0 <= self.dropout < 1.0 or not 0.0 < self.alpha < math.inf:
            raise UsageError(
                f"LoRA with rank {self.rank}, alpha {self.alpha} and dropout {self.dropout}: the rank must be 1 "
                "or more, alpha above 0, the dropout from 0 to below 1"
            )

    @property
    def scale(self) -> float:
        """Factor on the difference."""
        return self.alpha / self.rank


class LoRALinear(nn.Linear):
    """y = xWᵀ + b, and to some rows of W the difference (alpha / r) · BA: W and b are the map's own, and stay."""

    def __init__(self, linear: nn.Linear, parts: Sequence[slice], settings: LoRASettings) -> None:
        """``parts`` are the rows of W that learn, each with an A and a B of its own, in order; B begins at 0."""
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight.requires_grad_(False), linear.bias
        if self.bias is not None:
            self.bias.requires_grad_(False)
        self.parts, self.settings = tuple(parts), settings
        self.dropout = Dropout(settings.dropout)
        like = self.weight
        self.lora_a = nn.Parameter(like.new_zeros(len(self.parts) * settings.rank, self.in_features))  # [P · r, K]
        self.lora_b = nn.ParameterList(
            nn.Parameter(like.new_zeros(part.stop - part.start, settings.rank))
            for part in self.parts  # [n, r]
        )

    def forward(self, input: Tensor) -> Tensor:
        """[T, K] → [T, N]."""
        output = F.linear(input, self.weight, self.bias)
        low = F.linear(self.dropout(input), self.lora_a).split(self.settings.rank, dim=-1)  # P × [T, r]
        pieces, end = [], 0
        for part, thin, b in zip(self.parts, low, self.lora_b, strict=True):
            if part.start > end:
                pieces.append(thin.new_zeros(*thin.shape[:-1], part.start - end))
            pieces.append(F.linear(thin, b))
            end = part.stop
        if end < self.out_features:
            pieces.append(output.new_zeros(*output.shape[:-1], self.out_features - end))
        return output + self.settings.scale * torch.cat(pieces, dim=-1)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """One map that does the same: W + (alpha / r) · BA, worked out in float32."""
        weight = self.weight.detach().clone()
        for part, a, b in zip(self.parts, self.lora_a.split(self.settings.rank), self.lora_b, strict=True):
            weight[part] += (self.settings.scale * (b.float() @ a.float())).to(weight.dtype)
        linear = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        linear.weight = nn.Parameter(weight)
        if self.bias is not None:
            linear.bias = nn.Parameter(self.bias.detach())
        return linear


def add_lora(model: nn.Module, parts: dict[str, list[slice]], settings: LoRASettings, *, seed: int) -> None:
    """Give linear maps adapters and freeze everything else; ``parts`` has the rows that learn by the map's name.

    A is drawn uniformly from ±1/√K, as ``peft`` does, B is 0: the model computes at first what it did.
    """
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    for name, rows in parts.items():
        linear = model.get_submodule(name)
        assert type(linear) is nn.Linear, name
        adapted = LoRALinear(linear, rows, settings)
        bound = linear.in_features**-0.5
        with torch.no_grad():
            adapted.lora_a.uniform_(-bound, bound, generator=generator)
        _replace(model, name, adapted.train(linear.training))


def merge_lora(model: nn.Module) -> None:
    """Put every difference into its map's weights: the model is as it was before it had adapters."""
    for name, adapted in adapted_maps(model).items():
        _replace(model, name, adapted.merged().train(adapted.training))
    model.requires_grad_(True)


def adapted_maps(model: nn.Module) -> dict[str, LoRALinear]:
    """The linear maps with adapters, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)
