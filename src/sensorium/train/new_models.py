"""The config of a new model, from the sizes in a recipe: one function for each kind of family."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sensorium.checkpoint import Checkpoint
from sensorium.config import (
    CaptionerConfig,
    DecoderConfig,
    DrawingConfig,
    DualEncoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    ImageCodecConfig,
    ImageEncoderConfig,
    LanguageModelHeadConfig,
    LearnedPositions,
    MaskedTokenHeadConfig,
    ModelConfig,
    MultimodalConfig,
    PatchStemConfig,
    ProbePoolerConfig,
    RotaryPositions,
    SinusoidalPositions,
    StackConfig,
    TokenStemConfig,
)
from sensorium.errors import CheckpointError, UsageError
from sensorium.families.bart import FIRST_ROW
from sensorium.image.settings import ImageSettings, mean_colour
from sensorium.models.build import Model, new_model
from sensorium.models.decoder import DecoderLM
from sensorium.models.dual_encoder import DualEncoder
from sensorium.models.encoder import EncoderLM
from sensorium.models.image_encoder import ImageEncoder
from sensorium.models.multimodal import MultimodalLM
from sensorium.objectives.captioning import end_of_captions
from sensorium.sentence import SentenceSettings
from sensorium.text import Tokenizer
from sensorium.text.asking import IMAGE
from sensorium.text.drawing import BEGIN, begin_id
from sensorium.towers import TEXT_VECTORS, headless
from sensorium.train.kinds import DUAL_ENCODERS, ENCODER_DECODERS, MODERN_DECODERS
from sensorium.train.recipe import ModelSection

DROPOUT = 0.1
"""Of a new model, until ``train.dropout`` says otherwise."""


def new_config(
    sizes: ModelSection, heads: dict[str, Any], tokenizer: Tokenizer, codec: ImageCodecConfig | None = None
) -> ModelConfig:
    """The config of a new model of the family that ``sizes`` names, with an objective's heads, or one that draws in the
    tokens of a codec.
    """
    if sizes.family == "janus":
        assert codec is not None
        return _janus(sizes, tokenizer, codec)
    if sizes.family in ENCODER_DECODERS:
        return _encoder_decoder(sizes, tokenizer)
    if sizes.family in MODERN_DECODERS:
        return _modern_decoder(sizes, tokenizer)
    if sizes.family == "llava":
        return _llava(sizes, tokenizer)
    if sizes.family == "blip":
        return _blip(sizes, tokenizer)
    if sizes.family in DUAL_ENCODERS:
        return (_clip if sizes.family == "clip" else _siglip)(sizes, tokenizer)
    return _gpt2(sizes, heads, tokenizer) if sizes.family == "gpt2" else _encoder(sizes, heads, tokenizer)


def start_token_id(tokenizer: Tokenizer, family: str) -> int:
    """What a new decoder begins with: padding, as Marian's, or the end token, as BART's; as BLIP's, a token of its own
    behind all that the tokenizer has. Raises ``UsageError``.
    """
    if family == "blip":
        return tokenizer.vocabulary_size
    start = tokenizer.eos_id if family == "bart" else tokenizer.pad_id
    if start is None:
        raise UsageError(f"a new {family} model needs a tokenizer with an end token and a padding token")
    return start


def _encoder(sizes: ModelSection, heads: dict[str, Any], tokenizer: Tokenizer) -> EncoderConfig:
    """BERT, RoBERTa or DistilBERT."""
    offset = (tokenizer.pad_id or 0) + 1 if sizes.family == "roberta" else 0
    stem = replace(
        _stem(sizes, tokenizer),
        positions=LearnedPositions(sizes.max_length + offset, offset),
        num_segments={"bert": 2, "roberta": 1}.get(sizes.family, 0),
        norm_eps=1e-12,
    )
    return EncoderConfig(stem, _stack(sizes, sizes.num_layers)).with_heads(**heads)


def _gpt2(sizes: ModelSection, heads: dict[str, Any], tokenizer: Tokenizer) -> DecoderConfig:
    stem = replace(_stem(sizes, tokenizer), positions=LearnedPositions(sizes.max_length))
    stack = replace(
        _stack(sizes, sizes.num_layers), mask="causal", norm_place="pre", norm_eps=1e-5, final_norm=True,
        activation="gelu_tanh",
    )  # fmt: skip
    return DecoderConfig(stem, stack, **heads)


def _modern_decoder(sizes: ModelSection, tokenizer: Tokenizer) -> DecoderConfig:
    """Llama and the families that are settings of it."""
    mlp_size = sizes.mlp_size or 8 * sizes.hidden_size // 3 // 4 * 4  # three matrices as large as two of the usual
    kv_heads = sizes.num_kv_heads or sizes.num_heads
    stack = StackConfig(
        hidden_size=sizes.hidden_size,
        num_layers=sizes.num_layers,
        num_heads=sizes.num_heads,
        mlp_size=mlp_size,
        mask="causal",
        norm_place="pre",
        norm="rms",
        norm_eps=1e-6,
        final_norm=True,
        activation="silu",
        mlp="gated",
        biases=frozenset({"qkv"} if sizes.family == "qwen2" else ()),
        num_kv_heads=None if kv_heads == sizes.num_heads else kv_heads,
        qk_norm=sizes.family == "qwen3",
        rotary=RotaryPositions(sizes.max_length, sizes.rotary_base),
    )
    return DecoderConfig(replace(_stem(sizes, tokenizer), dropout=0.0), stack, LanguageModelHeadConfig(sizes.tied))


def _encoder_decoder(sizes: ModelSection, tokenizer: Tokenizer) -> EncoderDecoderConfig:
    """Marian: sinusoids, scaled tokens, ReLU (Vaswani et al., 2017). BART: learned positions, a norm of tokens."""
    is_bart = sizes.family == "bart"
    positions = (
        LearnedPositions(sizes.max_length + FIRST_ROW, FIRST_ROW) if is_bart else SinusoidalPositions(sizes.max_length)
    )
    stem = replace(_stem(sizes, tokenizer), positions=positions, norm_eps=1e-5 if is_bart else None, scaled=not is_bart)
    encoder = replace(
        _stack(sizes, sizes.num_layers), norm_eps=1e-5, activation="gelu" if is_bart else "relu",
    )  # fmt: skip
    decoder = replace(
        encoder, num_layers=sizes.decoder_layers or sizes.num_layers, mask="causal", memory_size=sizes.hidden_size
    )
    start = start_token_id(tokenizer, sizes.family)
    return EncoderDecoderConfig(stem, encoder, stem, decoder, start, LanguageModelHeadConfig(bias=True))


def _clip(sizes: ModelSection, tokenizer: Tokenizer) -> DualEncoderConfig:
    """A causal tower of texts, whose end token stands for them; a class token stands for an image."""
    tower = replace(_tower(sizes), norm_eps=1e-5)
    stem = replace(_stem(sizes, tokenizer), positions=LearnedPositions(sizes.max_length), dropout=0.0)
    patches = PatchStemConfig(sizes.hidden_size, sizes.image_size, sizes.patch_size, bias=False, norm_eps=1e-5)
    return DualEncoderConfig(
        ImageEncoderConfig(patches, tower),
        DecoderConfig(stem, replace(tower, mask="causal")),
        sizes.projection_size or sizes.hidden_size,
        end_token_id=int(tokenizer.encode("a").token_ids[-1]),
    )


def _llava(sizes: ModelSection, tokenizer: Tokenizer) -> MultimodalConfig:
    """A CLIP's image tower, all of whose blocks are read, and a Llama of the same width."""
    patches = PatchStemConfig(sizes.hidden_size, sizes.image_size, sizes.patch_size, bias=False, norm_eps=1e-5)
    image = ImageEncoderConfig(patches, replace(_tower(sizes), norm_eps=1e-5))
    image_id = tokenizer.backend.token_to_id(IMAGE)
    if image_id is None:
        raise UsageError(f"a new llava model needs a tokenizer with the token {IMAGE!r}; train one")
    decoder_layers = sizes.decoder_layers or sizes.num_layers
    text = _modern_decoder(sizes.model_copy(update={"num_layers": decoder_layers}), tokenizer)
    return MultimodalConfig(image, text, image_token_id=image_id, image_blocks=sizes.num_layers)


def _blip(sizes: ModelSection, tokenizer: Tokenizer) -> CaptionerConfig:
    """A tower with a class token, and BERT's blocks as a decoder that attends to all of its vectors."""
    patches = PatchStemConfig(sizes.hidden_size, sizes.image_size, sizes.patch_size)
    start = start_token_id(tokenizer, sizes.family)
    stem = replace(
        _stem(sizes, tokenizer), vocabulary_size=start + 1, positions=LearnedPositions(sizes.max_length), norm_eps=1e-12
    )
    decoder = replace(
        _stack(sizes, sizes.decoder_layers or sizes.num_layers), mask="causal", memory_size=sizes.hidden_size
    )
    return CaptionerConfig(
        ImageEncoderConfig(patches, replace(_tower(sizes), norm_eps=1e-5)), stem, decoder, start,
        end_of_captions(tokenizer), MaskedTokenHeadConfig(),
    )  # fmt: skip


def _janus(sizes: ModelSection, tokenizer: Tokenizer, codec: ImageCodecConfig) -> MultimodalConfig:
    """A tower of patches as large as the codec's tokens, and a Llama of the same sizes that reads and draws."""
    if (sizes.image_size, sizes.patch_size) != (codec.image_size, codec.patch_size):
        raise UsageError(
            f"model.image_size, model.patch_size are {sizes.image_size}, {sizes.patch_size}; those of model.codec are "
            f"{codec.image_size}, {codec.patch_size}, and a janus sees what it draws"
        )
    patches = PatchStemConfig(sizes.hidden_size, sizes.image_size, sizes.patch_size, class_token=False)
    image = ImageEncoderConfig(patches, replace(_tower(sizes), norm_eps=1e-6))
    image_id = tokenizer.backend.token_to_id(IMAGE)
    if image_id is None or tokenizer.backend.token_to_id(BEGIN) is None:
        raise UsageError(f"a new janus model needs a tokenizer with the tokens {IMAGE!r} and {BEGIN!r}; train one")
    text = _modern_decoder(sizes, tokenizer)
    return MultimodalConfig(image, text, image_token_id=image_id, image_blocks=None, drawing=DrawingConfig(codec))


def new_generation(model: Model, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """What is said of the writing of a new model: of one that draws, the tokens that `transformers` looks for."""
    if not isinstance(model, MultimodalLM) or model.drawing is None or tokenizer is None:
        return {}
    return {"pad_token_id": tokenizer.pad_id, "generation_kwargs": {"boi_token_id": begin_id(tokenizer)}}


def new_codec_config(sizes: ModelSection) -> ImageCodecConfig:
    """The config of a new codec. Raises ``UsageError`` for channels that a codec can't have."""
    first, *_ = sizes.channels
    if any(channels % first for channels in sizes.channels):
        raise UsageError(f"model.channels: {sizes.channels} are no multiples of the first, {first}")
    return ImageCodecConfig(
        grid=sizes.image_size // sizes.patch_size,
        num_codes=sizes.num_codes,
        code_size=sizes.code_size,
        channels=first,
        multipliers=tuple(channels // first for channels in sizes.channels),
        blocks=sizes.num_blocks,
        latent_size=sizes.channels[-1],
    )


def _siglip(sizes: ModelSection, tokenizer: Tokenizer) -> DualEncoderConfig:
    """Texts are filled up, and their last token stands for them; a probe asks the patches of an image."""
    tower = replace(_tower(sizes), norm_eps=1e-6, activation="gelu_tanh")
    if tokenizer.pad_id is None:
        raise UsageError("a new siglip model fills texts up, and the tokenizer has no padding token; train one")
    stem = replace(_stem(sizes, tokenizer), positions=LearnedPositions(sizes.max_length), dropout=0.0)
    patches = PatchStemConfig(sizes.hidden_size, sizes.image_size, sizes.patch_size, class_token=False)
    return DualEncoderConfig(
        ImageEncoderConfig(patches, tower, ProbePoolerConfig()),
        EncoderConfig(stem, tower),
        sizes.hidden_size,
        text_vector="last",
        text_length=sizes.max_length,
        image_projection=False,
        text_bias=True,
        logit_bias=True,
    )


def new_towers(
    sizes: ModelSection, reader: Checkpoint, looker: Checkpoint | None = None, *, seed: int
) -> tuple[DualEncoder, str]:
    """A new ViT beside an opened model that reads texts, without its heads; and what family that is.

    Where there is a ``looker``, the ViT begins as its image tower. Raises ``CheckpointError`` when the reader is no
    encoder or decoder, or the looker has no image tower of the sizes that are asked for.
    """
    text, settings = reader.model, reader.sentence or SentenceSettings()
    if not isinstance(text, EncoderLM | DecoderLM):
        raise CheckpointError(f"{reader.folder}: a {reader.family} model does not read one text and nothing else")
    if settings.pooling not in TEXT_VECTORS:
        raise CheckpointError(f"{reader.folder}: pools by {settings.pooling!r}; known are {', '.join(TEXT_VECTORS)}")
    patches = PatchStemConfig(sizes.hidden_size, sizes.image_size, sizes.patch_size)
    config = DualEncoderConfig(
        ImageEncoderConfig(patches, replace(_tower(sizes), norm_eps=1e-6)),
        headless(text.config),
        sizes.projection_size or sizes.hidden_size,
        text_vector=TEXT_VECTORS[settings.pooling],
    )
    model = new_model(config, seed=seed)
    assert isinstance(model, DualEncoder)
    # What was drawn for this tower is thrown away, so that the image tower begins alike beside any other.
    model.text.load_state_dict({name: text.state_dict()[name] for name in model.text.state_dict()})
    if looker is not None:
        tower = _image_tower(looker, config.image)
        model.image.load_state_dict({name: tower.state_dict()[name] for name in model.image.state_dict()})
    return model, f"{sizes.family}+{reader.family}"


def _image_tower(looker: Checkpoint, wanted: ImageEncoderConfig) -> ImageEncoder:
    """What looks at images in an opened model. Raises ``CheckpointError`` where it is another than is wanted."""
    tower = looker.model.image if isinstance(looker.model, DualEncoder) else looker.model
    if not isinstance(tower, ImageEncoder):
        raise CheckpointError(f"{looker.folder}: a {looker.family} model has no image tower that another begins as")
    found = tower.config
    if (found.stem, found.stack) != (wanted.stem, wanted.stack):
        sizes = [
            (c.stack.num_layers, c.stack.hidden_size, c.stem.image_size, c.stem.patch_size) for c in (found, wanted)
        ]
        layers, size, pixels, patch = sizes[0]
        what = f"{layers} layers of {size} over patches of {patch} of {pixels} pixels"
        raise CheckpointError(f"{looker.folder}: its image tower has {what}, which the recipe does not ask for")
    return tower


def _tower(sizes: ModelSection) -> StackConfig:
    """Pre-norm, without dropout: the other pairs of a batch are noise enough (Radford et al., 2021, §2.3)."""
    plain = _stack(sizes, sizes.num_layers)
    return replace(plain, norm_place="pre", final_norm=True, dropout=0.0, attention_dropout=0.0)


def new_image_settings(sizes: ModelSection) -> ImageSettings:
    """How a new model wants its images: squares of the size that its places are learnt for."""
    plain = ImageSettings(size=(sizes.image_size, sizes.image_size), resample="bicubic")
    on_square = sizes.family in ("janus", "janus_vqgan")  # as what is published for these makes them ready
    return replace(plain, background=mean_colour(plain.mean)) if on_square else plain


def _stem(sizes: ModelSection, tokenizer: Tokenizer) -> TokenStemConfig:
    return TokenStemConfig(
        vocabulary_size=tokenizer.vocabulary_size,
        hidden_size=sizes.hidden_size,
        positions=None,
        dropout=DROPOUT,
        pad_token_id=tokenizer.pad_id,
    )


def _stack(sizes: ModelSection, num_layers: int) -> StackConfig:
    return StackConfig(
        hidden_size=sizes.hidden_size,
        num_layers=num_layers,
        num_heads=sizes.num_heads,
        mlp_size=sizes.mlp_size or 4 * sizes.hidden_size,
        dropout=DROPOUT,
        attention_dropout=DROPOUT,
    )
