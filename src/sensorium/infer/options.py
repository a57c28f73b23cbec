"""How likely a decoder finds each of some continuations: what choosing by likelihood is made of.

Shapes: T packed tokens, N contexts, O continuations of all of them, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from sensorium.infer.batching import BATCH_TOKENS
from sensorium.infer.decode import start
from sensorium.infer.prefix import Prefixes
from sensorium.models.decoder import DecoderLM
from sensorium.packed import Packed

Item = tuple[Sequence[int], Sequence[Sequence[int]]]
"""The token ids of a context, and of each continuation of it; none is empty."""
ROWS = 512
"""Rows of logits at a time: all of a batch would not fit memory beside a large vocabulary."""


def score_options(
    model: DecoderLM, items: Iterable[Item], *, prefixes: Prefixes | None = None, batch_tokens: int = BATCH_TOKENS
) -> Iterator[list[float]]:
    """For each item the log probability of each continuation, after its context, as a whole.

    A context is computed once for all of its continuations, and so is what the contexts of a batch, or of earlier ones
    with ``prefixes``, have in common. Raises ``UsageError`` for an empty or too long context.
    """
    batch: list[Item] = []
    tokens = 0
    for item in items:
        size = len(item[0]) + sum(map(len, item[1]))
        if batch and tokens + size > batch_tokens:
            yield from _score(model, batch, prefixes)
            batch, tokens = [], 0
        batch.append(item)
        tokens += size
    if batch:
        yield from _score(model, batch, prefixes)


@torch.inference_mode()
def _score(model: DecoderLM, items: Sequence[Item], prefixes: Prefixes | None) -> list[list[float]]:
    options = [list(option) for _, several in items for option in several]  # O of them
    parents = [n for n, (_, several) in enumerate(items) for _ in several]
    longest, branches = max(map(len, options)), max(len(several) for _, several in items)
    contexts = [context for context, _ in items]
    cache, logits = start(model, contexts, max_new_tokens=longest, branches=branches, prefixes=prefixes)  # [N, V]
    first = logits.float().log_softmax(dim=-1)[parents, [option[0] for option in options]]  # [O]
    totals = first.double().tolist()
    longer = [place for place, option in enumerate(options) if len(option) > 1]
    if longer:
        cache.select([parents[place] for place in longer])
        batch = Packed.from_sequences([options[place][:-1] for place in longer], start_positions=cache.lengths)
        read: Any = model  # the cache is the one that it gave
        states = read(batch, cache)  # [T, D]
        next_ids = torch.tensor([token_id for place in longer for token_id in options[place][1:]])  # [T]
        values = [
            model.next_token_logits(rows).float().log_softmax(dim=-1).gather(1, ids[:, None])[:, 0]
            for rows, ids in zip(states.split(ROWS), next_ids.split(ROWS), strict=True)
        ]
        for place, part in zip(longer, torch.cat(values).double().split(list(batch.lengths)), strict=True):
            totals[place] += float(part.sum())
    left = iter(totals)
    return [[next(left) for _ in several] for _, several in items]
