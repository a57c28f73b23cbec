"""Positions: sinusoids added to token vectors, rotations of queries and keys, and buckets of distances between them.

Shapes: T packed tokens, H heads, Dh head size, D hidden size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sensorium.config import Llama3Scaling, RelativePositions, RotaryPositions, YarnScaling


def sinusoids(positions: Tensor, hidden_size: int) -> Tensor:
    """[T] places → [T, D] float32: sines of D/2 frequencies, then their cosines (Vaswani et al., 2017, §3.5).

    Worked out in float64, as the tables of published models were.
    """
    exponents = torch.arange(0, hidden_size, 2, dtype=torch.float64, device=positions.device) / hidden_size
    angles = positions[:, None].double() / 10_000.0**exponents  # [T, D / 2 rounded up]
    return torch.cat([angles.sin(), angles[:, : hidden_size // 2].cos()], dim=-1).float()


Rotation = tuple[Tensor, Tensor]
"""Cosines and sines of each token's angles, [T, 1, Dh / 2]."""


def frequencies(config: RotaryPositions, head_size: int, device: torch.device | None = None) -> Tensor:
    """[Dh / 2] float32: the angle by which each pair of channels turns from one token to the next, in radians."""
    exponents = torch.arange(0, head_size, 2, dtype=torch.float32, device=device) / head_size
    plain = 1.0 / config.base**exponents
    if config.scaling is None:
        return plain
    if isinstance(config.scaling, Llama3Scaling):
        return _llama3(plain, config.scaling)
    if isinstance(config.scaling, YarnScaling):
        return _yarn(plain, config.base, config.scaling)
    return plain / config.scaling.factor


def rotation(config: RotaryPositions, head_size: int, positions: Tensor, dtype: torch.dtype) -> Rotation:
    """Of tokens at these positions [T]. Angles are worked out in float32, as published models do."""
    angles = positions[:, None].float() * frequencies(config, head_size, positions.device)  # [T, Dh / 2]
    cosine, sine = angles.cos(), angles.sin()
    if isinstance(config.scaling, YarnScaling):
        cosine, sine = cosine * config.scaling.attention_factor, sine * config.scaling.attention_factor
    return cosine.to(dtype)[:, None], sine.to(dtype)[:, None]


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """[T, H, Dh] → [T, H, Dh]: channels i and i + Dh/2 are a point of the plane, turned by its angle (Su et al., 2021).

    >>> quarter = (torch.tensor([[[0.0]]]), torch.tensor([[[1.0]]]))
    >>> rotate(torch.tensor([[[3.0, 4.0]]]), quarter).tolist()
    [[[-4.0, 3.0]]]
    """
    cosine, sine = rotation
    first, second = x.chunk(2, dim=-1)  # [T, H, Dh / 2]
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def distance_buckets(distances: Tensor, config: RelativePositions, *, both_ways: bool) -> Tensor:
    """Places that keys stand before their query (int64, any shape; negative: after it) → their buckets, same shape.

    With ``both_ways``, keys after the query have the second half of the buckets; else they share that of the query's
    own place. Logarithms are taken in float32, as published models were trained with (Raffel et al., 2020, §2.1).

    >>> distance_buckets(torch.tensor([-3, -1, 0, 1, 5, 99]), RelativePositions(8, 20, 512), both_ways=True).tolist()
    [6, 5, 0, 1, 2, 3]
    """
    buckets = config.buckets // 2 if both_ways else config.buckets
    half = torch.where(distances < 0, buckets, 0) if both_ways else torch.zeros_like(distances)
    far = distances.abs() if both_ways else distances.clamp(min=0)
    near = buckets // 2  # distances with a bucket of their own
    growth = torch.log(far.clamp(min=1).float() / near) / math.log(config.max_distance / near)
    wide = near + (growth * (buckets - near)).long()
    return half + torch.where(far < near, far, wide.clamp(max=buckets - 1))


def _llama3(plain: Tensor, scaling: Llama3Scaling) -> Tensor:
    """Wavelengths that fit the original length many times stay; those longer than it grow by the factor."""
    turns = scaling.original_length * plain / (2 * math.pi)  # within the original length
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    kept = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return plain * (kept + (1.0 - kept) / scaling.factor)


def _yarn(plain: Tensor, base: float, scaling: YarnScaling) -> Tensor:
    """Channels before the one that turns ``fast`` times within the original length stay; those after the one that turns
    ``slow`` times are divided by the factor."""
    channels = len(plain)

    def channel(turns: float) -> float:
        return channels * math.log(scaling.original_length / (turns * 2 * math.pi)) / math.log(base)

    first, last = channel(scaling.fast), channel(scaling.slow)
    if scaling.whole:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * channels - 1)
    last = last + 0.001 if first == last else last
    slowed = ((torch.arange(channels, device=plain.device).float() - first) / (last - first)).clamp(0.0, 1.0)
    return plain * (1.0 - slowed) + plain / scaling.factor * slowed
