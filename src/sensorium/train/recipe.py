"""Recipes: one TOML file a run, checked against a schema before anything is loaded.

sensorium train recipes/topics.toml train.epochs=3 data.train=my.csv
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sensorium.errors import UsageError, nearest
from sensorium.storage import read_text
from sensorium.train.kinds import (
    CAPTIONERS,
    CODECS,
    DECODERS,
    DRAWERS,
    DUAL_ENCODERS,
    ENCODER_DECODERS,
    LEARNERS,
    LLAMAS,
    LOOKING,
    READERS_OF_IMAGES,
    TAUGHT,
    WRITERS,
)
from sensorium.train.overrides import apply_override


class Section(BaseModel):
    """A table of a recipe: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(Section):
    """``open`` a checkpoint, or give sizes for a new model of a family."""

    open: str | None = None
    """Folder or hub id to start from."""
    family: Literal[
        "bert", "roberta", "distilbert", "gpt2", "llama", "mistral", "qwen2", "qwen3", "marian", "bart", "clip",
        "siglip", "vit", "llava", "janus", "janus_vqgan", "blip",
    ] = "bert"  # fmt: skip
    hidden_size: Annotated[int, Field(gt=0)] = 256
    num_layers: Annotated[int, Field(gt=0)] = 4
    num_heads: Annotated[int, Field(gt=0)] = 4
    mlp_size: Annotated[int | None, Field(gt=0)] = None
    """``None``: four times the hidden size; 8/3 of it for a gated MLP, which has three matrices and not two."""
    decoder_layers: Annotated[int | None, Field(gt=0)] = None
    """Of an encoder–decoder, whose encoder (or image tower) has ``num_layers``, or of a llava; ``None``: as many."""
    num_kv_heads: Annotated[int | None, Field(gt=0)] = None
    """Of a Llama or a family like it; ``None``: as many as heads."""
    rotary_base: Annotated[float, Field(gt=1.0)] = 10_000.0
    tied: bool = True
    """The token table of a Llama or a family like it is its vocabulary matrix as well."""
    max_length: Annotated[int, Field(gt=2)] = 512
    image_size: Annotated[int, Field(gt=0)] = 64
    """Side of the images, in pixels, of a model that matches them with texts; its two towers have the sizes above."""
    patch_size: Annotated[int, Field(gt=0)] = 8
    projection_size: Annotated[int | None, Field(gt=0)] = None
    """Of the space in which images and texts meet; ``None``: the hidden size."""
    text: str | None = None
    """Folder or hub id of a language model that reads the texts, beside a new ``vit`` that looks at the images."""
    image: str | None = None
    """Folder or hub id of a model with an image tower of the sizes above, which that ``vit`` begins as."""
    codec: str | None = None
    """Folder or hub id of the codec whose tokens a new ``janus`` draws; its image and patch sizes are the codec's."""
    channels: list[Annotated[int, Field(gt=0)]] = [64, 64, 64, 64]
    """Of each level of a new codec, the finest first; each but the last halves the sides of an image. They are
    normalised in 32 groups: where there are but 32, an even ground leaves no trace."""
    num_blocks: Annotated[int, Field(ge=0)] = 0
    """On each level of a new codec; on the way back, one more."""
    num_codes: Annotated[int, Field(gt=1)] = 512
    code_size: Annotated[int, Field(gt=0)] = 8


class TokenizerSection(Section):
    """``open`` one, or train one on the training texts; neither: the model's own."""

    open: str | None = None
    train: Literal["wordpiece", "byte_level_bpe", "bpe", "unigram"] | None = None
    """``bpe`` and ``unigram`` are pieces of raw text, as SentencePiece's: for encoder–decoders."""
    vocabulary_size: Annotated[int, Field(gt=300)] = 16_000
    lowercase: bool | None = None
    """``None``: WordPiece does, others don't."""


class DataSection(Section):
    """Where the records come from."""

    train: str | list[str]
    """Files, or corpora by name: ``corpus:wikipedia``."""
    validation: str | list[str] | None = None
    validation_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the training records held out, when no validation file is given; equal texts stay together."""
    text: str = "text"
    label: str = "label"
    pair: str | None = None
    target: str = "target"
    """The field that is to be written, of records for ``seq2seq`` and ``answering``."""
    image: str = "image"
    """The field with an image's file, of records with images; from the folder of the records' own file."""
    source_language: str | None = None
    """What a translator reads, such as ``en``: it is saved with the tokenizer, and another pair is refused."""
    target_language: str | None = None
    limit: Annotated[int | None, Field(gt=0)] = None
    """Read at most so many records."""
    exclude: list[str] = []
    """Files or corpora whose texts (normalised) are removed from the training records."""


class ObjectiveSection(Section):
    """What to learn; each kind reads the keys it knows."""

    kind: Literal[
        "masked_token",
        "causal",
        "conversation",
        "sequence",
        "token",
        "span",
        "seq2seq",
        "denoising",
        "contrastive",
        "answering",
        "codec",
        "drawing",
        "captioning",
    ]
    max_length: Annotated[int, Field(gt=2)] = 128
    max_target_length: Annotated[int | None, Field(gt=2)] = None
    """Tokens of what is to be written; ``None``: ``max_length``."""
    chat_template: str | None = None
    """File with the template that conversations are written by; ``None``: the opened model's."""
    probability: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    """Share of the tokens that are hidden."""
    span_length: Annotated[float, Field(ge=1.0)] = 3.0
    """Mean of the tokens that one mask hides (denoising)."""
    unit: Literal["token", "word"] = "token"
    sentences: Literal["none", "next", "order"] = "none"
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    head_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    bpe_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of a BPE tokenizer's merges left out at random while training."""
    r_drop: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of the agreement of two readings under different dropout."""
    stride: Annotated[int | None, Field(gt=0)] = None
    """Tokens that the windows of a long context share; ``None``: a quarter of ``max_length``."""
    chunk: Annotated[int | None, Field(gt=0)] = None
    """Pairs of an image and a text that go through the towers at a time; ``None``: all of a batch."""
    crop: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Smallest share of an image that a crop keeps, drawn anew each time it is seen; 1: images stay whole."""
    recolour: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of the images that are shown in other colours."""
    colour_words: tuple[str, ...] = ()
    """Words that are hidden from what draws beside an image in other colours; none: all words are."""
    use: Annotated[float, Field(ge=0.0)] = 0.001
    """Weight of the even use of a codec's codes."""
    perceptual: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of what a codec's own levels see otherwise in what it gives back."""
    caption_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Share of the captions that are hidden, so that a drawing can be guided away from what no caption would give."""
    word_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the words of other captions that are hidden, so that each is learnt apart from those beside it."""
    mirror: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of the times an image is shown left for right."""
    shift: Annotated[int, Field(ge=0)] = 0
    """Pixels by which an image is moved at most, drawn anew each time it is seen (answering)."""
    questions: Annotated[int, Field(gt=0)] = 8
    """About one image that are asked at one look at it, at most: together they are an example (answering)."""


class LoRASection(Section):
    """Learn only a small difference to some linear maps of an opened model (Hu et al., 2021)."""

    rank: Annotated[int, Field(gt=0)] = 8
    alpha: Annotated[float, Field(gt=0.0)] = 16.0
    """The difference is multiplied by alpha / rank."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    targets: list[str] = []
    """Published names of linear maps, such as ``q_proj``; none: all maps of the blocks."""
    merge: bool = False
    """Save a whole model with the difference in its weights; else an adapter, which names the model it is for."""


class DistillationSection(Section):
    """Learn from another model's distributions as well (Hinton et al., 2015)."""

    teacher: str
    """Folder or hub id."""
    temperature: Annotated[float, Field(gt=0.0)] = 2.0
    share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Of the loss that is the teacher's; the rest is the data's."""


class TrainSection(Section):
    """The loop and the optimiser; see ``LoopSettings`` and ``OptimizerSettings`` for what each key does."""

    output: str
    epochs: Annotated[int, Field(gt=0)] = 1
    steps: Annotated[int | None, Field(gt=0)] = None
    batch_tokens: Annotated[int | None, Field(gt=0)] = None
    batch_size: Annotated[int | None, Field(gt=0)] = None
    accumulation: Annotated[int, Field(gt=0)] = 1
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    seed: Annotated[int, Field(ge=0)] = 0
    validate_every: Annotated[int | None, Field(gt=0)] = None
    checkpoint_every: Annotated[int | None, Field(gt=0)] = None
    patience: Annotated[int | None, Field(gt=0)] = None
    monitor: Literal["loss", "accuracy"] = "loss"
    average_from: Annotated[float | None, Field(ge=0.0, lt=1.0)] = None
    dropout: Annotated[float | None, Field(ge=0.0, lt=1.0)] = None
    attention_dropout: Annotated[float | None, Field(ge=0.0, lt=1.0)] = None
    log_every: Annotated[int, Field(gt=0)] = 10
    tensorboard: bool = False
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    betas: Annotated[list[float], Field(min_length=2, max_length=2)] = [0.9, 0.98]
    epsilon: Annotated[float, Field(gt=0.0)] = 1e-8
    clip: Annotated[float, Field(ge=0.0)] = 1.0
    schedule: Literal["cosine", "linear", "constant", "inverse_sqrt"] = "linear"
    warmup: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    warmup_steps: Annotated[int | None, Field(ge=0)] = None
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    head_factor: Annotated[float, Field(gt=0.0)] = 1.0
    rates: dict[str, Annotated[float, Field(gt=0.0)]] = {}
    freeze: list[str] = []


class Recipe(Section):
    """A whole run."""

    model: ModelSection = ModelSection()
    tokenizer: TokenizerSection = TokenizerSection()
    data: DataSection
    objective: ObjectiveSection
    train: TrainSection
    lora: LoRASection | None = None
    """``None``: all weights learn."""
    distillation: DistillationSection | None = None
    """``None``: from the data alone."""


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe; ``overrides`` are ``section.key=value`` with TOML values (bare words are texts).

    Raises ``UsageError`` naming the file, the key and the nearest known one.
    """
    text = read_text(path, error=UsageError)
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error
    for override in overrides:
        apply_override(tables, override)
    return check_recipe(tables, where=str(path))


def check_recipe(tables: dict[str, Any], *, where: str) -> Recipe:
    """Check the tables of a recipe. Raises ``UsageError`` with the first thing that is wrong."""
    try:
        recipe = Recipe.model_validate(tables)
    except ValidationError as error:
        raise UsageError(f"{where}: {_first_problem(error)}") from error
    if problem := _contradiction(recipe):
        raise UsageError(f"{where}: {problem}")
    return recipe


READ_BY = {
    "masked_token": {"probability", "unit", "sentences"},
    "denoising": {"probability", "span_length"},
    "causal": set[str](),
    "conversation": {"chat_template"},
    "sequence": {"label_smoothing", "head_dropout"},
    "token": {"label_smoothing", "head_dropout"},
    "span": {"stride"},
    "seq2seq": {"bpe_dropout", "label_smoothing", "max_target_length", "r_drop"},
    "contrastive": {"chunk", "crop"},
    "answering": {"crop", "shift", "questions"},
    "codec": {"perceptual", "crop", "recolour", "use"},
    "drawing": {"caption_dropout", "word_dropout", "recolour", "colour_words", "shift", "mirror"},
    "captioning": {"label_smoothing", "crop", "mirror"},
}
"""The keys of ``[objective]`` that each kind reads, beside ``max_length``."""


def _contradiction(recipe: Recipe) -> str | None:
    """What two settings of a recipe cannot both mean."""
    chosen, train, family = recipe.objective, recipe.train, recipe.model.family
    if train.batch_tokens is None and train.batch_size is None:
        return "train needs batch_tokens, batch_size, or both"
    for key in sorted(set[str]().union(*READ_BY.values()) - READ_BY[chosen.kind]):
        if getattr(chosen, key) != type(chosen).model_fields[key].default:
            return f"objective.{key}: training of the kind {chosen.kind!r} does not read it"
    languages = recipe.data.source_language, recipe.data.target_language
    if any(languages) and (not all(languages) or chosen.kind != "seq2seq"):
        return "data.source_language, data.target_language: a translator (seq2seq) has both; others have none"
    if train.patience is not None and recipe.data.validation is None and not recipe.data.validation_share:
        return "train.patience: needs data to validate on; set data.validation or data.validation_share"
    if train.layer_decay != 1.0 and chosen.kind == "contrastive":
        return "train.layer_decay: two towers stand side by side, none above the other; train.rates slows one down"
    if recipe.lora is not None and recipe.model.open is None:
        return "lora: a difference is learnt to a model that is opened; set model.open"
    if recipe.lora is not None and chosen.kind not in WRITERS:
        return f"lora: {chosen.kind!r} trains a new head, which an adapter does not hold; it is for {_any_of(WRITERS)}"
    if recipe.distillation is not None and chosen.kind not in TAUGHT:
        return f"distillation: it is for {_any_of(TAUGHT)}, not for {chosen.kind!r}"
    if recipe.model.open is not None:
        return None
    if family not in LEARNERS[chosen.kind]:
        return (
            f"model.family: {chosen.kind!r} trains a model of the family {_any_of(LEARNERS[chosen.kind])}, not {family}"
        )
    if chosen.sentences != "none" and family != "bert":
        return f"objective.sentences: a model of the family {family} has no head for it; bert has"
    return _unread(recipe)


def _any_of(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _unread(recipe: Recipe) -> str | None:
    """A key that means nothing for a new model of the family, or for the tokenizer."""
    model, tokenizer = recipe.model, recipe.tokenizer
    learnt = tokenizer.train if tokenizer.open is None else None
    for key, families in {
        "decoder_layers": (*ENCODER_DECODERS, *CAPTIONERS, "llava"), "num_kv_heads": LLAMAS, "rotary_base": LLAMAS,
        "tied": LLAMAS, "image_size": LOOKING, "patch_size": LOOKING,
        "projection_size": DUAL_ENCODERS, "codec": DRAWERS, "channels": CODECS, "num_blocks": CODECS,
        "num_codes": CODECS, "code_size": CODECS,
    }.items():  # fmt: skip
        if getattr(model, key) != ModelSection.model_fields[key].default and model.family not in families:
            return f"model.{key}: a new {model.family} model does not have it; {', '.join(families)} do"
    heads, shared = model.num_heads, model.num_kv_heads or model.num_heads
    if model.hidden_size % heads or heads % shared:
        return (
            f"model.num_heads: {heads} heads must divide the hidden size {model.hidden_size}, and be a multiple of "
            f"num_kv_heads {shared}"
        )
    if model.family in LOOKING and model.image_size % model.patch_size:
        return f"model.image_size: {model.image_size} is no multiple of patch_size {model.patch_size}"
    if (model.family == "vit") != (model.text is not None):
        return (
            "model.text: a new vit looks at images, and needs a model that reads the texts; no other family takes one"
        )
    if model.image is not None and model.text is None:
        return f"model.image: a new {model.family} model begins as no other; vit does, beside model.text"
    if model.text is not None and (tokenizer.open is not None or tokenizer.train is not None):
        return "tokenizer: the model that reads the texts (model.text) has its own"
    if problem := _unread_by_codecs(model):
        return problem
    if model.family == "siglip" and model.projection_size not in (None, model.hidden_size):
        return f"model.projection_size: a siglip model projects no images; it is the hidden size {model.hidden_size}"
    if learnt in ("bpe", "unigram") and model.family not in ENCODER_DECODERS:
        return f"tokenizer.train: {learnt!r} is for {' and '.join(ENCODER_DECODERS)}, not for {model.family}"
    if learnt == "wordpiece" and model.family in (*DECODERS, *ENCODER_DECODERS, *READERS_OF_IMAGES):
        return f"tokenizer.train: 'wordpiece' has no end token, which a model that writes needs, as {model.family} does"
    return None


def _unread_by_codecs(model: ModelSection) -> str | None:
    """What does not fit of a codec, or of a model that draws with one."""
    if model.family in DRAWERS and model.codec is None:
        return f"model.codec: a new {model.family} draws in the tokens of a codec; train one first (kind = 'codec')"
    sides = 2 ** (len(model.channels) - 1)
    if model.family in CODECS and model.patch_size != sides:
        return f"model.patch_size: {len(model.channels)} levels of channels make it {sides}, not {model.patch_size}"
    return None


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        *sections, key = problem["loc"]
        known = _fields(sections)
        return f"{place}: there is no such key{nearest(str(key), known)}; known are {', '.join(known)}"
    if problem["type"] == "missing":
        return f"{place}: is missing"
    return f"{place}: {problem['msg'][:1].lower()}{problem['msg'][1:]}, not {problem['input']!r}"


def _fields(sections: Sequence[Any]) -> list[str]:
    schema: Any = Recipe
    for section in sections:
        kind = schema.model_fields[section].annotation
        schema = next(
            (part for part in get_args(kind) if part is not NoneType), kind
        )  # of a section that may be absent
    return list(schema.model_fields)
