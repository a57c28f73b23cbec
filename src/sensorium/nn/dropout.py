"""Dropout that stores no mask.

torch draws a mask from one stream of random numbers, which one thread must do, and keeps it for the way back. Here a
number's fate follows from a seed, its row and its column, so that both ways work it out, on all threads.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn

from sensorium import native


class Dropout(nn.Dropout):
    """As ``nn.Dropout``, on the compiled kernels where they are; the seed comes from torch's generator."""

    def forward(self, input: Tensor) -> Tensor:
        """[…, D] → […, D]: in training, each number is 0 with probability p, else divided by 1 - p."""
        if not self.training or self.p == 0.0:
            return input
        if input.is_cuda or input.dtype not in native.TRAINED or not native.available():
            return super().forward(input)
        output: Tensor = _Dropout.apply(input, self.p, int(torch.randint(2**62, ())))  # type: ignore[no-untyped-call]
        return output


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, share: float, seed: int) -> Tensor:
        ctx.struct = native.Dropout.of(share, seed)
        return _dropped(x, ctx.struct)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _dropped(gradients[0], ctx.struct), None, None


def _dropped(x: Tensor, struct: native.Dropout) -> Tensor:
    x = x.contiguous()
    output, columns = torch.empty_like(x), max(1, x.shape[-1] if x.dim() else 1)
    native.library().sensorium_dropout(
        native.TRAINED[x.dtype], ctypes.byref(struct), native.pointer(x), x.numel() // columns, columns,
        native.pointer(output), torch.get_num_threads(),
    )  # fmt: skip
    return output
