"""Generation: a packed batch of prompts, one token each a step, until each ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sensorium.errors import UsageError
from sensorium.infer.cache import KeyValueCache, PagedCache
from sensorium.infer.fast_stack import FastStack
from sensorium.infer.sampling import SamplingSettings, make_sampler
from sensorium.models.decoder import DecoderLM
from sensorium.packed import Packed


@dataclass(frozen=True)
class Generated:
    """One new token of one sequence."""

    sequence: int
    token_id: int
    finished: bool
    """This was the sequence's last token."""


def generate(
    model: DecoderLM,
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
    model: DecoderLM,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    eos_id: int | None,
    sampling: SamplingSettings,
    streams: Sequence[int] | None = None,
) -> Iterator[Generated]:
    """New tokens as they are made. A sequence that ends leaves the batch; the others go on without it.

    A sequence also ends when the model's positions are used up. With a seed, equal prompts of equal ``streams`` (one
    number a prompt; ``None``: all 0) go on equally. Raises ``UsageError`` for an empty or too long prompt.
    """
    _check(model, prompts, max_new_tokens)
    sample = make_sampler(sampling)
    generators = [sampling.generator(stream) for stream in streams or [0] * len(prompts)]
    limit = model.config.max_length
    capacity = min(limit, max(map(len, prompts)) + max_new_tokens)
    cache = new_cache(model, len(prompts), capacity)
    alive = list(range(len(prompts)))
    history = {n: list(prompt) for n, prompt in enumerate(prompts)}
    step = [list(prompt) for prompt in prompts]
    for count in range(1, max_new_tokens + 1):
        with torch.inference_mode():  # not around the yield: the mode would leak into the caller
            batch = Packed.from_sequences(step, start_positions=cache.lengths)
            hidden_states = model(batch, cache)  # [T, D]
            logits = model.next_token_logits(hidden_states[batch.last])  # [N, V]: only for tokens that are sampled from
            chosen = sample(logits, [history[n] for n in alive], [generators[n] for n in alive]).tolist()
        going_on = []
        for place, (n, token_id) in enumerate(zip(alive, chosen, strict=True)):
            history[n].append(token_id)
            finished = token_id == eos_id or count == max_new_tokens or len(history[n]) >= limit
            yield Generated(n, token_id, finished)
            if not finished:
                going_on.append(place)
        if not going_on:
            return
        step = [[chosen[place]] for place in going_on]
        if len(going_on) < len(alive):
            cache.keep(going_on)
            alive = [alive[place] for place in going_on]


def new_cache(model: DecoderLM, num_sequences: int, capacity: int) -> KeyValueCache | PagedCache:
    """A cache of the kind that the model's stack reads, for N sequences of ``capacity`` tokens."""
    stack: Any = model.stack
    if isinstance(stack, FastStack):
        return PagedCache(stack.config, num_sequences, capacity, stack.cache_dtype)
    dtype = getattr(stack, "dtype", None) or next(stack.parameters()).dtype
    return KeyValueCache(stack.config, num_sequences, capacity, dtype)


def _check(model: DecoderLM, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    if max_new_tokens < 1:
        raise UsageError(f"max_new_tokens is {max_new_tokens}; at least 1 token can be asked for")
    for number, prompt in enumerate(prompts, 1):
        if not prompt:
            raise UsageError(f"prompt {number} is empty; a decoder needs a token to go on from")
        if len(prompt) >= model.config.max_length:
            raise UsageError(
                f"prompt {number} has {len(prompt):,} tokens; this model reads {model.config.max_length:,}, the new "
                "ones included"
            )
