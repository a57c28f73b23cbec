"""Evaluate a decoder on a task that is only told to it: a few worked examples, then the item (Brown et al., 2020)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sensorium.errors import DataError, UsageError
from sensorium.evaluate import _shared
from sensorium.evaluate._shared import Settings
from sensorium.evaluate.evaluation import Evaluation, Measured, Mistake
from sensorium.evaluate.leakage import find_leakage
from sensorium.evaluate.statistics import Array, outcomes

LABELLED = "Text: {text}\nLabel:"
"""How an item is put, where all items have the same options."""
COMPLETED = "{text}"
"""How it is put, where each has its own."""
BETWEEN = "\n\n"
"""What stands between the examples."""
Question = tuple[str, Sequence[str]]
"""A prompt, and the texts one of which goes on from it."""


def evaluate_few_shot(
    score: Callable[[list[Question]], Iterable[Sequence[float]]],
    records: Sequence[Mapping[str, Any]],
    *,
    shots: int = 0,
    train: Sequence[Mapping[str, Any]] | None = None,
    prompt: str | None = None,
    model: str = "model",
    dataset: str = "data",
    settings: Settings = Settings(),  # noqa: B008
) -> Evaluation:
    """Measure how often the right option is the likeliest, ``shots`` worked examples standing before each item.

    Records have ``text`` and ``label``; the options are all labels there are, or a record's own ``choices``, of which
    the label is one, or its number from 0. ``prompt`` says how an item is put, ``{text}`` in it being the text; a space
    and an option follow. The examples are drawn from ``train`` by the settings' seed, the same for every item.
    ``score`` gives the log probability of each option of each prompt (``options.option_scorer``).

    ``accuracy`` takes the option that is likeliest as a whole, ``accuracy_norm`` the likeliest a character, since long
    ones are less likely (``acc`` and ``acc_norm`` of the lm-evaluation-harness).
    """
    examples = _drawn(train, shots, settings.seed)
    own = any("choices" in record for record in records)
    labels = () if own else _labels([*records, *(train or ())])
    options = [_options(record, labels, number) for number, record in enumerate(records, 1)]
    truth = np.array(
        [_right(record, known, n) for n, (record, known) in enumerate(zip(records, options, strict=True), 1)]
    )
    put = prompt or (COMPLETED if own else LABELLED)
    prompts = make_prompts(records, examples, labels, put)
    space = "" if put[-1:].isspace() else " "
    started = time.perf_counter()
    questions: list[Question] = [
        (one, [space + option for option in known]) for one, known in zip(prompts, options, strict=True)
    ]
    scores = _shared.answers_for(questions, score(questions), "prompts")
    seconds = time.perf_counter() - started
    guesses = np.array([int(np.argmax(row)) for row in scores])
    by_length = np.array(
        [int(np.argmax(np.divide(row, list(map(len, known))))) for row, known in zip(scores, options, strict=True)]
    )
    parts = (_measured("accuracy", guesses == truth), _measured("accuracy_norm", by_length == truth))
    by_metric = _shared.estimate_all(parts, settings)
    name = f"{model}, {shots}-shot"
    rivals = _rivals(options, truth, labels, train)
    results, comparisons = _shared.against_baselines(name, parts, rivals, settings)
    texts = [_shared.text_of(record, number) for number, record in enumerate(records, 1)]
    known_texts = None if train is None else [_shared.text_of(record, n) for n, record in enumerate(train, 1)]
    return Evaluation(
        task="few-shot",
        model=name,
        dataset=dataset,
        headline="accuracy",
        metrics=by_metric,
        baselines=results,
        comparisons=comparisons,
        leakage=find_leakage(known_texts, texts, parts[0], settings),
        smallest_difference=_shared.smallest_differences(by_metric, settings),
        provenance=_shared.provenance(name, dataset, records, settings, seconds),
        notes=(_note(shots, put, settings.seed),),
        mistakes=_mistakes(texts, options, truth, guesses, settings.examples),
        measured=parts,
    )


def make_prompts(
    records: Sequence[Mapping[str, Any]], examples: Sequence[Mapping[str, Any]], labels: Sequence[str], prompt: str
) -> list[str]:
    """What stands before the options of each record. Raises ``UsageError`` for a prompt that does not hold the text.

    >>> make_prompts([{"text": "fine"}], [{"text": "foul", "label": "no"}], ["no", "yes"], "{text}:")
    ['foul: no\\n\\nfine:']
    """
    if "{text}" not in prompt:
        raise UsageError(f"the prompt {prompt!r} has no {{text}} in it, where the text of an item goes")
    space = "" if prompt[-1:].isspace() else " "
    worked = ""
    for number, example in enumerate(examples, 1):
        options = _options(example, labels, number)
        answer = options[_right(example, options, number)]
        worked += prompt.replace("{text}", _text(example, number)) + space + answer + BETWEEN
    return [worked + prompt.replace("{text}", _text(record, number)) for number, record in enumerate(records, 1)]


# --- details ---------------------------------------------------------------------------------------------------------


def _drawn(train: Sequence[Mapping[str, Any]] | None, shots: int, seed: int) -> list[Mapping[str, Any]]:
    if shots < 0:
        raise UsageError(f"shots is {shots}; it must be 0 or more")
    if not shots:
        return []
    if train is None or len(train) < shots:
        raise UsageError(f"{shots} examples are to be drawn from the training data, which has {len(train or ())}")
    return random.Random(seed).sample(list(train), shots)


def _text(record: Mapping[str, Any], number: int) -> str:
    text = _shared.text_of(record, number)
    return text if isinstance(text, str) else "\n".join(text)


def _labels(records: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    labels = sorted({str(record["label"]) for record in records if record.get("label") is not None})
    if len(labels) < 2:
        raise DataError(f"the records have {len(labels)} labels; a choice needs two, or 'choices' in each record")
    return tuple(labels)


def _options(record: Mapping[str, Any], labels: Sequence[str], number: int) -> list[str]:
    options = record.get("choices", labels)
    whole = isinstance(options, list | tuple) and all(isinstance(one, str) and one.strip() for one in options)
    if not whole or len(options) < 2:
        raise DataError(f"record {number}: its 'choices' are {options!r:.80}; a list of two texts or more is expected")
    return list(options)


def _right(record: Mapping[str, Any], options: Sequence[str], number: int) -> int:
    """Which of the options the label is."""
    label = record.get("label")
    if label in options:
        return options.index(str(label))
    shown = str(label)
    if "choices" in record and shown.isdigit() and int(shown) < len(options):
        return int(shown)
    if shown in options:
        return options.index(shown)
    raise DataError(
        f"record {number}: the label {label!r} is none of its {len(options)} options, nor the number of one"
    )


def _measured(name: str, right: np.ndarray) -> Measured:
    rows = np.stack([right.astype(np.float64), np.ones(len(right))], axis=1)  # [n, 2]
    exact = right if right.dtype == bool else None
    return Measured((name,), outcomes(rows), _ratio, exact)


def _ratio(sums: Array) -> Array:
    share: Array = sums[..., :1] / sums[..., 1:]
    return share


def _rivals(
    options: Sequence[Sequence[str]],
    truth: np.ndarray,
    labels: Sequence[str],
    train: Sequence[Mapping[str, Any]] | None,
) -> dict[str, tuple[Measured, ...]]:
    chance = _measured("accuracy", np.array([1 / len(known) for known in options]))
    rivals: dict[str, tuple[Measured, ...]] = {"chance": (chance,)}
    if labels:
        seen = [labels[n] for n in truth] if train is None else [str(record.get("label")) for record in train]
        commonest = labels.index(max(labels, key=seen.count))
        source = " (of this data)" if train is None else ""
        rivals[f"most frequent class{source}"] = (_measured("accuracy", truth == commonest),)
    return rivals


def _note(shots: int, prompt: str, seed: int) -> str:
    if not shots:
        return f"No example was shown; an item was put as {prompt!r}."
    shown = "1 example was" if shots == 1 else f"{shots} examples were"
    return f"{shown} shown, the same before every item, drawn with seed {seed}; an item was put as {prompt!r}."


def _mistakes(
    texts: Sequence[_shared.Text], options: Sequence[Sequence[str]], truth: np.ndarray, guesses: np.ndarray, limit: int
) -> tuple[Mistake, ...]:
    wrong = np.flatnonzero(truth != guesses).tolist()[:limit]
    return tuple(Mistake(_shared.shown(texts[n]), options[n][truth[n]], options[n][guesses[n]]) for n in wrong)
