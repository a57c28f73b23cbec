"""From a recipe to a saved checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sensorium.adapters import adapt
from sensorium.calibration import Calibration
from sensorium.checkpoint import Checkpoint, check_destination, open_checkpoint, save_adapter, save_checkpoint
from sensorium.config import DualEncoderConfig, EncoderDecoderConfig, MultimodalConfig, PatchStemConfig, SpanHeadConfig
from sensorium.data.corpora import read_corpus
from sensorium.data.records import read_records, texts_of
from sensorium.data.splits import remove_overlap, split_by_text
from sensorium.errors import DataError, UsageError
from sensorium.image.settings import ImageSettings
from sensorium.models.build import Model, new_model
from sensorium.models.image_encoder import ImageEncoder
from sensorium.nn.lora import LoRASettings, merge_lora
from sensorium.objectives._base import Objective
from sensorium.objectives.answering import Answering
from sensorium.objectives.causal import CausalLanguageModel
from sensorium.objectives.contrastive import Contrastive
from sensorium.objectives.conversation import Conversation
from sensorium.objectives.denoising import Denoising
from sensorium.objectives.masked_token import MaskedToken
from sensorium.objectives.seq2seq import SequenceToSequence
from sensorium.objectives.sequence import SequenceClassification
from sensorium.objectives.span import SpanAnswering
from sensorium.objectives.token import TokenClassification, record_tags
from sensorium.storage import atomic_folder, read_text, write_json
from sensorium.text import Tokenizer, open_tokenizer
from sensorium.text.chat import MAX_TEMPLATE_BYTES
from sensorium.text.pieces import train_pieces
from sensorium.text.training import ByteLevel, train_byte_level_bpe, train_wordpiece
from sensorium.train.calibrating import calibrated
from sensorium.train.checks import check_fit, check_heads, check_kind
from sensorium.train.loop import Outcome, Trainer
from sensorium.train.new_models import new_config, new_image_settings, new_towers, start_token_id
from sensorium.train.optim import OptimizerSettings
from sensorium.train.recipe import DECODERS, LEARNERS, LOOKING_KINDS, TWO_TEXTS, Recipe
from sensorium.train.settings import LoopSettings
from sensorium.train.state import fingerprint
from sensorium.train.teaching import taught_by
from sensorium.train.validation import Judge, unsampled

Records = Sequence[Mapping[str, Any]]
CORPUS = "corpus:"
HOLD_OUT = 5_881_000_000
"""What is added to the seed of a run to draw its validation records."""


@dataclass(frozen=True)
class Ready:
    """A recipe made real: everything a run needs."""

    model: Model
    tokenizer: Tokenizer
    family: str
    objective: Objective
    train: Records
    validation: Records | None
    source: Checkpoint | None
    """What the model was opened from."""
    chat_template: str | None
    """What writes its conversations."""
    images: ImageSettings | None
    """How its images are made ready."""


def run_recipe(recipe: Recipe, *, judge: Judge | None = None, resume: bool = False, quiet: bool = False) -> Outcome:
    """Train as a recipe says and save the checkpoint to ``train.output``.

    The training state stands beside it, in ``<output>.training``. ``judge`` gives more scores of every validation, such
    as BLEU of what the model writes by then. Raises ``UsageError`` when a run is there already and ``resume`` was not
    asked for.
    """
    output = Path(recipe.train.output)
    if output.name in ("", ".."):
        raise UsageError(f"train.output: {str(output)!r} is no name for a new folder; give one, such as runs/model")
    folder = output.with_name(output.name + ".training")
    if any(folder.glob("state-*")) and not resume and not output.exists():
        raise UsageError(f"{folder}: holds a run that was interrupted; add --resume to go on, or remove the folder")
    check_destination(output)
    ready = make_ready(recipe, kept=folder / "tokenizer" if resume else None)
    if not resume:
        with atomic_folder(folder / "tokenizer") as temporary:
            ready.tokenizer.save(temporary)
    validation = recipe.data.validation or f"held out of {_listed(recipe.data.train)}"
    trainer = Trainer(
        ready.model,
        ready.objective,
        ready.tokenizer,
        _prepared(ready.objective, ready.tokenizer, ready.train, recipe.data.train),
        None
        if ready.validation is None
        else _prepared(unsampled(ready.objective), ready.tokenizer, ready.validation, validation),
        replace(_take(LoopSettings, recipe), by_length=recipe.objective.kind != "contrastive"),
        _take(OptimizerSettings, recipe),
        folder,
        fingerprint=_fingerprint(recipe, ready),
        judge=judge,
        resume=resume,
        tensorboard=recipe.train.tensorboard,
        quiet=quiet,
    )
    write_json(folder / "recipe.json", recipe.model_dump())
    outcome = trainer.run()
    if outcome.finished:
        _save(recipe, ready, calibrated(ready.model, ready.objective, ready.tokenizer, trainer.validation))
    return outcome


def _save(recipe: Recipe, ready: Ready, calibration: Calibration | None) -> None:
    """The model, or only what it has learnt beside one that was opened."""
    output, source = Path(recipe.train.output), ready.source
    if recipe.lora is not None and not recipe.lora.merge:
        opened = Path(recipe.model.open or "").expanduser()
        base = str(opened.resolve()) if opened.exists() else str(recipe.model.open)  # else a name on the hub
        save_adapter(
            output, ready.model, ready.tokenizer, family=ready.family, base=base, chat_template=ready.chat_template
        )
        return
    merge_lora(ready.model)
    save_checkpoint(
        output,
        ready.model,
        ready.tokenizer,
        family=ready.family,
        sentence=None if source is None else source.sentence,
        generation=None if source is None else source.generation,
        chat_template=ready.chat_template,
        images=ready.images,
        calibration=calibration,
    )


def make_ready(recipe: Recipe, *, kept: Path | None = None) -> Ready:
    """Read the data, open or build the model and the tokenizer.

    ``kept`` is the tokenizer of the run that is resumed: learning it again would order its tokens otherwise.
    """
    train, validation = read_data(recipe)
    source = None if recipe.model.open is None else open_checkpoint(recipe.model.open)
    teacher = None if recipe.distillation is None else open_checkpoint(recipe.distillation.teacher)
    reader = None if recipe.model.text is None else open_checkpoint(recipe.model.text)
    resumed = kept is not None and kept.is_dir()
    tokenizer = open_tokenizer(kept) if resumed else _tokenizer(recipe, source or teacher or reader, train)  # type: ignore[arg-type]
    family = recipe.model.family if source is None else source.family
    if source is not None:
        check_kind(source, recipe.objective.kind)
    template = _chat_template(recipe, source)
    start = _start_token_id(recipe, source, tokenizer)
    looking = _looking(recipe, source)
    objective = make_objective(recipe, train, family, start_token_id=start, chat_template=template, looking=looking)
    model: Model
    if reader is not None:
        model, family = new_towers(recipe.model, reader, seed=recipe.train.seed)
    elif source is None:
        model = new_model(new_config(recipe.model, objective.heads(), tokenizer), seed=recipe.train.seed)
    else:
        # Only heads that are missing, or whose labels differ, are made anew.
        have = source.config
        check_heads(source, objective)
        wanted = {name: head for name, head in objective.heads().items() if not _fits(getattr(have, name, None), head)}
        model = open_checkpoint(source.folder, add_heads=wanted, seed=recipe.train.seed).model
    if recipe.lora is not None:
        chosen = recipe.lora
        settings = LoRASettings(chosen.rank, chosen.alpha, chosen.dropout)
        adapt(model, family, settings, chosen.targets, seed=recipe.train.seed)
    assert not isinstance(model, ImageEncoder)  # check_kind has refused it
    check_fit(model, tokenizer, family, objective, max_length=recipe.objective.max_length)
    if teacher is not None and recipe.distillation is not None:
        objective = taught_by(teacher, objective, tokenizer, recipe.distillation, recipe.train)
    return Ready(
        model, tokenizer, family, objective, train, validation, source, template, looking[0] if looking else None
    )


def read_data(recipe: Recipe) -> tuple[Records, Records | None]:
    """The training and validation records of a recipe. Raises ``DataError`` when there are none."""
    data = recipe.data
    train = _read(data.train, recipe)[: data.limit]
    validation = None if data.validation is None else _read(data.validation, recipe)
    if data.exclude:
        train = remove_overlap(train, _read(data.exclude, recipe))
    if validation is None and data.validation_share:
        # Not the seed itself: were the records once split by it, those it would choose are no longer among them.
        train, validation = split_by_text(train, data.validation_share, seed=HOLD_OUT + recipe.train.seed)
    if not train:
        raise DataError(f"{data.train}: there are no training records")
    if validation is not None and not validation:
        raise DataError(
            f"data.validation_share {data.validation_share} of {len(train):,} records holds out none; "
            "hold out more, or set data.validation"
        )
    return train, validation


def make_objective(
    recipe: Recipe,
    train: Records,
    family: str,
    *,
    start_token_id: int | None = None,
    chat_template: str | None = None,
    looking: tuple[ImageSettings, PatchStemConfig] | None = None,
) -> Objective:
    """The objective a recipe names; labels are those of the training records, in order.

    ``start_token_id`` is what a model that reads one text and writes another begins with, ``chat_template`` what writes
    conversations, ``looking`` how images are made ready and cut: each for the objective that needs it.
    """
    chosen = recipe.objective
    if chosen.kind == "answering":
        assert looking is not None
        return Answering(*looking, chosen.max_length)
    if chosen.kind == "contrastive":
        assert looking is not None
        return Contrastive(*looking, chosen.max_length, chosen.chunk, chosen.crop)
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


# --- details ---------------------------------------------------------------------------------------------------------


def _prepared(objective: Objective, tokenizer: Tokenizer, records: Records, source: str | Sequence[str]) -> Any:
    """Tokenised; what is wrong with a record is said with where it came from."""
    try:
        return objective.prepare(records, tokenizer)
    except DataError as error:
        raise DataError(f"{_listed(source)}: {error}") from error


def _listed(source: str | Sequence[str]) -> str:
    return source if isinstance(source, str) else ", ".join(source)


def _some(labels: set[str], name: str) -> tuple[str, ...]:
    if len(labels) < 2:
        raise DataError(
            f"the training records have {len(labels)} different values of {name!r}; at least two are needed"
        )
    return tuple(sorted(labels))


def _read(sources: str | Sequence[str], recipe: Recipe) -> list[dict[str, Any]]:
    data = recipe.data
    records: list[dict[str, Any]] = []
    for source in [sources] if isinstance(sources, str) else sources:
        if source.startswith(CORPUS):
            records += read_corpus(source.removeprefix(CORPUS))
        else:
            kind = recipe.objective.kind
            target = data.target if kind in ("seq2seq", "answering") else None
            image = data.image if kind in LOOKING_KINDS else None
            records += read_records(
                source, text=data.text, label=data.label, pair=data.pair, target=target, image=image
            )
    return records


def _tokenizer(recipe: Recipe, source: Checkpoint | None, train: Records) -> Tokenizer:
    """The one that the recipe names, with the languages of a translator."""
    tokenizer = _named_tokenizer(recipe, source, train)
    languages = {"source_lang": recipe.data.source_language, "target_lang": recipe.data.target_language}
    tokenizer.config |= {name: language for name, language in languages.items() if language is not None}
    return tokenizer


def _named_tokenizer(recipe: Recipe, source: Checkpoint | None, train: Records) -> Tokenizer:
    section = recipe.tokenizer
    if section.open is not None:
        return open_tokenizer(section.open)
    texts = (text for record in train for text in texts_of(record))
    kind = recipe.objective.kind
    if section.train == "wordpiece":
        pieces: Literal["bert", "clip"] = "clip" if kind == "contrastive" else "bert"
        lowercase = section.lowercase is not False
        return train_wordpiece(texts, section.vocabulary_size, family=pieces, lowercase=lowercase)
    if section.train == "byte_level_bpe":
        # An encoder needs the frame and the mask, whatever it is called.
        encoder_or_decoder: ByteLevel = "gpt2" if LEARNERS[kind] == DECODERS else "roberta"
        own: dict[str, ByteLevel] = {"contrastive": "clip", "answering": "llava"}
        return train_byte_level_bpe(texts, section.vocabulary_size, family=own.get(kind, encoder_or_decoder))
    if section.train is not None:
        return train_pieces(texts, section.vocabulary_size, algorithm=section.train, lowercase=bool(section.lowercase))
    if source is None:
        raise UsageError("a new model needs a tokenizer: set tokenizer.open or tokenizer.train")
    return source.require_tokenizer()


def _chat_template(recipe: Recipe, source: Checkpoint | None) -> str | None:
    """The recipe's own, or the opened model's. Raises ``UsageError`` where conversations need one and there is none."""
    path = recipe.objective.chat_template
    if path is not None:
        return read_text(path, max_bytes=MAX_TEMPLATE_BYTES, error=UsageError)
    if recipe.objective.kind != "conversation":
        return None if source is None else source.chat_template
    if source is None:
        raise UsageError("objective.chat_template: a new model has no template of its own; name a file that holds one")
    return source.require_chat_template()


def _start_token_id(recipe: Recipe, source: Checkpoint | None, tokenizer: Tokenizer) -> int | None:
    """What the decoder of an encoder–decoder begins with; ``None`` where the objective needs none."""
    if recipe.objective.kind not in TWO_TEXTS:
        return None
    if source is None:
        return start_token_id(tokenizer, recipe.model.family)
    return source.config.start_token_id if isinstance(source.config, EncoderDecoderConfig) else None


def _looking(recipe: Recipe, source: Checkpoint | None) -> tuple[ImageSettings, PatchStemConfig] | None:
    """How images are made ready and cut, for a model that looks at them."""
    if recipe.objective.kind not in LOOKING_KINDS:
        return None
    if source is None:
        sizes = recipe.model
        patches = PatchStemConfig(
            sizes.hidden_size, sizes.image_size, sizes.patch_size, class_token=sizes.family != "siglip"
        )
        return new_image_settings(sizes), patches
    assert isinstance(source.config, DualEncoderConfig | MultimodalConfig)  # check_kind has seen to it
    return source.require_image_settings(), source.config.image.stem


def _fits(have: Any, wanted: Any) -> bool:
    """Whether a head that is there serves: the same kind, and the same labels where it has labels."""
    if have is None or isinstance(wanted, SpanHeadConfig):
        return have is not None
    return bool(getattr(have, "labels", None) == getattr(wanted, "labels", None))


def _take(kind: Any, recipe: Recipe) -> Any:
    """The fields of a settings class from the recipe's train section."""
    known = type(recipe.train).model_fields
    values = {field.name: getattr(recipe.train, field.name) for field in fields(kind) if field.name in known}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _fingerprint(recipe: Recipe, ready: Ready) -> str:
    """What decides a run: the recipe (but for where it is written to) and the data.

    Keys at their defaults are left out, so that a run goes on after a version that brought new keys.
    """
    described = recipe.model_dump(exclude_defaults=True)
    for key in ("output", "log_every", "tensorboard", "checkpoint_every", "device"):
        described["train"].pop(key, None)
    return fingerprint((described, len(ready.train), fingerprint([_described(record) for record in ready.train])))


def _described(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record whose arrays are said by their bytes: printed, most of an array is left out."""
    return {
        key: (value.shape, fingerprint(value.tobytes())) if isinstance(value, np.ndarray) else value
        for key, value in record.items()
    }
