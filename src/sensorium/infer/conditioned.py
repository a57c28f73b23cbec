"""An encoder–decoder whose sources have been read: a decoder, to everything that decodes.

Shapes: T packed tokens, N sources, S sequences that go on from them, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sensorium.config import StackConfig
from sensorium.errors import UsageError
from sensorium.infer.cache import KeyValueCache, PagedCache
from sensorium.models.encoder_decoder import EncoderDecoder
from sensorium.nn.memory import Memory
from sensorium.packed import Packed


class ConditionedCache(KeyValueCache):
    """What a decoder has written, and what it reads from: ``select`` goes on with both."""

    def __init__(
        self, config: StackConfig, num_sequences: int, capacity: int, dtype: torch.dtype, memory: Memory
    ) -> None:
        super().__init__(config, num_sequences, capacity, dtype)
        self.memory = memory

    def select(self, parents: Sequence[int]) -> None:
        """Sequence i goes on from what ``parents[i]`` is now, with its source."""
        super().select(parents)
        self.memory.select(parents)


class Conditioned:
    """``generate`` and ``beam_search`` take it as they take a ``DecoderLM``: prompt n goes on from source n."""

    def __init__(self, model: EncoderDecoder, sources: Sequence[Sequence[int]]) -> None:
        """Sources are token ids. They are read here, once. Raises ``UsageError`` for none, an empty or too long one."""
        for number, source in enumerate(sources, 1):
            if len(source) > model.config.max_length:
                raise UsageError(
                    f"text {number} has {len(source):,} tokens; this model reads at most {model.config.max_length:,}"
                )
        self.model = model
        with torch.inference_mode():
            self.memory = model.encode(Packed.from_sequences(sources))

    @property
    def max_length(self) -> int:
        """Tokens that can be written, the first one among them."""
        return self.model.config.max_written

    @property
    def prompts(self) -> list[list[int]]:
        """What each sequence begins with."""
        return [[self.model.config.start_token_id] for _ in self.memory.lengths]

    @torch.inference_mode()
    def start(self, prompts: Sequence[Sequence[int]], capacity: int) -> tuple[ConditionedCache, Tensor]:
        """A cache with the prompts in it, one for each source, and the logits [N, V] of what comes after each."""
        parameter = next(self.model.decoder.stack.parameters())
        cache = ConditionedCache(self.model.config.decoder_stack, len(prompts), capacity, parameter.dtype, self.memory)
        batch = Packed.from_sequences(prompts)
        return cache, self.next_token_logits(self(batch, cache)[batch.last])

    def __call__(self, batch: Packed, cache: KeyValueCache | PagedCache) -> Tensor:
        """Hidden states [T, D] of the new tokens; the cache is the one that ``start`` gave."""
        hidden_states: Tensor = self.model(batch, self.memory, cache)
        return hidden_states

    def next_token_logits(self, hidden_states: Tensor) -> Tensor:
        """[M, D] → [M, V]."""
        return self.model.next_token_logits(hidden_states)
