"""How well images and texts match, by a model with two towers: what the evaluation of retrieval asks.

Shapes: N images, M texts, P size of the space in which they meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensorium.checkpoint import Checkpoint
from sensorium.errors import UsageError
from sensorium.evaluate.retrieval import Scores
from sensorium.infer.batching import BATCH_TOKENS, run_windows
from sensorium.models.dual_encoder import DualEncoder
from sensorium.packed import Packed
from sensorium.tasks.image_feature_extraction import ImageFeatureExtraction
from sensorium.text import Encoding


def matcher(
    checkpoint: Checkpoint, *, batch_tokens: int = BATCH_TOKENS
) -> Callable[[Sequence[Any], Sequence[str]], Scores]:
    """Images and texts → [N, M] the cosines of their vectors. Raises ``UsageError`` for a model without two towers."""
    if not isinstance(checkpoint.model, DualEncoder):
        raise UsageError(f"{checkpoint.folder}: a {checkpoint.family} model does not match images with texts (clip)")
    model: Any = checkpoint.model
    tokenizer, looking = checkpoint.require_tokenizer(), ImageFeatureExtraction(checkpoint, batch_tokens)
    longest = model.config.max_length

    def text_vectors(batch: Packed, windows: Sequence[Encoding]) -> Sequence[Tensor]:
        return list(model.text_vectors(batch).float())

    def score(images: Sequence[Any], texts: Sequence[str]) -> Scores:
        seen = torch.tensor([vector for [vector] in looking(list(images))])  # [N, P]
        encoded = ([tokenizer.encode(text, max_length=longest)] for text in texts)
        read = torch.stack([v for [v] in run_windows(encoded, text_vectors, batch_tokens=batch_tokens)])  # [M, P]
        return np.asarray(seen @ read.t())

    return score
