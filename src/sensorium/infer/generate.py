"""Generation: a packed batch of prompts, one token each a step, until each ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from sensorium.infer.decode import Decoder, go_on, longest, start
from sensorium.infer.sampling import SamplingSettings, make_sampler


@dataclass(frozen=True)
class Generated:
    """One new token of one sequence."""

    sequence: int
    token_id: int
    finished: bool
    """This was the sequence's last token."""


def generate(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = 20,
    eos_id: int | None = None,
    sampling: SamplingSettings | None = None,
    streams: Sequence[int] | None = None,
) -> list[list[int]]:
    """The new tokens of every prompt, the end token left out. See ``generate_stream``."""
    results: list[list[int]] = [[] for _ in prompts]
    for new in generate_stream(
        model,
        prompts,
        max_new_tokens=max_new_tokens,
        eos_id=eos_id,
        sampling=sampling or SamplingSettings(),
        streams=streams,
    ):
        if new.token_id != eos_id:
            results[new.sequence].append(new.token_id)
    return results


def generate_stream(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    eos_id: int | None,
    sampling: SamplingSettings,
    streams: Sequence[int] | None = None,
) -> Iterator[Generated]:
    """New tokens as they are made. A sequence that ends leaves the batch; the others go on without it.

    A sequence also ends when the model's positions are used up. With a seed, equal prompts of equal ``streams`` (one
    number a prompt; ``None``: all 0) go on equally. What prompts share is computed once (``decode.start``). Raises
    ``UsageError`` for an empty or too long prompt.
    """
    cache, logits = start(model, prompts, max_new_tokens=max_new_tokens)  # [N, V]
    sample = make_sampler(sampling)
    generators = [sampling.generator(stream) for stream in streams or [0] * len(prompts)]
    alive = list(range(len(prompts)))
    history = {n: list(prompt) for n, prompt in enumerate(prompts)}
    for count in range(1, max_new_tokens + 1):
        with torch.inference_mode():  # not around the yield: the mode would leak into the caller
            chosen = sample(logits, [history[n] for n in alive], [generators[n] for n in alive]).tolist()
        going_on = []
        for place, (n, token_id) in enumerate(zip(alive, chosen, strict=True)):
            history[n].append(token_id)
            finished = token_id == eos_id or count == max_new_tokens or len(history[n]) >= longest(model)
            yield Generated(n, token_id, finished)
            if not finished:
                going_on.append(place)
        if not going_on:
            return
        alive = [alive[place] for place in going_on]
        logits = go_on(model, cache, going_on, [chosen[place] for place in going_on])  # [S, V]
