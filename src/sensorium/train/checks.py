"""What can be known to fail before a run has cost hours: each gives one sentence."""

from __future__ import annotations

import torch

from sensorium.checkpoint import Checkpoint, published_form
from sensorium.config import (
    CaptionerConfig,
    DualEncoderConfig,
    EncoderDecoderConfig,
    ImageCodecConfig,
    ImageEncoderConfig,
    LanguageConfig,
    MultimodalConfig,
    StackedConfig,
)
from sensorium.errors import UsageError
from sensorium.models.build import LanguageModel, build
from sensorium.models.captioner import Captioner
from sensorium.models.dual_encoder import DualEncoder
from sensorium.models.image_codec import ImageCodec
from sensorium.models.multimodal import MultimodalLM
from sensorium.objectives._base import Objective
from sensorium.objectives.captioning import end_of_captions
from sensorium.objectives.seq2seq import SequenceToSequence
from sensorium.text import Tokenizer
from sensorium.towers import published_parts
from sensorium.train.kinds import TWO_TEXTS

TRAINED: dict[type, tuple[str, ...]] = {
    DualEncoderConfig: ("contrastive",), MultimodalConfig: ("answering", "drawing"), ImageCodecConfig: ("codec",),
    CaptionerConfig: ("captioning",),
}  # fmt: skip
"""What an opened model that looks at images can be trained for."""


def check_kind(source: Checkpoint, kind: str) -> None:
    """Raise ``UsageError`` when only one of an opened model and an objective reads one text and writes another, or when
    only one of them looks at images.
    """
    if not isinstance(source.config, LanguageConfig):
        if kind in TRAINED.get(type(source.config), ()):
            if isinstance(source.config, MultimodalConfig):
                _check_multimodal(source, source.config, kind)
            return
        raise UsageError(f"{source.folder}: a {source.family} model looks at images; {kind!r} does not train it")
    if kind in ("codec", "drawing"):
        raise UsageError(f"{source.folder}: a {source.family} model does not draw; {kind!r} trains a janus' parts")
    if kind == "answering":
        raise UsageError(f"{source.folder}: a {source.family} model does not read images among words; llava does")
    if kind == "captioning":
        raise UsageError(f"{source.folder}: a {source.family} model does not write about images; blip does")
    if kind == "contrastive":
        raise UsageError(
            f"{source.folder}: a {source.family} model does not match images with texts; clip and siglip do"
        )
    if isinstance(source.config, EncoderDecoderConfig) == (kind in TWO_TEXTS):
        return
    if kind in TWO_TEXTS:
        raise UsageError(f"{source.folder}: a {source.family} model does not read one text and write another")
    raise UsageError(
        f"{source.folder}: a {source.family} model reads one text and writes another; objective.kind must be "
        f"{' or '.join(map(repr, TWO_TEXTS))}"
    )


def _check_multimodal(source: Checkpoint, config: MultimodalConfig, kind: str) -> None:
    if kind == "answering" and config.class_vector:
        raise UsageError(f"{source.folder}: reads the class token's vector too, which {kind!r} does not know")
    if kind == "drawing" and config.drawing is None:
        raise UsageError(f"{source.folder}: a {source.family} model does not draw; a janus does")


def check_heads(source: Checkpoint, objective: Objective) -> None:
    """Raise ``UsageError`` when an opened model is not of the kind that takes an objective's heads."""
    strange = [name for name in objective.heads() if not hasattr(source.config, name)]
    if strange:
        raise UsageError(
            f"{source.folder}: a {source.family} model cannot be trained for this objective; it has no place for a "
            f"{strange[0].replace('_', '-')} head"
        )


def check_fit(
    model: LanguageModel | DualEncoder | MultimodalLM | Captioner | ImageCodec,
    tokenizer: Tokenizer | None,
    family: str,
    objective: Objective,
    *,
    max_length: int,
) -> None:
    """Raise ``UsageError`` or ``CheckpointError`` when model, tokenizer, family and objective do not fit together."""
    config = model.config
    if not isinstance(config, ImageCodecConfig):
        assert tokenizer is not None
        _check_texts(config, tokenizer, objective, max_length)
    with torch.device("meta"):  # names and shapes without memory
        for part in published_parts(build(config), family).values():
            published_form(*part)


def _check_texts(config: StackedConfig, tokenizer: Tokenizer, objective: Objective, max_length: int) -> None:
    """What a model that reads texts must have room for."""
    assert not isinstance(config, ImageEncoderConfig)
    if max_length > config.max_length:
        raise UsageError(
            f"objective.max_length is {max_length}; this model reads at most {config.max_length} tokens at a time"
        )
    if isinstance(config, EncoderDecoderConfig):
        key, most = "max_length", max_length
        if isinstance(objective, SequenceToSequence):
            key, most = "max_target_length", objective.max_target_length
        if most > config.max_written:
            raise UsageError(f"objective.{key} is {most}; this model writes at most {config.max_written} tokens")
    if isinstance(config, CaptionerConfig) and (end := end_of_captions(tokenizer)) != config.end_token_id:
        raise UsageError(
            f"captions of this model end with token {config.end_token_id}, texts of the tokenizer with {end}; use the "
            "model's own tokenizer"
        )
    if tokenizer.vocabulary_size > config.stem.vocabulary_size:
        raise UsageError(
            f"the tokenizer has {tokenizer.vocabulary_size:,} tokens, the model's table {config.stem.vocabulary_size:,}"
            " rows; use the model's own tokenizer, or train a new model"
        )
