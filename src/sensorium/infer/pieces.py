"""Text as its tokens come: pieces that never break a character, and that end before a stop string."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from sensorium.text import Tokenizer

BROKEN = "\ufffd"
"""What bytes are decoded to that make no character, or none yet."""


class Pieces:
    """The text that new tokens add to a prompt, piece by piece.

    Only the newest tokens are decoded, however long the text is: with those before them, since a tokenizer may join
    them. A character whose bytes are not all there yet is kept back, and so is what a stop string may begin with.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], stop_strings: Sequence[str] = ()) -> None:
        self.tokenizer = tokenizer
        self.stop_strings = tuple(stop_strings)
        self.text = ""
        """All that was written, up to the stop string."""
        self.stopped = False
        """A stop string came."""
        self.ended = False
        self._tokens = _end_of(tokenizer, prompt)  # the last of those that are decoded, and those that are not yet
        self._decoded = len(self._tokens)
        self._taken = 0  # characters of the text that were given out
        self._longest = max(map(len, self.stop_strings), default=0)

    def add(self, token_id: int) -> bool:
        """Take one more token; whether a stop string came, before which the text ends."""
        self._tokens.append(token_id)
        self._decode(whole=True)
        return self.stopped

    def end(self) -> bool:
        """No more tokens will come: take what was kept back; whether a stop string is in it."""
        self.ended = True
        if not self.stopped:
            self._decode(whole=False)
        return self.stopped

    def take(self) -> str:
        """What is new since the last time."""
        end = len(self.text) if self.ended or self.stopped else len(self.text) - self._begun()
        piece, self._taken = self.text[self._taken : end], max(self._taken, end)
        return piece

    def fork(self) -> Pieces:
        """Another that goes on from here."""
        other = copy.copy(self)
        other._tokens = list(self._tokens)
        return other

    def _decode(self, *, whole: bool) -> None:
        """Move what is not decoded yet into the text; ``whole``: unless its last character is not."""
        now = self.tokenizer.decode(self._tokens)
        if whole and now.endswith(BROKEN):
            return
        before = self.tokenizer.decode(self._tokens[: self._decoded])
        start = max(len(self.text) - self._longest + 1, 0)  # where a stop string that ends in what is new may begin
        if len(now) > len(before):  # else, a special token: what follows is joined to what stood before
            self.text += now[len(before) :]
            self._tokens = self._tokens[self._decoded :]
        self._decoded = len(self._tokens)
        places = [(stop, self.text.find(stop, start)) for stop in self.stop_strings]
        found = [(place + len(stop), place) for stop, place in places if place >= 0]
        if found:  # the one that was complete first
            self.text, self.stopped = self.text[: min(found)[1]], True

    def _begun(self) -> int:
        """Characters at the end of the text that a stop string begins with."""
        most = min(self._longest - 1, len(self.text))
        ends = (self.text[-n:] for n in range(most, 0, -1))
        return next((len(end) for end in ends if any(stop.startswith(end) for stop in self.stop_strings)), 0)


def _end_of(tokenizer: Tokenizer, prompt: Sequence[int]) -> list[int]:
    """Tokens of a prompt that new ones are decoded with: they begin with a character, not within one."""
    size = 8
    while size < len(prompt) and BROKEN in tokenizer.decode(prompt[-size:]):
        size *= 2
    return list(prompt[-size:])
