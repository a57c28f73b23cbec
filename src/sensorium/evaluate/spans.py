"""Exact match and token F1 of answers that are spans of text, by the definition of SQuAD and MLQA.

Answers are compared after normalising: lower case, punctuation removed, white space collapsed; in English the articles
are dropped, in Chinese every character is a token (Rajpurkar et al. 2016; Lewis et al. 2020, whose published script
this agrees with). With several references the best one counts. An empty reference means "no answer": only an empty
prediction is right.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from sensorium.errors import DataError
from sensorium.evaluate.statistics import Array, Outcomes, mean, outcomes

Language = Literal["en", "zh"]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_CHINESE = re.compile("([\u4e00-\u9fa5])")


def answer_tokens(text: str, language: Language = "en") -> list[str]:
    """The tokens of a normalised answer.

    >>> answer_tokens("The  Eiffel Tower!")
    ['eiffel', 'tower']
    >>> answer_tokens("《红楼梦》1791年", "zh")
    ['红', '楼', '梦', '1791', '年']
    """
    kept = "".join(character for character in text.lower() if not _is_punctuation(character))
    if language == "zh":
        return _CHINESE.sub(r" \1 ", kept).split()
    return _ARTICLES.sub(" ", kept).split()


def exact_match(prediction: str, reference: str, language: Language = "en") -> float:
    """1.0 when the normalised answers are equal, else 0.0.

    >>> exact_match("the cat.", "Cat")
    1.0
    """
    return float(answer_tokens(prediction, language) == answer_tokens(reference, language))


def token_f1(prediction: str, reference: str, language: Language = "en") -> float:
    """Harmonic mean of precision and recall over the tokens the answers share.

    >>> token_f1("the black cat", "cat")
    0.6666666666666666
    """
    guess, truth = answer_tokens(prediction, language), answer_tokens(reference, language)
    if not guess or not truth:
        return float(guess == truth)
    shared = sum((Counter(guess) & Counter(truth)).values())
    return 2 * shared / (len(guess) + len(truth))


def span_outcomes(
    predictions: Sequence[str], references: Sequence[Sequence[str]], language: Language = "en"
) -> Outcomes:
    """Answers [n] and the accepted references of each → rows (exact match, F1, 1), [K, 3]."""
    if len(predictions) != len(references):
        raise DataError(f"{len(references):,} questions have references and {len(predictions):,} have predictions")
    if not predictions:
        raise DataError("nothing to measure: the data holds no questions")

    def best(measure: Callable[[str, str, Language], float], guess: str, accepted: Sequence[str]) -> float:
        return max(measure(guess, reference, language) for reference in (accepted or ("",)))

    pairs = list(zip(predictions, references, strict=True))
    rows = [(best(exact_match, guess, truth), best(token_f1, guess, truth), 1.0) for guess, truth in pairs]
    return outcomes(np.asarray(rows))


def best_threshold(margins: Sequence[float], answered: Sequence[float], empty: Sequence[float]) -> tuple[float, float]:
    """The threshold that makes most of a reader that may give no answer, and the mean score it has then.

    A question is answered where its margin (score of no answer − score of the best span) is at most the threshold;
    ``answered`` and ``empty`` are what its span and no answer score, [n] each. By the definition of SQuAD 2.0
    (Rajpurkar et al., 2018), whose published script this agrees with; ties in the margin are answered together.

    >>> best_threshold([-0.9, -0.2, 0.4], answered=[1.0, 1.0, 0.0], empty=[0.0, 0.0, 1.0])
    (-0.2, 1.0)
    """
    order = np.argsort(np.asarray(margins), kind="stable")
    gains = np.cumsum(np.asarray(answered)[order] - np.asarray(empty)[order])  # [n] over answering nothing
    values = np.asarray(margins, dtype=np.float64)[order]
    last = np.append(values[1:] != values[:-1], True)  # of those with one margin
    best = int(np.argmax(np.where(last, gains, -np.inf)))
    if gains[best] <= 0:
        below = float(values[0]) - 1.0
        return below, float(np.mean(empty))
    return float(values[best]), float((sum(empty) + gains[best]) / len(order))


def span_scores(sums: Array) -> Array:
    """Exact match and F1, [..., 2]."""
    return mean(sums)


def language_of(texts: Sequence[str]) -> Language:
    """ "zh" when more than a third of the letters are Chinese characters, else "en".

    >>> language_of(["在巴黎 (Paris)"]), language_of(["in Paris"])
    ('zh', 'en')
    """
    letters = [character for text in texts for character in text if character.isalpha()]
    chinese = sum(1 for character in letters if _CHINESE.match(character))
    return "zh" if 3 * chinese > len(letters) else "en"


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")
