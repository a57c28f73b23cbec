"""Evaluate a language model by how well it predicts held-out text."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from sensorium.errors import DataError
from sensorium.evaluate import _shared, baselines
from sensorium.evaluate._shared import Settings
from sensorium.evaluate.evaluation import Evaluation, Measured
from sensorium.evaluate.leakage import find_leakage
from sensorium.evaluate.metrics import likelihood_outcomes, perplexity
from sensorium.evaluate.statistics import Array, outcomes


def evaluate_language_model(
    score: Callable[[list[str]], Iterable[tuple[float, int]]],
    texts: Sequence[str],
    *,
    tokenize: Callable[[str], Sequence[int]],
    vocabulary_size: int,
    train: Sequence[str] | None = None,
    model: str = "model",
    dataset: str = "data",
    settings: Settings = Settings(),  # noqa: B008
) -> Evaluation:
    """Measure perplexity on held-out texts; the text is what is resampled.

    ``score`` gives for each text its summed negative log-likelihood (nats) and the number of tokens it predicted; for
    a masked model, those of the masked tokens. ``tokenize`` (text → ids, no special tokens) serves the baseline, which
    predicts tokens by their frequency. Perplexities of different tokenizers cannot be compared; bits per character,
    given when every token of a text was predicted, can.
    """
    for number, text in enumerate(texts, 1):
        if not text.strip():
            raise DataError(f"text {number} of {dataset} is empty; remove it")
    started = time.perf_counter()
    scored = _shared.answers_for(texts, score(list(texts)), "texts")
    seconds = time.perf_counter() - started
    parts = _measure(scored, texts, tokenize)
    by_metric = _shared.estimate_all(parts, settings)
    source = "of the training data" if train is not None else "of this very data"
    unigrams = baselines.unigram_likelihoods(train or texts, texts, tokenize, vocabulary_size)
    rivals = {f"token frequencies {source}": _measure(unigrams, texts, tokenize)}
    results, comparisons = _shared.against_baselines(model, parts, rivals, settings)
    return Evaluation(
        task="language-modelling",
        model=model,
        dataset=dataset,
        headline="perplexity",
        metrics=by_metric,
        baselines=results,
        comparisons=comparisons,
        leakage=find_leakage(None if train is None else list(train), list(texts), parts[0], settings),
        smallest_difference=_shared.smallest_differences(by_metric, settings),
        provenance=_shared.provenance(model, dataset, texts, settings, seconds),
        measured=parts,
    )


def _measure(
    scored: Sequence[tuple[float, int]], texts: Sequence[str], tokenize: Callable[[str], Sequence[int]]
) -> tuple[Measured, ...]:
    nll, num_tokens = (np.array(column, dtype=np.float64) for column in zip(*scored, strict=True))  # [n] each
    part = Measured(("perplexity",), likelihood_outcomes(nll, num_tokens), _shared.statistics_of(perplexity))
    if any(count < len(tokenize(text)) - 1 for count, text in zip(num_tokens, texts, strict=True)):
        return (part,)  # some tokens were only read: their bits are unknown
    characters = np.array([len(text) for text in texts], dtype=np.float64)  # [n]
    return part, Measured(("bits_per_character",), outcomes(np.stack([nll, characters], axis=1)), _bits_per_character)


def _bits_per_character(sums: Array) -> Array:
    bits: Array = sums[..., :1] / sums[..., 1:] / math.log(2)
    return bits
