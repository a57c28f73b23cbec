"""Evaluate what a model writes: translations, summaries, and texts for texts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from sensorium.errors import DataError, UsageError
from sensorium.evaluate import _shared, spans
from sensorium.evaluate._shared import Settings
from sensorium.evaluate.baselines import lead_sentences, nearest_targets
from sensorium.evaluate.evaluation import Evaluation, Measured, Mistake
from sensorium.evaluate.leakage import find_leakage
from sensorium.evaluate.overlap import (
    ROUGES,
    Tokenize,
    bleu_chrf,
    bleu_chrf_outcomes,
    rouge,
    rouge_outcomes,
    signatures,
)
from sensorium.evaluate.spans import language_of
from sensorium.evaluate.statistics import Array, outcomes
from sensorium.text.kept import Glossary, lost_numbers, lost_terms, numbers, terms_in

GenerationTask = Literal["translation", "summarization", "text2text-generation"]
HEADLINES: Mapping[GenerationTask, str] = {
    "translation": "chrf",
    "summarization": "rouge2",
    "text2text-generation": "exact_match",
}
KEYS = ("translation_text", "summary_text", "generated_text")


def evaluate_generation(
    predict: Callable[[list[str]], Iterable[Any]],
    records: Sequence[Mapping[str, Any]],
    *,
    task: GenerationTask,
    train: Sequence[Mapping[str, Any]] | None = None,
    model: str = "model",
    dataset: str = "data",
    glossary: Glossary | None = None,
    tokenize: Tokenize | None = None,
    settings: Settings = Settings(),  # noqa: B008
) -> Evaluation:
    """Measure texts against the references of records ``{"text", "target"}``; a target may be a list of references.

    ``predict`` gets the texts and gives for each a text, or what the task gives (``[{"translation_text": …}]``).
    Translations: BLEU and chrF of the corpus, the share of numbers lost, and of the ``glossary``'s terms. Summaries:
    ROUGE. Texts for texts: exact match and F1 of tokens, and ROUGE. Chinese is cut into characters, for BLEU by
    sacreBLEU's ``zh``; which tokens were counted stands in the notes. Baselines: the source as it is; for summaries its
    first sentences; with ``train`` the target of the nearest source string. Leakage is looked for among its sources.
    """
    if task not in HEADLINES:
        raise UsageError(f"task is {task!r}; known are {', '.join(HEADLINES)}")
    sources = [_source(record, number) for number, record in enumerate(records, 1)]
    wanted = [_targets(record, number) for number, record in enumerate(records, 1)]
    known = None if train is None else [_source(record, number) for number, record in enumerate(train, 1)]
    chinese = language_of([text for texts in wanted for text in texts]) == "zh"
    words: Tokenize = tokenize or ("zh" if chinese else "13a")

    def measure(written: Sequence[str]) -> tuple[Measured, ...]:
        return _measure(task, sources, written, wanted, words, chinese, glossary)

    started = time.perf_counter()
    answers = _shared.answers_for(sources, predict(list(sources)), "texts")
    seconds = time.perf_counter() - started
    written = [_text(answer) for answer in answers]
    parts = measure(written)
    by_metric = _shared.estimate_all(parts, settings)
    rivals = {name: measure(texts) for name, texts in _baselines(task, sources, wanted, known, train).items()}
    results, comparisons = _shared.against_baselines(model, parts, rivals, settings)
    headline = HEADLINES[task]
    [main] = [part for part in parts if headline in part.names]
    return Evaluation(
        task=task,
        model=model,
        dataset=dataset,
        headline=headline,
        metrics=by_metric,
        baselines=results,
        comparisons=comparisons,
        leakage=find_leakage(known, sources, main, settings, metric=main.names.index(headline)),
        smallest_difference=_shared.smallest_differences(by_metric, settings),
        provenance=_shared.provenance(model, dataset, records, settings, seconds),
        notes=_notes(task, wanted, words, chinese),
        mistakes=_mistakes(sources, written, wanted, words, settings.examples),
        measured=parts,
    )


# --- details ---------------------------------------------------------------------------------------------------------


def _source(record: Mapping[str, Any], number: int) -> str:
    text = _shared.text_of(record, number)
    return text if isinstance(text, str) else text[0]


def _targets(record: Mapping[str, Any], number: int) -> list[str]:
    target = record.get("target")
    texts = [target] if isinstance(target, str) else target
    if not isinstance(texts, list | tuple) or not texts or not all(isinstance(one, str) for one in texts):
        raise DataError(f"record {number}: its 'target' is {target!r}; a text, or a list of texts, is expected")
    if not all(one.strip() for one in texts):
        raise DataError(f"record {number}: a text in its 'target' is empty; remove it")
    return list(texts)


def _text(answer: Any) -> str:
    """The text of an answer: as it is, or the first of what a task gives."""
    one = answer[0] if isinstance(answer, list) and answer else answer
    if isinstance(one, Mapping):
        one = next((one[key] for key in KEYS if key in one), one)
    if not isinstance(one, str):
        raise UsageError(f"the model's answer is {str(answer)[:60]!r}, which holds no text; expected {', '.join(KEYS)}")
    return one


def _measure(
    task: GenerationTask,
    sources: Sequence[str],
    written: Sequence[str],
    wanted: Sequence[Sequence[str]],
    words: Tokenize,
    chinese: bool,
    glossary: Glossary | None,
) -> tuple[Measured, ...]:
    if task == "translation":
        counts = bleu_chrf_outcomes(written, wanted, tokenize=words)
        return (Measured(("bleu", "chrf"), counts, bleu_chrf, best=100.0), *_kept(sources, written, glossary))
    overlap = Measured(ROUGES, rouge_outcomes(written, wanted, characters=chinese), rouge)
    if task == "summarization":
        return (overlap,)
    items = spans.span_outcomes(written, wanted, "zh" if chinese else "en")
    correct = items.rows[items.index, 0] == 1  # [n]
    return Measured(("exact_match", "f1"), items, spans.span_scores, correct), overlap


def _kept(sources: Sequence[str], written: Sequence[str], glossary: Glossary | None) -> list[Measured]:
    """The shares of numbers and of terms that are lost; each only where the sources have any."""
    pairs = list(zip(sources, written, strict=True))
    rows = {"number_errors": [(len(lost_numbers(a, b)), len(numbers(a))) for a, b in pairs]}
    if glossary:
        rows["term_errors"] = [(len(lost_terms(a, b, glossary)), len(terms_in(a, glossary))) for a, b in pairs]
    return [
        Measured((name,), outcomes(np.asarray(counts, dtype=np.float64)), _share)
        for name, counts in rows.items()
        if any(count for _, count in counts)
    ]


def _share(sums: Array) -> Array:
    """Lost of all, [..., 2] → [..., 1]; 0 for a resample that has none."""
    return sums[..., :1] / np.maximum(sums[..., 1:], 1)


def _baselines(
    task: GenerationTask,
    sources: Sequence[str],
    wanted: Sequence[Sequence[str]],
    known: Sequence[str] | None,
    train: Sequence[Mapping[str, Any]] | None,
) -> dict[str, list[str]]:
    if task == "summarization":
        lengths = [len(texts[0]) for texts in wanted]
        found = {
            "first sentence": [lead_sentences(source, 1) for source in sources],
            "first sentences, as long as the target": [
                lead_sentences(source, characters=length) for source, length in zip(sources, lengths, strict=True)
            ],
        }
    else:
        found = {"the source as it is": list(sources)}
    if known is not None and train is not None:
        targets = [_targets(record, number)[0] for number, record in enumerate(train, 1)]
        found["target of the nearest source"] = nearest_targets(known, targets, sources)
    return found


def _notes(task: GenerationTask, wanted: Sequence[Sequence[str]], words: Tokenize, chinese: bool) -> tuple[str, ...]:
    """What was counted, and how."""
    if task == "translation":
        bleu, chrf = signatures(wanted, tokenize=words)
        return (f"BLEU|{bleu}", f"chrF2|{chrf}")
    tokens = (
        "characters of Chinese, runs of other letters and digits"
        if chinese
        else "rouge-score's own, runs of a–z and 0–9, no stemming"
    )
    notes = [f"ROUGE: mean F; tokens are {tokens}; sentences of -Lsum are our own."]
    if task == "text2text-generation":
        notes.append(
            "Answers are compared " + ("by character (Chinese)." if chinese else "by word, articles left out.")
        )
    return tuple(notes)


def _mistakes(
    sources: Sequence[str], written: Sequence[str], wanted: Sequence[Sequence[str]], words: Tokenize, limit: int
) -> tuple[Mistake, ...]:
    """The texts that share least with their references, by chrF."""
    items = bleu_chrf_outcomes(written, wanted, tokenize=words)
    scores = bleu_chrf(items.rows)[items.index, 1]  # [n]
    worst = [int(n) for n in np.argsort(scores, kind="stable")[:limit] if written[n] not in wanted[n]]
    shown = _shared.shown
    return tuple(Mistake(shown(sources[n]), shown(" / ".join(wanted[n])), shown(written[n])) for n in worst)
