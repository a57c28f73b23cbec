"""Which sentences of a text a summary's sentence rests on, by the words they share in order."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sensorium.text.sentences import sentence_spans

EASTERN = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Characters that are words of their own: Chinese and Japanese."""
_TOKENS = re.compile(rf"[{EASTERN}]|[^\W_{EASTERN}]+")
LEAST = 0.3
"""Of a sentence's words: below, it rests on nothing that can be shown."""
MOST_SOURCES = 3
_LOOKED_AT = 20
"""Sentences with most words in common, whose order is looked at."""


@dataclass(frozen=True)
class Link:
    """A sentence of the source, by its characters, and how much of the summary's sentence it holds."""

    start: int
    end: int
    score: float
    """ROUGE-L recall: of the words of the summary's sentence, the share that stands in the source's in this order."""


def links(summary: str, source: str) -> list[dict[str, object]]:
    """The summary's sentences, each with the sentences of the source it rests on, the strongest first.

    ``start`` and ``end`` are characters, of the sentence in the summary, and of each source in the source. Chinese and
    Japanese are compared by character, other text by word. A sentence with no source is one to check.

    >>> links("The dog slept.", "It rained. The old dog slept all day.")[0]["sources"]
    [{'start': 11, 'end': 37, 'score': 1.0}]
    """
    places = sentence_spans(source)
    told = [_tokens(source[start:end]) for start, end in places]
    found: list[dict[str, object]] = []
    for start, end in sentence_spans(summary):
        words = _tokens(summary[start:end])
        best = [Link(*places[n], round(score, 4)) for n, score in _nearest(words, told)]
        sources = [{"start": one.start, "end": one.end, "score": one.score} for one in best]
        found.append({"text": summary[start:end], "start": start, "end": end, "sources": sources})
    return found


def _nearest(words: Sequence[str], told: Sequence[Sequence[str]]) -> list[tuple[int, float]]:
    if not words:
        return []
    own = Counter(words)
    shared = [(sum((own & Counter(one)).values()), -n) for n, one in enumerate(told)]
    nearest = sorted(shared, reverse=True)[:_LOOKED_AT]
    scored = [(-n, _common(words, told[-n]) / len(words)) for count, n in nearest if count >= LEAST * len(words)]
    ranked = sorted((one for one in scored if one[1] >= LEAST), key=lambda one: (-one[1], one[0]))
    return ranked[:MOST_SOURCES]


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for one in a:
        before = 0
        for n, other in enumerate(b, 1):
            before, row[n] = row[n], before + 1 if one == other else max(row[n], row[n - 1])
    return row[-1]


def _tokens(text: str) -> list[str]:
    return _TOKENS.findall(text.lower())
