"""The two steps of decoding: prompts into a cache, what they share only once; then a token a sequence, again and again.

Shapes: T packed tokens, N prompts, S sequences that go on from them, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sensorium.errors import UsageError
from sensorium.infer.cache import AnyCache, pages_needed
from sensorium.infer.conditioned import Conditioned, ConditionedCache
from sensorium.infer.fast_stack import cache_for
from sensorium.infer.looking import Looking
from sensorium.infer.prefix import Prefixes
from sensorium.models.decoder import DecoderLM
from sensorium.packed import Packed

Decoder = DecoderLM | Conditioned | Looking
"""What decodes: a decoder, an encoder–decoder that has read its sources, or a decoder that has seen its images."""
Started = AnyCache | ConditionedCache
"""The cache of what decodes: an encoder–decoder's holds its sources too."""
SHORTEST_PREFIX = 64
"""Tokens. A shorter beginning that all prompts share costs less than a pass over the weights of its own."""


@torch.inference_mode()
def start(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    branches: int = 1,
    prefixes: Prefixes | None = None,
) -> tuple[Started, Tensor]:
    """A cache with the N prompts in it, and the logits [N, V] of what comes after each.

    Equal prompts are computed once, and so is a long beginning that all of them have in common. The cache has room for
    ``branches`` sequences that go on from each prompt. With ``prefixes``, what is known of the prompts' beginnings is
    not computed, and they are known from then on; of an encoder–decoder's, nothing is. Raises ``UsageError`` for an
    empty or too long prompt.
    """
    _check(model, prompts, max_new_tokens)
    if isinstance(model, Conditioned):  # equal prompts go on from different sources: nothing is shared
        ends = [last_position(model, prompt, max_new_tokens) for prompt in prompts]
        batch, conditioned = Packed.from_sequences(prompts), model.new_cache(prompts, ends, branches)
        return conditioned, model.next_token_logits(model(batch, conditioned)[batch.last])
    wanted = Counter(map(tuple, prompts))
    distinct = list(wanted)
    ends = [last_position(model, prompt, max_new_tokens) for prompt in distinct]
    prefix = _common_prefix(distinct)
    pages = pages_needed(prefix, list(map(len, distinct)), ends, [branches * count for count in wanted.values()])
    cache = new_cache(model, 1 if prefix else len(distinct), max(ends), num_pages=pages)
    shared = distinct[0][:prefix]
    if prefixes is not None and isinstance(model, DecoderLM):  # an image's ids mean another one in another call
        prefixes.fill(model, cache, [shared] if prefix else distinct, leave=0 if prefix else 1)
    if prefix:
        known = cache.lengths[0]
        if known < prefix:
            model(Packed.from_sequences([shared[known:]], start_positions=[known]), cache)
        cache.select([0] * len(distinct))
    rest = [prompt[known:] for prompt, known in zip(distinct, cache.lengths, strict=True)]
    batch = Packed.from_sequences(rest, start_positions=cache.lengths)
    hidden_states = model(batch, cache)  # [T, D]
    logits = model.next_token_logits(hidden_states[batch.last])  # [distinct, V]: only where a token is chosen
    if prefixes is not None and isinstance(model, DecoderLM):
        prefixes.keep(cache, distinct)
    places = {prompt: place for place, prompt in enumerate(distinct)}
    order = [places[tuple(prompt)] for prompt in prompts]
    cache.select(order)
    return cache, logits[order]


@torch.inference_mode()
def go_on(model: Decoder, cache: Started, parents: Sequence[int], token_ids: Sequence[int]) -> Tensor:
    """The logits [S, V] after one more token each: sequence i is what sequence ``parents[i]`` was, and its token."""
    cache.select(parents)
    batch = Packed.from_sequences([[token_id] for token_id in token_ids], start_positions=cache.lengths)
    step: Any = model  # the cache is the one that it gave
    return model.next_token_logits(step(batch, cache))


def last_position(model: Decoder, prompt: Sequence[int], max_new_tokens: int) -> int:
    """Tokens of a prompt and its continuation that the model ever reads: the last new one is only chosen."""
    return min(len(prompt) + max_new_tokens, longest(model)) - 1


def longest(model: Decoder) -> int:
    """Tokens of the longest sequence that the model can go on to."""
    return model.config.max_length


def vocabulary_size(model: Decoder) -> int:
    """How many tokens the model can write."""
    return model.config.stem.vocabulary_size


def new_cache(
    model: DecoderLM | Looking, num_sequences: int, capacity: int, *, num_pages: int | None = None
) -> AnyCache:
    """A cache of the kind that the model's stack reads, for N sequences of ``capacity`` tokens.

    ``num_pages`` is for sequences that share pages (``cache.pages_needed``); ``None``: they share none.
    """
    return cache_for(model.stack, num_sequences, capacity, num_pages=num_pages)


def _common_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """Tokens to compute beforehand, for all of these different prompts: at least ``SHORTEST_PREFIX``, or none.

    A token of each prompt is left, since what comes next is read off it.
    """
    if len(prompts) < 2:
        return 0
    first, last = min(prompts), max(prompts)  # in the order of a dictionary, all others lie between
    most = min(map(len, prompts)) - 1
    differing = (n for n in range(most) if first[n] != last[n])
    shared = next(differing, most)
    return shared if shared >= SHORTEST_PREFIX else 0


def _check(model: Decoder, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    if max_new_tokens < 1:
        raise UsageError(f"max_new_tokens is {max_new_tokens}; at least 1 token can be asked for")
    if not prompts:
        raise UsageError("there is no prompt to go on from")
    for number, prompt in enumerate(prompts, 1):
        if not prompt:
            raise UsageError(f"prompt {number} is empty; a decoder needs a token to go on from")
        if len(prompt) >= longest(model):
            most = longest(model)
            raise UsageError(
                f"prompt {number} has {len(prompt):,} tokens; this model reads {most:,}, the new ones included"
            )
