"""Beam search: of all that can follow a prompt, the continuations that are likeliest as a whole, as far as a few show.

Shapes: N prompts, S beams of all of them, K candidates of each beam, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sensorium.errors import UsageError
from sensorium.infer.decode import Decoder, go_on, last_position, start
from sensorium.infer.sampling import Filter, repetition_filter

MOST_PENALTY = 10.0
"""Of a length, up or down: beyond it a score has nothing to do with probability, and at last leaves a float's range."""


@dataclass(frozen=True)
class BeamSettings:
    """How a beam search goes, under the names the field uses."""

    num_beams: int = 4
    """Continuations of a prompt that are followed at a time."""
    length_penalty: float = 1.0
    """Score = log probability / length ** length_penalty, the end token counted: above 0 favours long answers."""
    early_stopping: bool | Literal["never"] = False
    """When to stop, once ``num_beams`` answers are finished. ``True``: at once; ``False``: when no beam is better than
    the worst of them as it stands; ``"never"``: when none can become better, however it goes on."""
    num_return_sequences: int = 1
    """Answers to give for a prompt, the best first."""
    repetition_penalty: float = 1.0
    """Multiply the log probabilities of tokens that occurred (Keskar et al., 2019)."""

    def __post_init__(self) -> None:
        """Raises ``UsageError`` for a value outside its range."""
        if self.num_beams < 1:
            raise UsageError(f"num_beams is {self.num_beams}; it must be 1 or more")
        if not 1 <= self.num_return_sequences <= self.num_beams:
            raise UsageError(
                f"num_return_sequences is {self.num_return_sequences}; a search with {self.num_beams} beams gives at "
                f"least 1 answer and at most {self.num_beams}"
            )
        if not -MOST_PENALTY <= self.length_penalty <= MOST_PENALTY:
            raise UsageError(
                f"length_penalty is {self.length_penalty}; it must be from {-MOST_PENALTY} to {MOST_PENALTY}"
            )
        if not isinstance(self.early_stopping, bool) and self.early_stopping != "never":
            raise UsageError(f"early_stopping is {self.early_stopping!r}; it must be True, False or 'never'")
        if self.repetition_penalty <= 0:
            raise UsageError(f"repetition_penalty is {self.repetition_penalty}; it must be above 0")


@dataclass(frozen=True)
class Hypothesis:
    """A finished continuation of a prompt."""

    token_ids: list[int]
    """The end token left out."""
    score: float
    """Log probability / length ** length_penalty."""


def beam_search(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    settings: BeamSettings,
    *,
    max_new_tokens: int = 20,
    eos_id: int | None = None,
) -> list[list[Hypothesis]]:
    """For every prompt its ``num_return_sequences`` best continuations, the best first (Sutskever et al., 2014, §3.2).

    A prompt is computed once, and its beams go on from it in the same cache; the beams of all prompts are one packed
    batch. A continuation also ends when the model's positions are used up. There are fewer than asked for only where
    the vocabulary allows no more. Raises ``UsageError`` for an empty or too long prompt.
    """
    cache, logits = start(model, prompts, max_new_tokens=max_new_tokens, branches=settings.num_beams)  # [N, V]
    searches = [
        _Search(prompt, last_position(model, prompt, max_new_tokens) + 1 - len(prompt), eos_id, settings)
        for prompt in prompts
    ]
    going_on = searches
    candidates = _make_candidates(settings)
    while True:
        found = candidates(logits, [beam.tokens for search in going_on for beam in search.beams])
        parents: list[int] = []
        first = 0
        for search in going_on:
            num_beams = len(search.beams)
            parents += [first + place for place in search.step(found[first : first + num_beams])]
            first += num_beams
        going_on = [search for search in going_on if search.beams]
        if not going_on:
            return [search.finished[: settings.num_return_sequences] for search in searches]
        newest = [beam.tokens[-1] for search in going_on for beam in search.beams]
        logits = go_on(model, cache, parents, newest)  # [S, V]


Candidates = Callable[[Tensor, Sequence[Sequence[int]]], list[list[tuple[int, float]]]]
"""(logits [S, V], tokens of each beam so far) → the likeliest next tokens of each, with their log probabilities."""


def _make_candidates(settings: BeamSettings) -> Candidates:
    penalty = settings.repetition_penalty
    filters: list[Filter] = [] if penalty == 1.0 else [repetition_filter(penalty)]

    @torch.inference_mode()
    def candidates(logits: Tensor, history: Sequence[Sequence[int]]) -> list[list[tuple[int, float]]]:
        scores = logits.float().log_softmax(dim=-1)  # [S, V]
        for apply in filters:
            scores = apply(scores, history)
        # Only one token ends a beam, so the best 2 · num_beams of a prompt hold enough to go on with; they are among
        # as many of each of its beams.
        best = scores.topk(min(2 * settings.num_beams, scores.shape[-1]), dim=-1)  # [S, K]
        rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [list(zip(token_ids, values, strict=True)) for token_ids, values in rows]

    return candidates


@dataclass(frozen=True)
class _Beam:
    """A continuation that is being followed, its prompt before it."""

    tokens: list[int]
    log_probability: float


class _Search:
    """The search of one prompt: the beams that go on, and the best that are finished; no beams: it is over."""

    def __init__(self, prompt: Sequence[int], most_tokens: int, eos_id: int | None, settings: BeamSettings) -> None:
        self.prompt_length, self.most_tokens = len(prompt), most_tokens
        self.eos_id, self.settings = eos_id, settings
        self.beams = [_Beam(list(prompt), 0.0)]
        self.finished: list[Hypothesis] = []
        self.length = 0

    def step(self, found: Sequence[Sequence[tuple[int, float]]]) -> list[int]:
        """Take what was found for each beam; give back which beam each of the new ones goes on from."""
        self.length += 1
        candidates = [
            (beam.log_probability + value, place, token_id)
            for place, (beam, tokens) in enumerate(zip(self.beams, found, strict=True))
            for token_id, value in tokens
        ]
        candidates.sort(key=lambda candidate: -candidate[0])
        going_on: list[tuple[int, _Beam]] = []
        for rank, (value, place, token_id) in enumerate(candidates[: 2 * self.settings.num_beams]):
            tokens = [*self.beams[place].tokens, token_id]
            if token_id == self.eos_id or self.length == self.most_tokens:
                if rank < self.settings.num_beams:  # an end that is less likely than all beams is no answer
                    self._finish(tokens, value)
            elif len(going_on) < self.settings.num_beams:
                going_on.append((place, _Beam(tokens, value)))
        self.finished = sorted(self.finished, key=lambda one: -one.score)[: self.settings.num_beams]
        if going_on and self._is_over(going_on[0][1].log_probability):
            going_on = []
        self.beams = [beam for _, beam in going_on]
        return [place for place, _ in going_on]

    def _finish(self, tokens: list[int], log_probability: float) -> None:
        end = len(tokens) - 1 if tokens[-1] == self.eos_id else len(tokens)
        score = log_probability / self.length**self.settings.length_penalty
        self.finished.append(Hypothesis(tokens[self.prompt_length : end], score))

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
