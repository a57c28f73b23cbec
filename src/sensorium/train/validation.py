"""Scores on data the model does not learn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sensorium.data.batching import token_budget_batches
from sensorium.errors import DataError
from sensorium.objectives._base import Objective
from sensorium.objectives.answering import Answering
from sensorium.objectives.captioning import Captioning
from sensorium.objectives.coding import Coding
from sensorium.objectives.contrastive import Contrastive
from sensorium.objectives.distillation import Distillation
from sensorium.objectives.drawing import Drawing
from sensorium.objectives.mixture import Mixture
from sensorium.objectives.seq2seq import SequenceToSequence
from sensorium.text import Tokenizer

BATCH_TOKENS = 8192
Judge = Callable[[Any, Tokenizer], Mapping[str, float]]
"""(model, tokenizer) → more scores of a validation: what it takes to write texts is not known here. It must draw no
number from torch's generator."""
VALIDATE = 3
"""What its generator is seeded with beside the run's seed."""


WITHOUT_CHANCE: dict[type, dict[str, float]] = {
    SequenceToSequence: {"bpe_dropout": 0.0, "r_drop": 0.0},
    Contrastive: {"crop": 1.0},
    Coding: {"crop": 1.0, "recolour": 0.0},
    Drawing: {"caption_dropout": 0.0, "word_dropout": 0.0, "recolour": 0.0, "shift": 0, "mirror": 0.0},
    Captioning: {"crop": 1.0, "mirror": 0.0},
    Answering: {"crop": 1.0, "shift": 0},
}
"""What of an objective changes an example each time it is seen, and the value at which nothing does."""


def unsampled(objective: Objective) -> Objective:
    """The objective for records to validate on: they are read as a user's are, whatever training makes of them."""
    if isinstance(objective, Distillation):
        inner: Any = unsampled(objective.objective)
        return replace(objective, objective=inner)
    if isinstance(objective, Mixture):
        return Mixture(unsampled(objective.with_target), unsampled(objective.without))
    changes: dict[str, Any] = WITHOUT_CHANCE.get(type(objective), {})
    return replace(objective, **changes) if changes else objective  # type: ignore[type-var]


@torch.no_grad()
def validation_scores(
    model: Any, objective: Objective, tokenizer: Tokenizer, prepared: Any, seed: int
) -> dict[str, float]:
    """Loss and accuracy over a whole validation set, without dropout, the same batches every time.

    ``accuracy`` is that of the objective's first loss that has one; objectives with several name each. Raises
    ``DataError`` without examples.
    """
    objective, generator = unsampled(objective), np.random.default_rng((seed, VALIDATE))
    examples = objective.examples(prepared, generator)
    if not examples:
        raise DataError("the validation data gives no examples; hold out more, or validate on another file")
    order = np.arange(len(examples))
    batches = token_budget_batches([example.lengths for example in examples], order, batch_tokens=BATCH_TOKENS)
    model.eval()
    device = next(model.parameters()).device
    sums: dict[str, list[float]] = {}
    judged: set[str] = set()
    for indices in batches:
        batch = objective.collate([examples[i] for i in indices], tokenizer, generator).to(device)
        for name, loss in objective.losses(model, batch).items():
            entry = sums.setdefault(name, [0.0, 0.0, 0.0])
            for i, value in enumerate((float(loss.total), loss.count, loss.correct or 0)):
                entry[i] += value
            judged |= set() if loss.correct is None else {name}
    means = {name: total / max(1, count) for name, (total, count, _) in sums.items()}
    accuracies = {name: right / max(1, count) for name, (_, count, right) in sums.items() if name in judged}
    named = {f"{name}_accuracy": value for name, value in accuracies.items()} if len(accuracies) > 1 else {}
    if accuracies:
        named = {"accuracy": next(iter(accuracies.values())), **named}
    return {"loss": sum(means.values()), **named}
