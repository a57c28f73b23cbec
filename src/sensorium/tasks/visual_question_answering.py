"""Visual question answering: a question about an image → answers, the likeliest first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sensorium.errors import UsageError
from sensorium.tasks.image_text_to_text import ImageTextToText
from sensorium.text.asking import asked

LONGEST = 16
"""Tokens of an answer, unless the call says otherwise."""


class VisualQuestionAnswering:
    """A model that reads images among words, asked as it was trained to be asked."""

    def __init__(self, checkpoint: Any, batch_tokens: int) -> None:
        self.reader = ImageTextToText(checkpoint, batch_tokens)
        self.tokenizer = self.reader.tokenizer
        self.model = self.reader.model

    def __call__(self, image: Any, *, question: str | Sequence[str], top_k: int = 1, **options: Any) -> Any:
        """``[{"score", "answer"}]`` for an image; a list of those for a list of images; a stream for a stream.

        ``question`` is asked of all images, or one of each. ``top_k`` answers come from a beam search; ``score`` is the
        probability of the whole answer. ``options`` are those of ``GenerationSettings``.
        """
        if top_k < 1:
            raise UsageError(f"top_k is {top_k}; at least one answer can be asked for")
        place = self.reader.placeholder
        text = asked(question, place) if isinstance(question, str) else [asked(one, place) for one in question]
        settings = {"max_new_tokens": LONGEST, "num_beams": top_k, "num_return_sequences": top_k, "log_probs": 0}
        found = self.reader(image, text=text, return_full_text=False, **{**settings, **options})
        if isinstance(found, list):
            one = bool(found) and isinstance(found[0], dict)
            return _answers(found) if one else [_answers(answers) for answers in found]
        return (_answers(answers) for answers in found)


def _answers(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"score": math.exp(sum(token["log_prob"] for token in one["tokens"])), "answer": one["generated_text"].strip()}
        for one in found
    ]
