"""Log probabilities of the options of prompts, by a decoder: what few-shot evaluation asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sensorium.checkpoint import Checkpoint
from sensorium.errors import DataError, UsageError
from sensorium.evaluate.few_shot import Question
from sensorium.infer.options import score_options
from sensorium.infer.prefix import PrefixStore
from sensorium.models.decoder import DecoderLM

MOST_PREFIX_BYTES = 2**30


def option_scorer(checkpoint: Checkpoint) -> Callable[[list[Question]], list[list[float]]]:
    """Prompts with options → the log probability of each option after its prompt, in nats.

    Prompt and option are tokenised together, as they would be written; the tokens of the prompt that come out otherwise
    then count as the option's. What prompts begin with is computed once. Raises ``UsageError`` for what is no decoder,
    ``DataError`` for a prompt that is too long.
    """
    model, tokenizer = checkpoint.model, checkpoint.require_tokenizer()
    if not isinstance(model, DecoderLM):
        raise UsageError(f"{checkpoint.folder}: few-shot needs a decoder (gpt2, llama); this is a {checkpoint.family}")
    most = model.config.max_length

    def split(number: int, prompt: str, options: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        wholes = [tokenizer.encode(prompt + option).token_ids for option in options]
        alone = tokenizer.encode(prompt).token_ids
        shared = min(len(_common([alone, whole])) for whole in wholes)
        shared = min(shared, *(len(whole) - 1 for whole in wholes))
        longest = max(map(len, wholes))
        if longest > most or shared < 1:
            raise DataError(
                f"item {number}: its prompt has {longest:,} tokens with an option; this model reads 2 to {most:,}; "
                "give fewer or shorter examples"
            )
        return alone[:shared], [whole[shared:] for whole in wholes]

    def score(questions: list[Question]) -> list[list[float]]:
        items = [split(number, *question) for number, question in enumerate(questions, 1)]
        return list(score_options(model, items, prefixes=PrefixStore(model, MOST_PREFIX_BYTES).salted("")))

    return score


def _common(sequences: Sequence[Sequence[int]]) -> list[int]:
    """What they begin with, all of them."""
    shortest = min(sequences, key=len)
    differing = (n for n, token_id in enumerate(shortest) if any(other[n] != token_id for other in sequences))
    return list(shortest[: next(differing, len(shortest))])
