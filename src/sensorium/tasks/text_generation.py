"""Text generation: go on from a prompt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sensorium.checkpoint import Checkpoint
from sensorium.errors import UsageError
from sensorium.infer.generate import generate, generate_stream
from sensorium.infer.sampling import SamplingSettings
from sensorium.tasks._task import require_iterable, require_text


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
        return_full_text: bool = True,
    ) -> Any:
        """``[{"generated_text"}]`` for a prompt; a list of those for a list; a stream of those for a generator.

        ``return_full_text``: the prompt stands before its continuation. ``do_sample=False`` is greedy.
        With a ``seed`` a prompt goes on in the same way whatever stands beside it in a list.
        """
        if num_return_sequences < 1 or (num_return_sequences > 1 and not do_sample):
            raise UsageError("num_return_sequences above 1 needs do_sample=True: greedy has one answer")
        sampling = SamplingSettings(do_sample, temperature, top_k, top_p, repetition_penalty, seed)
        options = (max_new_tokens, sampling, num_return_sequences, return_full_text)
        if isinstance(inputs, str):
            return self._batch([require_text(inputs, 1)], *options)[0]
        stream = self._stream(require_iterable(inputs), options)
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

    def _stream(self, inputs: Iterable[Any], options: tuple[Any, ...]) -> Iterator[list[dict[str, str]]]:
        """Batches of prompts whose tokens, the new ones among them, fit ``batch_tokens``."""
        max_new_tokens, _, copies, _ = options
        batch: list[str] = []
        tokens = 0
        for number, one in enumerate(inputs, 1):
            size = (len(self._ids(require_text(one, number))) + max_new_tokens) * copies
            if batch and tokens + size > self.batch_tokens:
                yield from self._batch(batch, *options)
                batch, tokens = [], 0
            batch.append(one)
            tokens += size
        if batch:
            yield from self._batch(batch, *options)

    def _batch(
        self, prompts: list[str], max_new_tokens: int, sampling: SamplingSettings, copies: int, full: bool
    ) -> list[list[dict[str, str]]]:
        ids = [self._ids(prompt) for prompt in prompts for _ in range(copies)]
        new = generate(
            self.model,
            ids,
            max_new_tokens=max_new_tokens,
            eos_id=self.tokenizer.eos_id,
            sampling=sampling,
            streams=[*range(copies)] * len(prompts),
        )
        answers = []
        for n, prompt in enumerate(prompts):
            own = slice(n * copies, (n + 1) * copies)
            texts = [self._continuation(before, after) for before, after in zip(ids[own], new[own], strict=True)]
            answers.append([{"generated_text": prompt + text if full else text} for text in texts])
        return answers

    def _ids(self, prompt: str) -> list[int]:
        return self.tokenizer.encode(prompt).token_ids

    def _continuation(self, before: list[int], after: list[int]) -> str:
        """What the new tokens add: decoded with the prompt, since a tokenizer may join them by what stands before."""
        return self.tokenizer.decode([*before, *after])[len(self.tokenizer.decode(before)) :]
