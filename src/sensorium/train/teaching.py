"""A teacher beside the model that learns."""

from __future__ import annotations

import torch

from sensorium.checkpoint import Checkpoint
from sensorium.config import EncoderDecoderConfig
from sensorium.errors import UsageError
from sensorium.objectives._base import Objective
from sensorium.objectives.causal import CausalLanguageModel
from sensorium.objectives.conversation import Conversation
from sensorium.objectives.distillation import Distillation
from sensorium.objectives.seq2seq import SequenceToSequence
from sensorium.objectives.sequence import SequenceClassification
from sensorium.text import Tokenizer
from sensorium.train.recipe import DistillationSection, TrainSection
from sensorium.train.settings import resolve_device, resolve_precision
from sensorium.train.stack_kernel import compile_stacks


def taught_by(
    teacher: Checkpoint,
    objective: Objective,
    tokenizer: Tokenizer,
    chosen: DistillationSection,
    run: TrainSection,
) -> Distillation:
    """The objective with a teacher, which computes where the run does, in its precision, on the compiled kernels where
    it can.

    Raises ``UsageError`` for a teacher that speaks of other tokens, or of other labels.
    """
    if not isinstance(objective, CausalLanguageModel | Conversation | SequenceToSequence | SequenceClassification):
        raise UsageError(f"distillation: {type(objective).__name__} can't be learnt from a teacher")
    _check(teacher, objective, tokenizer)
    model, device = teacher.model.requires_grad_(False).eval(), resolve_device(run.device)
    model.to(device, torch.bfloat16 if resolve_precision(run.precision, device) == "bf16" else torch.float32)
    compile_stacks(model)
    return Distillation(objective, model, chosen.temperature, chosen.share)


def _check(teacher: Checkpoint, objective: Objective, tokenizer: Tokenizer) -> None:
    where, config = f"distillation.teacher: {teacher.folder}", teacher.config
    own = teacher.require_tokenizer()
    sides = [(own, tokenizer), (own.target, tokenizer.target)]
    if any(theirs.backend.get_vocab() != ours.backend.get_vocab() for theirs, ours in sides):
        raise UsageError(f"{where}: has another vocabulary; leave [tokenizer] out, and the student takes the teacher's")
    needed = next(iter(objective.heads()))
    head = getattr(config, needed, None)
    if head is None:
        raise UsageError(f"{where}: a teacher needs a {needed.replace('_', '-')} head, and this model has none")
    if isinstance(objective, SequenceClassification) and tuple(head.labels) != objective.labels:
        raise UsageError(f"{where}: tells {', '.join(head.labels)} apart, the data {', '.join(objective.labels)}")
    if isinstance(objective, SequenceToSequence) != isinstance(config, EncoderDecoderConfig):
        raise UsageError(f"{where}: only one of teacher and student reads one text and writes another")
    starts = getattr(config, "start_token_id", None), getattr(objective, "start_token_id", None)
    if starts[0] != starts[1]:
        raise UsageError(f"{where}: begins to write with the token {starts[0]}, the student with {starts[1]}")
