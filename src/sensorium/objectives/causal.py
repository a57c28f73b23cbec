"""Causal language modelling: predict each next token (Radford et al., 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensorium.config import LanguageModelHeadConfig
from sensorium.data.batching import Example
from sensorium.errors import DataError
from sensorium.objectives._base import Batch, Loss, Record, field, pack
from sensorium.objectives._next_token import chosen_states, next_token_batch, next_token_loss
from sensorium.text import Tokenizer


@dataclass(frozen=True)
class CausalLanguageModel:
    """Records: ``text``. Texts are joined by the end token and cut into runs of ``max_length`` tokens."""

    max_length: int = 128

    def heads(self) -> dict[str, Any]:
        """The language-model head."""
        return {"language_model": LanguageModelHeadConfig()}

    def prepare(self, records: Sequence[Record], tokenizer: Tokenizer) -> np.ndarray:
        """All texts as one run of token ids [S], an end token after each."""
        runs = []
        end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
        for number, record in enumerate(records, 1):
            runs.append(np.asarray([*tokenizer.encode_plain(str(field(record, "text", number))), *end], np.int32))
        stream = np.concatenate(runs) if runs else np.zeros(0, np.int32)
        if len(stream) < 2:
            raise DataError("the texts have fewer than two tokens; there is nothing to predict")
        return stream

    def examples(self, prepared: np.ndarray, generator: np.random.Generator) -> list[Example]:
        """Runs that begin at another place each epoch, so that no token is always first."""
        spare = min(self.max_length, len(prepared) - 2)
        start = int(generator.integers(spare)) if spare > 0 and len(prepared) > 2 * self.max_length else 0
        pieces = [prepared[i : i + self.max_length] for i in range(start, len(prepared), self.max_length)]
        return [Example(piece) for piece in pieces if len(piece) > 1]

    def collate(self, examples: Sequence[Example], tokenizer: Tokenizer, generator: np.random.Generator) -> Batch:
        """Pack; targets: ``rows`` [M] every token but the last of each sequence, ``next`` [M] the token after it."""
        packed = pack(examples)
        learnt = torch.ones(packed.num_tokens, dtype=torch.bool)
        learnt[packed.first] = False
        return next_token_batch(packed, learnt)

    def losses(self, model: Any, batch: Batch) -> dict[str, Loss]:
        """Cross-entropy of every next token; the vocabulary's logits are never held all at once."""
        hidden_states = self.hidden_states(model, batch)
        return {"language_model": next_token_loss(model, hidden_states, batch.targets["next"])}

    def hidden_states(self, model: Any, batch: Batch) -> Tensor:
        """[M, D], each of which a target comes after."""
        return chosen_states(model, batch)
