"""What each task's evaluation needs: open the model, hand its answers to the function that measures them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from sensorium.checkpoint import Checkpoint, open_checkpoint
from sensorium.errors import DataError, UsageError, nearest
from sensorium.evaluate import (
    Evaluation,
    evaluate_classification,
    evaluate_few_shot,
    evaluate_generation,
    evaluate_language_model,
    evaluate_question_answering,
    evaluate_retrieval,
    evaluate_similarity,
    evaluate_token_classification,
    tagged,
)
from sensorium.evaluate.generation import GenerationTask
from sensorium.evaluate.likelihood import likelihood
from sensorium.evaluate.matching import matcher
from sensorium.evaluate.metrics import cosine
from sensorium.evaluate.options import option_scorer
from sensorium.infer.engine import fast
from sensorium.tasks import pipeline

Records = Sequence[Mapping[str, Any]]
Measure = Callable[[str, Records, Records | None, str], Evaluation]


def _text_classification(model: str, records: Records, train: Records | None, dataset: str) -> Evaluation:
    checkpoint = open_checkpoint(model)
    labels = _labels(checkpoint, "sequence", model)
    classify = pipeline("text-classification", model=checkpoint)

    def predict(texts: list[str | tuple[str, str]]) -> Any:
        return classify([text if isinstance(text, str) else dict(zip(PAIR_KEYS, text, strict=True)) for text in texts])

    return evaluate_classification(predict, records, labels=labels, train=train, model=model, dataset=dataset)


def _token_classification(model: str, records: Records, train: Records | None, dataset: str) -> Evaluation:
    checkpoint = open_checkpoint(model)
    tags = _labels(checkpoint, "token", model)
    classes = dict.fromkeys(tag.partition("-")[2] or tag for tag in tags if tag != "O")
    return evaluate_token_classification(
        partial(pipeline("token-classification", model=checkpoint), aggregation_strategy="simple"),
        _with_entities(records),
        labels=tuple(classes),
        train=None if train is None else _with_entities(train),
        model=model,
        dataset=dataset,
    )


def _question_answering(model: str, records: Records, train: Records | None, dataset: str) -> Evaluation:
    asked = _with_answers(records)
    may_be_none = not all(one["answers"] for one in asked)
    read = pipeline("question-answering", model=model, return_no_answer_score=may_be_none)
    return evaluate_question_answering(read, asked, train=train, model=model, dataset=dataset)


def _sentence_similarity(model: str, records: Records, train: Records | None, dataset: str) -> Evaluation:
    embed = pipeline("sentence-embedding", model=model)

    def predict(pairs: list[tuple[str, str]]) -> Any:
        first, second = (embed(list(texts)) for texts in zip(*pairs, strict=True))  # [N, D] each
        return cosine(first, second)

    return evaluate_similarity(predict, records, train=train, model=model, dataset=dataset)


def _language_modelling(model: str, records: Records, train: Records | None, dataset: str) -> Evaluation:
    checkpoint = open_checkpoint(model)
    tokenizer = checkpoint.require_tokenizer()
    return evaluate_language_model(
        likelihood(checkpoint),
        [record["text"] for record in records],
        tokenize=tokenizer.encode_plain,
        vocabulary_size=tokenizer.vocabulary_size,
        train=None if train is None else [record["text"] for record in train],
        model=model,
        dataset=dataset,
    )


def _image_text_retrieval(model: str, records: Records, train: Records | None, dataset: str) -> Evaluation:
    checkpoint = open_checkpoint(model)
    score = matcher(replace(checkpoint, model=fast(checkpoint.model, "fp32")))
    return evaluate_retrieval(score, records, train=train, model=model, dataset=dataset)


def _generation(task: GenerationTask, called: str | None = None) -> Measure:
    def measure(model: str, records: Records, train: Records | None, dataset: str) -> Evaluation:
        write = pipeline(called or task, model=model)
        return evaluate_generation(write, records, task=task, train=train, model=model, dataset=dataset)

    return measure


def few_shot(shots: int, prompt: str | None = None) -> Measure:
    """Options scored after so many worked examples."""

    def measure(model: str, records: Records, train: Records | None, dataset: str) -> Evaluation:
        checkpoint = open_checkpoint(model)
        scorer = option_scorer(replace(checkpoint, model=fast(checkpoint.model, "fp32")))
        return evaluate_few_shot(scorer, records, shots=shots, train=train, prompt=prompt, model=model, dataset=dataset)

    return measure


PAIR_KEYS = ("text", "text_pair")
RETRIEVAL = "image-text-retrieval"
"""The one task whose records have images."""
MEASURES: dict[str, Measure] = {
    "text-classification": _text_classification,
    "token-classification": _token_classification,
    "question-answering": _question_answering,
    "sentence-similarity": _sentence_similarity,
    "language-modelling": _language_modelling,
    "few-shot": few_shot(0),
    "translation": _generation("translation"),
    "summarization": _generation("summarization"),
    "text2text-generation": _generation("text2text-generation"),
    RETRIEVAL: _image_text_retrieval,
}


def measure_of(task: str) -> Measure:
    """What measures a task, ``translation_en_to_de`` among them. Raises ``UsageError`` where nothing does."""
    if task in MEASURES:
        return MEASURES[task]
    if task.startswith("translation_") and "_to_" in task:
        return _generation("translation", task)
    known = ", ".join(MEASURES)
    raise UsageError(f"there is no evaluation for {task!r}{nearest(task, MEASURES)}; known are {known}")


def _labels(checkpoint: Checkpoint, head: str, model: str) -> tuple[str, ...]:
    """The labels of a head. Raises ``UsageError`` when the checkpoint has no such head."""
    config = getattr(checkpoint.config, head, None)
    if config is None:
        raise UsageError(f"{model}: has no {head} classifier to measure; train one, or name another checkpoint")
    labels: tuple[str, ...] = config.labels
    return labels


def _with_entities(records: Records) -> list[dict[str, Any]]:
    """Records with ``entities``; those with ``tokens`` and ``tags`` are turned into such."""
    for number, record in enumerate(records, 1):
        if "entities" not in record and not {"tokens", "tags"} <= record.keys():
            raise DataError(f"record {number}: has neither 'entities' nor 'tokens' and 'tags'")
    return [dict(one) if "entities" in one else tagged(one["tokens"], one["tags"]) for one in records]


def _with_answers(records: Records) -> list[dict[str, Any]]:
    """Records with ``answers``; a single ``answer``, as training reads it, is one; an empty one is none."""
    return [{**one, "answers": one.get("answers", [one["answer"]] if one.get("answer") else [])} for one in records]
