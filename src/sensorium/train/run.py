"""From a recipe to a saved checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from sensorium.adapters import adapt
from sensorium.calibration import Calibration
from sensorium.checkpoint import Checkpoint, check_destination, open_checkpoint, save_adapter, save_checkpoint
from sensorium.config import ImageCodecConfig, SpanHeadConfig
from sensorium.data.corpora import read_corpus
from sensorium.data.records import read_records
from sensorium.data.splits import remove_overlap, split_by_text
from sensorium.errors import DataError, UsageError
from sensorium.image.settings import ImageSettings
from sensorium.models.build import Model, new_model
from sensorium.models.image_codec import ImageCodec
from sensorium.models.image_encoder import ImageEncoder
from sensorium.models.multimodal import MultimodalLM
from sensorium.nn.lora import LoRASettings, merge_lora
from sensorium.objectives._base import Objective
from sensorium.storage import atomic_folder, write_json
from sensorium.text import Tokenizer, open_tokenizer
from sensorium.train.calibrating import calibrated
from sensorium.train.checks import check_fit, check_heads, check_kind
from sensorium.train.kinds import LOOKING_KINDS
from sensorium.train.loop import Outcome, Trainer
from sensorium.train.new_models import new_config, new_generation, new_towers
from sensorium.train.new_objectives import Eyes, chat_template, eyes_of, first_token_id, make_objective
from sensorium.train.optim import OptimizerSettings
from sensorium.train.recipe import Recipe
from sensorium.train.settings import LoopSettings
from sensorium.train.state import fingerprint
from sensorium.train.teaching import taught_by
from sensorium.train.validation import Judge, unsampled
from sensorium.train.vocabularies import new_tokenizer

Records = Sequence[Mapping[str, Any]]
CORPUS = "corpus:"
HOLD_OUT = 5_881_000_000
"""What is added to the seed of a run to draw its validation records."""


@dataclass(frozen=True)
class Ready:
    """A recipe made real: everything a run needs."""

    model: Model
    tokenizer: Tokenizer | None
    """``None``: the model reads no texts."""
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
            if ready.tokenizer is not None:
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
    if isinstance(ready.model, ImageCodec):
        ready.model.settle()
    save_checkpoint(
        output,
        ready.model,
        ready.tokenizer,
        family=ready.family,
        sentence=None if source is None else source.sentence,
        generation=new_generation(ready.model, ready.tokenizer) if source is None else source.generation,
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
    looker = None if recipe.model.image is None else open_checkpoint(recipe.model.image)
    tokenizer = _tokenizer(recipe, source or teacher or reader, train, kept)
    family = recipe.model.family if source is None else source.family
    if source is not None:
        check_kind(source, recipe.objective.kind)
    template = chat_template(recipe, source)
    start = first_token_id(recipe, source, tokenizer)
    eyes = eyes_of(recipe, source)
    objective = make_objective(recipe, train, family, start_token_id=start, chat_template=template, eyes=eyes)
    model: Model
    if reader is not None:
        model, family = new_towers(recipe.model, reader, looker, seed=recipe.train.seed)
    elif source is None:
        model = _new(recipe, objective, tokenizer, eyes)
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
        assert tokenizer is not None  # every kind that is taught reads texts
        objective = taught_by(teacher, objective, tokenizer, recipe.distillation, recipe.train)
    images = None if eyes is None else eyes.images
    return Ready(model, tokenizer, family, objective, train, validation, source, template, images)


def _tokenizer(recipe: Recipe, source: Checkpoint | None, train: Records, kept: Path | None) -> Tokenizer | None:
    """The one that is kept, or another; none of a codec, which reads no texts."""
    if recipe.objective.kind == "codec":
        return None
    return open_tokenizer(kept) if kept is not None and kept.is_dir() else new_tokenizer(recipe, source, train)


def _new(recipe: Recipe, objective: Objective, tokenizer: Tokenizer | None, eyes: Eyes | None) -> Model:
    """A new model; one that draws has the codec that was opened for it."""
    codec = None if eyes is None else eyes.codec
    if isinstance(codec, ImageCodecConfig):
        return new_model(codec, seed=recipe.train.seed)
    assert tokenizer is not None
    config = new_config(recipe.model, objective.heads(), tokenizer, None if codec is None else codec.config)
    model = new_model(config, seed=recipe.train.seed)
    if isinstance(model, MultimodalLM) and codec is not None:
        model.require_drawing().begin_with(codec, recipe.train.seed)
    return model


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


# --- details ---------------------------------------------------------------------------------------------------------


def _prepared(objective: Objective, tokenizer: Any, records: Records, source: str | Sequence[str]) -> Any:
    """Tokenised; what is wrong with a record is said with where it came from."""
    try:
        return objective.prepare(records, tokenizer)
    except DataError as error:
        raise DataError(f"{_listed(source)}: {error}") from error


def _listed(source: str | Sequence[str]) -> str:
    return source if isinstance(source, str) else ", ".join(source)


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
