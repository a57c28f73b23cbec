"""How a run trains, and what of that the model must be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from sensorium.errors import UsageError
from sensorium.nn.block import Attention, MemoryAttention


@dataclass(frozen=True)
class LoopSettings:
    """How long, in what batches, in what precision, and what is kept."""

    epochs: int = 1
    steps: int | None = None
    """Updates to make, whatever the epochs say."""
    batch_tokens: int | None = None
    batch_size: int | None = None
    accumulation: int = 1
    """Batches an update is made of."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """``auto``: bf16 where the device multiplies it in hardware."""
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    """``auto``: the GPU, where torch finds one. Its sums may come in another order each time, so what is said of runs
    that repeat bit for bit holds on a processor alone."""
    seed: int = 0
    validate_every: int | None = None
    """Updates between validations; ``None``: after every epoch."""
    checkpoint_every: int | None = None
    """Updates between states; ``None``: after every epoch."""
    patience: int | None = None
    """Stop after so many validations without a better score."""
    monitor: Literal["loss", "accuracy"] = "loss"
    """What "better" means. With a validation set and a patience, the best weights are the ones that are kept."""
    average_from: float | None = None
    """Share of the run after which the mean of the weights is kept, and used at the end."""
    dropout: float | None = None
    """Dropout everywhere but on attention weights; ``None``: as the model's config says."""
    attention_dropout: float | None = None
    log_every: int = 10
    by_length: bool = True
    """Examples of similar length share a batch, which is faster; ``False``: those that chance brings together, as an
    objective needs that tells the examples of a batch apart."""


def resolve_device(device: str) -> torch.device:
    """``auto`` → the GPU where torch finds one, else the processor.

    Raises ``UsageError`` where a GPU is asked for and torch finds none.
    """
    found = torch.cuda.is_available()
    if device == "cuda" and not found:
        raise UsageError("train.device is 'cuda', and torch finds no GPU here; set 'auto' or 'cpu'")
    return torch.device("cpu" if device == "cpu" or not found else "cuda")


def resolve_precision(precision: str, device: torch.device) -> str:
    """``auto`` → bf16 where the device multiplies it in hardware, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "fp32"


def set_dropout(model: torch.nn.Module, dropout: float | None, attention_dropout: float | None) -> None:
    """Override the dropout that the model was built with."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout) and dropout is not None:
            module.p = dropout
        elif isinstance(module, Attention | MemoryAttention) and attention_dropout is not None:
            module.dropout = attention_dropout
