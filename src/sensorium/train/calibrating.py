"""What a trained matcher's scores mean, learnt from pairs that it was not trained on.

Shapes: N pairs, M distinct texts, P size of the space in which images and texts meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sensorium.calibration import Calibration, fit
from sensorium.data.batching import Example
from sensorium.models.dual_encoder import DualEncoder
from sensorium.objectives._base import Objective
from sensorium.objectives.contrastive import Contrastive
from sensorium.train.validation import unsampled

BATCH = 64
MOST = 4096
"""Pairs that are looked at: a table of all of them with each other stands in memory."""


@torch.inference_mode()
def calibrated(
    model: Any, objective: Objective, tokenizer: Any, validation: Sequence[Example] | None
) -> Calibration | None:
    """What makes probabilities of a model's scores; ``None`` where it matches nothing, judges pairs alone by itself, or
    was given no pairs to validate on.
    """
    if not isinstance(objective, Contrastive) or not isinstance(model, DualEncoder) or model.logit_bias is not None:
        return None
    if not validation or len(validation) < 2:
        return None
    objective, generator, pairs = unsampled(objective), np.random.default_rng(0), validation[:MOST]
    images, texts = [], []
    device = next(model.parameters()).device
    model.eval()
    for first in range(0, len(pairs), BATCH):
        batch = objective.collate(pairs[first : first + BATCH], tokenizer, generator).to(device)
        assert batch.images is not None
        images.append(model.image_vectors(batch.images).double().cpu())
        texts.append(model.text_vectors(batch.packed).double().cpu())
    numbers = np.array([example.labels["text"] for example in pairs])
    distinct, places = np.unique(numbers, return_index=True)  # [M]
    scaled = model.logit_scale.double().exp().item() * torch.cat(texts)[places] @ torch.cat(images).t()  # [M, N]
    matches = distinct[:, None] == numbers
    return None if matches.all() else fit(scaled.numpy(), matches)
