"""Answering in conversations: the next token, where the assistant speaks (Ouyang et al., 2022, §3.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensorium.config import LanguageModelHeadConfig
from sensorium.data.batching import Example
from sensorium.errors import DataError, UsageError
from sensorium.objectives._base import Batch, Loss, Record, field, pack
from sensorium.objectives._next_token import chosen_states, next_token_batch, next_token_loss
from sensorium.text import Tokenizer
from sensorium.text.chat import check_messages, encode_chat


@dataclass(frozen=True)
class Conversation:
    """Records: ``messages``, perhaps ``tools``. The loss is on what the assistant answers, and on how it ends its turn.

    Where its turns stand is found by writing the conversation only so far, as it is written when the model answers. A
    template that writes a turn otherwise once others follow (some leave out what was thought) gives one example a turn.
    """

    template: str
    """The chat template."""
    max_length: int = 512
    """Tokens kept of a conversation; training cuts longer ones."""

    def heads(self) -> dict[str, Any]:
        """The language-model head."""
        return {"language_model": LanguageModelHeadConfig()}

    def prepare(self, records: Sequence[Record], tokenizer: Tokenizer) -> list[Example]:
        """Write and tokenise. Raises ``DataError`` for a record without messages, or with some it can't write."""
        examples: list[Example] = []
        for number, record in enumerate(records, 1):
            messages = field(record, "messages", number)
            try:
                examples += self._examples(messages, record.get("tools"), tokenizer)
            except UsageError as problem:
                raise DataError(f"record {number:,}: {problem}") from problem
        if not examples:
            raise DataError(f"the assistant says nothing within the first {self.max_length} tokens of any conversation")
        return examples

    def examples(self, prepared: list[Example], generator: np.random.Generator) -> list[Example]:
        """The same every epoch."""
        return prepared

    def collate(self, examples: Sequence[Example], tokenizer: Tokenizer, generator: np.random.Generator) -> Batch:
        """Pack; targets: ``rows`` [M] every token before one of the assistant's, ``next`` [M] that token."""
        packed = pack(examples)
        learnt = torch.from_numpy(np.concatenate([example.labels["assistant"] for example in examples]))  # [T]
        return next_token_batch(packed, learnt)

    def losses(self, model: Any, batch: Batch) -> dict[str, Loss]:
        """Cross-entropy of every token of the assistant's."""
        hidden_states = self.hidden_states(model, batch)
        return {"language_model": next_token_loss(model, hidden_states, batch.targets["next"])}

    def hidden_states(self, model: Any, batch: Batch) -> Tensor:
        """[M, D], each of which a target comes after."""
        return chosen_states(model, batch)

    def _examples(self, messages: Any, tools: Any, tokenizer: Tokenizer) -> list[Example]:
        """One example of a conversation; one for each of the assistant's turns where the template needs it."""

        def encoded(count: int, *, answering: bool) -> list[int]:
            return encode_chat(tokenizer, self.template, messages[:count], tools=tools, add_generation_prompt=answering)

        messages = check_messages(messages)
        whole = encoded(len(messages), answering=False)
        turns = [i for i, message in enumerate(messages) if i and message["role"] == "assistant"]
        ends = [encoded(i + 1, answering=False) for i in turns]
        # A tokenizer may join the end of the prompt and the first letters of an answer: those are learnt as well.
        starts = [_common(encoded(i, answering=True), end) for i, end in zip(turns, ends, strict=True)]
        if all(whole[: len(end)] == end for end in ends):
            parts = [(whole, [(start, len(end)) for start, end in zip(starts, ends, strict=True)])]
        else:
            parts = [(end, [(start, len(end))]) for start, end in zip(starts, ends, strict=True)]
        found = [self._example(token_ids, learnt) for token_ids, learnt in parts]
        return [example for example in found if example.labels["assistant"].any()]

    def _example(self, token_ids: list[int], spans: list[tuple[int, int]]) -> Example:
        """Cut, with the tokens of ``spans`` marked; nothing comes before the first token, so it is not learnt."""
        learnt = np.zeros(len(token_ids), bool)  # [L]
        for start, end in spans:
            learnt[max(1, start) : end] = True
        return Example(
            np.asarray(token_ids[: self.max_length], np.int32), labels={"assistant": learnt[: self.max_length]}
        )


def _common(first: list[int], second: list[int]) -> int:
    """Tokens that two sequences begin with together."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
