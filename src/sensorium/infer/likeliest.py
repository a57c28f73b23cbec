"""Log probabilities of a vocabulary and the likeliest tokens of each row: on the compiled kernels, or by torch.

Shapes: S sequences, V vocabulary, K tokens that are asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sensorium import native

MOST_BY_KERNEL = 512
"""Tokens up to which the kernel, which keeps them in order as it goes, is the faster one."""


def log_probabilities(logits: Tensor) -> Tensor:
    """[S, V] → [S, V] float32: the logarithm of the softmax of each row."""
    if not _by_kernel(logits):
        return logits.float().log_softmax(dim=-1)
    logits = logits.detach().float().contiguous()
    scores = torch.empty_like(logits)
    native.library().sensorium_log_softmax(
        native.pointer(logits), *logits.shape, native.pointer(scores), torch.get_num_threads()
    )
    return scores


def likeliest(scores: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """[S, V] → values and token ids of the ``most`` largest of each row, [S, K], the largest first.

    Of equal ones the first is taken, on the kernels; a row shorter than ``most`` gives all it has.
    """
    most = min(most, scores.shape[-1])
    if not _by_kernel(scores) or not 0 < most <= MOST_BY_KERNEL or scores.dtype != torch.float32:
        found = scores.topk(most, dim=-1)
        return found.values, found.indices
    scores = scores.detach().contiguous()
    values, ids = scores.new_empty(len(scores), most), torch.empty(len(scores), most, dtype=torch.int64)
    native.library().sensorium_most(
        native.pointer(scores), *scores.shape, most, native.pointer(values), native.pointer(ids),
        torch.get_num_threads(),
    )  # fmt: skip
    return values, ids


def _by_kernel(rows: Tensor) -> bool:
    return not rows.is_cuda and native.available()
