"""Every option of writing, in one place: under the names the field uses, checked one by one and against each other."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from sensorium.errors import CheckpointError, UsageError, nearest
from sensorium.infer.setting_checks import CHECKS, as_tuple

MAX_NEW_TOKENS = 20
"""Where neither ``max_new_tokens`` nor ``max_length`` says how many."""


@dataclass(frozen=True)
class GenerationSettings:
    """How a model writes. Greedy by default: the likeliest token, again and again."""

    max_new_tokens: int | None = None
    """Tokens to write at most; ``None``: as ``max_length`` says, else 20."""
    max_length: int | None = None
    """The same with the prompt counted (of an encoder–decoder, its first token); ``max_new_tokens`` goes before it."""
    min_new_tokens: int = 0
    """No end token before so many."""
    min_length: int = 0
    """The same with the prompt counted."""
    do_sample: bool = False
    """Draw the next token by its probability."""
    temperature: float = 1.0
    """Of sampling: divides the logits."""
    top_k: int = 50
    """Sample among so many of the likeliest; 0: all."""
    top_p: float = 1.0
    """Sample among the likeliest that together have this probability (Holtzman et al., 2020)."""
    min_p: float = 0.0
    """Sample among those at least so many times as likely as the likeliest (Nguyen et al., 2024)."""
    seed: int | None = None
    """The same seed gives a prompt the same text, whatever is in the batch beside it; ``None``: another each time."""
    num_beams: int = 1
    """Above 1, a beam search that follows so many continuations of a prompt."""
    length_penalty: float = 1.0
    """Of beams: score = log probability / length ** length_penalty, the end token counted; above 0 favours length."""
    early_stopping: bool | Literal["never"] = False
    """When a beam search ends, once ``num_beams`` answers are finished. ``True``: at once; ``False``: when no beam is
    better than the worst of them as it stands; ``"never"``: when none can become better, however it goes on."""
    num_return_sequences: int = 1
    """Answers to a prompt: samples, or the best of the beams, the best first."""
    repetition_penalty: float = 1.0
    """Divides the logits of tokens that occurred (Keskar et al., 2019); of beams, multiplies log probabilities."""
    no_repeat_ngram_size: int = 0
    """No so many tokens in a row twice; 0: as often as may be (Paulus et al., 2018)."""
    bad_words: tuple[str, ...] = ()
    """Texts not to be written, as the tokenizer splits them at the start of a word and within one."""
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    """Token ids not to be written in a row."""
    suppress_tokens: tuple[int, ...] = ()
    """Tokens never to be written."""
    begin_suppress_tokens: tuple[int, ...] = ()
    """Tokens not to be written first."""
    decoder_start_token_id: int | None = None
    """The token that an encoder–decoder begins with; ``None``: its config's. A decoder begins with its prompt."""
    forced_bos_token_id: int | None = None
    """The token after a prompt of one token: an encoder–decoder's language, for one."""
    forced_eos_token_id: int | tuple[int, ...] | None = None
    """The last token, where the text did not end before."""
    eos_token_id: int | tuple[int, ...] | None = None
    """The end token, or several; ``None``: the tokenizer's."""
    stop_strings: tuple[str, ...] = ()
    """Texts before which the writing ends; they are cut off."""
    json_schema: str | Mapping[str, Any] | None = None
    """A JSON schema, as JSON or as a mapping, that the text satisfies (``infer.grammar``)."""
    regex: str | None = None
    """A regular expression that the whole text matches."""
    choices: tuple[str, ...] = ()
    """The texts one of which is written."""
    prompt_lookup_num_tokens: int = 0
    """Guess so many tokens at a time from what followed the same words before, and check them in one pass: the same
    text, sooner where it repeats its prompt (``infer.speculate``); 0: no guessing."""
    num_assistant_tokens: int = 5
    """Tokens that an assistant model, where there is one, guesses at a time."""
    log_probs: int | None = None
    """Give the log probability of every token written, and of so many of the likeliest at its place; ``None``: none."""

    def __post_init__(self) -> None:
        """Raises ``UsageError`` for a value that can't be meant, and for two that contradict each other."""
        if isinstance(self.json_schema, Mapping):
            object.__setattr__(self, "json_schema", _as_json(self.json_schema))
        for name in _SEVERAL:
            object.__setattr__(self, name, as_tuple(name, getattr(self, name)))
        for name, (allowed, words) in CHECKS.items():
            if not allowed(getattr(self, name)):
                raise UsageError(f"{name} is {getattr(self, name)!r}; it must be {words}")
        _check_number_of_answers(self)
        _check_effect(self)
        _check_lengths(self)
        if len(several := [name for name in _CONSTRAINTS if getattr(self, name)]) > 1:
            raise UsageError(f"{' and '.join(several)} were given; a text can follow one of them")
        _check_tokens(self)

    @property
    def end_ids(self) -> frozenset[int]:
        """The end tokens; none where ``eos_token_id`` is ``None``."""
        return _ids(self.eos_token_id)

    @property
    def constraint(self) -> str | None:
        """Which of the settings constrains the whole text."""
        return next((name for name in _CONSTRAINTS if getattr(self, name)), None)

    @property
    def forced_end_ids(self) -> frozenset[int]:
        """What ``forced_eos_token_id`` names."""
        return _ids(self.forced_eos_token_id)

    def room(self, prompt_length: int) -> int:
        """Tokens that a prompt and all that goes on from it take at most."""
        branches = max(self.num_beams, self.num_return_sequences)
        return (prompt_length + self.most_new_tokens(prompt_length)) * branches

    def most_new_tokens(self, prompt_length: int) -> int:
        """Tokens to write at most after a prompt. Raises ``UsageError`` where ``max_length`` leaves room for none.

        >>> GenerationSettings(max_length=12).most_new_tokens(10)
        2
        """
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        if self.max_length is None:
            return MAX_NEW_TOKENS
        if self.max_length <= prompt_length:
            raise UsageError(
                f"a prompt has {prompt_length:,} tokens, and max_length, which counts them, is {self.max_length:,}; "
                "give max_new_tokens, which does not"
            )
        return self.max_length - prompt_length


def settings_of(options: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> GenerationSettings:
    """Settings from the options of a call, over the defaults of a checkpoint (``Checkpoint.generation``).

    Options that are ``None`` are taken as not given. A default that has nothing to do with what was asked for (a
    temperature, where the caller does not sample) is left out; unknown ones, such as a version, are too. Raises
    ``UsageError`` for an option, ``CheckpointError`` for a default that can't be meant.

    >>> settings_of({"num_beams": 4}, {"do_sample": True, "temperature": 0.6, "max_length": 9}).max_length
    9
    """
    names = [field.name for field in fields(GenerationSettings)]
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in names:
            raise UsageError(f"there is no option {name!r}{nearest(name, names)}; known are {', '.join(names)}")
    known = {name: value for name, value in (defaults or {}).items() if name in names and value is not None}
    for name, value in known.items():
        _check_default(name, value)
    _warn_of_ignored(defaults or {})
    try:
        GenerationSettings(**_that_apply(known, {}))
    except UsageError as error:
        raise CheckpointError(f"generation_config.json contradicts itself: {error}") from error
    return GenerationSettings(**{**_that_apply(known, given), **given})


_SAMPLING = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": 0.0}
_SEARCH = {"length_penalty": 1.0, "early_stopping": False}
_SEVERAL = ("bad_words", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "stop_strings", "choices")
_CONSTRAINTS = ("json_schema", "regex", "choices")
_IGNORED = {
    "num_beam_groups": 1, "diversity_penalty": 0.0, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0,
    "encoder_repetition_penalty": 1.0, "encoder_no_repeat_ngram_size": 0, "exponential_decay_length_penalty": None,
    "sequence_bias": None, "guidance_scale": None, "penalty_alpha": None, "force_words_ids": None,
}  # fmt: skip
"""Settings of published checkpoints that are not supported, and the values that ask for nothing."""


def _that_apply(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults that have to do with what was asked for."""
    left = {name: value for name, value in defaults.items() if name not in given}
    if "num_beams" in given and given["num_beams"] > 1:
        left.pop("do_sample", None)
    if given.get("do_sample"):
        left.pop("num_beams", None)
    both = {**left, **given}
    sampled, searched = both.get("do_sample", False), both.get("num_beams", 1) > 1
    if sampled and searched and "do_sample" not in given:  # a checkpoint that asks for both: the search is reproducible
        left.pop("do_sample")
        sampled = False
    dropped = set() if sampled else set(_SAMPLING)
    dropped |= set() if searched else set(_SEARCH)
    if left.get("num_return_sequences", 1) > (both.get("num_beams", 1) if not sampled else float("inf")):
        dropped.add("num_return_sequences")
    if "max_length" in given:
        dropped.add("max_new_tokens")
    for most, least in (("max_new_tokens", "min_new_tokens"), ("max_length", "min_length")):
        if most in given and left.get(least, 0) > given[most]:
            dropped.add(least)
        if least in given and left.get(most, given[least]) < given[least]:
            dropped.add(most)
    return {name: value for name, value in left.items() if name not in dropped}


def _check_default(name: str, value: Any) -> None:
    """Raises ``CheckpointError`` for a default that is not of its kind."""
    allowed, words = CHECKS[name]
    try:
        fine = allowed(as_tuple(name, value) if name in _SEVERAL else value)
    except UsageError:
        fine = False
    if not fine:
        raise CheckpointError(f"generation_config.json: {name} is {value!r:.80}; it must be {words}")


def _warn_of_ignored(defaults: Mapping[str, Any]) -> None:
    for name, neutral in _IGNORED.items():
        if defaults.get(name) is not None and defaults[name] != neutral:
            warnings.warn(f"generation_config.json asks for {name}, which is not supported: left out", stacklevel=4)


def _check_number_of_answers(settings: GenerationSettings) -> None:
    if settings.num_beams > 1 and settings.do_sample:
        raise UsageError("sampling within a beam search is not supported; give do_sample=True or num_beams, not both")
    if settings.num_beams > 1 and settings.prompt_lookup_num_tokens:
        raise UsageError("prompt_lookup_num_tokens guesses what one text says next; it does not go with num_beams")
    wanted = settings.num_return_sequences
    if settings.num_beams > 1 and wanted > settings.num_beams:
        raise UsageError(
            f"num_return_sequences is {wanted}; a search with {settings.num_beams} beams gives at least 1 answer and "
            f"at most {settings.num_beams}"
        )
    if wanted > 1 and settings.num_beams == 1 and not settings.do_sample:
        raise UsageError(
            "num_return_sequences above 1 needs do_sample=True or num_beams above 1: greedy has one answer"
        )


def _check_effect(settings: GenerationSettings) -> None:
    """An option that can do nothing was meant to do something."""
    for active, needed, options in (
        (settings.do_sample, "do_sample=True", _SAMPLING),
        (settings.num_beams > 1, "num_beams above 1", _SEARCH),
    ):
        for name, neutral in options.items():
            value = getattr(settings, name)
            if not active and value != neutral:
                raise UsageError(f"{name}={value!r} does nothing without {needed}; give both, or neither")


def _check_lengths(settings: GenerationSettings) -> None:
    for most, least in (("max_new_tokens", "min_new_tokens"), ("max_length", "min_length")):
        limit, wanted = getattr(settings, most), getattr(settings, least)
        if limit is not None and wanted > limit:
            raise UsageError(f"{least} is {wanted}, and {most} only {limit}")


def _check_tokens(settings: GenerationSettings) -> None:
    suppressed = set(settings.suppress_tokens)
    for name, forced in (
        ("forced_bos_token_id", _ids(settings.forced_bos_token_id)),
        ("forced_eos_token_id", settings.forced_end_ids),
    ):
        if forced and forced <= suppressed:
            raise UsageError(f"{name} is {min(forced)}, and suppress_tokens forbids it")


def _as_json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"json_schema can't be written as JSON: {error}") from error


def _ids(value: int | Sequence[int] | None) -> frozenset[int]:
    if value is None:
        return frozenset()
    return frozenset([value] if isinstance(value, int) else value)
