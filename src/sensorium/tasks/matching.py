"""Images and texts as vectors of one space, by a model with two towers: what search and the evaluation of it ask.

Shapes: N images, M texts, P size of the space in which they meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sensorium.checkpoint import Checkpoint, open_checkpoint
from sensorium.errors import UsageError
from sensorium.image.patches import pack_images
from sensorium.infer.batching import BATCH_TOKENS, run_windows
from sensorium.infer.engine import fast
from sensorium.machine import tune_process
from sensorium.models.dual_encoder import DualEncoder
from sensorium.packed import Packed
from sensorium.tasks._images import ImageTask
from sensorium.text import Encoding

Vectors = npt.NDArray[np.float32]


class ImageTextVectors(ImageTask):
    """A checkpoint with two towers, at work."""

    def __init__(self, checkpoint: Checkpoint, batch_tokens: int = BATCH_TOKENS) -> None:
        """Raises ``UsageError`` for a model without two towers, ``CheckpointError`` where something is missing."""
        if not isinstance(checkpoint.model, DualEncoder):
            what = f"a {checkpoint.family} model does not match images with texts (clip)"
            raise UsageError(f"{checkpoint.folder}: {what}")
        super().__init__(checkpoint, batch_tokens)
        self.tokenizer = checkpoint.require_tokenizer()

    def images(self, images: Sequence[Any]) -> Vectors:
        """[N, P] of length 1: of files, their bytes, pictures of Pillow or arrays [H, W, 3] uint8."""
        found = self.answer(list(images), lambda batch: list(self.model.image_vectors(batch).float()), Tensor.numpy)
        return self._stacked(found)

    def pixels_as_vectors(self, pixels: Sequence[Tensor]) -> Vectors:
        """[N, P] of length 1, of images that were made ready ([3, H, W] each)."""
        with torch.inference_mode():
            packed = pack_images(list(pixels), self.stem.patch_size, class_token=self.stem.class_token)
            return np.asarray(self.model.image_vectors(packed).float().numpy())

    def texts(self, texts: Sequence[str]) -> Vectors:
        """[M, P] of length 1; of a long text, the beginning is read."""
        longest = self.model.config.max_length

        def vectors(batch: Packed, windows: Sequence[Encoding]) -> Sequence[Tensor]:
            return list(self.model.text_vectors(batch).float())

        encoded = ([self.tokenizer.encode(text, max_length=longest)] for text in texts)
        return self._stacked([v.numpy() for [v] in run_windows(encoded, vectors, batch_tokens=self.batch_tokens)])

    def _stacked(self, found: Sequence[Any]) -> Vectors:
        size = self.model.config.projection_size
        return np.stack(found) if len(found) else np.zeros((0, size), np.float32)


def open_matcher(model: str | Path) -> ImageTextVectors:
    """A model at work on the fast path: a folder, or a name on the hub. Raises as ``ImageTextVectors``."""
    tune_process()
    vectors = ImageTextVectors(open_checkpoint(model))
    return ImageTextVectors(replace(vectors.checkpoint, model=fast(vectors.checkpoint.model)))
