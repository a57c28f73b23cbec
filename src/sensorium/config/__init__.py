"""Every dataclass that describes a model. Frozen, torch-free, checked at construction.

A model is a stem (what turns tokens into vectors), a stack (the Transformer) and heads (what turns vectors into
logits). An optional part is an optional sub-config; a choice is a ``Literal``. Derived values are properties.
"""

from __future__ import annotations

from sensorium.config.codec import (
    NORM_GROUPS,
    DrawingConfig,
    ImageCodecConfig,
)
from sensorium.config.heads import (
    Activation,
    LanguageModelHeadConfig,
    MaskedTokenHeadConfig,
    NextSentenceHeadConfig,
    PoolerConfig,
    ProbePoolerConfig,
    SequenceHeadConfig,
    SpanHeadConfig,
    TokenHeadConfig,
)
from sensorium.config.image import (
    PatchStemConfig,
)
from sensorium.config.models import (
    ENCODER_HEADS,
    CaptionerConfig,
    DecoderConfig,
    DualEncoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    ImageEncoderConfig,
    LanguageConfig,
    ModelConfig,
    MultimodalConfig,
    StackedConfig,
    TextVector,
    learned_positions,
    num_layers,
)
from sensorium.config.positions import (
    LearnedPositions,
    LinearScaling,
    Llama3Scaling,
    RelativePositions,
    RotaryPositions,
    SinusoidalPositions,
    YarnScaling,
)
from sensorium.config.stack import (
    BIASES,
    Mask,
    MLPKind,
    NewerPart,
    Norm,
    NormPlace,
    StackConfig,
    TokenStemConfig,
)

__all__ = [
    "BIASES",
    "ENCODER_HEADS",
    "NORM_GROUPS",
    "Activation",
    "CaptionerConfig",
    "DecoderConfig",
    "DrawingConfig",
    "DualEncoderConfig",
    "EncoderConfig",
    "EncoderDecoderConfig",
    "ImageCodecConfig",
    "ImageEncoderConfig",
    "LanguageConfig",
    "LanguageModelHeadConfig",
    "LearnedPositions",
    "LinearScaling",
    "Llama3Scaling",
    "MLPKind",
    "Mask",
    "MaskedTokenHeadConfig",
    "ModelConfig",
    "MultimodalConfig",
    "NewerPart",
    "NextSentenceHeadConfig",
    "Norm",
    "NormPlace",
    "PatchStemConfig",
    "PoolerConfig",
    "ProbePoolerConfig",
    "RelativePositions",
    "RotaryPositions",
    "SequenceHeadConfig",
    "SinusoidalPositions",
    "SpanHeadConfig",
    "StackConfig",
    "StackedConfig",
    "TextVector",
    "TokenHeadConfig",
    "TokenStemConfig",
    "YarnScaling",
    "learned_positions",
    "num_layers",
]
