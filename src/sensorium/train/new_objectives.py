"""The objective of a run, from its recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sensorium.checkpoint import Checkpoint, open_checkpoint
from sensorium.config import CaptionerConfig, EncoderDecoderConfig, ImageCodecConfig, PatchStemConfig
from sensorium.errors import DataError, UsageError
from sensorium.image.settings import ImageSettings
from sensorium.models.captioner import Captioner
from sensorium.models.dual_encoder import DualEncoder
from sensorium.models.image_codec import ImageCodec
from sensorium.models.multimodal import MultimodalLM
from sensorium.objectives._base import Objective
from sensorium.objectives.answering import Answering
from sensorium.objectives.captioning import Captioning
from sensorium.objectives.causal import CausalLanguageModel
from sensorium.objectives.coding import Coding
from sensorium.objectives.contrastive import Contrastive
from sensorium.objectives.conversation import Conversation
from sensorium.objectives.denoising import Denoising
from sensorium.objectives.drawing import Drawing
from sensorium.objectives.masked_token import MaskedToken
from sensorium.objectives.mixture import Mixture
from sensorium.objectives.seq2seq import SequenceToSequence
from sensorium.objectives.sequence import SequenceClassification
from sensorium.objectives.span import SpanAnswering
from sensorium.objectives.token import TokenClassification, record_tags
from sensorium.storage import read_text
from sensorium.text import Tokenizer
from sensorium.text.chat import MAX_TEMPLATE_BYTES
from sensorium.train.kinds import LOOKING_KINDS, TWO_TEXTS
from sensorium.train.new_models import new_codec_config, new_image_settings, start_token_id
from sensorium.train.recipe import Recipe

Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Eyes:
    """What a model that looks at images does with them."""

    images: ImageSettings
    """How they are made ready."""
    stem: PatchStemConfig | None = None
    """How they are cut into patches."""
    codec: ImageCodec | ImageCodecConfig | None = None
    """What makes tokens of them; its config where it is what learns."""


def make_objective(
    recipe: Recipe,
    train: Records,
    family: str,
    *,
    start_token_id: int | None = None,
    chat_template: str | None = None,
    eyes: Eyes | None = None,
) -> Objective:
    """The objective a recipe names; labels are those of the training records, in order.

    ``start_token_id`` is what a model that reads one text and writes another begins with, ``chat_template`` what writes
    conversations, ``eyes`` how images are made ready and cut: each for the objective that needs it.
    """
    chosen = recipe.objective
    if eyes is not None:
        asks = chosen.kind == "drawing" and any(record.get("target") is not None for record in train)
        looking = _looking_objective(recipe, eyes, chosen.kind, start_token_id)
        return Mixture(_looking_objective(recipe, eyes, "answering", None), looking) if asks else looking
    if chosen.kind == "seq2seq":
        assert start_token_id is not None
        most = chosen.max_target_length or chosen.max_length
        return SequenceToSequence(
            start_token_id, chosen.max_length, most, chosen.label_smoothing, chosen.bpe_dropout, chosen.r_drop
        )
    if chosen.kind == "denoising":
        assert start_token_id is not None
        return Denoising(start_token_id, chosen.max_length, chosen.probability, chosen.span_length)
    if chosen.kind == "masked_token":
        return MaskedToken(chosen.max_length, chosen.probability, chosen.unit, chosen.sentences)
    if chosen.kind == "causal":
        return CausalLanguageModel(chosen.max_length)
    if chosen.kind == "conversation":
        assert chat_template is not None
        return Conversation(chat_template, chosen.max_length)
    if chosen.kind == "span":
        return SpanAnswering(chosen.max_length, chosen.stride or chosen.max_length // 4)
    if chosen.kind == "token":
        tags = set[str]().union(*(record_tags(record) for record in train))
        return TokenClassification(_some(tags, "tags"), chosen.max_length, chosen.label_smoothing, chosen.head_dropout)
    labels = {str(record["label"]) for record in train if record.get("label") not in (None, "")}
    dense = {"roberta": "tanh", "xlm-roberta": "tanh", "distilbert": "relu"}.get(family)
    return SequenceClassification(
        _some(labels, "label"), chosen.max_length, chosen.label_smoothing, chosen.head_dropout, dense
    )


def _looking_objective(recipe: Recipe, eyes: Eyes, kind: str, start_token_id: int | None) -> Objective:
    chosen = recipe.objective
    if kind == "codec":
        assert isinstance(eyes.codec, ImageCodecConfig)
        return Coding(eyes.images, eyes.codec, chosen.use, chosen.perceptual, chosen.crop, chosen.recolour)
    if kind == "drawing":
        assert isinstance(eyes.codec, ImageCodec)
        return Drawing(
            eyes.images, eyes.codec, chosen.max_length, chosen.caption_dropout, chosen.word_dropout, chosen.recolour,
            chosen.colour_words, chosen.shift, chosen.mirror,
        )  # fmt: skip
    assert eyes.stem is not None
    if kind == "answering":
        return Answering(eyes.images, eyes.stem, chosen.max_length, chosen.questions, chosen.crop, chosen.shift)
    if kind == "captioning":
        assert start_token_id is not None
        how = (chosen.label_smoothing, chosen.crop, chosen.mirror)
        return Captioning(eyes.images, eyes.stem, start_token_id, chosen.max_length, *how)
    return Contrastive(eyes.images, eyes.stem, chosen.max_length, chosen.chunk, chosen.crop)


def _some(labels: set[str], name: str) -> tuple[str, ...]:
    if len(labels) < 2:
        raise DataError(
            f"the training records have {len(labels)} different values of {name!r}; at least two are needed"
        )
    return tuple(sorted(labels))


def chat_template(recipe: Recipe, source: Checkpoint | None) -> str | None:
    """The recipe's own, or the opened model's. Raises ``UsageError`` where conversations need one and there is none."""
    path = recipe.objective.chat_template
    if path is not None:
        return read_text(path, max_bytes=MAX_TEMPLATE_BYTES, error=UsageError)
    if recipe.objective.kind != "conversation":
        return None if source is None else source.chat_template
    if source is None:
        raise UsageError("objective.chat_template: a new model has no template of its own; name a file that holds one")
    return source.require_chat_template()


def first_token_id(recipe: Recipe, source: Checkpoint | None, tokenizer: Tokenizer | None) -> int | None:
    """What a decoder beside an encoder begins with; ``None`` where the objective needs none."""
    if recipe.objective.kind not in (*TWO_TEXTS, "captioning"):
        return None
    if source is None:
        assert tokenizer is not None
        return start_token_id(tokenizer, recipe.model.family)
    config = source.config
    return config.start_token_id if isinstance(config, EncoderDecoderConfig | CaptionerConfig) else None


def eyes_of(recipe: Recipe, source: Checkpoint | None) -> Eyes | None:
    """How images are made ready and cut, for a model that looks at them. Raises ``UsageError`` where ``model.codec``
    names a model that is none.
    """
    if recipe.objective.kind not in LOOKING_KINDS:
        return None
    if source is not None:
        return _opened_eyes(source)
    sizes = recipe.model
    if sizes.family == "janus_vqgan":
        return Eyes(new_image_settings(sizes), codec=new_codec_config(sizes))
    patches = PatchStemConfig(
        sizes.hidden_size, sizes.image_size, sizes.patch_size, class_token=sizes.family not in ("siglip", "janus")
    )
    if sizes.codec is None:
        return Eyes(new_image_settings(sizes), patches)
    opened = open_checkpoint(sizes.codec)
    if not isinstance(opened.model, ImageCodec):
        raise UsageError(f"model.codec: {sizes.codec} is a {opened.family} model, and no codec of images")
    return Eyes(opened.require_image_settings(), patches, opened.model)


def _opened_eyes(source: Checkpoint) -> Eyes:
    images, model = source.require_image_settings(), source.model
    if isinstance(model, ImageCodec):
        return Eyes(images, codec=model.config)
    assert isinstance(model, DualEncoder | MultimodalLM | Captioner)  # check_kind has seen to it
    drawing = model.drawing if isinstance(model, MultimodalLM) else None
    return Eyes(images, model.config.image.stem, None if drawing is None else drawing.codec)
