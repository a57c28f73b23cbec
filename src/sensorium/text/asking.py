"""How a question about an image is written for a model that was trained here to answer it."""

from __future__ import annotations

IMAGE = "<image>"
"""The token that stands for an image, in vocabularies that are learnt here."""


def asked(question: str, image: str = IMAGE) -> str:
    """The text that an answer comes after.

    >>> asked("What colour is it?")
    '<image>\\nWhat colour is it?\\n'
    """
    return f"{image}\n{question}\n"
