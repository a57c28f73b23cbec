"""Of each setting of generation by itself: whether a value may be meant, and what it must be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sensorium.errors import UsageError

MOST_PENALTY = 10.0
"""Of a length, up or down: beyond it a score has nothing to do with probability, and at last leaves a float's range."""
MOST_ALTERNATIVES = 100
MOST_STOP_STRINGS = 64
MOST_GUESSED = 64
MOST_GRAMMAR = 1_000_000
"""Characters."""
MOST_BEAMS = 1_000
MOST_ANSWERS = 10_000


def _whole(low: int, high: float = float("inf"), *, none: bool = False) -> Callable[[Any], bool]:
    return lambda value: (none and value is None) or (type(value) is int and low <= value <= high)


def _number(inside: Callable[[float], bool]) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and inside(value)


def _token(value: Any) -> bool:
    return type(value) is int and value >= 0


def _tokens(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_token, value))


def _one_or_several(value: Any) -> bool:
    return value is None or _token(value) or (isinstance(value, list | tuple) and all(map(_token, value)))


def _text(value: Any) -> bool:
    return value is None or (isinstance(value, str) and 0 < len(value) <= MOST_GRAMMAR)


def _texts(most: int) -> Callable[[Any], bool]:
    return lambda value: len(value) <= most and all(isinstance(text, str) and text for text in value)


CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_new_tokens": (_whole(1, none=True), "1 or more"),
    "max_length": (_whole(1, none=True), "1 or more"),
    "min_new_tokens": (_whole(0), "0 or more"),
    "min_length": (_whole(0), "0 or more"),
    "do_sample": (lambda value: isinstance(value, bool), "True or False"),
    "temperature": (_number(lambda t: 0 < t < float("inf")), "above 0 (do_sample=False is greedy)"),
    "top_k": (_whole(0), "0 or more"),
    "top_p": (_number(lambda p: 0 < p <= 1), "above 0 and at most 1"),
    "min_p": (_number(lambda p: 0 <= p <= 1), "from 0 to 1"),
    "seed": (_whole(0, none=True), "0 or more"),
    "num_beams": (_whole(1, MOST_BEAMS), f"from 1 to {MOST_BEAMS:,}"),
    "length_penalty": (_number(lambda p: abs(p) <= MOST_PENALTY), f"from {-MOST_PENALTY} to {MOST_PENALTY}"),
    "early_stopping": (lambda value: isinstance(value, bool) or value == "never", "True, False or 'never'"),
    "num_return_sequences": (_whole(1, MOST_ANSWERS), f"from 1 to {MOST_ANSWERS:,}"),
    "repetition_penalty": (_number(lambda p: 0 < p < float("inf")), "above 0"),
    "no_repeat_ngram_size": (_whole(0), "0 or more"),
    "bad_words": (_texts(10_000), "a list of texts that are not empty"),
    "bad_words_ids": (lambda value: all(ids and _tokens(ids) for ids in value), "a list of lists of token ids"),
    "suppress_tokens": (_tokens, "a list of token ids"),
    "begin_suppress_tokens": (_tokens, "a list of token ids"),
    "decoder_start_token_id": (lambda value: value is None or _token(value), "a token id"),
    "forced_bos_token_id": (lambda value: value is None or _token(value), "a token id"),
    "forced_eos_token_id": (_one_or_several, "a token id, or a list of them"),
    "eos_token_id": (_one_or_several, "a token id, or a list of them"),
    "stop_strings": (_texts(MOST_STOP_STRINGS), f"at most {MOST_STOP_STRINGS} texts that are not empty"),
    "json_schema": (_text, "a JSON schema, an object of at most 1,000,000 characters"),
    "regex": (_text, "a regular expression of at most 1,000,000 characters"),
    "choices": (_texts(10_000), "a list of texts that are not empty"),
    "prompt_lookup_num_tokens": (_whole(0, MOST_GUESSED), f"from 0 to {MOST_GUESSED}"),
    "num_assistant_tokens": (_whole(1, MOST_GUESSED), f"from 1 to {MOST_GUESSED}"),
    "log_probs": (_whole(0, MOST_ALTERNATIVES, none=True), f"from 0 to {MOST_ALTERNATIVES}"),
}
"""Of each setting: whether a value may be meant, and what it must be."""


def as_tuple(name: str, value: Any) -> tuple[Any, ...]:
    """A list, or a text by itself, as a tuple."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Sequence):
        raise UsageError(f"{name} is {value!r}; it must be {CHECKS[name][1]}")
    return tuple(tuple(one) if isinstance(one, list) else one for one in value)
