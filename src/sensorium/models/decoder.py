"""DecoderLM: the GPT-shaped model.

Shapes: T packed tokens, M chosen rows, D hidden size, V vocabulary.
"""

from __future__ import annotations

from torch import Tensor, nn

from sensorium.config import DecoderConfig
from sensorium.nn.block import Cache
from sensorium.nn.heads import LanguageModelHead, next_token_logits
from sensorium.nn.stack import Stack
from sensorium.nn.stems import TokenStem
from sensorium.packed import Packed


class DecoderLM(nn.Module):
    """Token ids in, a vector for the next token out of each (Radford et al., 2019)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = TokenStem(config.stem)
        self.stack = Stack(config.stack)
        head = config.language_model
        self.language_model = None if head is None else LanguageModelHead(head, self.stem.tokens)

    def forward(self, batch: Packed, cache: Cache | None = None) -> Tensor:
        """Hidden states [T, D] after the final norm; with a cache, ``batch`` holds only the new tokens."""
        layout = batch.layout if cache is None else cache.layout(batch.lengths)
        hidden_states: Tensor = self.stack(self.stem(batch), layout, cache)
        return hidden_states

    def next_token_logits(self, hidden_states: Tensor) -> Tensor:
        """[M, D] → [M, V]. Raises ``UsageError`` when the model has no language-model head."""
        return next_token_logits(self.language_model, hidden_states)
