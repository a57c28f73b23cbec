"""Zero-shot classification through natural-language inference (Yin et al., 2019)."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from sensorium.checkpoint import Checkpoint
from sensorium.errors import UsageError
from sensorium.packed import Packed
from sensorium.tasks._task import Pairs, Task, require_text, weighted_mean
from sensorium.text import Encoding


class ZeroShotClassification(Task):
    """A text and candidate labels → the labels by how strongly the text entails "This example is <label>.".

    A text longer than the model reads is judged window by window against every label, logits averaged.
    """

    def __init__(self, checkpoint: Checkpoint, batch_tokens: int) -> None:
        super().__init__(checkpoint, batch_tokens)
        labels = [label.lower() for label in self.model.config.sequence.labels]
        named = [number for number, label in enumerate(labels) if label.startswith("entail")]
        self.entailment = named[0] if named else len(labels) - 1  # without a name the last, as transformers does
        if not named and "sequence" not in checkpoint.untrained:
            warnings.warn(
                f"none of the labels {', '.join(self.model.config.sequence.labels)} is called entailment: the last is "
                "taken for it; zero-shot-classification needs a model trained on natural-language inference",
                stacklevel=3,
            )

    def __call__(
        self,
        sequences: Any,
        candidate_labels: str | Sequence[str],
        *,
        hypothesis_template: str = "This example is {}.",
        multi_label: bool = False,
    ) -> Any:
        """``{"sequence", "labels", "scores"}``, labels by falling score; a list of those for a list.

        ``multi_label``: each label is judged alone (entailment against contradiction); else the scores sum to 1.
        """
        labels = label_list(candidate_labels)
        hypotheses = [filled(hypothesis_template, label) for label in labels]
        asked: deque[int] = deque()  # which label each window on its way asks for

        def prepare(one: Any, number: int) -> Iterator[Encoding]:
            text = require_text(one, number)
            for label, hypothesis in enumerate(hypotheses):
                for window in self.windows(text, second=hypothesis):
                    asked.append(label)
                    yield window

        def finish(one: str, pairs: Pairs) -> dict[str, Any]:
            groups = groupby(pairs, key=lambda pair: asked.popleft())
            logits = torch.stack([weighted_mean(group) for _, group in groups])  # [labels, C]
            return self._ranked(one, logits, labels, multi_label)

        return self.answer(sequences, prepare, self._run, finish)

    def _run(self, batch: Packed, windows: Sequence[Encoding]) -> Sequence[Tensor]:
        logits: Tensor = self.model.sequence_logits(self.model(batch), batch)  # [N, C]
        return list(logits.float())

    def _ranked(self, text: str, logits: Tensor, labels: list[str], multi_label: bool) -> dict[str, Any]:
        """``logits`` [labels, C] → the labels by score."""
        if multi_label or len(labels) == 1:
            contradiction = logits.shape[1] - 1 if self.entailment == 0 else 0
            scores = logits[:, [contradiction, self.entailment]].softmax(dim=-1)[:, 1]
        else:
            scores = logits[:, self.entailment].softmax(dim=0)
        order = scores.argsort(descending=True).tolist()
        return {"sequence": text, "labels": [labels[i] for i in order], "scores": [float(scores[i]) for i in order]}


def label_list(candidate_labels: str | Sequence[str]) -> list[str]:
    """Labels as they are given, or between commas. Raises ``UsageError`` for none."""
    given = candidate_labels.split(",") if isinstance(candidate_labels, str) else candidate_labels
    labels = [label.strip() for label in given if label.strip()]
    if not labels:
        raise UsageError("candidate_labels: at least one label is needed")
    return labels


def filled(template: str, label: str) -> str:
    """A template with a label in its place. Raises ``UsageError`` where it has no place, or several."""
    if template.count("{}") != 1:
        raise UsageError(f"hypothesis_template is {template!r}; it must hold {{}} once, for the label")
    return template.replace("{}", label)
