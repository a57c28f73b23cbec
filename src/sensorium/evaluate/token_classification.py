"""Evaluate a finder of entities: names, slots, anything with a class and two borders in a text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sensorium.errors import DataError, UsageError, nearest
from sensorium.evaluate import _shared, baselines, metrics
from sensorium.evaluate._shared import Settings
from sensorium.evaluate.classification import LABEL_METRICS, class_scores
from sensorium.evaluate.evaluation import Evaluation, Measured, Mistake
from sensorium.evaluate.leakage import find_leakage
from sensorium.evaluate.metrics import Entity

ENTITY_METRICS = {
    name: LABEL_METRICS[name]
    for name in ("micro_f1", "micro_precision", "micro_recall", "macro_f1", "macro_precision", "macro_recall")
}


def evaluate_token_classification(
    predict: Callable[[list[str]], Iterable[Sequence[Mapping[str, Any]]]],
    records: Sequence[Mapping[str, Any]],
    *,
    labels: Sequence[str],
    train: Sequence[Mapping[str, Any]] | None = None,
    model: str = "model",
    dataset: str = "data",
    settings: Settings = Settings(),  # noqa: B008
) -> Evaluation:
    """Measure whole entities on records ``{"text", "entities": [{"entity_group", "start", "end"}, …]}``.

    Borders are characters of the text, end exclusive, as the token-classification task gives them when it aggregates;
    `tagged` makes such a record from words with BIO tags. An entity is found only with its class and both borders
    (Tjong Kim Sang & De Meulder 2003). ``labels`` are the classes without "B-" and "I-".
    """
    known = {label: number for number, label in enumerate(labels)}
    texts = [str(_shared.text_of(record, number)) for number, record in enumerate(records, 1)]
    gold = [_entities(record.get("entities", ()), known, f"record {n}") for n, record in enumerate(records, 1)]
    started = time.perf_counter()
    answers = _shared.answers_for(texts, predict(texts), "texts")
    seconds = time.perf_counter() - started
    found = [_entities(answer, known, f"the model's answer to record {n}") for n, answer in enumerate(answers, 1)]

    part = _measure(gold, found, len(known))
    by_metric = _shared.estimate(part, settings)
    rivals, training_texts, notes = _rivals(texts, gold, known, train)
    results, comparisons = _shared.against_baselines(model, (part,), rivals, settings)
    return Evaluation(
        task="token-classification",
        model=model,
        dataset=dataset,
        headline="micro_f1",
        metrics=by_metric,
        baselines=results,
        comparisons=comparisons,
        leakage=find_leakage(training_texts, texts, part, settings),
        smallest_difference=_shared.smallest_differences(by_metric, settings),
        provenance=_shared.provenance(model, dataset, records, settings, seconds),
        notes=notes,
        classes=class_scores(part, labels, settings),
        mistakes=_mistakes(texts, gold, found, labels, settings.examples),
        measured=(part,),
    )


def tagged(words: Sequence[str], tags: Sequence[str], *, separator: str = " ") -> dict[str, Any]:
    """A record from words and their tags in the BIO (or BIOES) scheme; ``separator=""`` for Chinese characters.

    An "I-" that continues nothing begins an entity, as in the CoNLL evaluation.

    >>> tagged(["Ada", "Lovelace", "wrote"], ["B-PER", "I-PER", "O"])
    {'text': 'Ada Lovelace wrote', 'entities': [{'entity_group': 'PER', 'start': 0, 'end': 12}]}
    """
    if len(words) != len(tags):
        raise DataError(
            f"{len(words)} words have {len(tags)} tags; each word needs one: {separator.join(words)[:60]!r}"
        )
    entities: list[dict[str, Any]] = []
    position, open_class = 0, ""
    for word, tag in zip(words, tags, strict=True):
        prefix, _, name = tag.partition("-")
        if tag != "O" and (prefix not in "BIESLU" or not name):
            raise DataError(f"the tag {tag!r} of {word!r} is not O, B-class, I-class (or E-, S-, L-, U-)")
        if prefix in "IEL" and name == open_class and entities:
            entities[-1]["end"] = position + len(word)
        elif tag != "O":
            entities.append({"entity_group": name, "start": position, "end": position + len(word)})
        open_class = name if prefix in "BI" else ""
        position += len(word) + len(separator)
    return {"text": separator.join(words), "entities": entities}


# --- details ---------------------------------------------------------------------------------------------------------


def _entities(given: Iterable[Mapping[str, Any]], known: Mapping[str, int], where: str) -> list[Entity]:
    entities = []
    for entity in given:
        label = entity.get("entity_group")
        if label is None:
            raise UsageError(f"{where}: entities need an 'entity_group'; ask the task to aggregate its tokens")
        if label not in known:
            raise DataError(f"{where}: the class {label!r} is not one of {', '.join(known)}{nearest(label, known)}")
        entities.append((known[label], int(entity["start"]), int(entity["end"])))
    return entities


def _measure(gold: Sequence[Sequence[Entity]], found: Sequence[Sequence[Entity]], num_classes: int) -> Measured:
    items = metrics.entity_outcomes(gold, found, num_classes)
    return Measured(tuple(ENTITY_METRICS), items, _shared.statistics_of(*ENTITY_METRICS.values()))


def _rivals(
    texts: Sequence[str],
    gold: Sequence[Sequence[Entity]],
    known: Mapping[str, int],
    train: Sequence[Mapping[str, Any]] | None,
) -> tuple[dict[str, tuple[Measured]], list[_shared.Text] | None, tuple[str, ...]]:
    if train is None:
        note = "The baseline finds nothing: it learns from training data, and none was given."
        return {"no entities": (_measure(gold, [[] for _ in texts], len(known)),)}, None, (note,)
    training_texts = [str(_shared.text_of(record, number)) for number, record in enumerate(train, 1)]
    entities = [_entities(r.get("entities", ()), known, f"training record {n}") for n, r in enumerate(train, 1)]
    guesses = baselines.known_entities(training_texts, entities, texts)
    return {"dictionary of the training entities": (_measure(gold, guesses, len(known)),)}, [*training_texts], ()


def _mistakes(
    texts: Sequence[str],
    gold: Sequence[Sequence[Entity]],
    found: Sequence[Sequence[Entity]],
    labels: Sequence[str],
    limit: int,
) -> tuple[Mistake, ...]:
    def said(text: str, entities: Sequence[Entity]) -> str:
        return "; ".join(f"{text[start:end]} ({labels[k]})" for k, start, end in sorted(entities)) or "nothing"

    worst = np.argsort([-len(set(truth) ^ set(guess)) for truth, guess in zip(gold, found, strict=True)], kind="stable")
    shown = [n for n in worst[:limit].tolist() if set(gold[n]) != set(found[n])]
    return tuple(Mistake(_shared.shown(texts[n]), said(texts[n], gold[n]), said(texts[n], found[n])) for n in shown)
