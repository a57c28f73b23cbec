"""How a model is asked to draw: the words for a picture, and a token after which its own tokens come."""

from __future__ import annotations

from collections.abc import Sequence

from sensorium.errors import CheckpointError
from sensorium.text import Tokenizer

BEGIN = "<begin_of_image>"
"""The token before those of an image, in Janus' vocabularies and in those that are learnt here."""
END = "<end_of_image>"
"""The token after those of an image, in vocabularies that have it."""


def begin_id(tokenizer: Tokenizer) -> int:
    """The number of that token. Raises ``CheckpointError`` where the vocabulary has none."""
    found: int | None = tokenizer.backend.token_to_id(BEGIN)
    if found is None:
        raise CheckpointError(f"the tokenizer has no {BEGIN!r}, after which drawings come")
    return found


def frame_of_images(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """What stands before and after an image that is seen: both tokens, where the vocabulary has both; else nothing."""
    first, last = (tokenizer.backend.token_to_id(name) for name in (BEGIN, END))
    return ([], []) if first is None or last is None else ([first], [last])


def prompt_ids(text: str, tokenizer: Tokenizer) -> list[int]:
    """The tokens that a drawing of ``text`` comes after."""
    return [*tokenizer.encode(text).token_ids, begin_id(tokenizer)]


def hidden_caption(prompt: Sequence[int], tokenizer: Tokenizer, hide: Sequence[bool] | None = None) -> list[int]:
    """A prompt with padding in place of its words, as Janus has it: what is drawn then is what most pictures are like.

    ``hide`` says which of its tokens are hidden; ``None``: all that are words. Raises ``CheckpointError`` where the
    tokenizer has no padding.
    """
    if tokenizer.pad_id is None:
        raise CheckpointError("the tokenizer has no padding, which stands for hidden words")
    kept = {begin_id(tokenizer), tokenizer.bos_id}
    hidden = [token_id not in kept for token_id in prompt] if hide is None else hide
    return [tokenizer.pad_id if hides else token_id for token_id, hides in zip(prompt, hidden, strict=True)]
