"""Text to text: whatever an encoder–decoder was taught to write for a text; what translation and summaries share."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from sensorium.checkpoint import Checkpoint
from sensorium.data.batching import token_budget_batches
from sensorium.errors import DataError, UsageError
from sensorium.infer.conditioned import Conditioned
from sensorium.infer.settings import GenerationSettings, settings_of
from sensorium.infer.write import Written, write
from sensorium.tasks._assistant import assistant_of
from sensorium.tasks._task import require_iterable, require_text

DEFAULTS: Mapping[str, Any] = {"max_new_tokens": 256, "num_beams": 4}
"""Where a checkpoint says nothing of its writing, as in transformers 4."""
AHEAD = 4
"""Batches that are read ahead, so that texts of similar length can be written together."""
TRUNCATIONS = (True, False, "longest_first", "only_first", "do_not_truncate")
_SPACES = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
           (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"))  # fmt: skip


class TruncatedWarning(UserWarning):
    """A text was longer than the model reads, and only its beginning was."""


@dataclass(frozen=True)
class Manner:
    """How texts are read and written in a call."""

    settings: GenerationSettings
    prefix: str = ""
    before: tuple[int, ...] = ()
    """Tokens that frame a text in the place of the tokenizer's own, where ``framed``."""
    after: tuple[int, ...] = ()
    framed: bool = False
    truncated: bool = False
    clean_up: bool = False
    assistant: Any = None
    """An encoder–decoder that guesses ahead."""


class Source(NamedTuple):
    """A text as the encoder reads it."""

    text: str
    token_ids: list[int]


class Text2TextGeneration:
    """A text → the texts that an encoder–decoder writes for it, as the task of transformers 4 gave them."""

    task: ClassVar[str] = "text2text-generation"
    key: ClassVar[str] = "generated_text"

    def __init__(self, checkpoint: Checkpoint, batch_tokens: int) -> None:
        """Raises ``CheckpointError`` when there is no tokenizer."""
        self.checkpoint = checkpoint
        self.model: Any = checkpoint.model
        self.tokenizer = checkpoint.require_tokenizer()
        self.batch_tokens = batch_tokens
        longest = checkpoint.language_config.max_length
        self.max_length = min(longest, self.tokenizer.max_length or longest)

    def __call__(
        self,
        inputs: Any,
        *,
        truncation: bool | str = False,
        clean_up_tokenization_spaces: bool = False,
        assistant_model: Checkpoint | None = None,
        **options: Any,
    ) -> Any:
        """``[{"generated_text"}]`` for a text; a list of dicts for a list; a stream of lists for a generator.

        With ``num_return_sequences`` above 1 a list gives a list of lists. ``options`` are those of
        ``GenerationSettings``; where none is given, the checkpoint's own hold (``task_specific_params`` for the task,
        ``generation_config.json``), else 4 beams and 256 new tokens. ``max_length`` and ``min_length`` count the tokens
        written, the first one among them. ``truncation=True`` reads the beginning of a text that is too long for the
        model, with a ``TruncatedWarning``; else such a text is a ``UsageError``.
        ``clean_up_tokenization_spaces`` takes out the spaces that word-based tokenizers leave before punctuation.
        ``assistant_model``: a smaller encoder–decoder of the same vocabulary that guesses ahead (``infer.speculate``),
        where ``num_beams`` is 1.
        """
        manner = self.manner(self.task, options, truncation, clean_up_tokenization_spaces, assistant_model)
        return self.shaped(inputs, lambda texts: self._answers(texts, manner))

    def _answers(self, texts: Iterable[Any], manner: Manner) -> Iterator[list[dict[str, Any]]]:
        sources = (self.source(require_text(one, n), manner, n) for n, one in enumerate(texts, 1))
        for _, answers in self.write(sources, manner):
            yield [{self.key: one.text or ""} for one in answers]

    # --- what tasks of this kind share -------------------------------------------------------------------------------

    def shaped(self, inputs: Any, answers: Any) -> Any:
        """One text → its list; a list → a dict each where each has one answer; any other iterable → a stream."""
        if isinstance(inputs, str):
            return next(answers([inputs]))
        stream = answers(require_iterable(inputs))
        if not isinstance(inputs, list | tuple):
            return stream
        found = list(stream)
        return [one[0] for one in found] if all(len(one) == 1 for one in found) else found

    def manner(
        self,
        task: str,
        options: Mapping[str, Any],
        truncation: bool | str = False,
        clean_up: bool = False,
        assistant: Checkpoint | None = None,
        **framing: Any,
    ) -> Manner:
        """How a call reads and writes: its options over the checkpoint's, for a task by the name it has there."""
        if truncation not in TRUNCATIONS:
            raise UsageError(f"truncation is {truncation!r}; known are {', '.join(map(repr, TRUNCATIONS))}")
        raw = self.checkpoint.raw_config
        own = self.task_parameters().get(task, {})
        prefix = own.get("prefix", raw.get("prefix") or "")
        if not isinstance(prefix, str):
            raise UsageError(f"{self.checkpoint.folder}: the prefix of {task} is {prefix!r}, not a text")
        said = {**self.checkpoint.generation, **{name: value for name, value in own.items() if name != "prefix"}}
        lengths = {"max_new_tokens", "max_length"}
        defaults = {k: v for k, v in DEFAULTS.items() if k not in lengths or not lengths & said.keys()}
        settings = settings_of(options, {**defaults, **said})
        return Manner(
            settings,
            prefix,
            truncated=truncation not in (False, "do_not_truncate"),
            clean_up=clean_up,
            assistant=assistant_of(assistant, self.checkpoint),
            **framing,
        )

    def task_parameters(self) -> dict[str, dict[str, Any]]:
        """``task_specific_params`` of ``config.json``: T5's prefixes and lengths, by the names of tasks."""
        own = self.checkpoint.raw_config.get("task_specific_params") or {}
        if not isinstance(own, dict):
            raise DataError(f"{self.checkpoint.folder}: task_specific_params in config.json is no object")
        return {task: one for task, one in own.items() if isinstance(one, dict)}

    def source(self, text: str, manner: Manner, number: int) -> Source:
        """A text as the model reads it. Raises ``UsageError`` with its number where it is too long."""
        token_ids = self.token_ids(text, manner)
        if len(token_ids) <= self.max_length:
            return Source(text, token_ids)
        if not manner.truncated:
            raise UsageError(
                f"input {number} has {len(token_ids):,} tokens; this model reads at most {self.max_length:,}: shorten "
                "it, or give truncation=True to read its beginning"
            )
        warnings.warn(
            f"input {number} has {len(token_ids):,} tokens; the first {self.max_length:,} are read",
            TruncatedWarning,
            stacklevel=2,
        )
        after = len(manner.after if manner.framed else self.tokenizer.frame()[1])
        return Source(text, [*token_ids[: self.max_length - after], *token_ids[len(token_ids) - after :]])

    def token_ids(self, text: str, manner: Manner) -> list[int]:
        """A text's tokens, in the frame that the tokenizer or a language gives them."""
        if manner.framed:
            return [*manner.before, *self.tokenizer.encode_plain(manner.prefix + text), *manner.after]
        return self.tokenizer.encode(manner.prefix + text).token_ids

    def fits(self, text: str, manner: Manner) -> bool:
        """Whether the model reads a text as a whole."""
        return len(self.token_ids(text, manner)) <= self.max_length

    def write(self, sources: Iterable[Source], manner: Manner) -> Iterator[tuple[Source, list[Written]]]:
        """Each source with its answers, in order; those of similar length are written together."""
        settings = manner.settings
        branches = max(settings.num_beams, settings.num_return_sequences)
        waiting: list[Source] = []
        total = 0
        for source in sources:
            waiting.append(source)
            total += self._size(source, settings, branches)
            if total >= AHEAD * self.batch_tokens:
                yield from self._written(waiting, manner, branches)
                waiting, total = [], 0
        if waiting:
            yield from self._written(waiting, manner, branches)

    def _written(
        self, sources: Sequence[Source], manner: Manner, branches: int
    ) -> Iterator[tuple[Source, list[Written]]]:
        import numpy as np

        sizes = np.asarray([self._size(source, manner.settings, branches) for source in sources], dtype=np.int64)
        found: dict[int, list[Written]] = {}
        order = np.argsort(sizes, kind="stable")
        for indices in token_budget_batches(sizes, order, batch_tokens=self.batch_tokens, window=0):
            read = [sources[i].token_ids for i in indices]
            reader = Conditioned(self.model, read, manner.settings.decoder_start_token_id)
            assistant = None if manner.assistant is None else Conditioned(manner.assistant, read)
            answers = write(reader, reader.prompts, manner.settings, self.tokenizer, assistant=assistant)
            found.update(zip(indices.tolist(), answers, strict=True))
        for n, source in enumerate(sources):
            yield source, [_finished(one, manner) for one in found[n]]

    def _size(self, source: Source, settings: GenerationSettings, branches: int) -> int:
        """Tokens that a source and what is likely to be written for it take in a batch."""
        length = len(source.token_ids)
        return length + min(settings.most_new_tokens(1), 2 * length + 32) * branches


def _finished(written: Written, manner: Manner) -> Written:
    """An answer with its spaces in place."""
    from dataclasses import replace

    text = written.text or ""
    for before, after in _SPACES if manner.clean_up else ():
        text = text.replace(before, after)
    return replace(written, text=text)
