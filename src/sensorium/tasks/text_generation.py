"""Text generation: go on from a prompt, or answer in a chat."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sensorium.checkpoint import Checkpoint
from sensorium.errors import UsageError
from sensorium.infer.batching import within
from sensorium.infer.prefix import Prefixes
from sensorium.infer.settings import GenerationSettings, settings_of
from sensorium.infer.write import Written, write, write_stream
from sensorium.tasks._assistant import assistant_of
from sensorium.tasks._task import require_iterable, require_text
from sensorium.text import Tokenizer
from sensorium.text.chat import encode_chat, with_more

Messages = Sequence[Mapping[str, Any]]
"""A conversation: ``[{"role": "user", "content": "Hello"}]``."""


@dataclass(frozen=True)
class _Given:
    """What shapes an answer beside the settings of writing."""

    full: bool
    tools: Sequence[Mapping[str, Any]] | None
    variables: Mapping[str, Any] | None
    go_on: bool | None
    assistant: Any = None
    prefixes: Prefixes | None = None


class TextGeneration:
    """A prompt → its continuation; a chat → the chat with the assistant's answer.

    A prompt longer than the model reads is refused, not cut: its end is what counts.
    """

    def __init__(self, checkpoint: Checkpoint, batch_tokens: int) -> None:
        self.checkpoint = checkpoint
        self.model: Any = checkpoint.model
        self.defaults = checkpoint.generation
        self.tokenizer = checkpoint.require_tokenizer()
        self.batch_tokens = batch_tokens

    def __call__(
        self,
        inputs: Any,
        *,
        return_full_text: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        continue_final_message: bool | None = None,
        assistant_model: Checkpoint | None = None,
        prefixes: Prefixes | None = None,
        **options: Any,
    ) -> Any:
        """``[{"generated_text"}]`` for a prompt; a list of those for a list; a stream of those for a generator.

        A prompt is a text, or a chat: a list of messages, ``{"role": "user", "content": "Hello"}``, which the
        checkpoint's chat template makes a text. ``generated_text`` of a chat is the list with the assistant's message
        after it. The template sees ``tools`` and ``chat_template_kwargs``; special tokens written out in messages are
        text. ``continue_final_message``: whether the last message is gone on with; ``None``: if it is the assistant's.

        ``assistant_model``: a smaller model of the same vocabulary that guesses ahead (``infer.speculate``);
        ``prefixes``: what earlier prompts began with (``infer.prefix``), in a store of this task's ``model``. With both
        a text is there sooner, and is no other.

        ``return_full_text``: the prompt stands before its continuation. ``options`` are those of
        ``GenerationSettings``; the checkpoint's own (``generation_config.json``) hold where none is given. Greedy by
        default; ``do_sample=True`` draws, and with ``num_beams`` above 1 it is a beam search, which gives its
        ``num_return_sequences`` best answers, the best first. With a ``seed`` a prompt goes on in the same way whatever
        stands beside it in a list. With ``log_probs``, an answer has its ``score`` and its ``tokens`` too.
        """
        settings = settings_of(options, self.defaults)
        assistant = assistant_of(assistant_model, self.checkpoint)
        given = _Given(return_full_text, tools, chat_template_kwargs, continue_final_message, assistant, prefixes)
        if isinstance(inputs, str) or is_chat(inputs):
            return self._batch([inputs], settings, given)[0]
        stream = self._stream(require_iterable(inputs), settings, given)
        return list(stream) if isinstance(inputs, list | tuple) else stream

    def stream(
        self,
        prompt: str | Messages,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        continue_final_message: bool | None = None,
        assistant_model: Checkpoint | None = None,
        prefixes: Prefixes | None = None,
        **options: Any,
    ) -> Iterator[str]:
        """The continuation of a text, or the answer in a chat, piece by piece as it is made."""
        settings = settings_of(options, self.defaults)
        assistant = assistant_of(assistant_model, self.checkpoint)
        given = _Given(False, tools, chat_template_kwargs, continue_final_message, assistant, prefixes)
        ids = self._ids(prompt, 1, given)
        yield from write_stream(self.model, ids, settings, self.tokenizer, assistant=assistant, prefixes=prefixes)

    def _stream(
        self, inputs: Iterable[Any], settings: GenerationSettings, given: _Given
    ) -> Iterator[list[dict[str, Any]]]:
        """Batches of prompts whose tokens, the new ones of every branch among them, fit ``batch_tokens``."""
        sized = ((one, settings.room(len(self._ids(one, number, given)))) for number, one in enumerate(inputs, 1))
        for batch in within(sized, lambda pair: pair[1], self.batch_tokens):
            yield from self._batch([one for one, _ in batch], settings, given)

    def _batch(self, prompts: list[Any], settings: GenerationSettings, given: _Given) -> list[list[dict[str, Any]]]:
        ids = [self._ids(prompt, number, given) for number, prompt in enumerate(prompts, 1)]
        found = write(self.model, ids, settings, self.tokenizer, assistant=given.assistant, prefixes=given.prefixes)
        return [
            [
                {
                    "generated_text": joined(prompt, one.text or "", given.full, given.go_on),
                    **scored(one, self.tokenizer),
                }
                for one in answers
            ]
            for prompt, answers in zip(prompts, found, strict=True)
        ]

    def _ids(self, prompt: Any, number: int, given: _Given) -> list[int]:
        if is_chat(prompt):
            return encode_chat(
                self.tokenizer,
                self.checkpoint.require_chat_template(),
                prompt,
                tools=given.tools,
                add_generation_prompt=True,
                continue_final=goes_on(prompt, given.go_on),
                variables=given.variables,
            )
        if given.tools or given.variables or given.go_on is not None:
            raise UsageError("tools, chat_template_kwargs and continue_final_message are for chats: lists of messages")
        return self.tokenizer.encode(require_text(prompt, number)).token_ids


def is_chat(value: Any) -> bool:
    """Whether an input is one conversation, not a list of inputs.

    >>> is_chat([{"role": "user", "content": "Hello"}]), is_chat(["Hello"]), is_chat([])
    (True, False, False)
    """
    return isinstance(value, list | tuple) and len(value) > 0 and isinstance(value[0], Mapping)


def goes_on(messages: Messages, asked: bool | None) -> bool:
    """Whether the last message is gone on with: as it was ``asked``, else if it is the assistant's."""
    last = messages[-1]
    own = isinstance(last, Mapping) and last.get("role") == "assistant"
    return own if asked is None else asked


def joined(prompt: Any, text: str, full: bool, asked: bool | None) -> Any:
    """What was written, with the prompt before it where it is to be ``full``; ``asked`` as in ``goes_on``."""
    if not full:
        return text
    if isinstance(prompt, str):
        return prompt + text
    if goes_on(prompt, asked):
        return [*prompt[:-1], {**prompt[-1], "content": with_more(prompt[-1]["content"], text)}]
    return [*prompt, {"role": "assistant", "content": text}]


def scored(written: Written, tokenizer: Tokenizer) -> dict[str, Any]:
    """The score and the tokens with their log probabilities, where they were asked for."""
    if written.log_probabilities is None:
        return {}
    size = tokenizer.vocabulary_size  # a model may have tokens of its own behind them, as BLIP has to begin with

    def said(token_id: int, value: float) -> dict[str, Any]:
        text = tokenizer.token(token_id) if token_id < size else ""
        return {"token": token_id, "token_str": text, "log_prob": value}

    tokens = [
        said(token_id, value)
        for token_id, value in zip(written.token_ids, written.log_probabilities, strict=False)  # not the end token's
    ]
    for token, alternatives in zip(tokens, written.alternatives or [], strict=False):
        token["top"] = [said(token_id, value) for token_id, value in alternatives]
    return {"score": written.score, "tokens": tokens}
