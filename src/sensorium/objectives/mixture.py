"""Two things learnt at once by one model: pictures drawn after their words, and questions about pictures answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sensorium.data.batching import Example
from sensorium.objectives._base import Batch, Loss, Objective, Record, total_counts
from sensorium.text import Tokenizer

KIND = "kind"


@dataclass(frozen=True)
class Mixture:
    """Each record is learnt by the objective that its fields are for; a batch has a part for each of them."""

    with_target: Objective
    """Of records with a ``target``."""
    without: Objective

    def heads(self) -> dict[str, Any]:
        """Those of both."""
        return {**self.with_target.heads(), **self.without.heads()}

    def prepare(self, records: Sequence[Record], tokenizer: Tokenizer) -> tuple[Any, Any]:
        """Both parts, each prepared by its objective. Raises ``DataError`` as they do, with the numbers of a part."""
        asks = [record for record in records if record.get("target") is not None]
        others = [record for record in records if record.get("target") is None]
        return self.with_target.prepare(asks, tokenizer), self.without.prepare(others, tokenizer)

    def examples(self, prepared: tuple[Any, Any], generator: np.random.Generator) -> list[Example]:
        """Those of both, each with the number of its objective."""
        return [
            replace(example, labels={**example.labels, KIND: number})
            for number, objective in enumerate(self._objectives)
            for example in objective.examples(prepared[number], generator)
        ]

    def collate(self, examples: Sequence[Example], tokenizer: Tokenizer, generator: np.random.Generator) -> Batch:
        """A batch with a part for each objective that has examples in it."""
        parts: dict[int, Batch] = {}
        for number, objective in enumerate(self._objectives):
            if own := [example for example in examples if example.labels[KIND] == number]:
                parts[number] = objective.collate(own, tokenizer, generator)
        first, *_ = parts.values()
        return replace(first, counts=total_counts(list(parts.values())), parts=parts)

    def losses(self, model: Any, batch: Batch) -> dict[str, Loss]:
        """Those of both, by their names."""
        found: dict[str, Loss] = {}
        parts: Mapping[int, Batch] = batch.parts or {}
        for number, objective in enumerate(self._objectives):
            if number in parts:
                found |= objective.losses(model, parts[number])
        return found

    @property
    def _objectives(self) -> tuple[Objective, Objective]:
        return self.with_target, self.without
