"""Weights of linear maps as the compiled kernels read them, in 32, 16, 8 or 4 bits.

Shapes: N outputs and K inputs of a linear map, P panels of 64 outputs, G groups of 32 inputs.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sensorium import native
from sensorium.native import PANEL

Dtype = Literal["fp32", "bf16", "int8", "int8_weight_only", "int4_weight_only"]
CODES: dict[Dtype, int] = {
    "fp32": native.FLOAT32, "bf16": native.BFLOAT16, "int8": native.INT8,
    "int8_weight_only": native.INT8_WEIGHTS, "int4_weight_only": native.INT4_WEIGHTS,
}  # fmt: skip
NUMBERS: dict[Dtype, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}

GROUP = 32
"""Inputs that share a scale in an output's 4-bit weights."""
SHRUNK = (1.0, 0.95, 0.9, 0.85, 0.8)
"""Scales that are tried for a group: the largest weight may be cut off where that brings the others nearer."""
AT_ONCE = 64 * PANEL
"""Outputs that are packed at a time: their copies stay small."""


class PackedLinear:
    """The weights [N, K] of a linear map: [P, K / per unit, 64 columns] 32-bit units, or as ``native/weights.h`` says.

    int8: one scale an output, from its largest weight; each row of activations gets its own scale when it is read.
    ``smooth`` [K] moves range from activations, which are divided by it, to weights, which it multiplies.
    int8_weight_only: the same weights, unsmoothed; activations stay bf16. int4_weight_only: a scale for every 32 of
    an output's weights.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: Dtype, *, smooth: Tensor | None = None) -> None:
        outputs, inputs = weight.shape
        weight = weight.detach().float()
        self.scale = self.offset = None
        self.factors = None if smooth is None else (1 / smooth).float().contiguous()  # [K]
        if dtype == "int8_weight_only":
            self.panels = torch.cat([_int8_panels(part) for part in weight.split(AT_ONCE)])
        elif dtype == "int4_weight_only":
            self.panels = torch.cat([_int4_panels(part) for part in weight.split(AT_ONCE)])
        else:
            if dtype == "int8":
                weight, scale = round_to_int8(weight if smooth is None else weight * smooth)
                self.scale = _whole_panels(scale)
                self.offset = _whole_panels(128 * weight.sum(dim=1)).to(torch.int32)  # rows are shifted by 128
            per_unit = 4 // NUMBERS[dtype].itemsize
            self.panels = _by_steps(weight.to(NUMBERS[dtype]), per_unit)
        self.bias = None if bias is None else _whole_panels(bias.detach().float())
        pointers = (native.pointer(x) for x in (self.panels, self.bias, self.scale, self.offset, self.factors))
        self.struct = native.Linear(*pointers, inputs, outputs)


def round_to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[N, K] → whole numbers from -127 to 127 [N, K] and their scales [N], in float32."""
    scale = weight.abs().amax(dim=1).clamp_min(1e-12) / 127
    return (weight / scale[:, None]).round(), scale


def round_to_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[N, K] → whole numbers from -8 to 7 [N, G, 32] and their scales [N, G], bf16 numbers in float32.

    The weight that is furthest from zero becomes -8, so a scale may be negative and all sixteen numbers are used. Of
    that scale and some smaller ones, the one with the least squared error is taken. Weights beyond K are zeros.
    """
    groups = torch.nn.functional.pad(weight, (0, -weight.shape[1] % GROUP)).view(len(weight), -1, GROUP)
    furthest = groups.gather(-1, groups.abs().argmax(dim=-1, keepdim=True))  # [N, G, 1]
    best, least = torch.empty_like(furthest), torch.full_like(furthest, torch.inf)
    for shrunk in SHRUNK:
        scale = (furthest * (-shrunk / 8)).bfloat16().float()
        scale = torch.where(scale == 0, 1.0, scale)
        error = (_to_steps(groups, scale) * scale - groups).square_().sum(dim=-1, keepdim=True)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return _to_steps(groups, best), best[..., 0]


def _to_steps(groups: Tensor, scale: Tensor) -> Tensor:
    return (groups / scale).round_().clamp_(-8, 7)


def _int8_panels(weight: Tensor) -> Tensor:
    """[N, K] → [P, bytes]: pairs of inputs by 64 columns, then the columns' scales."""
    numbers, scale = round_to_int8(weight)
    pairs = _by_steps(numbers.to(torch.int8), 2).flatten(1)
    return torch.cat([pairs, _whole_panels(scale).view(-1, PANEL).view(torch.int8)], dim=1)


def _int4_panels(weight: Tensor) -> Tensor:
    """[N, K] → [P, G, bytes]: octets of inputs by 64 columns, then the columns' scales."""
    numbers, scale = round_to_int4(weight)
    octets = _whole_panels((numbers + 8).to(torch.uint8)).view(-1, PANEL, numbers.shape[1], GROUP // 8, 8)
    octets = octets.permute(0, 2, 3, 1, 4)  # [P, G, 4, 64, 8]
    low, high = octets[..., [0, 4, 1, 5]], octets[..., [2, 6, 3, 7]]
    scales = _whole_panels(scale.bfloat16()).view(-1, PANEL, scale.shape[1]).transpose(1, 2).contiguous()  # [P, G, 64]
    return torch.cat([(low | high << 4).flatten(2), scales.view(torch.uint8)], dim=2)


def _by_steps(weight: Tensor, per_step: int) -> Tensor:
    """[N, K] → [P, K / per step, 64, per step]."""
    rows = _whole_panels(weight)
    return rows.view(-1, PANEL, weight.shape[1] // per_step, per_step).permute(0, 2, 1, 3).contiguous()


def _whole_panels(rows: Tensor) -> Tensor:
    """Rows of zeros added, so that their number is a multiple of a panel's columns."""
    padding = -len(rows) % PANEL
    return torch.cat([rows, rows.new_zeros(padding, *rows.shape[1:])]).contiguous()
