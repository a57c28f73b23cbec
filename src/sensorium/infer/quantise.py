"""8-bit models, and what they cost: nobody quantises blind.

Weights have one scale an output, activations one scale a token, found as it is read. ``smoothing`` needs texts like
those the model will read; without any, nothing is calibrated.

Shapes: N sequences, D hidden size, K inputs of a linear map.
"""

from __future__ import annotations

import logging
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sensorium.checkpoint import Checkpoint
from sensorium.errors import UsageError
from sensorium.infer.batching import pack_encodings
from sensorium.infer.engine import fast
from sensorium.infer.fast_stack import FastStack
from sensorium.models.build import Model
from sensorium.packed import Packed
from sensorium.text import Encoding, Tokenizer

log = logging.getLogger("sensorium")

PROBE = (
    "The parcel came two days late, and the box was open when I got it.",
    "How do I change the card that my subscription is paid with?",
    "Water boils at a lower temperature on a mountain, because the air presses less on its surface.",
    "I would not stay there again.",
    "She read the letter twice, put it back into its envelope and said nothing about it until the spring.",
    "def mean(numbers): return sum(numbers) / len(numbers)",
    "The committee will meet on Tuesday, 14 March, at half past nine in room 204.",
    "房间很干净，服务员也很热情，下次还会再来。",
    "请问这个订单什么时候可以发货？",
    "高山上的水在较低的温度就会沸腾，因为那里的气压比较小。",
)
"""What an 8-bit model is compared on where no texts are given."""
ENOUGH = 16
"""Fewer texts than this calibrate badly."""


class CalibrationWarning(UserWarning):
    """The calibration texts are hardly like those the model reads."""


@dataclass(frozen=True)
class Agreement:
    """How near a faster model's vectors are to the original's: cosines of each sequence's mean vector."""

    mean: float
    least: float
    num_sequences: int

    def __str__(self) -> str:
        return f"cosine with fp32 {self.mean:.4f} on average, {self.least:.4f} at least, of {self.num_sequences} texts"


def quantise(checkpoint: Checkpoint, texts: Sequence[str] | None = None) -> tuple[Checkpoint, Agreement]:
    """The checkpoint with an 8-bit model, and how near its vectors are to those of the original.

    With ``texts`` like those the model will read, activations are smoothed by the first half and the agreement is
    measured on the second, with and without smoothing; the better one is kept. The agreement is logged too. Raises
    ``UsageError`` for fewer than two texts; warns with ``CalibrationWarning`` when they are few, of another language
    than the tokenizer's, or of a length that says little.
    """
    tokenizer, length = checkpoint.require_tokenizer(), checkpoint.config.max_length
    given = list(PROBE if texts is None else texts)
    if len(given) < 2:
        raise UsageError(f"{len(given)} calibration text; give {ENOUGH} or more, like those the model will read")
    encodings = [tokenizer.encode(text, max_length=length) for text in given]
    plain = fast(checkpoint.model, "int8")
    if texts is None:
        model, found = plain, agreement(checkpoint.model, plain, pack_encodings(encodings))
    else:
        _check(encodings, tokenizer, length)
        seen, held_out = pack_encodings(encodings[::2]), pack_encodings(encodings[1::2])
        smooth = fast(checkpoint.model, "int8", smooth=smoothing(checkpoint.model, seen))
        model, found = max(
            ((one, agreement(checkpoint.model, one, held_out)) for one in (plain, smooth)),
            key=lambda pair: pair[1].mean,
        )
    stack: nn.Module = model.stack
    log.warning("%s: %s", "int8" if isinstance(stack, FastStack) else "what runs instead of int8", found)
    return replace(checkpoint, model=model), found


def _check(encodings: Sequence[Encoding], tokenizer: Tokenizer, max_length: int) -> None:
    tokens = [token for encoding in encodings for token in encoding.token_ids]
    unknown = sum(token == tokenizer.unk_id for token in tokens) / len(tokens)
    median = statistics.median(map(len, encodings))
    for found, words in (
        (len(encodings) < ENOUGH, f"there are only {len(encodings)} of them; give {ENOUGH} or more"),
        (unknown > 0.1, f"{unknown:.0%} of their tokens are unknown to the tokenizer: are they of another language?"),
        (median < 6, f"half of them have fewer than {median:.0f} tokens; give texts as long as those it will read"),
        (
            median >= max_length,
            f"half of them are cut at {max_length} tokens; give texts as long as those it will read",
        ),
    ):
        if found:
            warnings.warn(f"the calibration texts may mislead: {words}", CalibrationWarning, stacklevel=3)


@torch.inference_mode()
def agreement(model: Model, faster: Model, batch: Packed) -> Agreement:
    """Cosine of each sequence's mean vector under both models."""
    means = [torch.stack([part.mean(dim=0) for part in batch.split(one(batch))]) for one in (model, faster)]  # [N, D]
    cosines = F.cosine_similarity(means[0].double(), means[1].double())
    return Agreement(float(cosines.mean()), float(cosines.min()), batch.num_sequences)


@torch.inference_mode()
def smoothing(model: Model, batch: Packed, *, alpha: float = 0.5) -> dict[str, Tensor]:
    """Factors [K] that move a channel's range from activations to weights: max|x|^α / max|w|^(1 - α).

    Of the maps that read a norm's output, where a few channels are far larger than the rest, as seen on a batch (Xiao
    et al., 2023, SmoothQuant).
    """
    found: dict[str, Tensor] = {}
    hooks = []
    blocks: list[Any] = list(model.stack.layers)
    for number, block in enumerate(blocks):
        for name, linear in (("qkv", block.attention.qkv), ("up", block.mlp.up)):

            def see(module: nn.Module, inputs: Any, output: Any, key: str = f"{number}.{name}") -> None:
                activations = inputs[0].abs().amax(dim=0).clamp_min(1e-5)  # [K]
                weights = module.weight.abs().amax(dim=0).clamp_min(1e-5)  # type: ignore[operator]
                found[key] = (activations**alpha / weights ** (1 - alpha)).float()

            hooks.append(linear.register_forward_hook(see))
    try:
        model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return found
