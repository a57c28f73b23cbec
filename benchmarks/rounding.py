"""What weights of 8 and 4 bits cost all-MiniLM-L6-v2 (its real weights), and other ways to round to 4 bits.

    python benchmarks/rounding.py

Cosines of each text's mean vector with those of fp32, over first sentences and whole introductions of Wikipedia
articles. First the dtypes as they run; then ways to round alone, in a model that stays fp32. Appends to
``benchmarks/results/rounding.csv``.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from _common import MINILM, append
from peers import real_texts

from sensorium.checkpoint import open_checkpoint
from sensorium.infer.batching import pack_encodings
from sensorium.infer.engine import fast
from sensorium.infer.packing import SHRUNK, round_to_int4
from sensorium.infer.quantise import QUANTISED, agreement

TEXTS = 400


def ours(weight: Tensor) -> Tensor:
    """Groups of 32, a bf16 scale and a bf16 middle: 5 bits a weight."""
    numbers, scale, middle = round_to_int4(weight)
    return (numbers * scale[..., None] + middle[..., None]).view_as(weight)


def around_zero(weight: Tensor) -> Tensor:
    """Groups of 32, a bf16 scale that is searched for: 4.5 bits a weight."""
    groups = weight.view(len(weight), -1, 32)
    furthest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    best, least = groups, torch.full_like(furthest, torch.inf)
    for shrunk in SHRUNK:
        scale = (furthest * (-shrunk / 8)).bfloat16().float()
        found = (groups / scale).round().clamp(-8, 7) * scale
        error = (found - groups).square().sum(-1, keepdim=True)
        best, least = torch.where(error < least, found, best), torch.minimum(error, least)
    return best.view_as(weight)


def zero_point(weight: Tensor) -> Tensor:
    """Groups of 64 with a bf16 scale, searched for too, and a bf16 lowest value: 4.5 bits a weight."""
    groups = weight.view(len(weight), -1, 64)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    best, least = groups, torch.full_like(low, torch.inf)
    for shrunk in SHRUNK:
        lowest = ((low + high) / 2 - (high - low) / 2 * shrunk).bfloat16().float()
        scale = ((high - low) / 15 * shrunk).bfloat16().float().clamp_min(1e-12)
        found = ((groups - lowest) / scale).round().clamp(0, 15) * scale + lowest
        error = (found - groups).square().sum(-1, keepdim=True)
        best, least = torch.where(error < least, found, best), torch.minimum(error, least)
    return best.view_as(weight)


def from_largest(weight: Tensor) -> Tensor:
    """Groups of 32, a scale from the largest weight, no search and eight numbers on either side at most."""
    groups = weight.view(len(weight), -1, 32)
    scale = (groups.abs().amax(-1, keepdim=True) / 7).bfloat16().float()
    return ((groups / scale).round().clamp(-8, 7) * scale).view_as(weight)


def linears(model: Any) -> Iterator[nn.Linear]:
    """The linear maps of all layers."""
    for block in model.stack.layers:
        yield from (block.attention.qkv, block.attention.output, block.mlp.up, block.mlp.down)


@torch.no_grad()
def main() -> None:
    """Dtypes, then ways to round."""
    checkpoint = open_checkpoint(MINILM)
    tokenizer = checkpoint.require_tokenizer()
    batch = pack_encodings([tokenizer.encode(text, max_length=256) for text in real_texts(TEXTS)])
    rows = []
    for dtype in ("bf16", *QUANTISED):
        found = agreement(checkpoint.model, fast(checkpoint.model, dtype), batch)
        rows.append([dtype, found.num_sequences, f"{found.mean:.4f}", f"{found.least:.4f}"])
    for name, rounded in (
        ("5 bits: groups of 32, scale and middle", ours),
        ("4.5 bits: groups of 32, a scale", around_zero),
        ("4.5 bits: groups of 64, scale and zero point", zero_point),
        ("4.5 bits: groups of 32, a scale from the largest", from_largest),
    ):
        model = copy.deepcopy(checkpoint.model)
        for linear in linears(model):
            linear.weight.copy_(rounded(linear.weight))
        found = agreement(checkpoint.model, model, batch)
        rows.append([name, found.num_sequences, f"{found.mean:.4f}", f"{found.least:.4f}"])
    append("rounding", ["what", "texts", "cosine_mean", "cosine_least"], rows)


if __name__ == "__main__":
    main()
