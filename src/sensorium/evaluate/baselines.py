"""Trivial answers that a model must beat: the most frequent class, the likeliest sentence, a translation memory …"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from sensorium.errors import DataError, missing_extra
from sensorium.evaluate._shared import Text
from sensorium.evaluate.metrics import Entity
from sensorium.evaluate.spans import answer_tokens, language_of
from sensorium.text.sentences import sentence_spans

Guesses = tuple[list[str], list[float]]
"""A label and a score for every text."""

CANDIDATES = 8
"""Nearest texts that are looked at closely."""
AT_A_TIME = 256
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|(?<=[。！？；])|\n+")


def majority(train_labels: Sequence[str], num_items: int) -> Guesses:
    """The most frequent label, whatever the text; its score is its share.

    >>> majority(["yes", "no", "yes", "yes"], 2)
    (['yes', 'yes'], [0.75, 0.75])
    """
    if not train_labels:
        raise DataError("no labels to take the most frequent of")
    label, count = Counter(train_labels).most_common(1)[0]
    return [label] * num_items, [count / len(train_labels)] * num_items


def tfidf_regression(
    train_texts: Sequence[Text], train_labels: Sequence[str], texts: Sequence[Text], *, strength: float = 10.0
) -> Guesses:
    """Logistic regression over TF-IDF of words and word pairs; of one to three characters where the text is Chinese.

    A strong simple classifier (Wang & Manning 2012). ``strength`` is scikit-learn's ``C``. Raises ``DataError`` when
    the training data has a single label, ``UsageError`` when scikit-learn is missing.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise missing_extra("scikit-learn", "metrics") from error
    if len(set(train_labels)) < 2:
        raise DataError("the training data has a single label; a classifier has nothing to learn")
    training, asked = [_joined(text) for text in train_texts], [_joined(text) for text in texts]
    chinese = language_of(training[:2000]) == "zh"
    pieces = {"analyzer": "char", "ngram_range": (1, 3)} if chinese else {"ngram_range": (1, 2)}
    features = TfidfVectorizer(**pieces, sublinear_tf=True, min_df=2 if len(training) > 1000 else 1)
    model = LogisticRegression(C=strength, max_iter=1000)
    model.fit(features.fit_transform(training), list(train_labels))
    chances = model.predict_proba(features.transform(asked))  # [n, C]
    best = chances.argmax(axis=1)  # [n]
    return [str(model.classes_[number]) for number in best], chances.max(axis=1).tolist()


def likeliest_sentence(question: str, context: str) -> str:
    """The sentence of the context that shares most tokens with the question (Rajpurkar et al. 2016, §4).

    >>> likeliest_sentence("Where is the Eiffel Tower?", "It is old. The Eiffel Tower stands in Paris. It is high.")
    'The Eiffel Tower stands in Paris.'
    """
    language = language_of([context])
    asked = set(answer_tokens(question, language))
    sentences = [part.strip() for part in _SENTENCE_END.split(context) if part and part.strip()]
    return max(sentences or [context], key=lambda part: len(asked & set(answer_tokens(part, language))))


def known_entities(
    train_texts: Sequence[str], train_entities: Sequence[Sequence[Entity]], texts: Sequence[str]
) -> list[list[Entity]]:
    """Every stretch of text that was an entity in the training data, with its most frequent class; longest first."""
    classes: dict[str, Counter[int]] = {}
    for text, entities in zip(train_texts, train_entities, strict=True):
        for number, start, end in entities:
            classes.setdefault(text[start:end], Counter())[number] += 1
    known = {surface: counter.most_common(1)[0][0] for surface, counter in classes.items() if surface.strip()}
    if not known:
        return [[] for _ in texts]
    longest_first = sorted(known, key=len, reverse=True)
    pattern = re.compile("|".join(_whole_words(surface) for surface in longest_first))
    return [[(known[match[0]], *match.span()) for match in pattern.finditer(text)] for text in texts]


def unigram_likelihoods(
    train_texts: Sequence[str], texts: Sequence[str], tokenize: Callable[[str], Sequence[int]], vocabulary_size: int
) -> list[tuple[float, int]]:
    """Negative log-likelihood (nats) and tokens of each text when tokens come independently, by add-one frequency."""
    counts: npt.NDArray[np.float64] = np.ones(vocabulary_size)
    for text in train_texts:
        token_ids = np.asarray(tokenize(text), dtype=np.int64)
        if token_ids.size and token_ids.max() >= vocabulary_size:
            raise DataError(f"token id {token_ids.max()} does not fit a vocabulary of {vocabulary_size:,}")
        counts += np.bincount(token_ids, minlength=vocabulary_size)
    nll = -np.log(counts / counts.sum())  # [V]
    encoded = [np.asarray(tokenize(text), dtype=np.int64) for text in texts]
    return [(float(nll[token_ids].sum()), len(token_ids)) for token_ids in encoded]


def shared_tokens(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Tokens that two texts share over all they have (Jaccard), for each pair.

    >>> shared_tokens([("a black cat", "the black dog")])
    [0.3333333333333333]
    """
    language = language_of([text for pair in pairs for text in pair])
    tokens = [(set(answer_tokens(a, language)), set(answer_tokens(b, language))) for a, b in pairs]
    return [len(a & b) / (len(a | b) or 1) for a, b in tokens]


def lead_sentences(text: str, count: int | None = None, *, characters: int = 0) -> str:
    """The first ``count`` sentences of a text; without a count, as many as reach so many characters, at least one.

    >>> lead_sentences("One. Two. Three.", 2)
    'One. Two.'
    """
    spans = sentence_spans(text)
    if not spans:
        return text.strip()
    if count is None:
        count = next((n for n, (_, end) in enumerate(spans, 1) if end - spans[0][0] >= characters), len(spans))
    return text[spans[0][0] : spans[min(count, len(spans)) - 1][1]]


def nearest_targets(train_texts: Sequence[str], train_targets: Sequence[str], texts: Sequence[str]) -> list[str]:
    """For each text the target of the training text most like it: a translation memory.

    The ``CANDIDATES`` nearest by the cosine of TF-IDF over character n-grams are ranked by chrF. Raises ``UsageError``
    when scikit-learn or sacreBLEU is missing.
    """
    try:
        from sacrebleu.metrics.chrf import CHRF
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        raise missing_extra("scikit-learn or sacrebleu", "metrics") from error
    if not train_texts:
        raise DataError("the training data is empty; there is nothing to look in")
    features = TfidfVectorizer(analyzer="char", ngram_range=(1, 4), sublinear_tf=True, dtype=np.float32)
    known = features.fit_transform(train_texts).T.tocsr()  # [features, known texts]
    asked = features.transform(texts)  # [n, features]
    chrf = CHRF()
    found = []
    count = min(CANDIDATES, len(train_texts))
    for start in range(0, len(texts), AT_A_TIME):
        alike = (asked[start : start + AT_A_TIME] @ known).toarray()  # [at a time, known texts]
        best = np.argpartition(-alike, count - 1, axis=1)[:, :count]
        for text, candidates in zip(texts[start : start + AT_A_TIME], np.sort(best, axis=1), strict=True):
            nearest = max(candidates.tolist(), key=lambda n: chrf.sentence_score(train_texts[n], [text]).score)
            found.append(train_targets[nearest])
    return found


def _joined(text: Text) -> str:
    return text if isinstance(text, str) else "\n".join(text)


def _whole_words(surface: str) -> str:
    """The surface as a pattern that does not match inside a longer Latin word."""
    before = r"(?<![A-Za-z0-9])" if surface[0].isascii() and surface[0].isalnum() else ""
    after = r"(?![A-Za-z0-9])" if surface[-1].isascii() and surface[-1].isalnum() else ""
    return before + re.escape(surface) + after
