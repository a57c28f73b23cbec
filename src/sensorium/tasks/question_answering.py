"""Extractive question answering: the span of a context that answers a question, as transformers 4 gave it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensorium.errors import DataError, UsageError
from sensorium.packed import Packed
from sensorium.tasks._task import Task, require_text
from sensorium.text import Encoding

Answer = dict[str, Any]


class QuestionAnswering(Task):
    """A question and a context → ``{"score", "start", "end", "answer"}``, ``start`` and ``end`` in characters.

    A context longer than the model reads is cut into windows that overlap by ``doc_stride`` tokens; the best span of
    all windows wins. In each window, probabilities are taken over the context's tokens (and the first token,
    which stands for "no answer"), and a span scores their product.
    """

    def __call__(
        self,
        inputs: Any = None,
        *,
        question: str | Sequence[str] | None = None,
        context: str | Sequence[str] | None = None,
        top_k: int = 1,
        max_answer_len: int = 15,
        doc_stride: int = 128,
        handle_impossible_answer: bool = False,
    ) -> Any:
        """Ask with ``question=`` and ``context=``, or with ``{"question": …, "context": …}``, or a list of those.

        One dict for one question (a list of them with ``top_k`` above 1), a list of those for a list.
        ``handle_impossible_answer``: the empty answer competes with the spans.
        """
        if top_k < 1 or max_answer_len < 1:
            raise UsageError(f"top_k is {top_k} and max_answer_len {max_answer_len}; both must be at least 1")
        asked = _asked(inputs, question, context)
        finish = partial(self._finish, top_k=top_k, max_answer_len=max_answer_len, impossible=handle_impossible_answer)
        return self.answer(asked, partial(self._prepare, doc_stride=doc_stride), self._run, finish)

    def _prepare(self, one: Any, number: int, *, doc_stride: int) -> list[Encoding]:
        if not isinstance(one, dict) or not {"question", "context"} <= one.keys():
            raise DataError(f"input {number} needs 'question' and 'context'")
        question, context = require_text(one["question"], number), require_text(one["context"], number)
        whole = self.tokenizer.encode(question, context)
        if len(whole) <= self.max_length:
            return [whole]
        room = self.max_length - len(self.tokenizer.encode(question, ""))
        stride = min(doc_stride, max(0, room // 2))  # a long question leaves little to overlap with
        return self.tokenizer.windows(question, context, max_length=self.max_length, stride=stride)

    def _run(self, batch: Packed, windows: Sequence[Encoding]) -> Sequence[Tensor]:
        return list(batch.split(self.model.span_logits(self.model(batch)).float()))  # [L, 2] each

    def _finish(
        self,
        one: dict[str, str],
        windows: Sequence[Encoding],
        results: list[Tensor],
        *,
        top_k: int,
        max_answer_len: int,
        impossible: bool,
    ) -> Answer | list[Answer]:
        answers: list[Answer] = []
        least_null = 1.0
        for window, logits in zip(windows, results, strict=True):
            allowed = torch.tensor([i == 0 or sequence == 1 for i, sequence in enumerate(window.sequence_ids)])
            probabilities = logits.masked_fill(~allowed[:, None], float("-inf")).softmax(dim=0).numpy()  # [L, 2]
            start, end = probabilities[:, 0].copy(), probabilities[:, 1].copy()
            least_null = min(least_null, float(start[0] * end[0]))
            start[0] = end[0] = 0.0
            answers += _spans(start, end, window, one["context"], top_k, max_answer_len)
        if impossible:
            answers.append({"score": least_null, "start": 0, "end": 0, "answer": ""})
        best: dict[tuple[int, int], Answer] = {}
        for answer in sorted(answers, key=lambda answer: answer["score"], reverse=True):
            best.setdefault((answer["start"], answer["end"]), answer)  # windows overlap
        ranked = list(best.values())[:top_k]
        return ranked[0] if top_k == 1 else ranked


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
    start: np.ndarray, end: np.ndarray, window: Encoding, context: str, top_k: int, max_answer_len: int
) -> list[Answer]:
    """The ``top_k`` best spans of a window of at most ``max_answer_len`` tokens."""
    scores = np.triu(np.outer(start, end))  # [L, L] start before or at end
    scores = np.tril(scores, max_answer_len - 1)
    count = min(top_k, scores.size)
    chosen = np.argpartition(-scores.ravel(), count - 1)[:count]
    answers = []
    for first, last in zip(*np.unravel_index(chosen, scores.shape), strict=True):
        outside = window.sequence_ids[first] != 1 or window.sequence_ids[last] != 1
        if outside or not 0 <= last - first < max_answer_len:
            continue
        begin, stop = window.offsets[first][0], window.offsets[last][1]
        text = context[begin:stop]
        answers.append({"score": float(scores[first, last]), "start": begin, "end": stop, "answer": text})
    return answers
