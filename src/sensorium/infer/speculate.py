"""Speculative decoding: somebody guesses the next tokens, the model checks all of them in one pass.

Guesses come from the text itself, where the same words stood before (prompt look-up), or from a smaller model. What is
written does not change: greedily, token for token; sampled, by its distribution (Leviathan et al., 2023). With prompt
look-up, samples of a seed are those without it, too.

Shapes: S branches, T packed tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sensorium.errors import UsageError
from sensorium.infer.branch import Branch
from sensorium.infer.decode import Decoder, Started, longest, start, vocabulary_size
from sensorium.infer.generate import Generated, begin, note_likelihoods
from sensorium.infer.prefix import Prefixes
from sensorium.infer.sampling import draw, make_probabilities, make_sampler, source_of_chance
from sensorium.infer.settings import GenerationSettings
from sensorium.packed import Packed
from sensorium.text import Tokenizer

LONGEST_NGRAM = 3
"""Tokens at the end of a text whose earlier occurrence is looked for; then shorter ones."""


@dataclass
class Guess:
    """The tokens that may come next, and what each was drawn from; nothing, where it was not drawn."""

    token_ids: list[int] = field(default_factory=list)
    probabilities: list[Tensor] = field(default_factory=list)
    """[V] each."""


def look_up(tokens: Sequence[int], most: int) -> list[int]:
    """What followed when the text last said what it says now: at most so many tokens.

    >>> look_up([5, 6, 7, 8, 9, 5, 6], 3), look_up([1, 2, 3], 3)
    ([7, 8, 9], [])
    """
    tokens = list(tokens)
    for size in range(min(LONGEST_NGRAM, len(tokens) - 1), 0, -1):
        ending = tokens[-size:]
        for place in range(len(tokens) - size - 1, -1, -1):
            if tokens[place : place + size] == ending:
                return tokens[place + size : place + size + most]
    return []


def speculate_stream(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    settings: GenerationSettings,
    tokenizer: Tokenizer | None = None,
    assistant: Decoder | None = None,
    prefixes: Prefixes | None = None,
) -> Iterator[Generated]:
    """As ``generate_stream``, several tokens a step: guessed by the assistant, or looked up where there is none.

    Raises ``UsageError`` for an assistant of another vocabulary.
    """
    if assistant is not None and vocabulary_size(assistant) != vocabulary_size(model):
        raise UsageError(
            f"the assistant has {vocabulary_size(assistant):,} tokens, the model {vocabulary_size(model):,}; it can "
            "only guess for a model of its own vocabulary"
        )
    branches, cache, logits = begin(model, prompts, settings, tokenizer, prefixes)
    copies = settings.num_return_sequences
    generators = [source_of_chance(settings.seed, place % copies) for place in range(len(branches))]
    guesser = None if assistant is None else _Guesser(assistant, prompts, branches, settings, generators)
    judge = _Judge(settings)
    alive = list(range(len(branches)))
    guesses = [Guess() for _ in branches]
    rows = [range(place, place + 1) for place in alive]  # of the logits: where each branch is judged
    while alive:
        right = list(range(len(alive)))  # the places in ``alive`` whose guesses were right so far
        for step in range(max(map(len, rows))):
            with torch.inference_mode():  # not around the yield: the mode would leak into the caller
                going = [branches[alive[place]] for place in right]
                scores = logits[[rows[place][step] for place in right]]  # [S, V]
                chances = [generators[alive[place]] for place in right]
                chosen = judge(scores, going, chances, [guesses[place] for place in right], step)
                note_likelihoods(going, scores, chosen, settings)
            still = []
            for place, branch, token_id in zip(right, going, chosen, strict=True):
                branch.add(token_id)
                yield Generated(alive[place], token_id, branch)
                if branch.finish_reason is None and guesses[place].token_ids[step : step + 1] == [token_id]:
                    still.append(place)
            right = still
            if not right:
                break
        going_on = [place for place, n in enumerate(alive) if branches[n].finish_reason is None]
        alive = [alive[place] for place in going_on]
        if alive:
            with torch.inference_mode():
                cache.select(going_on)
                going = [branches[n] for n in alive]
                guesses = _guessed(guesser, going_on, going, settings)
                logits, rows = _read(model, cache, going, guesses)


class _Judge:
    """Which token is taken at a place where one was guessed."""

    def __init__(self, settings: GenerationSettings) -> None:
        self.choose = make_sampler(settings)
        self.probabilities = make_probabilities(settings) if settings.do_sample else None

    def __call__(
        self,
        logits: Tensor,
        branches: Sequence[Branch],
        generators: Sequence[torch.Generator],
        guesses: Sequence[Guess],
        step: int,
    ) -> list[int]:
        """The tokens [S] that are taken, given the model's logits [S, V].

        A guess that was not drawn is right when the model chooses it: so the text is the one without guesses. One that
        was drawn from q is taken with probability p/q, else a token is drawn from what p has more than q: together that
        is a draw from p.
        """
        drawn = any(len(guess.probabilities) > step for guess in guesses)
        if self.probabilities is None or not drawn:
            chosen: list[int] = self.choose(logits, branches, generators).tolist()
            return chosen
        chosen = []
        for p, guess, generator in zip(self.probabilities(logits, branches), guesses, generators, strict=True):
            if len(guess.probabilities) <= step:
                chosen += draw(p[None], [generator]).tolist()
                continue
            q, token_id = guess.probabilities[step], guess.token_ids[step]
            if float(torch.rand(1, generator=generator)) * float(q[token_id]) < float(p[token_id]):
                chosen.append(token_id)
            else:
                left = (p - q).clamp_(min=0.0)
                chosen += draw((left if left.any() else p)[None], [generator]).tolist()
        return chosen


class _Guesser:
    """A smaller model that writes ahead, with a cache of its own."""

    def __init__(
        self,
        model: Decoder,
        prompts: Sequence[Sequence[int]],
        branches: Sequence[Branch],
        settings: GenerationSettings,
        generators: Sequence[torch.Generator],
    ) -> None:
        self.model, self.settings = model, settings
        most, copies = max(branch.most_new for branch in branches), settings.num_return_sequences
        self.cache, _ = start(model, prompts, max_new_tokens=most, branches=copies)
        with torch.inference_mode():
            self.cache.select([n for n in range(len(prompts)) for _ in range(copies)])
        self.generators = list(generators)
        self.choose = make_sampler(settings)
        self.probabilities = make_probabilities(settings) if settings.do_sample else None

    def __call__(self, parents: Sequence[int], branches: Sequence[Branch]) -> list[Guess]:
        """A guess for each branch; branch i was number ``parents[i]`` the last time.

        All guesses are of one length: where one of them ends its text, or reaches the end of this model's positions,
        the others end with it.
        """
        self.cache.select(parents)
        self.generators = [self.generators[parent] for parent in parents]
        known = zip(self.cache.lengths, branches, strict=True)
        self.cache.truncate([min(length, len(branch.tokens) - 1) for length, branch in known])
        ahead = [branch.fork() for branch in branches]
        guesses = [Guess() for _ in branches]
        for _ in range(self.settings.num_assistant_tokens):
            if not all(map(self._may_guess, ahead)):
                break
            unread = [branch.tokens[length:] for branch, length in zip(ahead, self.cache.lengths, strict=True)]
            batch = Packed.from_sequences(unread, start_positions=self.cache.lengths)
            read: Any = self.model  # the cache is the one that it gave
            logits = self.model.next_token_logits(read(batch, self.cache)[batch.last])  # [S, V]
            if self.probabilities is None:
                chosen = self.choose(logits, ahead, self.generators).tolist()
            else:
                drawn_from = self.probabilities(logits, ahead)  # [S, V]
                chosen = draw(drawn_from, self.generators).tolist()
                for guess, row in zip(guesses, drawn_from, strict=True):
                    guess.probabilities.append(row)
            for guess, branch, token_id in zip(guesses, ahead, chosen, strict=True):
                guess.token_ids.append(token_id)
                branch.add(token_id)
        return guesses

    def _may_guess(self, branch: Branch) -> bool:
        """Whether it goes on, and there is room for the guess and for the token after it."""
        room = branch.num_new < branch.most_new - 1 and len(branch.tokens) < longest(self.model)
        return branch.finish_reason is None and room


def _guessed(
    guesser: _Guesser | None, parents: Sequence[int], branches: Sequence[Branch], settings: GenerationSettings
) -> list[Guess]:
    if guesser is not None:
        return guesser(parents, branches)
    most = settings.prompt_lookup_num_tokens
    return [Guess(look_up(one.tokens, min(most, one.most_new - one.num_new - 1))) for one in branches]


def _read(
    model: Decoder, cache: Started, branches: Sequence[Branch], guesses: Sequence[Guess]
) -> tuple[Tensor, list[range]]:
    """The logits [T, V] after the newest token of each branch and each token of its guess; and which are whose."""
    cache.truncate([len(branch.tokens) - 1 for branch in branches])
    new = [[branch.tokens[-1], *guess.token_ids] for branch, guess in zip(branches, guesses, strict=True)]
    batch = Packed.from_sequences(new, start_positions=cache.lengths)
    read: Any = model  # the cache is the one that it gave
    ends = batch.offsets.tolist()
    return model.next_token_logits(read(batch, cache)), [range(*pair) for pair in pairwise(ends)]
