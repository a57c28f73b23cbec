"""An encoder–decoder whose sources have been read, or seen: a decoder, to everything that decodes.

Shapes: T packed tokens, N sources, S sequences that go on from them, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sensorium.config import DecoderConfig
from sensorium.errors import UsageError
from sensorium.infer.cache import AnyCache, pages_needed
from sensorium.infer.fast_stack import FastStack, cache_for
from sensorium.models.captioner import Captioner
from sensorium.models.encoder_decoder import EncoderDecoder
from sensorium.nn.memory import Memory
from sensorium.packed import Packed


@dataclass(frozen=True)
class ConditionedCache:
    """What a decoder has written, and what it reads from: ``select`` goes on with both."""

    written: AnyCache
    memory: Memory

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sequence."""
        return self.written.lengths

    def select(self, parents: Sequence[int]) -> None:
        """Sequence i goes on from what ``parents[i]`` is now, with its source."""
        self.written.select(parents)
        self.memory.select(parents)

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forget all tokens of each sequence but its first ``lengths``."""
        self.written.truncate(lengths)


class Conditioned:
    """``generate`` and ``beam_search`` take it as they take a ``DecoderLM``: prompt n goes on from source n."""

    def __init__(
        self,
        model: EncoderDecoder | Captioner,
        sources: Sequence[Sequence[int]] | Packed,
        start_token_id: int | None = None,
    ) -> None:
        """Sources are token ids, or packed patches of images. They are read here, once.

        Raises ``UsageError`` for none, an empty or too long text.

        ``start_token_id`` is what each text begins with; ``None``: what the model's config says.
        """
        for number, source in enumerate(() if isinstance(sources, Packed) else sources, 1):
            if len(source) > model.config.max_length:
                raise UsageError(
                    f"text {number} has {len(source):,} tokens; this model reads at most {model.config.max_length:,}"
                )
        self.model = model
        self.config = DecoderConfig(model.config.decoder_stem, model.config.decoder_stack)
        """Of what writes, as a decoder's."""
        self.start_token_id = model.config.start_token_id if start_token_id is None else start_token_id
        stack: Any = model.decoder.stack
        with torch.inference_mode():
            memory = model.encode(sources if isinstance(sources, Packed) else Packed.from_sequences(sources))
            self.memory = stack.read(memory) if isinstance(stack, FastStack) else memory

    @property
    def prompts(self) -> list[list[int]]:
        """What each sequence begins with."""
        return [[self.start_token_id] for _ in self.memory.lengths]

    @torch.inference_mode()
    def new_cache(self, prompts: Sequence[Sequence[int]], ends: Sequence[int], branches: int) -> ConditionedCache:
        """An empty cache for the prompts, one for each source: ``branches`` of each may go on to ``ends`` tokens."""
        pages = pages_needed(0, list(map(len, prompts)), ends, [branches] * len(prompts))
        stack = self.model.decoder.stack
        return ConditionedCache(cache_for(stack, len(prompts), max(ends), num_pages=pages), self.memory)

    def __call__(self, batch: Packed, cache: ConditionedCache) -> Tensor:
        """Hidden states [T, D] of the new tokens; the cache is one that ``new_cache`` gave."""
        hidden_states: Tensor = self.model(batch, cache.memory, cache.written)
        return hidden_states

    def next_token_logits(self, hidden_states: Tensor) -> Tensor:
        """[M, D] → [M, V]."""
        return self.model.next_token_logits(hidden_states)
