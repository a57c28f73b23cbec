"""Heads: what turns vectors into logits. Give them only the rows that carry a label or need an answer.

Shapes: M rows, N sequences, D hidden size, V vocabulary, C labels.
"""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sensorium.config import (
    LanguageModelHeadConfig,
    MaskedTokenHeadConfig,
    PoolerConfig,
    SequenceHeadConfig,
    SpanHeadConfig,
    TokenHeadConfig,
)
from sensorium.errors import UsageError
from sensorium.nn.block import ACTIVATIONS
from sensorium.nn.dropout import Dropout

Part = TypeVar("Part", bound=nn.Module)


class Pooler(nn.Module):
    """First-token vectors [N, D] → pooled vectors [N, D]."""

    def __init__(self, config: PoolerConfig, hidden_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, first: Tensor) -> Tensor:
        """[N, D] → [N, D]."""
        return self.activation(self.dense(first))


class MaskedTokenHead(nn.Module):
    """Vectors [M, D] → logits over the vocabulary [M, V]."""

    def __init__(self, config: MaskedTokenHeadConfig, tokens: nn.Embedding) -> None:
        super().__init__()
        vocabulary_size, hidden_size = tokens.weight.shape
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.activation = ACTIVATIONS[config.activation]
        self.norm = nn.LayerNorm(hidden_size, config.norm_eps)
        self.vocabulary = vocabulary_matrix(tokens, tied=config.tied)
        self.bias = nn.Parameter(torch.zeros(vocabulary_size))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[M, D] → [M, V]."""
        return F.linear(self.transform(hidden_states), self.vocabulary.weight, self.bias)

    def transform(self, hidden_states: Tensor) -> Tensor:
        """[M, D] → [M, D], what the vocabulary matrix is applied to."""
        output: Tensor = self.norm(self.activation(self.dense(hidden_states)))
        return output


class NextSentenceHead(nn.Module):
    """Pooled vectors [N, D] → [N, 2]."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(hidden_size, 2)

    def forward(self, pooled: Tensor) -> Tensor:
        """[N, D] → [N, 2]."""
        logits: Tensor = self.classifier(pooled)
        return logits


class SequenceHead(nn.Module):
    """Pooled (or first-token) vectors [N, D] → logits over labels [N, C]."""

    def __init__(self, config: SequenceHeadConfig, hidden_size: int) -> None:
        super().__init__()
        own_dense = None if config.dense is None else Pooler(PoolerConfig(config.dense), hidden_size)
        self.pooler = own_dense
        self.dropout = Dropout(config.dropout)
        self.classifier = nn.Linear(hidden_size, len(config.labels))

    def forward(self, vectors: Tensor) -> Tensor:
        """[N, D] → [N, C]."""
        if self.pooler is not None:
            vectors = self.pooler(vectors)
        logits: Tensor = self.classifier(self.dropout(vectors))
        return logits


class TokenHead(nn.Module):
    """Vectors [M, D] → logits over labels [M, C]."""

    def __init__(self, config: TokenHeadConfig, hidden_size: int) -> None:
        super().__init__()
        self.dropout = Dropout(config.dropout)
        self.classifier = nn.Linear(hidden_size, len(config.labels))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[M, D] → [M, C]."""
        logits: Tensor = self.classifier(self.dropout(hidden_states))
        return logits


class SpanHead(nn.Module):
    """Vectors [M, D] → start and end logits [M, 2]."""

    def __init__(self, config: SpanHeadConfig, hidden_size: int) -> None:
        super().__init__()
        self.dropout = Dropout(config.dropout)
        self.classifier = nn.Linear(hidden_size, 2)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[M, D] → [M, 2]."""
        logits: Tensor = self.classifier(self.dropout(hidden_states))
        return logits


class LanguageModelHead(nn.Module):
    """Vectors [M, D] → logits over the next token [M, V]."""

    def __init__(self, config: LanguageModelHeadConfig, tokens: nn.Embedding) -> None:
        super().__init__()
        self.vocabulary = vocabulary_matrix(tokens, tied=config.tied)
        self.bias = nn.Parameter(torch.zeros(tokens.num_embeddings)) if config.bias else None
        self.scale = tokens.embedding_dim**-0.5 if config.scaled else 1.0

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[M, D] → [M, V]."""
        return F.linear(self.transform(hidden_states), self.vocabulary.weight, self.bias)

    def transform(self, hidden_states: Tensor) -> Tensor:
        """[M, D] → [M, D], what the vocabulary matrix is applied to."""
        return hidden_states if self.scale == 1.0 else hidden_states * self.scale


def next_token_logits(head: LanguageModelHead | MaskedTokenHead | None, hidden_states: Tensor) -> Tensor:
    """[M, D] → [M, V]. Raises ``UsageError`` when the model has no language-model head."""
    if head is None:
        raise UsageError("this model has no language-model head; open a checkpoint that has one")
    logits: Tensor = head(hidden_states)
    return logits


def vocabulary_matrix(tokens: nn.Embedding, *, tied: bool) -> nn.Embedding:
    """The output matrix [V, D]: the token table itself when tied (Press & Wolf, 2017), else one of its shape."""
    return tokens if tied else nn.Embedding(*tokens.weight.shape)


def present(part: Part | None, name: str) -> Part:
    """A part of a model that may lack it. Raises ``UsageError`` when it does."""
    if part is None:
        raise UsageError(f"this model has no {name}; open a checkpoint that has one, or fine-tune it")
    return part
