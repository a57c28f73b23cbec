"""EncoderLM: the BERT-shaped model.

Shapes: T packed tokens, N sequences, M chosen rows, D hidden size, V vocabulary, C labels.
"""

from __future__ import annotations

from torch import Tensor, nn

from sensorium.config import EncoderConfig
from sensorium.nn.heads import MaskedTokenHead, NextSentenceHead, Pooler, SequenceHead, SpanHead, TokenHead, present
from sensorium.nn.stack import Stack
from sensorium.nn.stems import TokenStem
from sensorium.packed import Packed


class EncoderLM(nn.Module):
    """Token ids in, contextual vectors out; heads turn chosen vectors into logits (Devlin et al., 2019)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        size = config.stack.hidden_size
        self.stem = TokenStem(config.stem)
        self.stack = Stack(config.stack)
        self.pooler = None if config.pooler is None else Pooler(config.pooler, size)
        self.masked_token = (
            None if config.masked_token is None else MaskedTokenHead(config.masked_token, self.stem.tokens)
        )
        self.next_sentence = None if config.next_sentence is None else NextSentenceHead(size)
        self.sequence = None if config.sequence is None else SequenceHead(config.sequence, size)
        self.token = None if config.token is None else TokenHead(config.token, size)
        self.span = None if config.span is None else SpanHead(config.span, size)

    def forward(self, batch: Packed) -> Tensor:
        """Hidden states [T, D] of the last layer."""
        hidden_states: Tensor = self.stack(self.stem(batch), batch.layout)
        return hidden_states

    def pooled(self, hidden_states: Tensor, batch: Packed) -> Tensor:
        """Pooled vectors [N, D]. Raises ``UsageError`` when the model has no pooler."""
        pooled: Tensor = present(self.pooler, "pooler")(hidden_states[batch.first])
        return pooled

    def masked_token_logits(self, hidden_states: Tensor) -> Tensor:
        """[M, D] → [M, V]: which token stands at these places."""
        logits: Tensor = present(self.masked_token, "masked-token head")(hidden_states)
        return logits

    def next_sentence_logits(self, hidden_states: Tensor, batch: Packed) -> Tensor:
        """[N, 2]: 0, the second sentence follows the first; 1, it does not."""
        head = present(self.next_sentence, "next-sentence head")
        logits: Tensor = head(self.pooled(hidden_states, batch))
        return logits

    def sequence_logits(self, hidden_states: Tensor, batch: Packed) -> Tensor:
        """[N, C]: one label for each sequence."""
        head = present(self.sequence, "sequence-classification head")
        vectors = self.pooled(hidden_states, batch) if head.pooler is None else hidden_states[batch.first]  # [N, D]
        logits: Tensor = head(vectors)
        return logits

    def token_logits(self, hidden_states: Tensor) -> Tensor:
        """[M, D] → [M, C]: one label for each token."""
        logits: Tensor = present(self.token, "token-classification head")(hidden_states)
        return logits

    def span_logits(self, hidden_states: Tensor) -> Tensor:
        """[M, D] → [M, 2]: start and end of the answer."""
        logits: Tensor = present(self.span, "span head")(hidden_states)
        return logits
