"""A branch: a sequence that goes on from a prompt, and what is known of it so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from sensorium.infer.decode import Decoder, last_position, vocabulary_size
from sensorium.infer.grammar import Grammar, new_grammar
from sensorium.infer.looking import Looking
from sensorium.infer.pieces import Pieces
from sensorium.infer.settings import GenerationSettings
from sensorium.text import Tokenizer

FinishReason = Literal["stop", "length"]
"""``stop``: an end token or a stop string; ``length``: no room for more."""
Alternatives = list[tuple[int, float]]
"""Token ids with their log probabilities, the likeliest first."""


@dataclass
class Branch:
    """Its prompt, and the tokens chosen after it."""

    tokens: list[int]
    """The prompt's, and the new ones."""
    prompt_length: int
    most_new: int
    """There is room for so many new tokens."""
    end_ids: frozenset[int]
    pieces: Pieces | None = None
    """The new text as it comes, where stop strings are looked for in it."""
    grammar: Grammar | None = None
    """What the text has to satisfy."""
    log_probabilities: list[float] = field(default_factory=list)
    """Of the new tokens, where they were asked for."""
    alternatives: list[Alternatives] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    """Why it ended; ``None``: it goes on."""

    @property
    def num_new(self) -> int:
        """New tokens, an end token among them."""
        return len(self.tokens) - self.prompt_length

    @property
    def new_ids(self) -> list[int]:
        """The new tokens, an end token left out."""
        ended = self.num_new and self.tokens[-1] in self.end_ids
        return self.tokens[self.prompt_length : -1 if ended else None]

    def fork(self) -> Branch:
        """Another that goes on from here."""
        return replace(
            self,
            tokens=list(self.tokens),
            pieces=None if self.pieces is None else self.pieces.fork(),
            grammar=None if self.grammar is None else self.grammar.fork(),
            log_probabilities=list(self.log_probabilities),
            alternatives=list(self.alternatives),
        )

    def add(self, token_id: int) -> None:
        """Take one more token, and see whether it is the last."""
        self.tokens.append(token_id)
        if token_id in self.end_ids:  # one that was forced may break a grammar off
            self.finish_reason = "stop" if self.grammar is None or self.grammar.complete else "length"
            return
        if self.grammar is not None:
            self.grammar.add(token_id)
        if (self.pieces is not None and self.pieces.add(token_id)) or (self.grammar is not None and self.grammar.ended):
            self.finish_reason = "stop"
        elif self.num_new >= self.most_new:
            stopped = self.pieces is not None and self.pieces.end()
            self.finish_reason = "stop" if stopped else "length"


def new_branches(
    model: Decoder, prompts: Sequence[Sequence[int]], settings: GenerationSettings, tokenizer: Tokenizer | None
) -> list[Branch]:
    """For every prompt a branch with nothing written yet. Raises ``UsageError`` for a grammar that can't be."""
    grammar = new_grammar(settings, tokenizer, vocabulary_size(model))
    branches = []
    for prompt in prompts:
        room = last_position(model, prompt, settings.most_new_tokens(len(prompt))) + 1 - len(prompt)
        said = model.in_words(prompt) if isinstance(model, Looking) else list(prompt)
        branch = Branch(said, len(said), room, settings.end_ids)
        if settings.stop_strings and tokenizer is not None:
            branch.pieces = Pieces(tokenizer, said, settings.stop_strings)
        branch.grammar = None if grammar is None else grammar.fork()
        branches.append(branch)
    return branches
