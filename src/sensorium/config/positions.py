"""How tokens are placed."""

from __future__ import annotations

from dataclasses import dataclass

from sensorium.config._checked import Checked
from sensorium.errors import UsageError


@dataclass(frozen=True)
class LearnedPositions(Checked):
    """A table of absolute position vectors."""

    size: int
    """Rows of the table."""
    offset: int = 0
    """Row of the first token: RoBERTa counts from the padding id + 1."""

    @property
    def max_length(self) -> int:
        """Tokens in the longest sequence the table can place."""
        return self.size - self.offset


@dataclass(frozen=True)
class SinusoidalPositions(Checked):
    """Sines in the first half of the channels, cosines in the second (Vaswani et al., 2017, §3.5); none are learned."""

    size: int
    """Places that the model was made for."""

    @property
    def max_length(self) -> int:
        """Tokens in the longest sequence."""
        return self.size


@dataclass(frozen=True)
class LinearScaling(Checked):
    """Positions divided by a factor (Chen et al., 2023)."""

    factor: float


@dataclass(frozen=True)
class Llama3Scaling(Checked):
    """Slow frequencies divided by a factor, fast ones left alone, those between blended (Llama 3.1)."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_length: int


@dataclass(frozen=True)
class YarnScaling(Checked):
    """Channels that turn often within the original length are left alone, those that turn seldom are divided by a
    factor, those between blended by their number (Peng et al., 2023, YaRN)."""

    factor: float
    original_length: int
    attention_factor: float
    """On the cosines and sines, so that scores grow by its square."""
    fast: float = 32.0
    """Turns from which on a channel is left alone."""
    slow: float = 1.0
    """Turns up to which a channel is divided by the whole factor."""
    whole: bool = True
    """The two channels are rounded outwards to whole numbers."""


@dataclass(frozen=True)
class RotaryPositions(Checked):
    """Queries and keys are turned by their position (Su et al., 2021), pair by pair of channels i and i + Dh/2."""

    max_length: int
    """Tokens in the longest sequence the model was made for."""
    base: float = 10_000.0
    scaling: LinearScaling | Llama3Scaling | YarnScaling | None = None


@dataclass(frozen=True)
class RelativePositions(Checked):
    """A number for each head is added to a score, by how far the key stands from the query (Raffel et al., 2020, §2.1).

    Distances fall into buckets: one each for the nearest, then wider ones up to ``max_distance``, the last for all
    beyond. Without a causal mask, half of the buckets are for the keys that come after the query.
    """

    buckets: int
    max_distance: int
    max_length: int
    """Tokens in the longest sequence the model was made for."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.buckets < 4 or self.max_distance <= self.buckets // 2:
            raise UsageError(
                f"RelativePositions of {self.buckets} buckets up to a distance of {self.max_distance}: at least 4 are "
                "needed, and the distance must be more than half of them"
            )
