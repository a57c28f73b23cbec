"""Writing: prompts and settings in, texts out, whether by greedy choice, sampling or beam search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sensorium.errors import UsageError
from sensorium.infer.beam import beam_search
from sensorium.infer.branch import Alternatives, Branch, FinishReason
from sensorium.infer.decode import Decoder, vocabulary_size
from sensorium.infer.generate import Generated, generate_stream
from sensorium.infer.pieces import Pieces
from sensorium.infer.prefix import Prefixes
from sensorium.infer.settings import GenerationSettings
from sensorium.infer.speculate import speculate_stream
from sensorium.text import Tokenizer


@dataclass(frozen=True)
class Written:
    """One answer to a prompt."""

    token_ids: list[int]
    """The new tokens, the end token and a stop string's left out."""
    text: str | None
    """What they add to the prompt; ``None`` without a tokenizer."""
    finish_reason: FinishReason
    """``"stop"``: at an end token or a stop string; ``"length"``: there was no room for more."""
    score: float | None = None
    """Of a beam search: log probability / length ** length_penalty; else their sum, where ``log_probs`` asks for it."""
    log_probabilities: list[float] | None = None
    """Of the tokens, and of an end token, by the model itself, where ``log_probs`` asks for them."""
    alternatives: list[Alternatives] | None = None
    """The likeliest tokens at each place, with their log probabilities, where ``log_probs`` is above 0."""


def write(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    settings: GenerationSettings = GenerationSettings(),  # noqa: B008
    tokenizer: Tokenizer | None = None,
    *,
    assistant: Decoder | None = None,
    prefixes: Prefixes | None = None,
) -> list[list[Written]]:
    """For every prompt its ``num_return_sequences`` answers; those of a beam search the best first.

    Of an encoder–decoder, ``model`` is a ``Conditioned`` and ``prompts`` begin each text (``Conditioned.prompts``). The
    tokenizer gives the texts, the end token where the settings name none, and is needed for stop strings, bad words
    and grammars. An ``assistant`` is a smaller model of the same vocabulary that guesses ahead (``infer.speculate``),
    for a ``Conditioned`` another that has read the same sources; ``prefixes`` keep what prompts begin with from call to
    call (``infer.prefix``).
    Raises ``UsageError`` for an empty or too long prompt, and for token ids that the model has not.
    """
    settings = resolve(settings, model, tokenizer)
    if settings.num_beams > 1:
        if assistant is not None:
            raise UsageError("an assistant guesses what one text says next; it does not go with num_beams: give 1")
        found = beam_search(model, prompts, settings, tokenizer, prefixes)
        return [[_written(one.branch, tokenizer, settings, one.score) for one in answers] for answers in found]
    copies = settings.num_return_sequences
    ended: dict[int, Written] = {}
    for new in _generated(model, prompts, settings, tokenizer, assistant, prefixes):
        if new.finished:
            ended[new.sequence] = _written(new.branch, tokenizer, settings)
    return [[ended[n * copies + copy] for copy in range(copies)] for n in range(len(prompts))]


def write_stream(
    model: Decoder,
    prompt: Sequence[int],
    settings: GenerationSettings,
    tokenizer: Tokenizer,
    *,
    assistant: Decoder | None = None,
    prefixes: Prefixes | None = None,
) -> Iterator[str]:
    """The text that follows a prompt, piece by piece as it is made; together they are the text that ``write`` gives.

    A piece never ends within a character, nor where a stop string may have begun. Raises ``UsageError`` for a beam
    search, which knows its text at the end only, and for several answers.
    """
    if settings.num_beams > 1 or settings.num_return_sequences > 1:
        raise UsageError("a stream is one text as it is made; it goes with neither num_beams nor num_return_sequences")
    settings = resolve(settings, model, tokenizer)
    pieces = Pieces(tokenizer, prompt, settings.stop_strings)
    for new in _generated(model, [prompt], replace(settings, stop_strings=()), tokenizer, assistant, prefixes):
        if new.token_id not in settings.end_ids:
            pieces.add(new.token_id)
        if new.finished:
            pieces.end()
        if piece := pieces.take():
            yield piece
        if pieces.stopped:
            return


def resolve(settings: GenerationSettings, model: Decoder, tokenizer: Tokenizer | None) -> GenerationSettings:
    """The settings with the tokenizer's end token where they name none, and bad words as token ids.

    Raises ``UsageError`` for texts without a tokenizer, and for a token id that the model has not.
    """
    if tokenizer is None and (settings.stop_strings or settings.bad_words):
        raise UsageError("stop_strings and bad_words are texts, and there is no tokenizer to read them")
    if tokenizer is not None:
        if settings.eos_token_id is None:
            settings = replace(settings, eos_token_id=tokenizer.eos_id)
        spelt = [_plain(tokenizer, before + word) for word in settings.bad_words for before in ("", " ")]
        phrases = dict.fromkeys([*settings.bad_words_ids, *filter(None, spelt)])
        settings = replace(settings, bad_words=(), bad_words_ids=tuple(phrases))
    size = vocabulary_size(model)
    single = {name: getattr(settings, name) for name in ("suppress_tokens", "begin_suppress_tokens")}
    single |= {name: [getattr(settings, name) or 0] for name in ("decoder_start_token_id", "forced_bos_token_id")}
    single |= {"forced_eos_token_id": settings.forced_end_ids, "eos_token_id": settings.end_ids}
    single |= {"bad_words_ids": [token_id for ids in settings.bad_words_ids for token_id in ids]}
    for name, ids in single.items():
        if beyond := [token_id for token_id in ids if token_id >= size]:
            raise UsageError(f"{name} names token {beyond[0]:,}; this model has tokens 0 to {size - 1:,}")
    return settings


def _plain(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.target.encode_plain(text))


def _generated(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    settings: GenerationSettings,
    tokenizer: Tokenizer | None,
    assistant: Decoder | None,
    prefixes: Prefixes | None,
) -> Iterator[Generated]:
    """New tokens as they are made, one at a time or, where somebody guesses, several."""
    if assistant is None and not settings.prompt_lookup_num_tokens:
        return generate_stream(model, prompts, settings, tokenizer, prefixes)
    return speculate_stream(model, prompts, settings, tokenizer, assistant, prefixes)


def _written(
    branch: Branch, tokenizer: Tokenizer | None, settings: GenerationSettings, score: float | None = None
) -> Written:
    ids, text, kept = branch.new_ids, None, branch.num_new
    if tokenizer is not None:
        prompt = branch.tokens[: branch.prompt_length]
        text = added(tokenizer, prompt, ids)
        if branch.pieces is not None and branch.pieces.stopped:
            text = branch.pieces.text
            while ids and added(tokenizer, prompt, ids[:-1]).startswith(text):
                ids = ids[:-1]
            kept = len(ids)
    own = branch.log_probabilities[:kept]
    if score is None and settings.log_probs is not None:
        score = sum(own)
    return Written(
        token_ids=ids,
        text=text,
        finish_reason=branch.finish_reason or "length",
        score=score,
        log_probabilities=own if settings.log_probs is not None else None,
        alternatives=branch.alternatives[:kept] if settings.log_probs else None,
    )


def added(tokenizer: Tokenizer, before: Sequence[int], after: Sequence[int]) -> str:
    """What new tokens add: decoded with the prompt, since a tokenizer may join them by what stands before."""
    return tokenizer.decode([*before, *after])[len(tokenizer.decode(before)) :]
