"""From logits to the next token of every branch.

Shapes: S branches, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from sensorium.infer.branch import Alternatives, Branch
from sensorium.infer.filters import apply, make_filters, make_warpers
from sensorium.infer.likeliest import likeliest, log_probabilities
from sensorium.infer.settings import GenerationSettings

Sampler = Callable[[Tensor, Sequence[Branch], Sequence[torch.Generator]], Tensor]
"""(logits [S, V], their branches, the source of chance of each) → next tokens [S]."""


def make_sampler(settings: GenerationSettings) -> Sampler:
    """The function that chooses the next tokens: the likeliest, or drawn by their probability."""
    if not settings.do_sample:
        filters = make_filters(settings)
        return lambda logits, branches, generators: likeliest(apply(filters, logits, branches), 1)[1][:, 0]
    probabilities = make_probabilities(settings)
    return lambda logits, branches, generators: draw(probabilities(logits, branches), generators)


def make_probabilities(settings: GenerationSettings) -> Callable[[Tensor, Sequence[Branch]], Tensor]:
    """The function from logits [S, V] and their branches to what sampling draws from, [S, V]."""
    filters = make_filters(settings) + make_warpers(settings)
    return lambda logits, branches: apply(filters, logits, branches).softmax(dim=-1)


def draw(probabilities: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """[S, V] → [S]: a token by each row, from that row's own source of chance."""
    return torch.cat([torch.multinomial(p, 1, generator=g) for p, g in zip(probabilities, generators, strict=True)])


def source_of_chance(seed: int | None, stream: int) -> torch.Generator:
    """A generator of random numbers; ``stream`` tells apart sequences that go on from one prompt."""
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        (state,) = np.random.SeedSequence((seed, stream)).generate_state(1)
        generator.manual_seed(int(state))
    return generator


def likelihoods(logits: Tensor, chosen: Sequence[int], most: int) -> list[tuple[float, Alternatives]]:
    """For each of the chosen tokens its log probability, and the ``most`` likeliest tokens at its place with theirs.

    ``logits`` [S, V] are the model's own: what filters and sampling make of them is not in these figures.
    """
    scores = log_probabilities(logits)  # [S, V]
    own = scores.gather(1, torch.tensor(chosen, device=scores.device)[:, None])[:, 0].tolist()
    values, ids = likeliest(scores, most)  # [S, most]
    alternatives = [list(zip(*row, strict=True)) for row in zip(ids.tolist(), values.tolist(), strict=True)]
    return list(zip(own, alternatives, strict=True))
