"""Extractive question answering: the span of a context that answers a question, as transformers 4 gave it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
WINDOW = 384
DOC_STRIDE = 128


@dataclass(frozen=True)
class Search:
    """Which spans are looked for."""

    top_k: int
    max_answer_len: int
    impossible: bool
    align_to_words: bool


class QuestionAnswering(Task):
    """A question and a context → ``{"score", "start", "end", "answer"}``, ``start`` and ``end`` in characters.

    A context longer than ``max_seq_len`` is cut into windows that overlap by ``doc_stride`` tokens; the best span of
    all windows wins. In each window, probabilities are taken over the context's tokens (and the first token,
    which stands for "no answer"), and a span scores their product; spans that read the same add their scores up.
    """

    def __call__(
        self,
        inputs: Any = None,
        *,
        question: str | Sequence[str] | None = None,
        context: str | Sequence[str] | None = None,
        top_k: int = 1,
        max_answer_len: int = 15,
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
        handle_impossible_answer: bool = False,
        align_to_words: bool = True,
    ) -> Any:
        """Ask with ``question=`` and ``context=``, or with ``{"question": …, "context": …}``, or a list of those.

        One dict for one question (a list of them with ``top_k`` above 1), a list of those for a list.
        ``handle_impossible_answer``: the empty answer competes with the spans. ``align_to_words``: an answer begins and
        ends with whole words. ``max_seq_len``: tokens of a window, 384 or what the model reads if that is less;
        ``doc_stride``: 128, or half a window if that is less.
        """
        for name, value in (("top_k", top_k), ("max_answer_len", max_answer_len), ("max_seq_len", max_seq_len or 1)):
            if value < 1:
                raise UsageError(f"{name} is {value}; it must be at least 1")
        asked = _asked(inputs, question, context)
        length = min(self.max_length, max_seq_len or WINDOW)
        search = Search(top_k, max_answer_len, handle_impossible_answer, align_to_words)
        prepare = partial(self._prepare, length=length, overlap=DOC_STRIDE if doc_stride is None else doc_stride)
        return self.answer(asked, prepare, self._run, partial(_finish, search=search))

    def _prepare(self, one: Any, number: int, *, length: int, overlap: int) -> Iterator[Encoding]:
        if not isinstance(one, dict) or not {"question", "context"} <= one.keys():
            raise DataError(f"input {number} needs 'question' and 'context'")
        question, context = require_text(one["question"], number), require_text(one["context"], number)
        around = frame(self.tokenizer, first=question)
        room = max(0, length - len(around))  # a long question leaves little to overlap with
        return windows(self.tokenizer, context, around, max_length=length, overlap=min(max(0, overlap), room // 2))

    def _run(self, batch: Packed, windows: Sequence[Encoding]) -> Sequence[Tensor]:
        return batch.split(self.model.span_logits(self.model(batch)).float())  # [L, 2] each


def _finish(one: dict[str, str], pairs: Pairs, *, search: Search) -> Answer | list[Answer]:
    answers: dict[str, Answer] = {}
    least_null = 1.0
    for window, logits in pairs:
        allowed = torch.tensor([i == 0 or sequence == 1 for i, sequence in enumerate(window.sequence_ids)])
        probabilities = logits.masked_fill(~allowed[:, None], float("-inf")).softmax(dim=0).numpy()  # [L, 2]
        start, end = probabilities[:, 0].copy(), probabilities[:, 1].copy()
        least_null = min(least_null, float(start[0] * end[0]))
        start[0] = end[0] = 0.0
        for found in _spans(start, end, window, one["context"], search):
            known = answers.setdefault(found["answer"].lower(), {**found, "score": 0.0})
            known["score"] += found["score"]
    ranked = [*answers.values()]
    if search.impossible:
        ranked.append({"score": least_null, "start": 0, "end": 0, "answer": ""})
    ranked = sorted(ranked, key=lambda answer: answer["score"], reverse=True)[: search.top_k]
    return ranked[0] if search.top_k == 1 else ranked


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


def _spans(start: np.ndarray, end: np.ndarray, window: Encoding, context: str, search: Search) -> Iterator[Answer]:
    """The best spans of a window, best first."""
    scores = np.triu(np.outer(start, end))  # [L, L] start before or at end
    scores = np.tril(scores, search.max_answer_len - 1)
    count = min(search.top_k, scores.size)
    chosen = np.argpartition(-scores.ravel(), count - 1)[:count]
    for cell in chosen[np.argsort(-scores.ravel()[chosen], kind="stable")]:
        first, last = divmod(int(cell), len(start))
        if window.sequence_ids[first] == 1 == window.sequence_ids[last] and first <= last:
            begin, stop = _characters(window, first, last, search.align_to_words)
            yield {"score": float(scores[first, last]), "start": begin, "end": stop, "answer": context[begin:stop]}


def _characters(window: Encoding, first: int, last: int, align_to_words: bool) -> tuple[int, int]:
    """Where a span of tokens begins and ends in the context."""
    if align_to_words:
        while _same_word(window, first, first - 1):
            first -= 1
        while last + 1 < len(window) and _same_word(window, last, last + 1):
            last += 1
    return window.offsets[first][0], window.offsets[last][1]


def _same_word(window: Encoding, one: int, other: int) -> bool:
    words = window.word_ids[one], window.word_ids[other]
    return window.sequence_ids[other] == 1 and words[0] is not None and words[0] == words[1]
