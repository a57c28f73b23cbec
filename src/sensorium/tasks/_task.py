"""What every task does the same way: prepare → run → finish, for one input, a list, or a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor

from sensorium.checkpoint import Checkpoint
from sensorium.errors import DataError
from sensorium.infer.batching import run_windows
from sensorium.packed import Packed
from sensorium.text import Encoding


class UntrainedHeadWarning(UserWarning):
    """The checkpoint had no head for the task; the answers are random."""


class Task:
    """A checkpoint at work. Its subclasses say how an input becomes windows, and windows an answer."""

    def __init__(self, checkpoint: Checkpoint, batch_tokens: int) -> None:
        """Raises ``CheckpointError`` when there is no tokenizer."""
        self.checkpoint = checkpoint
        self.model: Any = checkpoint.model
        self.tokenizer = checkpoint.require_tokenizer()
        self.batch_tokens = batch_tokens
        own = self.tokenizer.max_length
        self.max_length = min(checkpoint.config.max_length, own or checkpoint.config.max_length)

    def answer(
        self,
        inputs: Any,
        prepare: Callable[[Any, int], Sequence[Encoding]],
        run: Callable[[Packed, Sequence[Encoding]], Sequence[Tensor]],
        finish: Callable[[Any, Sequence[Encoding], list[Tensor]], Any],
    ) -> Any:
        """One input → its answer; a list → a list; any other iterable → a generator of answers, in input order.

        ``prepare`` gets an input and its number (from 1) and gives its windows; ``run`` one tensor a window; ``finish``
        the answer.
        """
        if isinstance(inputs, str | dict):
            return next(self._stream([inputs], prepare, run, finish))
        stream = self._stream(inputs, prepare, run, finish)
        return list(stream) if isinstance(inputs, list | tuple) else stream

    def _stream(self, inputs: Iterable[Any], prepare: Any, run: Any, finish: Any) -> Iterator[Any]:
        waiting: list[tuple[Any, Sequence[Encoding]]] = []

        def windows() -> Iterator[Sequence[Encoding]]:
            for number, one in enumerate(inputs, 1):
                prepared = prepare(one, number)
                waiting.append((one, prepared))
                yield prepared

        for results in run_windows(windows(), run, batch_tokens=self.batch_tokens):
            one, prepared = waiting.pop(0)
            yield finish(one, prepared, results)

    def windows(self, text: str, pair: str | None = None, *, overlap: int = 0) -> list[Encoding]:
        """A text as one window, or as many as it needs; nothing is cut away."""
        encoding = self.tokenizer.encode(text, pair)
        if len(encoding) <= self.max_length:
            return [encoding]
        if pair is not None:  # the first text is the long one: it is cut, the second stays whole
            return self._first_cut(text, pair, overlap)
        return self.tokenizer.windows(text, max_length=self.max_length, stride=overlap)

    def _first_cut(self, text: str, pair: str, overlap: int) -> list[Encoding]:
        room = self.max_length - len(self.tokenizer.encode("", pair))
        if room <= overlap:
            raise DataError(f"the second text alone fills the {self.max_length} tokens this model reads; shorten it")
        plain = self.tokenizer.encode(text)
        spans = [span for span, sequence in zip(plain.offsets, plain.sequence_ids, strict=True) if sequence is not None]
        pieces = [spans[start : start + room] for start in range(0, len(spans), room - overlap)]
        return [self.tokenizer.encode(text[piece[0][0] : piece[-1][1]], pair) for piece in pieces]


def require_text(text: Any, number: int) -> str:
    """A text that is one and is not empty. Raises ``DataError`` with its number."""
    if not isinstance(text, str):
        raise DataError(f"input {number} is a {type(text).__name__}; a text is expected")
    if not text.strip():
        raise DataError(f"input {number} is empty; there is nothing to read")
    return text


def weighted_mean(results: Sequence[Tensor], windows: Sequence[Encoding]) -> Tensor:
    """The mean of the windows' results, each as heavy as its window is long."""
    if len(results) == 1:
        return results[0]
    total = sum(map(len, windows))
    first, *rest = [result * (len(window) / total) for result, window in zip(results, windows, strict=True)]
    for part in rest:
        first = first + part
    return first
