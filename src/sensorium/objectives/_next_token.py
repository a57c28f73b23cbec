"""The loss of everything that writes: which token comes next."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sensorium.nn.cross_entropy import linear_cross_entropy
from sensorium.objectives._base import Batch, Loss
from sensorium.packed import Packed


def next_token_batch(packed: Packed, learnt: Tensor) -> Batch:
    """``learnt`` [T] says which tokens are to be predicted, none of them the first of its sequence.

    Targets: ``next`` [M] those tokens, ``rows`` [M] the ones before them.
    """
    places = torch.nonzero(learnt)[:, 0]
    return Batch(packed, {"rows": places - 1, "next": packed.values[places]}, {"language_model": len(places)})


def chosen_states(model: Any, batch: Batch) -> Tensor:
    """Hidden states [M, D], each of which a target comes after."""
    chosen: Tensor = model(batch.packed)[batch.targets["rows"]]
    return chosen


def next_token_loss(
    model: Any, hidden_states: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, agreement: float = 0.0
) -> Loss:
    """Cross-entropy of the next tokens [M] after hidden states [M, D]; all logits are never held at once.

    ``agreement``: of two readings of the same tokens, one after the other (``linear_cross_entropy``).
    """
    head = model.language_model
    total, correct = linear_cross_entropy(
        head.transform(hidden_states), head.vocabulary.weight, head.bias, targets, label_smoothing=label_smoothing,
        agreement=agreement,
    )  # fmt: skip
    return Loss(total, len(targets), correct)
