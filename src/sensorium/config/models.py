"""Whole models: stems, stacks and heads put together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from sensorium.config._checked import Checked
from sensorium.config.codec import DrawingConfig, ImageCodecConfig
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
from sensorium.config.image import PatchStemConfig
from sensorium.config.positions import LearnedPositions
from sensorium.config.stack import StackConfig, TokenStemConfig
from sensorium.errors import UsageError

TextVector = Literal["end", "first", "last", "mean"]
"""Which vector stands for a text: that of its end token, of its first or its last token, or the mean of all."""


@dataclass(frozen=True)
class EncoderConfig(Checked):
    """A BERT-shaped model: every token sees every token of its sequence."""

    stem: TokenStemConfig
    stack: StackConfig
    pooler: PoolerConfig | None = None
    masked_token: MaskedTokenHeadConfig | None = None
    next_sentence: NextSentenceHeadConfig | None = None
    sequence: SequenceHeadConfig | None = None
    token: TokenHeadConfig | None = None
    span: SpanHeadConfig | None = None

    @property
    def max_length(self) -> int:
        """Tokens in the longest sequence this model can read."""
        return _max_length(self.stem, self.stack)

    @property
    def head_names(self) -> tuple[str, ...]:
        """The heads this model has, in the order of ``ENCODER_HEADS``."""
        return tuple(name for name in ENCODER_HEADS if getattr(self, name) is not None)

    def with_heads(self, **heads: Any) -> EncoderConfig:
        """A copy with these heads set; a head that reads the pooled vector brings the pooler with it."""
        config = replace(self, **heads)
        pools = config.next_sentence is not None or (config.sequence is not None and config.sequence.dense is None)
        return replace(config, pooler=PoolerConfig()) if pools and config.pooler is None else config


@dataclass(frozen=True)
class DecoderConfig(Checked):
    """A GPT-shaped model: every token sees itself and the tokens before it."""

    stem: TokenStemConfig
    stack: StackConfig
    language_model: LanguageModelHeadConfig | None = None

    @property
    def max_length(self) -> int:
        """Tokens in the longest sequence this model can read."""
        return _max_length(self.stem, self.stack)

    @property
    def head_names(self) -> tuple[str, ...]:
        """The heads this model has."""
        return () if self.language_model is None else ("language_model",)


@dataclass(frozen=True)
class EncoderDecoderConfig(Checked):
    """A model that reads one text and writes another: a causal stack that attends to an encoder's vectors."""

    encoder_stem: TokenStemConfig
    encoder_stack: StackConfig
    decoder_stem: TokenStemConfig
    decoder_stack: StackConfig
    start_token_id: int
    """What the decoder begins with."""
    language_model: LanguageModelHeadConfig | None = None
    shared_tokens: bool = True
    """Both stems have one token table; else each has its own, and the vocabularies may differ."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shared_tokens and self.encoder_stem.vocabulary_size != self.decoder_stem.vocabulary_size:
            raise UsageError(
                f"the encoder reads {self.encoder_stem.vocabulary_size} tokens, the decoder "
                f"{self.decoder_stem.vocabulary_size}; they can't share a table"
            )
        if self.decoder_stack.memory_size != self.encoder_stack.hidden_size:
            raise UsageError(
                f"the decoder attends to vectors of {self.decoder_stack.memory_size}, the encoder gives "
                f"{self.encoder_stack.hidden_size}"
            )

    @property
    def stem(self) -> TokenStemConfig:
        """What reads."""
        return self.encoder_stem

    @property
    def stack(self) -> StackConfig:
        """What writes."""
        return self.decoder_stack

    @property
    def max_length(self) -> int:
        """Tokens in the longest text this model can read."""
        return _max_length(self.encoder_stem, self.encoder_stack)

    @property
    def max_written(self) -> int:
        """Tokens in the longest text this model can write, its first one among them."""
        return _max_length(self.decoder_stem, self.decoder_stack)

    @property
    def head_names(self) -> tuple[str, ...]:
        """The heads this model has."""
        return () if self.language_model is None else ("language_model",)


@dataclass(frozen=True)
class ImageEncoderConfig(Checked):
    """A model that looks at images: patches in, vectors out (Dosovitskiy et al., 2021)."""

    stem: PatchStemConfig
    stack: StackConfig
    pooler: PoolerConfig | ProbePoolerConfig | None = None
    sequence: SequenceHeadConfig | None = None
    """One label for the image, of its first vector."""

    @property
    def head_names(self) -> tuple[str, ...]:
        """The heads this model has."""
        return () if self.sequence is None else ("sequence",)


class ReadsTexts:
    """What a model that looks at images says of texts: what its part for them says."""

    text: Any

    @property
    def stem(self) -> TokenStemConfig:
        """What reads texts."""
        stem: TokenStemConfig = self.text.stem
        return stem

    @property
    def stack(self) -> StackConfig:
        """The stack of that part."""
        stack: StackConfig = self.text.stack
        return stack

    @property
    def max_length(self) -> int:
        """Tokens, and vectors of images among them, in the longest sequence this model can read."""
        return int(self.text.max_length)


@dataclass(frozen=True)
class DualEncoderConfig(ReadsTexts, Checked):
    """A tower for images and a tower for texts, whose vectors are compared (Radford et al., 2021)."""

    image: ImageEncoderConfig
    text: EncoderConfig | DecoderConfig
    projection_size: int
    """Width of the space in which both meet."""
    text_vector: TextVector = "end"
    end_token_id: int | None = None
    """The first one ends a text; ``None``: the token with the largest number does."""
    text_length: int | None = None
    """Every text is filled up to so many tokens with the stem's padding, which counts; ``None``: none is."""
    image_projection: bool = True
    """``False``: the image tower's pooled vector is in that space already."""
    text_bias: bool = False
    """The text tower's projection has a bias."""
    logit_bias: bool = False
    """Each pair is judged alone, by a sigmoid, with a bias that is learnt (Zhai et al., 2023)."""

    @property
    def head_names(self) -> tuple[str, ...]:
        """The heads this model has: none."""
        return ()


@dataclass(frozen=True)
class MultimodalConfig(ReadsTexts, Checked):
    """A decoder of sequences in which images stand among words: each vector of an image tower, mapped into the
    decoder's space, takes the place of a token (Liu et al., 2023). It may write images as well, in tokens of a codec.
    """

    image: ImageEncoderConfig
    text: DecoderConfig
    image_token_id: int
    """What stands in a text for each vector of an image."""
    image_blocks: int | None
    """Of the image tower; the vectors after so many blocks are read. ``None``: after all, and the final norm."""
    class_vector: bool = False
    """The class token's vector is read as well as the patches'."""
    maps: int = 2
    """Between the tower and the decoder."""
    activation: Activation = "gelu"
    """Between those maps."""
    bias: bool = True
    """Those maps have biases."""
    drawing: DrawingConfig | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_blocks is not None and not 0 < self.image_blocks <= self.image.stack.num_layers:
            raise UsageError(
                f"vectors are read after {self.image_blocks} blocks; the image tower has {self.image.stack.num_layers}"
            )
        if not self.maps:
            raise UsageError("MultimodalConfig.maps is 0; at least one leads from the image tower to the decoder")
        if self.text.stem.positions is not None:
            raise UsageError("the decoder adds positions to tokens, which images would lack; it must have rotary ones")
        if self.image_token_id >= self.text.stem.vocabulary_size:
            raise UsageError(
                f"images stand at token {self.image_token_id}; the decoder has {self.text.stem.vocabulary_size}"
            )

    @property
    def first_drawn_id(self) -> int:
        """The id of the first token of drawings, which follow those of words."""
        return self.text.stem.vocabulary_size

    @property
    def first_seen_id(self) -> int:
        """The id of the first vector of images, which follow those of words and drawings."""
        return self.first_drawn_id + (0 if self.drawing is None else self.drawing.codec.num_codes)

    @property
    def head_names(self) -> tuple[str, ...]:
        """The heads this model has."""
        return self.text.head_names


@dataclass(frozen=True)
class CaptionerConfig(Checked):
    """A model that looks at an image and writes a text: a causal stack that attends to all vectors of an image tower
    (Li et al., 2022, BLIP)."""

    image: ImageEncoderConfig
    decoder_stem: TokenStemConfig
    decoder_stack: StackConfig
    start_token_id: int
    """What a text begins with."""
    end_token_id: int
    """What it ends with."""
    language_model: MaskedTokenHeadConfig | None = None
    """What says the next token; of the shape that BERT's says a hidden one with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decoder_stack.memory_size != self.image.stack.hidden_size:
            raise UsageError(
                f"the decoder attends to vectors of {self.decoder_stack.memory_size}, the image tower gives "
                f"{self.image.stack.hidden_size}"
            )
        if max(self.start_token_id, self.end_token_id) >= self.decoder_stem.vocabulary_size:
            raise UsageError(
                f"texts begin with token {self.start_token_id} and end with {self.end_token_id}; the decoder has "
                f"{self.decoder_stem.vocabulary_size}"
            )

    @property
    def stem(self) -> TokenStemConfig:
        """What reads texts."""
        return self.decoder_stem

    @property
    def stack(self) -> StackConfig:
        """What writes them."""
        return self.decoder_stack

    @property
    def max_length(self) -> int:
        """Tokens in the longest text this model can write, its first one among them."""
        return _max_length(self.decoder_stem, self.decoder_stack)

    @property
    def max_written(self) -> int:
        """The same, by the name that it has of what reads one text and writes another."""
        return self.max_length

    @property
    def head_names(self) -> tuple[str, ...]:
        """The heads this model has."""
        return () if self.language_model is None else ("language_model",)


def num_layers(config: ModelConfig) -> dict[str, int]:
    """How many blocks the stacks of a model have, by the prefix of their parameters."""
    if isinstance(config, EncoderDecoderConfig):
        return {"encoder.": config.encoder_stack.num_layers, "decoder.": config.decoder_stack.num_layers}
    if isinstance(config, DualEncoderConfig | MultimodalConfig):
        return {"image.": config.image.stack.num_layers, "text.": config.text.stack.num_layers}
    if isinstance(config, ImageCodecConfig):
        return {}
    if isinstance(config, CaptionerConfig):
        return {"image.": config.image.stack.num_layers, "decoder.": config.decoder_stack.num_layers}
    return {"": config.stack.num_layers}


def learned_positions(stem: TokenStemConfig) -> LearnedPositions:
    """The position table of a family that has one. Raises ``UsageError`` where there is none."""
    if not isinstance(stem.positions, LearnedPositions):
        raise UsageError("this model has no table of positions; it can't be saved as a family that needs one")
    return stem.positions


def _max_length(stem: TokenStemConfig, stack: StackConfig) -> int:
    positions = stem.positions or stack.rotary or stack.relative
    if positions is None:
        raise UsageError("neither the stem nor the stack places tokens; a model needs positions")
    return positions.max_length


ENCODER_HEADS = ("masked_token", "next_sentence", "sequence", "token", "span")
LanguageConfig = EncoderConfig | DecoderConfig | EncoderDecoderConfig
"""What reads tokens, and nothing else."""
StackedConfig = LanguageConfig | ImageEncoderConfig | DualEncoderConfig | MultimodalConfig | CaptionerConfig
"""What is made of stacks."""
ModelConfig = StackedConfig | ImageCodecConfig
