"""``pipeline(task, model=…)``: the door, with the names and arguments the field knows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, NamedTuple

from sensorium.checkpoint import Checkpoint, open_checkpoint
from sensorium.config import (
    EncoderConfig,
    NextSentenceHeadConfig,
    SequenceHeadConfig,
    SpanHeadConfig,
    TokenHeadConfig,
)
from sensorium.errors import UsageError, nearest
from sensorium.infer.batching import BATCH_TOKENS
from sensorium.infer.engine import DTYPES, fast
from sensorium.infer.quantise import QUANTISED, quantise
from sensorium.infer.settings import GenerationSettings
from sensorium.machine import tune_process
from sensorium.models.captioner import Captioner
from sensorium.models.decoder import DecoderLM
from sensorium.models.dual_encoder import DualEncoder
from sensorium.models.encoder_decoder import EncoderDecoder
from sensorium.models.image_encoder import ImageEncoder
from sensorium.models.multimodal import MultimodalLM
from sensorium.tasks._assistant import open_assistant
from sensorium.tasks._languages import pair_of
from sensorium.tasks._task import UntrainedHeadWarning
from sensorium.text import open_tokenizer


class Kind(NamedTuple):
    """Where a task lives and what it needs."""

    module: str
    cls: str
    head: str | None
    reads_and_writes: bool = False
    """It needs an encoder–decoder."""
    looks: tuple[type[Any], ...] = ()
    """It needs one of these models, which look at images."""


TASKS = {
    "text-classification": Kind("text_classification", "TextClassification", "sequence"),
    "zero-shot-classification": Kind("zero_shot_classification", "ZeroShotClassification", "sequence"),
    "token-classification": Kind("token_classification", "TokenClassification", "token"),
    "question-answering": Kind("question_answering", "QuestionAnswering", "span"),
    "fill-mask": Kind("fill_mask", "FillMask", "masked_token"),
    "next-sentence-prediction": Kind("next_sentence_prediction", "NextSentencePrediction", "next_sentence"),
    "feature-extraction": Kind("feature_extraction", "FeatureExtraction", None),
    "sentence-embedding": Kind("sentence_embedding", "SentenceEmbedding", None),
    "sentence-similarity": Kind("sentence_similarity", "SentenceSimilarity", None),
    "text-generation": Kind("text_generation", "TextGeneration", "language_model"),
    "text2text-generation": Kind("text2text_generation", "Text2TextGeneration", "language_model", True),
    "summarization": Kind("summarization", "Summarization", "language_model", True),
    "translation": Kind("translation", "Translation", "language_model", True),
    "image-classification": Kind("image_classification", "ImageClassification", "sequence", looks=(ImageEncoder,)),
    "image-feature-extraction": Kind(
        "image_feature_extraction", "ImageFeatureExtraction", None, looks=(ImageEncoder, DualEncoder)
    ),
    "zero-shot-image-classification": Kind(
        "zero_shot_image_classification", "ZeroShotImageClassification", None, looks=(DualEncoder,)
    ),
    "visual-question-answering": Kind(
        "visual_question_answering", "VisualQuestionAnswering", "language_model", looks=(MultimodalLM,)
    ),
    "text-to-image": Kind("text_to_image", "TextToImage", None, looks=(MultimodalLM,)),
    "image-to-text": Kind("image_to_text", "ImageToText", "language_model", looks=(Captioner, MultimodalLM)),
    "image-text-to-text": Kind("image_text_to_text", "ImageTextToText", "language_model", looks=(MultimodalLM,)),
}
ALIASES = {"sentiment-analysis": "text-classification", "ner": "token-classification"}
FRESH_LABELS = ("LABEL_0", "LABEL_1")
_DECODER = (DecoderLM, "a decoder (gpt2)")
NEEDS: dict[tuple[type[Any], ...], str] = {
    (DualEncoder,): "images and texts (clip)",
    (MultimodalLM,): "images among words (llava, janus)",
    (Captioner, MultimodalLM): "captions (blip), or for images among words (llava, janus)",
}
DENSE = {"roberta": "tanh", "xlm-roberta": "tanh", "distilbert": "relu"}


OPTIONS = fields(GenerationSettings)
"""What a task that writes takes as ``**options``."""


class Preset:
    """A task with options of its call given beforehand; what the call itself gives wins."""

    def __init__(self, task: Any, options: Mapping[str, Any]) -> None:
        self.task = task
        self.options = dict(options)

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """The task's answer."""
        return self.task(*inputs, **{**self.options, **options})

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.task, name)
        return partial(found, **self._taken_by(found)) if name in ("document", "stream") else found

    def _taken_by(self, call: Any) -> dict[str, Any]:
        """The options that another call takes too."""
        known = {*signature(call).parameters, *(field.name for field in OPTIONS)}
        return {name: value for name, value in self.options.items() if name in known}


def pipeline(
    task: str,
    model: str | Path | Checkpoint | None = None,
    *,
    tokenizer: str | Path | None = None,
    dtype: str | None = None,
    calibration: Sequence[str] | None = None,
    batch_tokens: int = BATCH_TOKENS,
    **options: Any,
) -> Any:
    """A task over a checkpoint: a callable that takes a text, a list, or a generator of texts.

    ``model`` is a folder, a hub id or an opened ``Checkpoint``; ``tokenizer`` a folder, when the model's has none;
    ``dtype`` is ``fp32`` (the default), ``bf16``, ``int8``, ``int8_weight_only`` or ``int4_weight_only``,
    ``calibration`` texts for ``int8`` (``infer.quantise``); ``batch_tokens`` bounds a batch. ``options`` are those of
    the task's call, such as ``top_k``, and hold for every call that does not give its own; ``assistant_model`` may be
    all that ``model`` may be. A model that was opened before runs as it is unless ``dtype`` is given. Raises
    ``UsageError`` for an unknown task or option. Warns with ``UntrainedHeadWarning`` when the checkpoint has no head
    for the task.
    """
    name, options = _named(task, options)
    known = call_options(task)
    for option in options:
        if option not in known:
            raise UsageError(f"{task} has no argument {option!r}{nearest(option, known)}; known are {', '.join(known)}")
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"dtype is {dtype!r}; known are {', '.join(DTYPES)}")
    if calibration is not None and DTYPES.get(dtype or "") != "int8":
        raise UsageError("calibration texts are for dtype='int8'; the other dtypes need none")
    if model is None:
        raise UsageError(f"pipeline({task!r}) needs a model: a folder or a hub id")
    tune_process()
    kind = TASKS[name]
    checkpoint = _opened(model, kind, name)
    if tokenizer is not None:
        checkpoint = replace(checkpoint, tokenizer=open_tokenizer(tokenizer))
    if dtype is not None and DTYPES[dtype] in QUANTISED:
        checkpoint, _ = quantise(checkpoint, calibration, dtype=DTYPES[dtype])
    elif dtype is not None or not isinstance(model, Checkpoint):
        checkpoint = replace(checkpoint, model=fast(checkpoint.model, dtype or "fp32"))
    if kind.head in checkpoint.untrained:
        warnings.warn(
            f"{checkpoint.folder} has no trained head for {name}: it got a fresh one, and its answers are random until "
            "it is fine-tuned (sensorium train)",
            UntrainedHeadWarning,
            stacklevel=2,
        )
    if options.get("assistant_model") is not None:
        options["assistant_model"] = open_assistant(options["assistant_model"], checkpoint, dtype or "fp32")
    call = _class(kind)(checkpoint, batch_tokens)
    return Preset(call, options) if options else call


def call_options(task: str) -> dict[str, Parameter]:
    """The arguments that a task's call takes beside its inputs. Raises ``UsageError`` for an unknown task."""
    name, _ = _named(task, {})
    if name not in TASKS:
        raise UsageError(f"there is no task {task!r}{nearest(task, TASKS)}; known are {', '.join(TASKS)}")
    _, _, *parameters = signature(_class(TASKS[name]).__call__).parameters.values()
    own = {parameter.name: parameter for parameter in parameters if parameter.kind is not Parameter.VAR_KEYWORD}
    if len(own) == len(parameters):
        return own
    generation = {field.name: Parameter(field.name, Parameter.KEYWORD_ONLY, default=None) for field in OPTIONS}
    return {**own, **generation}


def _named(task: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The task by the name it has here, and what its own name says: ``translation_en_to_de`` gives the languages."""
    pair = pair_of(task)
    if pair is None:
        return ALIASES.get(task, task), dict(options)
    return "translation", {"src_lang": pair[0], "tgt_lang": pair[1], **options}


def _class(kind: Kind) -> Any:
    return getattr(import_module(f"sensorium.tasks.{kind.module}"), kind.cls)


def _opened(model: str | Path | Checkpoint, kind: Kind, task: str) -> Checkpoint:
    """The checkpoint with the head a task needs, a fresh one where a folder has none."""
    head = kind.head
    if kind.looks:
        return _looking(model if isinstance(model, Checkpoint) else open_checkpoint(model), kind, task)
    if isinstance(model, Checkpoint):
        if head is not None and _fresh_head(model, kind, task) is not None:
            raise UsageError(
                f"the opened checkpoint has no {head} head, which {task} needs; pass the folder {str(model.folder)!r}, "
                "or give it the head with open_checkpoint(…, add_heads=…)"
            )
        return model
    checkpoint = open_checkpoint(model)
    fresh = None if head is None else _fresh_head(checkpoint, kind, task)
    if head is None or fresh is None:
        return checkpoint
    return open_checkpoint(checkpoint.folder, add_heads={head: fresh})


def _looking(checkpoint: Checkpoint, kind: Kind, task: str) -> Checkpoint:
    """A checkpoint that looks at images. Raises ``UsageError`` for another one, or without the head a task needs."""
    if not isinstance(checkpoint.model, kind.looks):
        needs = NEEDS.get(kind.looks, "images (vit)")
        raise UsageError(f"{checkpoint.folder}: {task} needs a model for {needs}; this is a {checkpoint.family}")
    if kind.head is not None and kind.head not in checkpoint.config.head_names:
        raise UsageError(f"{checkpoint.folder}: {task} needs a classification head, and this checkpoint has none")
    return checkpoint


def _fresh_head(checkpoint: Checkpoint, kind: Kind, task: str) -> Any:
    """The config of the head that is missing; None where it is there. Raises ``UsageError`` where none can be added."""
    head = kind.head or ""
    if head == "language_model":
        wanted, needs = (EncoderDecoder, "an encoder–decoder (marian, t5)") if kind.reads_and_writes else _DECODER
        if not isinstance(checkpoint.model, wanted):
            raise UsageError(f"{checkpoint.folder}: {task} needs {needs}; this is a {checkpoint.family}")
        if checkpoint.model.language_model is None:
            raise UsageError(f"{checkpoint.folder}: this checkpoint has no language-model head")
        return None
    if not isinstance(checkpoint.config, EncoderConfig):
        raise UsageError(f"{checkpoint.folder}: {task} needs an encoder; this is a {checkpoint.family}")
    if getattr(checkpoint.config, head) is not None:
        return None
    fresh = {
        "sequence": SequenceHeadConfig(FRESH_LABELS, DENSE.get(checkpoint.family)),  # type: ignore[arg-type]
        "token": TokenHeadConfig(FRESH_LABELS),
        "span": SpanHeadConfig(),
        "next_sentence": NextSentenceHeadConfig(),
    }
    if head not in fresh:
        raise UsageError(f"{checkpoint.folder}: {task} needs a masked-token head, and this checkpoint has none")
    return fresh[head]
