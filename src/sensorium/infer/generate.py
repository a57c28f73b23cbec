"""Generation: a packed batch of prompts, one token each a step, until each ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sensorium.infer.branch import Branch, new_branches
from sensorium.infer.decode import Decoder, Started, go_on, start
from sensorium.infer.prefix import Prefixes
from sensorium.infer.sampling import likelihoods, make_sampler, source_of_chance
from sensorium.infer.settings import GenerationSettings
from sensorium.text import Tokenizer


@dataclass(frozen=True)
class Generated:
    """One new token of one sequence."""

    sequence: int
    token_id: int
    branch: Branch
    """The sequence as it stands with this token; ``finish_reason`` says whether it was the last."""

    @property
    def finished(self) -> bool:
        """This was the sequence's last token."""
        return self.branch.finish_reason is not None


def generate(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    settings: GenerationSettings = GenerationSettings(),  # noqa: B008
) -> list[list[int]]:
    """The new tokens of every prompt, the end token left out. See ``generate_stream``."""
    results: list[list[int]] = [[] for _ in range(len(prompts) * settings.num_return_sequences)]
    for new in generate_stream(model, prompts, settings):
        if new.finished:
            results[new.sequence] = new.branch.new_ids
    return results


def generate_stream(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    settings: GenerationSettings,
    tokenizer: Tokenizer | None = None,
    prefixes: Prefixes | None = None,
) -> Iterator[Generated]:
    """New tokens as they are made, greedy or sampled; sample i of prompt n is sequence n · num_return_sequences + i.

    A sequence that ends leaves the batch; the others go on without it. One also ends when the model's positions are
    used up. With a seed a prompt's samples are the same whatever stands beside it. What prompts share is computed once
    (``decode.start``). Raises ``UsageError`` for an empty or too long prompt. The settings' token ids are taken as they
    are (``write.resolve``); stop strings and grammars need the tokenizer.
    """
    branches, cache, logits = begin(model, prompts, settings, tokenizer, prefixes)
    copies = settings.num_return_sequences
    generators = [source_of_chance(settings.seed, place % copies) for place in range(len(branches))]
    choose = make_sampler(settings)
    alive = list(range(len(branches)))
    while alive:
        with torch.inference_mode():  # not around the yield: the mode would leak into the caller
            going = [branches[n] for n in alive]
            chosen = choose(logits, going, [generators[n] for n in alive]).tolist()
            note_likelihoods(going, logits, chosen, settings)
        going_on = []
        for place, (n, token_id) in enumerate(zip(alive, chosen, strict=True)):
            branches[n].add(token_id)
            yield Generated(n, token_id, branches[n])
            if branches[n].finish_reason is None:
                going_on.append(place)
        alive = [alive[place] for place in going_on]
        if alive:
            logits = go_on(model, cache, going_on, [chosen[place] for place in going_on])  # [S, V]


def begin(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    settings: GenerationSettings,
    tokenizer: Tokenizer | None,
    prefixes: Prefixes | None,
) -> tuple[list[Branch], Started, Tensor]:
    """A branch for every sample of every prompt, the cache that holds them, and the logits [S, V] of what is next."""
    copies = settings.num_return_sequences
    most = max((settings.most_new_tokens(len(prompt)) for prompt in prompts), default=1)
    cache, logits = start(model, prompts, max_new_tokens=most, branches=copies, prefixes=prefixes)  # [N, V]
    parents = [n for n in range(len(prompts)) for _ in range(copies)]
    with torch.inference_mode():
        cache.select(parents)
        logits = logits[parents]
    firsts = new_branches(model, prompts, settings, tokenizer)
    return [firsts[n].fork() for n in parents], cache, logits


def note_likelihoods(
    branches: Sequence[Branch], logits: Tensor, chosen: Sequence[int], settings: GenerationSettings
) -> None:
    """Write down how likely the model finds the chosen tokens, where the settings ask for it; ``logits`` [S, V]."""
    if settings.log_probs is None:
        return
    for branch, (own, alternatives) in zip(branches, likelihoods(logits, chosen, settings.log_probs), strict=True):
        branch.log_probabilities.append(own)
        branch.alternatives.append(alternatives)
