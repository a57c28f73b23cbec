"""Distillation: a small model learns what a large one thinks likely, not only what is right (Hinton et al., 2015).

Token by token, or label by label. To learn from what a teacher *writes* (Kim & Rush, 2016) nothing is needed here: let
it write, and train on that as on any other data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from sensorium.data.batching import Example
from sensorium.nn.divergence import Vocabulary, divergence, linear_divergence
from sensorium.objectives._base import Batch, Loss, Record, classification_loss
from sensorium.objectives._next_token import next_token_loss
from sensorium.objectives.causal import CausalLanguageModel
from sensorium.objectives.conversation import Conversation
from sensorium.objectives.seq2seq import SequenceToSequence
from sensorium.objectives.sequence import SequenceClassification
from sensorium.text import Tokenizer

Distillable = CausalLanguageModel | Conversation | SequenceToSequence | SequenceClassification


@dataclass(frozen=True)
class Distillation:
    """An objective whose targets are mixed with a teacher's distributions.

    Loss = (1 - share) · hard + share · temperature² · KL(teacher ‖ student), both at that temperature: the square keeps
    the size of the gradient what it is at 1 (§2 of the paper).
    """

    objective: Distillable
    teacher: Any
    """A model with the same vocabulary, or the same labels; it learns nothing."""
    temperature: float = 2.0
    share: float = 0.5
    """Of the teacher."""

    def heads(self) -> dict[str, Any]:
        """Those of the objective."""
        return self.objective.heads()

    def prepare(self, records: Sequence[Record], tokenizer: Tokenizer) -> Any:
        """As the objective does."""
        return self.objective.prepare(records, tokenizer)

    def examples(self, prepared: Any, generator: np.random.Generator) -> list[Example]:
        """As the objective does."""
        return self.objective.examples(prepared, generator)

    def collate(self, examples: Sequence[Example], tokenizer: Tokenizer, generator: np.random.Generator) -> Batch:
        """As the objective does; the teacher is asked for each of its labelled items."""
        batch = self.objective.collate(examples, tokenizer, generator)
        return replace(batch, counts={**batch.counts, "distillation": next(iter(batch.counts.values()))})

    def losses(self, model: Any, batch: Batch) -> dict[str, Loss]:
        """The objective's own loss, and ``distillation``, whose ``correct`` counts where student and teacher agree."""
        self.teacher.eval()
        if isinstance(self.objective, SequenceClassification):
            return self._of_labels(self.objective, model, batch)
        objective = self.objective
        hidden_states = objective.hidden_states(model, batch)  # [M, D]
        with torch.no_grad():
            taught = objective.hidden_states(self.teacher, batch)  # [M, E]
        smoothing, agreement = (
            (objective.label_smoothing, objective.r_drop) if isinstance(objective, SequenceToSequence) else (0.0, 0.0)
        )
        hard = next_token_loss(
            model, hidden_states, batch.targets["next"], label_smoothing=smoothing, agreement=agreement
        )
        soft = linear_divergence(
            _vocabulary(model, hidden_states), _vocabulary(self.teacher, taught), temperature=self.temperature
        )
        return {"language_model": self._hard(hard), "distillation": self._soft(*soft, hard.count)}

    def _of_labels(self, objective: SequenceClassification, model: Any, batch: Batch) -> dict[str, Loss]:
        logits = objective.logits(model, batch)  # [N, C]
        with torch.no_grad():
            taught = objective.logits(self.teacher, batch)
        hard = classification_loss(logits, batch.targets["sequence"], label_smoothing=objective.label_smoothing)
        soft = divergence(logits, taught, temperature=self.temperature)
        return {"sequence": self._hard(hard), "distillation": self._soft(*soft, hard.count)}

    def _hard(self, loss: Loss) -> Loss:
        return replace(loss, total=(1 - self.share) * loss.total)

    def _soft(self, total: torch.Tensor, agree: int, count: int) -> Loss:
        return Loss(self.share * self.temperature**2 * total, count, agree)


def _vocabulary(model: Any, hidden_states: torch.Tensor) -> Vocabulary:
    head = model.language_model
    return Vocabulary(head.transform(hidden_states), head.vocabulary.weight, head.bias)
