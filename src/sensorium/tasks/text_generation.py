"""Text generation: go on from a prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from sensorium.checkpoint import Checkpoint
from sensorium.errors import UsageError
from sensorium.infer.beam import BeamSettings, beam_search
from sensorium.infer.generate import generate, generate_stream
from sensorium.infer.sampling import SamplingSettings
from sensorium.tasks._task import require_iterable, require_text

Decode = Callable[[list[list[int]]], list[list[list[int]]]]
"""Prompts → the new tokens of every answer to each."""


class TextGeneration:
    """A prompt → its continuation. A prompt longer than the model reads is refused, not cut: its end is what counts."""

    def __init__(self, checkpoint: Checkpoint, batch_tokens: int) -> None:
        self.model: Any = checkpoint.model
        self.tokenizer = checkpoint.require_tokenizer()
        self.batch_tokens = batch_tokens

    def __call__(
        self,
        inputs: Any,
        *,
        max_new_tokens: int = 20,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_k: int = 50,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        num_return_sequences: int = 1,
        num_beams: int = 1,
        length_penalty: float = 1.0,
        early_stopping: bool | Literal["never"] = False,
        return_full_text: bool = True,
    ) -> Any:
        """``[{"generated_text"}]`` for a prompt; a list of those for a list; a stream of those for a generator.

        ``return_full_text``: the prompt stands before its continuation. ``do_sample=False`` is greedy; with
        ``num_beams`` above 1 it is a beam search (``infer.beam``), for which ``length_penalty`` and ``early_stopping``
        are, and which gives its ``num_return_sequences`` best answers, the best first. With a ``seed`` a prompt goes
        on in the same way whatever stands beside it in a list.
        """
        sampling = SamplingSettings(do_sample, temperature, top_k, top_p, repetition_penalty, seed)
        _check(num_beams, num_return_sequences, do_sample)
        if num_beams == 1:
            decode = self._sampling(sampling, num_return_sequences, max_new_tokens)
        else:
            beams = BeamSettings(num_beams, length_penalty, early_stopping, num_return_sequences, repetition_penalty)
            decode = self._search(beams, max_new_tokens)
        if isinstance(inputs, str):
            return self._batch([require_text(inputs, 1)], decode, return_full_text)[0]
        branches = max(num_beams, num_return_sequences)
        stream = self._stream(require_iterable(inputs), max_new_tokens, branches, decode, return_full_text)
        return list(stream) if isinstance(inputs, list | tuple) else stream

    def stream(
        self, prompt: str, *, max_new_tokens: int = 20, sampling: SamplingSettings | None = None
    ) -> Iterator[str]:
        """The continuation piece by piece, as it is made."""
        ids: list[int] = []
        shown = ""
        new_tokens = generate_stream(
            self.model,
            [self._ids(require_text(prompt, 1))],
            max_new_tokens=max_new_tokens,
            eos_id=self.tokenizer.eos_id,
            sampling=sampling or SamplingSettings(),
        )
        for new in new_tokens:
            ids.append(new.token_id)
            text = self.tokenizer.decode(ids)
            if text.endswith("\ufffd") and not new.finished:  # a character whose bytes are not all there yet
                continue
            yield text[len(shown) :]
            shown = text

    def _sampling(self, sampling: SamplingSettings, copies: int, max_new_tokens: int) -> Decode:
        def decode(prompts: list[list[int]]) -> list[list[list[int]]]:
            new = generate(
                self.model,
                [prompt for prompt in prompts for _ in range(copies)],
                max_new_tokens=max_new_tokens,
                eos_id=self.tokenizer.eos_id,
                sampling=sampling,
                streams=[*range(copies)] * len(prompts),
            )
            return [new[n : n + copies] for n in range(0, len(new), copies)]

        return decode

    def _search(self, beams: BeamSettings, max_new_tokens: int) -> Decode:
        def decode(prompts: list[list[int]]) -> list[list[list[int]]]:
            eos_id = self.tokenizer.eos_id
            found = beam_search(self.model, prompts, beams, max_new_tokens=max_new_tokens, eos_id=eos_id)
            return [[one.token_ids for one in answers] for answers in found]

        return decode

    def _stream(
        self, inputs: Iterable[Any], max_new_tokens: int, branches: int, decode: Decode, full: bool
    ) -> Iterator[list[dict[str, str]]]:
        """Batches of prompts whose tokens, the new ones of every branch among them, fit ``batch_tokens``."""
        batch: list[str] = []
        tokens = 0
        for number, one in enumerate(inputs, 1):
            size = (len(self._ids(require_text(one, number))) + max_new_tokens) * branches
            if batch and tokens + size > self.batch_tokens:
                yield from self._batch(batch, decode, full)
                batch, tokens = [], 0
            batch.append(one)
            tokens += size
        if batch:
            yield from self._batch(batch, decode, full)

    def _batch(self, prompts: list[str], decode: Decode, full: bool) -> list[list[dict[str, str]]]:
        ids = [self._ids(prompt) for prompt in prompts]
        answers = []
        for prompt, before, continuations in zip(prompts, ids, decode(ids), strict=True):
            texts = [self._continuation(before, after) for after in continuations]
            answers.append([{"generated_text": prompt + text if full else text} for text in texts])
        return answers

    def _ids(self, prompt: str) -> list[int]:
        return self.tokenizer.encode(prompt).token_ids

    def _continuation(self, before: list[int], after: list[int]) -> str:
        """What the new tokens add: decoded with the prompt, since a tokenizer may join them by what stands before."""
        return self.tokenizer.decode([*before, *after])[len(self.tokenizer.decode(before)) :]


def _check(num_beams: int, num_return_sequences: int, do_sample: bool) -> None:
    """Raises ``UsageError`` where the number of answers does not go with how they are found."""
    if num_beams > 1 and do_sample:
        raise UsageError("sampling within a beam search is not supported; give do_sample=True or num_beams, not both")
    if num_return_sequences < 1:
        raise UsageError(f"num_return_sequences is {num_return_sequences}; it must be 1 or more")
    if num_return_sequences > 1 and num_beams == 1 and not do_sample:
        raise UsageError(
            "num_return_sequences above 1 needs do_sample=True or num_beams above 1: greedy has one answer"
        )
