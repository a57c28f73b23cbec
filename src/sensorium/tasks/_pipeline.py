"""``pipeline(task, model=…)``: the door, with the names and arguments the field knows."""

from __future__ import annotations

import warnings
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch

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
from sensorium.machine import tune_process
from sensorium.models.decoder import DecoderLM
from sensorium.tasks._task import UntrainedHeadWarning
from sensorium.text import open_tokenizer


class Kind(NamedTuple):
    """Where a task lives and what it needs."""

    module: str
    cls: str
    head: str | None


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
}
ALIASES = {"sentiment-analysis": "text-classification", "ner": "token-classification"}
DTYPES = {"float32": torch.float32, "fp32": torch.float32, "bfloat16": torch.bfloat16, "bf16": torch.bfloat16}
FRESH_LABELS = ("LABEL_0", "LABEL_1")
DENSE = {"roberta": "tanh", "xlm-roberta": "tanh", "distilbert": "relu"}


def pipeline(
    task: str,
    model: str | Path | Checkpoint | None = None,
    *,
    tokenizer: str | Path | None = None,
    dtype: str = "float32",
    batch_tokens: int = BATCH_TOKENS,
) -> Any:
    """A task over a checkpoint: a callable that takes a text, a list, or a generator of texts.

    ``model`` is a folder, a hub id or an opened ``Checkpoint``; ``tokenizer`` a folder, when the model's has none;
    ``dtype`` is ``float32`` or ``bf16``; ``batch_tokens`` bounds a batch. Raises ``UsageError`` for an unknown task.
    Warns with ``UntrainedHeadWarning`` when the checkpoint has no head for the task.
    """
    name = ALIASES.get(task, task)
    if name not in TASKS:
        raise UsageError(f"there is no task {task!r}{nearest(task, TASKS)}; known are {', '.join(TASKS)}")
    if dtype not in DTYPES:
        raise UsageError(f"dtype is {dtype!r}; known are {', '.join(DTYPES)}")
    if model is None:
        raise UsageError(f"pipeline({task!r}) needs a model: a folder or a hub id")
    tune_process()
    kind = TASKS[name]
    checkpoint = model if isinstance(model, Checkpoint) else open_checkpoint(model, dtype=DTYPES[dtype])
    if kind.head is not None:
        checkpoint = _with_head(checkpoint, kind.head, name, DTYPES[dtype])
    if tokenizer is not None:
        checkpoint.tokenizer = open_tokenizer(tokenizer)
    return getattr(import_module(f"sensorium.tasks.{kind.module}"), kind.cls)(checkpoint, batch_tokens)


def _with_head(checkpoint: Checkpoint, head: str, task: str, dtype: torch.dtype) -> Checkpoint:
    """The checkpoint with the head a task needs: fresh, and saying so, where a classifier is missing."""
    if head == "language_model":
        if not isinstance(checkpoint.model, DecoderLM):
            raise UsageError(f"{checkpoint.folder}: {task} needs a decoder (gpt2); this is a {checkpoint.family}")
        if checkpoint.model.language_model is None:
            raise UsageError(f"{checkpoint.folder}: this checkpoint has no language-model head")
        return checkpoint
    if not isinstance(checkpoint.config, EncoderConfig):
        raise UsageError(f"{checkpoint.folder}: {task} needs an encoder; this is a {checkpoint.family}")
    if getattr(checkpoint.config, head) is not None:
        if head in checkpoint.untrained:
            _warn_untrained(checkpoint, task)
        return checkpoint
    fresh = {
        "sequence": SequenceHeadConfig(FRESH_LABELS, DENSE.get(checkpoint.family)),  # type: ignore[arg-type]
        "token": TokenHeadConfig(FRESH_LABELS),
        "span": SpanHeadConfig(),
        "next_sentence": NextSentenceHeadConfig(),
    }
    if head not in fresh:
        raise UsageError(f"{checkpoint.folder}: {task} needs a masked-token head, and this checkpoint has none")
    opened = open_checkpoint(checkpoint.folder, add_heads={head: fresh[head]}, dtype=dtype)
    _warn_untrained(opened, task)
    return opened


def _warn_untrained(checkpoint: Checkpoint, task: str) -> None:
    warnings.warn(
        f"{checkpoint.folder} has no trained head for {task}: it got a fresh one, and its answers are random until it "
        "is fine-tuned (sensorium train)",
        UntrainedHeadWarning,
        stacklevel=3,
    )
