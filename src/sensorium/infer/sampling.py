"""From logits to the next token: a chain of small functions built once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sensorium.errors import UsageError

Filter = Callable[[Tensor, Sequence[Sequence[int]]], Tensor]
"""(logits [N, V], tokens of each sequence so far) → logits [N, V]."""


@dataclass(frozen=True)
class SamplingSettings:
    """How the next token is chosen, under the names the field uses."""

    do_sample: bool = False
    """``False``: the likeliest token (greedy)."""
    temperature: float = 1.0
    top_k: int = 50
    """Sample among so many of the likeliest; 0: all."""
    top_p: float = 1.0
    """Sample among the likeliest that together have this probability (Holtzman et al., 2020)."""
    repetition_penalty: float = 1.0
    """Divide the logits of tokens that occurred (Keskar et al., 2019)."""
    seed: int | None = None
    """The same seed gives a prompt the same text, whatever is in the batch beside it; ``None``: another each time."""

    def __post_init__(self) -> None:
        """Raises ``UsageError`` for a value outside its range."""
        if self.seed is not None and self.seed < 0:
            raise UsageError(f"seed is {self.seed}; it must be 0 or more")
        if self.temperature <= 0:
            raise UsageError(f"temperature is {self.temperature}; it must be above 0 (do_sample=False is greedy)")
        if self.top_k < 0 or not 0 < self.top_p <= 1 or self.repetition_penalty <= 0:
            raise UsageError("top_k must be 0 or more, top_p above 0 and at most 1, repetition_penalty above 0")

    def generator(self, stream: int) -> torch.Generator:
        """The source of chance of one sequence; ``stream`` tells apart sequences that go on from one prompt."""
        generator = torch.Generator()
        if self.seed is None:
            generator.seed()
        else:
            (state,) = np.random.SeedSequence((self.seed, stream)).generate_state(1)
            generator.manual_seed(int(state))
        return generator


Sampler = Callable[[Tensor, Sequence[Sequence[int]], Sequence[torch.Generator]], Tensor]
"""(logits [N, V], tokens of each sequence so far, its source of chance) → next tokens [N]."""


def make_sampler(settings: SamplingSettings) -> Sampler:
    """The function that chooses the next tokens."""
    filters: list[Filter] = []
    if settings.repetition_penalty != 1.0:
        filters.append(repetition_filter(settings.repetition_penalty))
    if not settings.do_sample:
        return lambda logits, history, generators: _likeliest(_apply(filters, logits, history))
    if settings.temperature != 1.0:
        filters.append(lambda logits, history: logits / settings.temperature)
    if settings.top_k:
        filters.append(_top_k(settings.top_k))
    if settings.top_p < 1.0:
        filters.append(_top_p(settings.top_p))

    def sample(logits: Tensor, history: Sequence[Sequence[int]], generators: Sequence[torch.Generator]) -> Tensor:
        probabilities = _apply(filters, logits, history).softmax(dim=-1)  # [N, V]
        drawn = [torch.multinomial(p, 1, generator=g) for p, g in zip(probabilities, generators, strict=True)]
        return torch.cat(drawn)

    return sample


def _apply(filters: Sequence[Filter], logits: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
    logits = logits.float()
    for step in filters:
        logits = step(logits, history)
    return logits


def _likeliest(logits: Tensor) -> Tensor:
    """[N, V] → [N]. On a CPU by numpy, several times as fast as torch over a long row."""
    if logits.is_cuda:
        return logits.argmax(dim=-1)
    return torch.from_numpy(logits.detach().numpy().argmax(axis=-1))


def repetition_filter(penalty: float) -> Filter:
    """What occurred becomes less likely: positive values are divided, negative ones multiplied by the penalty."""

    def apply(logits: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        logits = logits.clone()
        for row, tokens in zip(logits, history, strict=True):
            seen = torch.tensor(sorted(set(tokens)))
            row[seen] = torch.where(row[seen] > 0, row[seen] / penalty, row[seen] * penalty)
        return logits

    return apply


def _top_k(k: int) -> Filter:
    def apply(logits: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        smallest = logits.topk(min(k, logits.shape[-1]), dim=-1).values[:, -1:]  # [N, 1]
        return logits.masked_fill(logits < smallest, float("-inf"))

    return apply


def _top_p(p: float) -> Filter:
    def apply(logits: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        ordered, order = logits.sort(dim=-1, descending=True)
        before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)  # probability of the likelier ones
        dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, before >= p)
        return logits.masked_fill(dropped, float("-inf"))

    return apply
