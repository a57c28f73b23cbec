"""Constrained writing: a JSON schema, a regular expression or a list of choices, of which no text can fall outside.

The grammar's work is done by the ``llguidance`` library: after every token it knows which tokens may come next. A text
that ends for want of room (``finish_reason="length"``) is the beginning of one that satisfies the grammar.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from sensorium.errors import UsageError, missing_extra
from sensorium.infer.settings import GenerationSettings
from sensorium.text import Tokenizer

WHITESPACE = " ?"
"""Between the parts of JSON: a small model that may write spaces for ever does."""


class Grammar:
    """What one text has satisfied so far."""

    def __init__(self, matcher: Any, special_ids: frozenset[int]) -> None:
        self._matcher = matcher
        self._special_ids = special_ids  # end tokens are not among them

    def fork(self) -> Grammar:
        """Another text that goes on from here."""
        return Grammar(self._matcher.deep_copy(), self._special_ids)

    def add(self, token_id: int) -> None:
        """Take the token that was chosen; a special one, which only settings can have forced, is no text."""
        if token_id not in self._special_ids:
            self._matcher.consume_token(token_id)
            self._check()

    @property
    def complete(self) -> bool:
        """Whether the text may end here."""
        return bool(self._matcher.is_accepting())

    @property
    def ended(self) -> bool:
        """Whether nothing may follow."""
        return bool(self._matcher.is_stopped())

    def mask(self) -> np.ndarray:
        """[V / 32] int32: a bit for every token that may come next."""
        mask = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.int32)
        self._check()
        return mask

    def _check(self) -> None:
        if self._matcher.is_error():
            raise UsageError(f"the grammar can't be followed: {_shortened(self._matcher.get_error())}")


def new_grammar(settings: GenerationSettings, tokenizer: Tokenizer | None, vocabulary_size: int) -> Grammar | None:
    """The grammar that the settings ask for, at its beginning; ``None``: they ask for none.

    Raises ``UsageError`` for one that is not valid or that no text can satisfy, for a kind of tokenizer that
    ``llguidance`` does not read, and where the library is not installed.
    """
    constraint = settings.constraint
    if constraint is None:
        return None
    try:
        from llguidance import LLMatcher, LLParserLimits
    except ImportError as error:
        raise missing_extra("llguidance", "grammar") from error
    if tokenizer is None or not settings.end_ids:
        raise UsageError(f"{constraint} needs a tokenizer and an end token; this model has not both")
    reader = _reader(tokenizer, vocabulary_size, settings.end_ids)
    try:
        rules = _rules(settings, constraint)
    except ValueError as error:
        raise UsageError(f"{constraint} can't be followed: {_shortened(str(error))}") from error
    matcher = LLMatcher(reader, rules, log_level=0, limits=LLParserLimits(verbose_errors=False))
    if matcher.is_error():
        raise UsageError(f"{constraint} can't be followed: {_shortened(matcher.get_error())}")
    if not any(matcher.compute_bitmask()) or matcher.is_error():
        raise UsageError(f"{constraint}: there is no text that satisfies it and that this model's tokens can write")
    return Grammar(matcher, tokenizer.special_ids - settings.end_ids)


def _rules(settings: GenerationSettings, constraint: str) -> str:
    """The grammar in the library's form."""
    from llguidance import LLMatcher

    if constraint == "json_schema":
        options: Any = {"whitespace_pattern": WHITESPACE}
        return LLMatcher.grammar_from_json_schema(str(settings.json_schema), overrides=options)
    if constraint == "regex":
        return LLMatcher.grammar_from_regex(str(settings.regex))
    choices = (json.dumps(choice, ensure_ascii=False) for choice in settings.choices)
    return LLMatcher.grammar_from_lark("start: " + " | ".join(choices))


def allowed(masks: Sequence[np.ndarray | None], vocabulary_size: int) -> torch.Tensor:
    """[S, V] bool: the tokens that may come next; all of them where there is no mask."""
    words = -(-vocabulary_size // 32)
    rows = np.full((len(masks), words), -1, dtype=np.int32)  # [S, V / 32]
    for row, mask in zip(rows, masks, strict=True):
        if mask is not None:
            row[:] = 0
            row[: len(mask)] = mask[:words]  # the library may have a word more than the vocabulary needs
    bits = np.unpackbits(rows.view(np.uint8), axis=1, bitorder="little")[:, :vocabulary_size]
    return torch.from_numpy(bits.astype(bool))


_READERS: WeakKeyDictionary[Tokenizer, dict[tuple[int, frozenset[int]], Any]] = WeakKeyDictionary()
"""A tokenizer as the library reads it: reading a large one takes a second, so each is read once."""


def _reader(tokenizer: Tokenizer, vocabulary_size: int, end_ids: frozenset[int]) -> Any:
    from llguidance import LLTokenizer

    kept = _READERS.setdefault(tokenizer, {})
    key = (vocabulary_size, end_ids)
    if key not in kept:
        try:
            kept[key] = LLTokenizer(tokenizer.backend.to_str(), n_vocab=vocabulary_size, eos_token=sorted(end_ids))
        except ValueError as error:
            kind = type(tokenizer.backend.model).__name__
            raise UsageError(
                f"a grammar can't be followed with this tokenizer ({kind}): {_shortened(str(error))}; byte-level and "
                "SentencePiece vocabularies can"
            ) from error
    return kept[key]


def _shortened(message: str) -> str:
    """The library's message on one line, at most 200 characters of it."""
    return " ".join(message.replace("<non-verbose/>", "").split())[:200]
