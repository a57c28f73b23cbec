"""Text generation: go on from a prompt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sensorium.checkpoint import Checkpoint
from sensorium.infer.settings import GenerationSettings, settings_of
from sensorium.infer.write import Written, write, write_stream
from sensorium.tasks._task import require_iterable, require_text
from sensorium.text import Tokenizer


class TextGeneration:
    """A prompt → its continuation. A prompt longer than the model reads is refused, not cut: its end is what counts."""

    def __init__(self, checkpoint: Checkpoint, batch_tokens: int) -> None:
        self.model: Any = checkpoint.model
        self.defaults = checkpoint.generation
        self.tokenizer = checkpoint.require_tokenizer()
        self.batch_tokens = batch_tokens

    def __call__(self, inputs: Any, *, return_full_text: bool = True, **options: Any) -> Any:
        """``[{"generated_text"}]`` for a prompt; a list of those for a list; a stream of those for a generator.

        ``return_full_text``: the prompt stands before its continuation. ``options`` are those of
        ``GenerationSettings``; the checkpoint's own (``generation_config.json``) hold where none is given. Greedy by
        default; ``do_sample=True`` draws, and with ``num_beams`` above 1 it is a beam search, which gives its
        ``num_return_sequences`` best answers, the best first. With a ``seed`` a prompt goes on in the same way whatever
        stands beside it in a list. With ``log_probs``, an answer has its ``score`` and its ``tokens`` too.
        """
        settings = settings_of(options, self.defaults)
        if isinstance(inputs, str):
            return self._batch([require_text(inputs, 1)], settings, return_full_text)[0]
        stream = self._stream(require_iterable(inputs), settings, return_full_text)
        return list(stream) if isinstance(inputs, list | tuple) else stream

    def stream(self, prompt: str, **options: Any) -> Iterator[str]:
        """The continuation piece by piece, as it is made."""
        settings = settings_of(options, self.defaults)
        yield from write_stream(self.model, self._ids(require_text(prompt, 1)), settings, self.tokenizer)

    def _stream(
        self, inputs: Iterable[Any], settings: GenerationSettings, full: bool
    ) -> Iterator[list[dict[str, Any]]]:
        """Batches of prompts whose tokens, the new ones of every branch among them, fit ``batch_tokens``."""
        branches = max(settings.num_beams, settings.num_return_sequences)
        batch: list[str] = []
        tokens = 0
        for number, one in enumerate(inputs, 1):
            length = len(self._ids(require_text(one, number)))
            size = (length + settings.most_new_tokens(length)) * branches
            if batch and tokens + size > self.batch_tokens:
                yield from self._batch(batch, settings, full)
                batch, tokens = [], 0
            batch.append(one)
            tokens += size
        if batch:
            yield from self._batch(batch, settings, full)

    def _batch(self, prompts: list[str], settings: GenerationSettings, full: bool) -> list[list[dict[str, Any]]]:
        found = write(self.model, [self._ids(prompt) for prompt in prompts], settings, self.tokenizer)
        return [
            [
                {"generated_text": (prompt if full else "") + (one.text or ""), **scored(one, self.tokenizer)}
                for one in answers
            ]
            for prompt, answers in zip(prompts, found, strict=True)
        ]

    def _ids(self, prompt: str) -> list[int]:
        return self.tokenizer.encode(prompt).token_ids


def scored(written: Written, tokenizer: Tokenizer) -> dict[str, Any]:
    """The score and the tokens with their log probabilities, where they were asked for."""
    if written.log_probabilities is None:
        return {}
    tokens = [
        {"token": token_id, "token_str": tokenizer.token(token_id), "log_prob": value}
        for token_id, value in zip(written.token_ids, written.log_probabilities, strict=False)  # not the end token's
    ]
    for token, alternatives in zip(tokens, written.alternatives or [], strict=False):
        token["top"] = [
            {"token": token_id, "token_str": tokenizer.token(token_id), "log_prob": value}
            for token_id, value in alternatives
        ]
    return {"score": written.score, "tokens": tokens}
