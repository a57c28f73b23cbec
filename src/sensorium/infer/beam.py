"""Beam search: of all that can follow a prompt, the continuations that are likeliest as a whole, as far as a few show.

Shapes: N prompts, S beams of all of them, K candidates of each beam, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sensorium.infer.branch import Alternatives, Branch, new_branches
from sensorium.infer.decode import Decoder, go_on, start
from sensorium.infer.filters import NEVER, apply, make_filters
from sensorium.infer.likeliest import likeliest, log_probabilities
from sensorium.infer.prefix import Prefixes
from sensorium.infer.sampling import likelihoods
from sensorium.infer.settings import GenerationSettings
from sensorium.text import Tokenizer


@dataclass(frozen=True)
class Hypothesis:
    """A finished continuation of a prompt."""

    branch: Branch
    score: float
    """Log probability / length ** length_penalty."""

    @property
    def token_ids(self) -> list[int]:
        """The new tokens, the end token left out."""
        return self.branch.new_ids


def beam_search(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    settings: GenerationSettings,
    tokenizer: Tokenizer | None = None,
    prefixes: Prefixes | None = None,
) -> list[list[Hypothesis]]:
    """For every prompt its ``num_return_sequences`` best continuations, the best first (Sutskever et al., 2014, §3.2).

    A prompt is computed once, and its beams go on from it in the same cache; the beams of all prompts are one packed
    batch. A continuation also ends when the model's positions are used up. There are fewer than asked for only where
    the vocabulary or the settings allow no more. Raises ``UsageError`` for an empty or too long prompt, and where the
    settings allow no continuation at all. The settings' token ids are taken as they are (``write.resolve``); stop
    strings and grammars need the tokenizer.
    """
    most = max((settings.most_new_tokens(len(prompt)) for prompt in prompts), default=1)
    cache, logits = start(model, prompts, max_new_tokens=most, branches=settings.num_beams, prefixes=prefixes)  # [N, V]
    searches = [_Search(branch, settings) for branch in new_branches(model, prompts, settings, tokenizer)]
    going_on = searches
    candidates = _make_candidates(settings)
    while True:
        found = candidates(logits, [beam.branch for search in going_on for beam in search.beams])
        parents: list[int] = []
        first = 0
        for search in going_on:
            num_beams = len(search.beams)
            parents += [first + place for place in search.step(found[first : first + num_beams])]
            first += num_beams
        going_on = [search for search in going_on if search.beams]
        if not going_on:
            return [search.finished[: settings.num_return_sequences] for search in searches]
        newest = [beam.branch.tokens[-1] for search in going_on for beam in search.beams]
        logits = go_on(model, cache, parents, newest)  # [S, V]


class _Candidates(NamedTuple):
    """The tokens that a beam may go on with, the likeliest first."""

    token_ids: list[int]
    values: list[float]
    """Log probabilities, as the settings change them."""
    own: list[float] | None
    """Log probabilities by the model itself, where they were asked for."""
    alternatives: Alternatives


Candidates = Callable[[Tensor, Sequence[Branch]], list[_Candidates]]
"""(logits [S, V], their branches) → the likeliest next tokens of each."""


def _make_candidates(settings: GenerationSettings) -> Candidates:
    filters = make_filters(settings)
    # Only end tokens end a beam, so the best (1 + their number) · num_beams of a prompt hold enough to go on with; they
    # are among as many of each of its beams.
    enough = _enough(settings)

    @torch.inference_mode()
    def candidates(logits: Tensor, branches: Sequence[Branch]) -> list[_Candidates]:
        scores = apply(filters, log_probabilities(logits), branches)  # [S, V]
        values, ids = likeliest(scores, enough)  # [S, K]
        rows = zip(ids.tolist(), values.tolist(), strict=True)
        if settings.log_probs is None:
            return [_Candidates(token_ids, found, None, []) for token_ids, found in rows]
        own = log_probabilities(logits).gather(1, ids).tolist()
        alternatives = [more for _, more in likelihoods(logits, ids[:, 0].tolist(), settings.log_probs)]
        return [
            _Candidates(token_ids, found, ones, more)
            for (token_ids, found), ones, more in zip(rows, own, alternatives, strict=True)
        ]

    return candidates


def _enough(settings: GenerationSettings) -> int:
    return (1 + max(1, len(settings.end_ids))) * settings.num_beams


@dataclass(frozen=True)
class _Beam:
    """A branch that is being followed."""

    branch: Branch
    log_probability: float


class _Search:
    """The search of one prompt: the beams that go on, and the best that are finished; no beams: it is over."""

    def __init__(self, branch: Branch, settings: GenerationSettings) -> None:
        self.most_tokens, self.settings = branch.most_new, settings
        self.beams = [_Beam(branch, 0.0)]
        self.finished: list[Hypothesis] = []
        self.length = 0

    def step(self, found: Sequence[_Candidates]) -> list[int]:
        """Take what was found for each beam; give back which beam each of the new ones goes on from."""
        self.length += 1
        candidates = [
            (beam.log_probability + value, place, rank)
            for place, (beam, row) in enumerate(zip(self.beams, found, strict=True))
            for rank, value in enumerate(row.values)
            if value > NEVER
        ]
        candidates.sort(key=lambda one: -one[0])
        going_on: list[tuple[int, _Beam]] = []
        for rank, (value, place, chosen) in enumerate(candidates[: _enough(self.settings)]):
            if rank >= self.settings.num_beams and len(going_on) == self.settings.num_beams:
                break
            branch = _with(self.beams[place].branch, found[place], chosen)
            if branch.finish_reason is not None:
                if rank < self.settings.num_beams:  # an end that is less likely than all beams is no answer
                    score = value / self.length**self.settings.length_penalty
                    self.finished.append(Hypothesis(branch, score))
            elif len(going_on) < self.settings.num_beams:
                going_on.append((place, _Beam(branch, value)))
        self.finished = sorted(self.finished, key=lambda one: -one.score)[: self.settings.num_beams]
        if going_on and self._is_over(going_on[0][1].log_probability):
            going_on = []
        self.beams = [beam for _, beam in going_on]
        return [place for place, _ in going_on]

    def _is_over(self, best: float) -> bool:
        """Whether no beam, the best of which has this log probability, is worth going on with."""
        if len(self.finished) < self.settings.num_beams:
            return False
        if self.settings.early_stopping is True:
            return True
        penalty = self.settings.length_penalty
        to_the_end = self.settings.early_stopping == "never" and penalty > 0
        length = float(self.most_tokens if to_the_end else self.length)  # at which the score is taken to be highest
        return bool(best / length**penalty <= self.finished[-1].score)


def _with(branch: Branch, candidates: _Candidates, chosen: int) -> Branch:
    """The branch with one more token, the ``chosen``-th of those found for it."""
    longer = branch.fork()
    if candidates.own is not None:
        longer.log_probabilities.append(candidates.own[chosen])
        longer.alternatives.append(candidates.alternatives)
    longer.add(candidates.token_ids[chosen])
    return longer
