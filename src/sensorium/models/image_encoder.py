"""ImageEncoder: the model that looks.

Shapes: T packed rows of all images, N images, D hidden size, C labels.
"""

from __future__ import annotations

from torch import Tensor, nn

from sensorium.config import ImageEncoderConfig, PoolerConfig, ProbePoolerConfig
from sensorium.nn.heads import Pooler, SequenceHead, present
from sensorium.nn.patch_stem import PatchStem
from sensorium.nn.probe_pooler import ProbePooler
from sensorium.nn.stack import Stack
from sensorium.packed import Packed


class ImageEncoder(nn.Module):
    """Patches in, contextual vectors out; heads turn the first vector of an image into logits."""

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.config = config
        size = config.stack.hidden_size
        self.stem = PatchStem(config.stem)
        self.stack = Stack(config.stack)
        self.pooler = None if config.pooler is None else _pooler(config, config.pooler)
        self.sequence = None if config.sequence is None else SequenceHead(config.sequence, size)

    def forward(self, batch: Packed) -> Tensor:
        """Hidden states [T, D] of the last layer."""
        hidden_states: Tensor = self.stack(self.stem(batch), batch.layout)
        return hidden_states

    def after_blocks(self, batch: Packed, blocks: int) -> Tensor:
        """[T, D] the vectors after the first so many blocks, before the final norm."""
        hidden_states: Tensor = self.stack(self.stem(batch), batch.layout, blocks=blocks)
        return hidden_states

    def pooled(self, hidden_states: Tensor, batch: Packed) -> Tensor:
        """Pooled vectors [N, D]. Raises ``UsageError`` when the model has no pooler."""
        pooler = present(self.pooler, "pooler")
        asked = isinstance(pooler, ProbePooler)
        pooled: Tensor = pooler(hidden_states, batch.lengths) if asked else pooler(hidden_states[batch.first])
        return pooled

    def vector(self, images: Packed) -> Tensor:
        """[N, D] what stands for each image: what a probe asked for, else the first vector."""
        if isinstance(self.pooler, ProbePooler):
            return self.pooled(self(images), images)
        if not self.training:  # whoever looks inside sees all rows
            hidden_states: Tensor = self(images)
            return hidden_states[images.first]
        return self.stack.at(self.stem(images), images.layout, images.first)

    def sequence_logits(self, hidden_states: Tensor, batch: Packed) -> Tensor:
        """[N, C]: one label for each image. Raises ``UsageError`` when the model has no such head."""
        logits: Tensor = present(self.sequence, "classification head")(hidden_states[batch.first])
        return logits


def _pooler(config: ImageEncoderConfig, pooler: PoolerConfig | ProbePoolerConfig) -> Pooler | ProbePooler:
    if isinstance(pooler, ProbePoolerConfig):
        return ProbePooler(config.stack)
    return Pooler(pooler, config.stack.hidden_size)
