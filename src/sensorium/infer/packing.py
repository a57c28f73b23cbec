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
"""Inputs that share a scale and a middle in an output's 4-bit weights."""
SHRUNK = (1.0, 0.95, 0.9, 0.85, 0.8)
"""Scales that are tried for a group: the largest weight may be cut off where that brings the others nearer."""
AT_ONCE = 64 * PANEL
"""Outputs that are packed at a time: their copies stay small."""


class PackedLinear:
    """The weights [N, K] of a linear map: [P, K / per unit, 64 columns] 32-bit units, or as ``native/weights.h`` says.

    int8: one scale an output, from its largest weight; each row of activations gets its own scale when it is read.
    ``smooth`` [K] moves range from activations, which are divided by it, to weights, which it multiplies.
    int8_weight_only: the same weights, unsmoothed; activations stay bf16. int4_weight_only: a scale and a middle for
    every 32 of an output's weights.
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


def round_to_int4(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[N, K] → whole numbers n from -8 to 7 [N, G, 32]; scales s and middles m [N, G], bf16 numbers in float32.

    A weight is n · s + m. Two kinds of steps are tried, each with several scales, and those with the least squared
    error taken: around zero, where the weight that is furthest from it becomes -8; and from the least weight to the
    largest. So blocks of a GGUF file in four bits come out as they were. Weights beyond K are zeros.
    """
    groups = torch.nn.functional.pad(weight, (0, -weight.shape[1] % GROUP)).view(len(weight), -1, GROUP)
    furthest = groups.gather(-1, groups.abs().argmax(dim=-1, keepdim=True))  # [N, G, 1]
    least, largest = groups.amin(dim=-1, keepdim=True), groups.amax(dim=-1, keepdim=True)
    scale, middle = torch.ones_like(furthest), torch.zeros_like(furthest)
    error = torch.full_like(furthest, torch.inf)
    for shrunk in SHRUNK:
        around_zero = _nonzero(furthest * (-shrunk / 8))
        between = _nonzero((largest - least) * (shrunk / 15))
        for step, centre in ((around_zero, torch.zeros_like(furthest)), (between, (least + largest + between) / 2)):
            centre = centre.bfloat16().float()
            found = (_to_steps(groups, step, centre) * step + centre - groups).square_().sum(dim=-1, keepdim=True)
            better = found < error
            scale, middle = torch.where(better, step, scale), torch.where(better, centre, middle)
            error = torch.minimum(error, found)
    return _to_steps(groups, scale, middle), scale[..., 0], middle[..., 0]


def _nonzero(scale: Tensor) -> Tensor:
    """As bf16 holds it; 1 where it is zero."""
    scale = scale.bfloat16().float()
    return torch.where(scale == 0, 1.0, scale)


def _to_steps(groups: Tensor, scale: Tensor, middle: Tensor) -> Tensor:
    return ((groups - middle) / scale).round_().clamp_(-8, 7)


def _int8_panels(weight: Tensor) -> Tensor:
    """[N, K] → [P, bytes]: pairs of inputs by 64 columns, then the columns' scales."""
    numbers, scale = round_to_int8(weight)
    pairs = _by_steps(numbers.to(torch.int8), 2).flatten(1)
    return torch.cat([pairs, _whole_panels(scale).view(-1, PANEL).view(torch.int8)], dim=1)


def _int4_panels(weight: Tensor) -> Tensor:
    """[N, K] → [P, G, bytes]: octets of inputs by 64 columns, then the columns' scales, then their middles."""
    numbers, scale, middle = round_to_int4(weight)
    octets = _whole_panels((numbers + 8).to(torch.uint8)).view(-1, PANEL, numbers.shape[1], GROUP // 8, 8)
    octets = octets.permute(0, 2, 3, 1, 4)  # [P, G, 4, 64, 8]
    low, high = octets[..., [0, 4, 1, 5]], octets[..., [2, 6, 3, 7]]
    factors = [
        _whole_panels(part.bfloat16()).view(-1, PANEL, part.shape[1]).transpose(1, 2).contiguous().view(torch.uint8)
        for part in (scale, middle)
    ]  # [P, G, 128] each
    return torch.cat([(low | high << 4).flatten(2), *factors], dim=2)


def _by_steps(weight: Tensor, per_step: int) -> Tensor:
    """[N, K] → [P, K / per step, 64, per step]."""
    rows = _whole_panels(weight)
    return rows.view(-1, PANEL, weight.shape[1] // per_step, per_step).permute(0, 2, 1, 3).contiguous()


def _whole_panels(rows: Tensor) -> Tensor:
    """Rows of zeros added, so that their number is a multiple of a panel's columns."""
    padding = -len(rows) % PANEL
    return torch.cat([rows, rows.new_zeros(padding, *rows.shape[1:])]).contiguous()
