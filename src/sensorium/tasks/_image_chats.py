"""Chats with images in them: which images, and what the chat template sees of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sensorium.errors import DataError
from sensorium.tasks.text_generation import Messages

SOURCES = ("image", "url", "path")
"""The keys of an image's part that may hold it, as ``transformers`` names them."""


def images_of(messages: Messages, number: int) -> tuple[list[dict[str, Any]], list[Any]]:
    """The messages of chat ``number`` with nothing of an image but that it is one, and the images in order.

    Raises ``DataError`` for a part that is neither an image nor a text.

    >>> images_of([{"role": "user", "content": [{"type": "image", "path": "a.png"}, {"type": "text", "text": "?"}]}], 1)
    ([{'role': 'user', 'content': [{'type': 'image'}, {'type': 'text', 'text': '?'}]}], ['a.png'])
    """
    images: list[Any] = []
    plain: list[dict[str, Any]] = []
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        if isinstance(content, list | tuple):
            message = {**message, "content": [_seen(part, images, number) for part in content]}
        plain.append(dict(message))
    return plain, images


def _seen(part: Any, images: list[Any], number: int) -> dict[str, Any]:
    """A part as the template sees it; its image goes to ``images``."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return dict(part)
    if kind != "image":
        raise DataError(
            f'input {number}: {part!r:.80} is no part of a message; it is {{"type": "text", "text": …}} or '
            '{"type": "image", "path": …}'
        )
    held = [part[key] for key in SOURCES if part.get(key) is not None]
    if len(held) != 1:
        raise DataError(
            f"input {number}: a part of the type 'image' holds {len(held)} images; give one, as its {_listed(SOURCES)}"
        )
    images += held
    return {"type": "image"}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:-1])) + f" or {names[-1]!r}"
