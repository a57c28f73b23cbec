"""What a tower that does not learn makes of texts: each is read once in a run, not once an epoch.

Shapes: M texts, D hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sensorium.models.dual_encoder import DualEncoder
from sensorium.packed import Packed

MOST = 500_000
"""Texts whose vectors are kept; others are read again."""


class KnownTexts:
    """Token ids → the vector that stands for them, before it is projected."""

    def __init__(self) -> None:
        self._vectors: dict[bytes, Tensor] = {}

    @torch.no_grad()
    def __call__(self, model: DualEncoder, texts: Packed) -> Tensor:
        """[M, D], without dropout: what a text is called to mean is the same each time."""
        ids = texts.split(texts.values)
        keys = [sequence.cpu().numpy().tobytes() for sequence in ids]
        unknown = {key: n for n, key in enumerate(keys) if key not in self._vectors}
        if len(self._vectors) + len(unknown) > MOST:
            self._vectors, unknown = {}, {key: n for n, key in enumerate(keys)}
        if unknown:
            training = model.text.training
            model.text.eval()
            read = model.text_states(Packed.from_sequences([ids[n] for n in unknown.values()]).to(texts.values.device))
            model.text.train(training)
            self._vectors.update(zip(unknown, read, strict=True))
        return torch.stack([self._vectors[key] for key in keys])


def learns(tower: nn.Module) -> bool:
    """Whether any of its weights is trained."""
    return any(parameter.requires_grad for parameter in tower.parameters())
