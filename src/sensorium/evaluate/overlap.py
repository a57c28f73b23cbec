"""How much a written text shares with its references: BLEU, chrF and ROUGE as functions of sums over texts.

The counts are sacreBLEU's and rouge-score's own. BLEU (Papineni et al., 2002) and chrF (Popović, 2015) of a corpus are
functions of its summed counts, and ROUGE (Lin, 2004) is a mean over texts, so that one resampling serves them all. BLEU
and chrF are 0 … 100, as sacreBLEU gives them; ROUGE is 0 … 1.

    >>> items = bleu_chrf_outcomes(["The cat sat on a mat."], [["The cat sat on the mat."]], tokenize="13a")
    >>> bleu_chrf(items.totals()).round(1).tolist()
    [48.9, 65.8]
    >>> rouge_outcomes(["北京很大"], [["北京大"]], characters=True).totals().round(2).tolist()
    [0.86, 0.4, 0.86, 0.86, 1.0]

Legend: n items, K distinct rows, ``...`` any leading dimensions (resamples).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import numpy as np

from sensorium.errors import DataError, missing_extra
from sensorium.evaluate.statistics import Array, Outcomes, mean, outcomes
from sensorium.text.sentences import split_sentences

Tokenize = Literal["13a", "zh", "char"]
"""How sacreBLEU cuts a text into words: Western text by ``13a``, Chinese by ``zh``, any by ``char``."""
BLEU_ORDER, CHRF_ORDER, CHRF_BETA = 4, 6, 2
BLEU_WIDTH = 2 + 2 * BLEU_ORDER
ROUGES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
_CHARACTER_TOKENS = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+"
)


def bleu_chrf_outcomes(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, tokenize: Tokenize = "13a"
) -> Outcomes:
    """Texts [n] and the references of each → rows [K, 10 + 18] of sacreBLEU's counts.

    BLEU's: length written | length of the nearest reference | n-grams matched, 4 | written, 4. chrF's, for each of 6
    orders: n-grams written, in the reference, matched; of several references the one with the best chrF counts.
    """
    _check(predictions, references)
    bleu, chrf = _sacrebleu(tokenize)
    columns = _columns(references)
    words = bleu._extract_corpus_statistics(list(predictions), columns)  # as its own significance tests read them
    characters = chrf._extract_corpus_statistics(list(predictions), columns)
    return outcomes(np.concatenate([np.asarray(words, float), np.asarray(characters, float)], axis=1))


def signatures(references: Sequence[Sequence[str]], *, tokenize: Tokenize = "13a") -> tuple[str, str]:
    """sacreBLEU's signatures of the two: what was counted, and how, in the form that papers quote."""
    found = []
    for metric in _sacrebleu(tokenize):
        counts = {len(accepted) for accepted in references}
        metric.num_refs = counts.pop() if len(counts) == 1 else -1
        found.append(str(metric.get_signature()))
    return found[0], found[1]


def bleu_chrf(sums: Array) -> Array:
    """BLEU and chrF of summed counts, [..., 28] → [..., 2]."""
    return np.stack([bleu(sums[..., :BLEU_WIDTH]), chrf(sums[..., BLEU_WIDTH:])], axis=-1)


def bleu(sums: Array) -> Array:
    """BLEU with sacreBLEU's smoothing ``exp``: the k-th order without a match counts as 1/2ᵏ of one. [..., 10] → [...].

    Brevity penalty · geometric mean of the four precisions; 0 where nothing matches at all.
    """
    written, nearest = sums[..., 0], sums[..., 1]  # [...] each
    matched, total = np.split(sums[..., 2:], 2, axis=-1)  # [..., 4] each
    missed = (matched == 0) & (total > 0)  # [..., 4]
    halved = 0.5 ** np.cumsum(missed, axis=-1)  # [..., 4]
    precision = np.where(missed, halved, matched) / np.maximum(total, 1)  # [..., 4]
    with np.errstate(divide="ignore"):
        mean_log = np.log(precision).mean(axis=-1)  # [...]; -inf where no n-gram of an order was written
    penalty = np.exp(np.minimum(0.0, 1 - nearest / np.maximum(written, 1)))  # [...]
    score: Array = np.where(matched.any(axis=-1), 100 * penalty * np.exp(mean_log), 0.0)
    return score


def chrf(sums: Array) -> Array:
    """chrF2 over character n-grams of 1 to 6, [..., 18] → [...]: F of mean precision and mean recall, β = 2."""
    written, wanted, matched = np.moveaxis(sums.reshape(*sums.shape[:-1], CHRF_ORDER, 3), -1, 0)  # [..., 6] each
    both = (written > 0) & (wanted > 0)  # orders longer than either text are left out
    orders = np.maximum(both.sum(-1), 1)  # [...]
    precision = (both * matched / np.maximum(written, 1)).sum(-1) / orders  # [...]
    recall = (both * matched / np.maximum(wanted, 1)).sum(-1) / orders  # [...]
    factor = CHRF_BETA**2
    bottom = factor * precision + recall
    score: Array = np.zeros(np.shape(bottom))
    np.divide(100 * (1 + factor) * precision * recall, bottom, out=score, where=bottom > 0)
    return score


def rouge_outcomes(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, characters: bool = False
) -> Outcomes:
    """Texts [n] and the references of each → rows (F of ROUGE-1, -2, -L, -Lsum, 1), [K, 5].

    ``characters``: every Chinese or Japanese character is a token, and so is a run of other letters or digits; else
    rouge-score's own tokens, runs of a–z and 0–9. Of several references the best F counts, for each of the four.
    Sentences of -Lsum are those of ``split_sentences``.
    """
    _check(predictions, references)
    scorer = _rouge(characters)
    rows = np.ones((len(predictions), len(ROUGES) + 1))
    for number, (guess, accepted) in enumerate(zip(predictions, references, strict=True)):
        scores = scorer.score_multi([_by_line(text) for text in accepted], _by_line(guess))
        rows[number, :-1] = [scores[name].fmeasure for name in ROUGES]
    return outcomes(rows)


def rouge(sums: Array) -> Array:
    """ROUGE-1, -2, -L and -Lsum, [..., 4]."""
    return mean(sums)


def character_tokens(text: str) -> list[str]:
    """Chinese and Japanese by character, everything else by runs of letters and digits.

    >>> character_tokens("GPT-4 在2023年")
    ['gpt', '4', '在', '2023', '年']
    """
    return _CHARACTER_TOKENS.findall(text.lower())


# --- details ---------------------------------------------------------------------------------------------------------


class _CharacterTokenizer:
    """What rouge-score takes in the place of its own tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return character_tokens(text)


def _sacrebleu(tokenize: Tokenize) -> tuple[Any, Any]:
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError as error:
        raise missing_extra("sacrebleu", "metrics") from error
    return BLEU(tokenize=tokenize, force=True), CHRF()


@cache
def _rouge(characters: bool) -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise missing_extra("rouge-score", "metrics") from error
    return RougeScorer(list(ROUGES), tokenizer=_CharacterTokenizer() if characters else None)


def _by_line(text: str) -> str:
    return "\n".join(split_sentences(text))


def _columns(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """First references of all items, second ones, …: ``None`` where an item has fewer."""
    most = max(map(len, references))
    return [[accepted[i] if i < len(accepted) else None for accepted in references] for i in range(most)]


def _check(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if len(predictions) != len(references):
        raise DataError(f"{len(references):,} items have references and {len(predictions):,} have predictions")
    if not predictions:
        raise DataError("nothing to measure: the data holds no items")
    for number, accepted in enumerate(references, 1):
        if isinstance(accepted, str) or not accepted:
            raise DataError(f"item {number} needs a list of at least one reference")
