"""EncoderDecoder: the model that reads one text and writes another (Vaswani et al., 2017).

Shapes: S packed source tokens, T packed tokens of the decoder, M chosen rows, D hidden size, V vocabulary.
"""

from __future__ import annotations

from torch import Tensor, nn

from sensorium.config import EncoderDecoderConfig, StackConfig, TokenStemConfig
from sensorium.nn.block import Cache
from sensorium.nn.heads import LanguageModelHead, next_token_logits
from sensorium.nn.memory import Memory
from sensorium.nn.stack import Stack
from sensorium.nn.stems import TokenStem
from sensorium.packed import Packed


class Side(nn.Module):
    """A stem and its stack."""

    def __init__(self, stem: TokenStemConfig, stack: StackConfig) -> None:
        super().__init__()
        self.stem = TokenStem(stem)
        self.stack = Stack(stack)

    def forward(self, batch: Packed, memory: Memory | None = None, cache: Cache | None = None) -> Tensor:
        """Hidden states [T, D]; with a cache, ``batch`` holds only new tokens."""
        layout = batch.layout if cache is None else cache.layout(batch.lengths)
        hidden_states: Tensor = self.stack(self.stem(batch), layout, cache, memory)
        return hidden_states


class EncoderDecoder(nn.Module):
    """Source token ids in, a memory out; the decoder's token ids and a memory in, a vector for each next token out."""

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Side(config.encoder_stem, config.encoder_stack)
        self.decoder = Side(config.decoder_stem, config.decoder_stack)
        if config.shared_tokens:
            self.decoder.stem.tokens = self.encoder.stem.tokens
        head = config.language_model
        self.language_model = None if head is None else LanguageModelHead(head, self.decoder.stem.tokens)

    def encode(self, sources: Packed) -> Memory:
        """What the encoder makes of the sources, [S, D]."""
        return Memory(self.encoder(sources), sources.lengths)

    def forward(self, batch: Packed, memory: Memory, cache: Cache | None = None) -> Tensor:
        """Hidden states [T, D], a sequence for each of the memory's; with a cache, ``batch`` holds only new tokens."""
        hidden_states: Tensor = self.decoder(batch, memory, cache)
        return hidden_states

    def next_token_logits(self, hidden_states: Tensor) -> Tensor:
        """[M, D] → [M, V]. Raises ``UsageError`` when the model has no language-model head."""
        return next_token_logits(self.language_model, hidden_states)
