"""Documents for pretraining: tokenised sentences, runs of them, and pairs of runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sensorium.data.batching import Example
from sensorium.text import Encoding, Tokenizer
from sensorium.text.sentences import split_sentences


@dataclass(frozen=True)
class Sentence:
    """Token ids and the word each token belongs to, both [L]."""

    token_ids: np.ndarray
    words: np.ndarray


Document = list[Sentence]
NEIGHBOURHOOD = 500
"""How many documents away a second part that does not follow may come from."""


def tokenise_document(text: str, tokenizer: Tokenizer, *, whole_words: bool) -> Document:
    """A text as tokenised sentences, none of them empty."""
    sentences = []
    for sentence in split_sentences(text):
        encoding = tokenizer.encode(sentence)
        keep = [row for row, sequence in enumerate(encoding.sequence_ids) if sequence is not None]
        if keep:
            ids = np.asarray(encoding.token_ids, np.int32)[keep]
            words = _word_numbers(encoding, sentence)[keep] if whole_words else np.arange(len(keep), dtype=np.int32)
            sentences.append(Sentence(ids, words))
    return sentences


def single_runs(documents: list[Document], max_length: int, frame: tuple[int, int]) -> list[Example]:
    """``[CLS] sentences … [SEP]``: each document's sentences, as many as fit; a longer sentence is cut."""
    examples = []
    for document in documents:
        for run in _runs(document, max_length - 2):
            examples.append(_framed([run], frame, {}))
    return examples


def sentence_pairs(
    documents: list[Document],
    max_length: int,
    frame: tuple[int, int],
    task: Literal["next", "order"],
    generator: np.random.Generator,
) -> list[Example]:
    """``[CLS] A [SEP] B [SEP]``; the label is 0 when B follows A in the text.

    Else it is 1: for ``next``, B begins at a random sentence of another document; for ``order``, A and B are swapped.
    """
    examples = []
    for number, document in enumerate(documents):
        for run in _sentence_runs(document, max_length - 3):
            if len(run) < 2:
                continue
            cut = int(generator.integers(1, len(run)))
            first, second = _join(run[:cut]), _join(run[cut:])
            label = int(generator.random() < 0.5)
            if label and task == "order":
                first, second = second, first
            elif label and len(documents) > 1:
                second = _random_run(documents, number, max_length - 3 - len(first.token_ids), generator)
            else:
                label = 0
            examples.append(_framed([first, second], frame, {"next_sentence": label}))
    return examples


def _random_run(documents: list[Document], avoid: int, size: int, generator: np.random.Generator) -> Sentence:
    """At most ``size`` tokens from a random place in another document."""
    # Not far away: corpora stand one after the other, and a text of another language would be too easy to tell.
    away = 1 + int(generator.integers(min(len(documents) - 1, NEIGHBOURHOOD)))
    document = documents[(avoid + away) % len(documents)]
    start = int(generator.integers(len(document)))
    joined = _join(document[start : start + 32])
    return Sentence(joined.token_ids[:size], joined.words[:size])


def _sentence_runs(document: Document, size: int) -> list[Document]:
    """Consecutive sentences, as many as fit in ``size`` tokens; a sentence longer than that is cut."""
    runs: list[Document] = []
    room = 0
    for sentence in document:
        piece = Sentence(sentence.token_ids[:size], sentence.words[:size])
        if len(piece.token_ids) > room:
            runs.append([])
            room = size
        runs[-1].append(piece)
        room -= len(piece.token_ids)
    return runs


def _runs(document: Document, size: int) -> list[Sentence]:
    return [_join(run) for run in _sentence_runs(document, size)]


def _join(sentences: Document) -> Sentence:
    """Sentences end to end; word numbers go on, so that no two words share one."""
    words, next_word = [], 0
    for sentence in sentences:
        words.append(sentence.words + next_word)
        next_word = int(words[-1].max()) + 1
    return Sentence(np.concatenate([sentence.token_ids for sentence in sentences]), np.concatenate(words))


def _framed(parts: list[Sentence], frame: tuple[int, int], labels: dict[str, Any]) -> Example:
    """``[CLS] part [SEP] (part [SEP])``; the second part and its separator are segment 1."""
    cls_id, sep_id = frame
    joined = _join(parts)
    ids, words, segments = [np.asarray([cls_id], np.int32)], [np.asarray([-1])], [np.zeros(1, np.int8)]
    start = 0
    for segment, part in enumerate(parts):
        stop = start + len(part.token_ids)
        ids += [part.token_ids, np.asarray([sep_id], np.int32)]
        words += [joined.words[start:stop], np.asarray([-1])]
        segments.append(np.full(len(part.token_ids) + 1, segment, np.int8))
        start = stop
    return Example(
        np.concatenate(ids),
        np.concatenate(segments) if len(parts) > 1 else None,
        {**labels, "words": np.concatenate(words).astype(np.int32)},
    )


def _word_numbers(encoding: Encoding, text: str) -> np.ndarray:
    """[L] the word of each token: a segmenter's where the text is Chinese and ``jieba`` is installed."""
    numbers = _chinese_words(text)
    if numbers is None:
        return np.asarray([-1 if word is None else word for word in encoding.word_ids], np.int32)
    return np.asarray(
        [
            -1 if sequence is None else numbers[min(start, len(numbers) - 1)]
            for (start, _), sequence in zip(encoding.offsets, encoding.sequence_ids, strict=True)
        ],
        np.int32,
    )


def _chinese_words(text: str) -> list[int] | None:
    """The word of each character, as ``jieba`` cuts the text; ``None`` without Chinese or without ``jieba``."""
    if not any("\u4e00" <= character <= "\u9fff" for character in text):
        return None
    try:
        import jieba
    except ImportError:
        return None
    jieba.setLogLevel(60)  # it announces its dictionary on stderr
    return [number for number, word in enumerate(jieba.lcut(text)) for _ in word]
