"""How tokens are placed."""

from __future__ import annotations

from dataclasses import dataclass

from sensorium.config._checked import Checked


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
class RotaryPositions(Checked):
    """Queries and keys are turned by their position (Su et al., 2021), pair by pair of channels i and i + Dh/2."""

    max_length: int
    """Tokens in the longest sequence the model was made for."""
    base: float = 10_000.0
    scaling: LinearScaling | Llama3Scaling | None = None
