"""Extractive question answering: the span of a context that answers a question, as transformers 4 gave it.

Shapes: L tokens of a window.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensorium.errors import DataError, UsageError
from sensorium.infer.windows import frame, windows
from sensorium.packed import Packed
from sensorium.tasks._task import Pairs, Task, require_text
from sensorium.text import Encoding

Answer = dict[str, Any]
NO_ANSWER: Answer = {"start": 0, "end": 0, "answer": ""}


class QuestionAnswering(Task):
    """A question and a context → ``{"score", "start", "end", "answer"}``, ``start`` and ``end`` in characters.

    A context longer than ``max_seq_len`` is cut into windows that overlap by ``doc_stride`` tokens. In each window,
    probabilities are taken over the context's tokens (and the first token, which stands for "no answer"), a span scores
    their product, and the scores of equal answers, wherever they stand, add up, as in transformers 4.57.
    """

    needs_offsets = True

    def __call__(
        self,
        inputs: Any = None,
        *,
        question: str | Sequence[str] | None = None,
        context: str | Sequence[str] | None = None,
        top_k: int = 1,
        max_answer_len: int = 15,
        doc_stride: int | None = None,
        max_seq_len: int | None = None,
        max_question_len: int | None = None,
        handle_impossible_answer: bool = False,
        no_answer_threshold: float | None = None,
        return_no_answer_score: bool = False,
        align_to_words: bool = True,
    ) -> Any:
        """Ask with ``question=`` and ``context=``, or with ``{"question": …, "context": …}``, or a list of those.

        One dict for one question (a list of them with ``top_k`` above 1), a list of those for a list.
        ``max_seq_len``: tokens of a window, question included; 384, or what the model reads if that is less.
        ``doc_stride``: tokens two windows share; 128, or half a window if that is less.
        ``max_question_len``: tokens of a question that are read, with a warning where it has more; ``None``: all.
        ``handle_impossible_answer``: the empty answer competes with the spans.
        ``no_answer_threshold``: the empty answer is the first where its score is above the best span's by more than
        this, and never else; ``sensorium evaluate`` tells which is best for a model. ``return_no_answer_score``: each
        answer says ``no_answer_score``, that of the empty one.
        ``align_to_words``: an answer that begins or ends inside a word is widened to the whole of it.
        """
        if top_k < 1 or max_answer_len < 1:
            raise UsageError(f"top_k is {top_k} and max_answer_len {max_answer_len}; both must be at least 1")
        length = min(self.max_length, 384) if max_seq_len is None else max_seq_len
        if not 1 <= length <= self.max_length:
            raise UsageError(f"max_seq_len is {length}; this model reads 1 to {self.max_length} tokens")
        stride = min(length // 2, 128) if doc_stride is None else doc_stride
        if not 0 <= stride < length:
            raise UsageError(f"doc_stride is {stride}; it must be 0 or more and less than max_seq_len, {length}")
        if max_question_len is not None and max_question_len < 1:
            raise UsageError(f"max_question_len is {max_question_len}; it must be 1 or more")
        prepare = partial(self._prepare, length=length, stride=stride, most=max_question_len)
        finish = partial(
            self._finish,
            top_k=top_k,
            max_answer_len=max_answer_len,
            impossible=handle_impossible_answer,
            threshold=no_answer_threshold,
            whole_words=align_to_words,
            tell=return_no_answer_score,
        )
        return self.answer(_asked(inputs, question, context), prepare, self._run, finish)

    def _prepare(self, one: Any, number: int, *, length: int, stride: int, most: int | None) -> Iterator[Encoding]:
        if not isinstance(one, dict) or not {"question", "context"} <= one.keys():
            raise DataError(f"input {number} needs 'question' and 'context'")
        question, context = require_text(one["question"], number), require_text(one["context"], number)
        around = frame(self.tokenizer, first=question if most is None else self._shortened(question, most, number))
        room = max(0, length - len(around))
        stride = stride if stride < room else room // 2  # a long question leaves little to overlap with
        return windows(self.tokenizer, context, around, max_length=length, overlap=stride)

    def _shortened(self, question: str, most: int, number: int) -> str:
        """The question's first tokens, as text."""
        inside = [span for span, i in zip(*_places(self.tokenizer.encode(question)), strict=True) if i is not None]
        if len(inside) <= most:
            return question
        warnings.warn(f"input {number}: the question has {len(inside)} tokens; the first {most} are read", stacklevel=2)
        return question[: inside[most - 1][1]]

    def _run(self, batch: Packed, windows: Sequence[Encoding]) -> Sequence[Tensor]:
        return batch.split(self.model.span_logits(self.model(batch)).float())  # [L, 2] each

    def _finish(
        self,
        one: dict[str, str],
        pairs: Pairs,
        *,
        top_k: int,
        max_answer_len: int,
        impossible: bool,
        threshold: float | None,
        whole_words: bool,
        tell: bool,
    ) -> Answer | list[Answer]:
        answers: dict[str, Answer] = {}
        no_answer = 1.0
        for window, logits in pairs:
            allowed = torch.tensor([i == 0 or sequence == 1 for i, sequence in enumerate(window.sequence_ids)])
            start, end = logits.masked_fill(~allowed[:, None], float("-inf")).softmax(dim=0).numpy().T  # [L] each
            no_answer = min(no_answer, float(start[0] * end[0]))
            start[0] = end[0] = 0.0
            for first, last, score in _spans(
                start, end, window, top_k * 2 + 10 if whole_words else top_k, max_answer_len
            ):
                begin, stop = _characters(window, first, last, whole_words)
                text = one["context"][begin:stop]
                fresh = {"score": 0.0, "start": begin, "end": stop, "answer": text}
                answers.setdefault(text.lower(), fresh)["score"] += score
        empty = {"score": no_answer, **NO_ANSWER}
        found = [*answers.values(), *([empty] if impossible and threshold is None else [])]
        ranked = sorted(found, key=lambda answer: answer["score"], reverse=True)
        if threshold is not None:
            best = ranked[0]["score"] if ranked else 0.0
            ranked.insert(0 if no_answer - best > threshold else len(ranked), empty)
        ranked = [{**answer, "no_answer_score": no_answer} if tell else answer for answer in ranked[:top_k]]
        return ranked[0] if top_k == 1 else ranked


def _places(window: Encoding) -> tuple[list[tuple[int, int]], list[int | None]]:
    """The characters of each token, and the text it is of."""
    return window.offsets, window.sequence_ids


def _asked(inputs: Any, question: Any, context: Any) -> Any:
    """What was asked, as one dict or a list of them."""
    if inputs is not None:
        return inputs
    if question is None or context is None:
        raise UsageError("question-answering needs question= and context=, or a dict with both")
    if isinstance(question, str):
        if not isinstance(context, str):
            raise UsageError("one question needs one context")
        return {"question": question, "context": context}
    contexts = [context] * len(question) if isinstance(context, str) else list(context)
    if len(contexts) != len(question):
        raise UsageError(f"{len(question)} questions and {len(contexts)} contexts; the counts must agree")
    return [{"question": q, "context": c} for q, c in zip(question, contexts, strict=True)]


def _spans(
    start: np.ndarray, end: np.ndarray, window: Encoding, count: int, max_answer_len: int
) -> list[tuple[int, int, float]]:
    """(first token, last token, score) of the ``count`` best spans of at most ``max_answer_len`` tokens, best first.

    There is always one, if the window holds any of the context: where every product underflows, the first token.
    """
    scores = np.tril(np.triu(np.outer(start, end)), max_answer_len - 1)  # [L, L], start before or at end
    flat = scores.ravel()
    chosen = np.argpartition(-flat, count)[:count] if count < flat.size else np.arange(flat.size)
    chosen = chosen[np.argsort(-flat[chosen], kind="stable")]
    spans = [(int(first), int(last)) for first, last in zip(*np.unravel_index(chosen, scores.shape), strict=True)]
    inside = [i == 1 for i in window.sequence_ids]
    return [
        (first, last, float(scores[first, last]))
        for first, last in spans
        if inside[first] and inside[last] and 0 <= last - first < max_answer_len
    ]


def _characters(window: Encoding, first: int, last: int, whole_words: bool) -> tuple[int, int]:
    """Where a span of tokens begins and ends in the context."""
    begin, stop = window.offsets[first][0], window.offsets[last][1]
    if not whole_words or window.word_ids[first] is None or window.word_ids[last] is None:
        return begin, stop
    while first > 0 and _same_word(window, first - 1, first):
        first -= 1
    while last + 1 < len(window) and _same_word(window, last, last + 1):
        last += 1
    return window.offsets[first][0], window.offsets[last][1]


def _same_word(window: Encoding, one: int, other: int) -> bool:
    sequences, words = window.sequence_ids, window.word_ids
    return sequences[one] == sequences[other] and words[one] == words[other]
