"""The loss of everything that writes: which token comes next."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sensorium.nn.cross_entropy import linear_cross_entropy
from sensorium.objectives._base import Loss


def next_token_loss(model: Any, hidden_states: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Loss:
    """Cross-entropy of the next tokens [M] after hidden states [M, D]; all logits are never held at once."""
    head = model.language_model
    total, correct = linear_cross_entropy(
        head.transform(hidden_states), head.vocabulary.weight, head.bias, targets, label_smoothing=label_smoothing
    )
    return Loss(total, len(targets), correct)
