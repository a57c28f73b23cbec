"""What every task does the same way: prepare → run → finish, for one input, a list, or a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, ClassVar

from torch import Tensor

from sensorium.checkpoint import Checkpoint
from sensorium.errors import DataError
from sensorium.infer.batching import run_stream
from sensorium.infer.windows import SECTION, frame, windows
from sensorium.packed import Packed
from sensorium.text import Encoding

Pairs = Iterable[tuple[Encoding, Tensor]]
"""The windows of one input with their results, handed over as they are computed."""


TOGETHER = 64
"""Texts of a list that are tokenised at a time."""


class UntrainedHeadWarning(UserWarning):
    """The checkpoint had no head for the task; the answers are random."""


class Task:
    """A checkpoint at work. Its subclasses say how an input becomes windows, and windows an answer."""

    needs_offsets: ClassVar[bool] = False
    """Whether answers say where in a text they stand."""

    def __init__(self, checkpoint: Checkpoint, batch_tokens: int) -> None:
        """Raises ``CheckpointError`` when there is no tokenizer."""
        self.checkpoint = checkpoint
        self.model: Any = checkpoint.model
        self.tokenizer = checkpoint.require_tokenizer()
        self.batch_tokens = batch_tokens
        self._tokenised: dict[str, Encoding] = {}  # texts alone, tokenised ahead
        longest = checkpoint.language_config.max_length
        self.max_length = min(longest, self.tokenizer.max_length or longest)

    def answer(
        self,
        inputs: Any,
        prepare: Callable[[Any, int], Iterable[Encoding]],
        run: Callable[[Packed, Sequence[Encoding]], Sequence[Tensor]],
        finish: Callable[[Any, Pairs], Any],
    ) -> Any:
        """One input → its answer; a list → a list; any other iterable → a generator of answers, in input order.

        ``prepare`` gets an input and its number (from 1) and gives its windows; ``run`` one tensor a window; ``finish``
        the answer. Windows and results are made as they are asked for, so that an input of any size can be read.
        """
        if isinstance(inputs, str | dict):
            return next(self._stream([inputs], prepare, run, finish))
        stream = self._stream(require_iterable(inputs), prepare, run, finish)
        return list(stream) if isinstance(inputs, list | tuple) else stream

    def _stream(
        self,
        inputs: Iterable[Any],
        prepare: Callable[[Any, int], Iterable[Encoding]],
        run: Callable[[Packed, Sequence[Encoding]], Sequence[Tensor]],
        finish: Callable[[Any, Pairs], Any],
    ) -> Iterator[Any]:
        keyed = (((number, one), window) for number, one in self._numbered(inputs) for window in prepare(one, number))
        stream = run_stream(keyed, run, batch_tokens=self.batch_tokens)
        for (_, one), results in groupby(stream, key=itemgetter(0)):
            yield finish(one, map(itemgetter(1, 2), results))

    def _numbered(self, inputs: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """Inputs with their numbers, from 1; the texts of a list are tokenised many at a time, on all cores."""
        if not isinstance(inputs, list | tuple):
            yield from enumerate(inputs, 1)
            return
        for start in range(0, len(inputs), TOGETHER):
            texts = [one for one in inputs[start : start + TOGETHER] if isinstance(one, str) and len(one) <= SECTION]
            encodings = self.tokenizer.encode_batch(texts, offsets=self.needs_offsets)
            self._tokenised = dict(zip(texts, encodings, strict=True))
            yield from enumerate(inputs[start : start + TOGETHER], start + 1)
        self._tokenised = {}

    def windows(
        self, text: str, *, first: str | None = None, second: str | None = None, overlap: int = 0
    ) -> Iterator[Encoding]:
        """A text within its pair, as an iterator of one window or as many as it needs; nothing is cut away."""
        if len(text) <= SECTION:
            alone = first is None and second is None
            whole = self._tokenised.get(text) if alone else None
            if whole is None:
                whole = self.tokenizer.encode(text, second) if first is None else self.tokenizer.encode(first, text)
            if len(whole) <= self.max_length:
                return iter([whole])
        around = frame(self.tokenizer, first=first, second=second)
        return windows(self.tokenizer, text, around, max_length=self.max_length, overlap=overlap)


def require_text(text: Any, number: int) -> str:
    """A text that is one and is not empty. Raises ``DataError`` with its number."""
    if not isinstance(text, str):
        raise DataError(f"input {number} is a {type(text).__name__}; a text is expected")
    if not text.strip():
        raise DataError(f"input {number} is empty; there is nothing to read")
    return text


def require_iterable(inputs: Any) -> Iterable[Any]:
    """Several inputs. Raises ``DataError`` for what is neither a text nor several."""
    if isinstance(inputs, bytes | bytearray) or not isinstance(inputs, Iterable):
        raise DataError(f"the input is a {type(inputs).__name__}; a text, or a list or generator of texts, is expected")
    return inputs


def weighted_mean(pairs: Pairs) -> Tensor:
    """The mean of the windows' results, each as heavy as its window is long. There is at least one."""
    total: Tensor | None = None
    weight = 0
    for window, result in pairs:
        total = result * len(window) if total is None else total + result * len(window)
        weight += len(window)
    if total is None:
        raise DataError("there is nothing to read")
    return total / weight
