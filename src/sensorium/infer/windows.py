"""Long texts → windows a model can read, cut as they are asked for: a text of any size needs little memory.

A window is the tokens of a stretch of text within a frame of fixed tokens: the special ones and, for a pair, the other
text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from sensorium.errors import DataError
from sensorium.text import Encoding, Tokenizer

SECTION = 100_000
"""Characters tokenised at a time."""
_BEFORE_SPACE = re.compile(r"(?<=\S)(?=\s)")
"""Where a text can be cut without a change to its tokens."""
_LOOK_BACK = 2_000

Token = tuple[int, tuple[int, int], int | None]
"""Id, characters, number of its word."""


@dataclass(frozen=True)
class Frame:
    """The fixed tokens of every window, and what the tokens between them are."""

    before: Encoding
    after: Encoding
    segment_id: int
    sequence_id: int

    def __len__(self) -> int:
        return len(self.before) + len(self.after)

    def around(self, tokens: list[Token]) -> Encoding:
        """The window that holds these tokens."""
        before, after, count = self.before, self.after, len(tokens)
        return Encoding(
            token_ids=[*before.token_ids, *(token[0] for token in tokens), *after.token_ids],
            segment_ids=[*before.segment_ids, *[self.segment_id] * count, *after.segment_ids],
            offsets=[*before.offsets, *(token[1] for token in tokens), *after.offsets],
            sequence_ids=[*before.sequence_ids, *[self.sequence_id] * count, *after.sequence_ids],
            word_ids=[*before.word_ids, *(token[2] for token in tokens), *after.word_ids],
        )


def frame(tokenizer: Tokenizer, *, first: str | None = None, second: str | None = None) -> Frame:
    """The frame of a text alone, of one that follows ``first``, or of one that ``second`` follows."""
    num_before, num_after = map(len, tokenizer.frame())
    if first is not None:
        template = tokenizer.encode(first, "")
        place = len(template) - num_after
        segment_id = template.segment_ids[place] if num_after else 0
    else:
        template = tokenizer.encode("", second)
        place, segment_id = num_before, template.segment_ids[0] if num_before else 0
    return Frame(_part(template, 0, place), _part(template, place, len(template)), segment_id, int(first is not None))


def windows(tokenizer: Tokenizer, text: str, around: Frame, *, max_length: int, overlap: int = 0) -> Iterator[Encoding]:
    """The text within its frame: one window, or as many as it needs, each ``overlap`` tokens back into the one before.

    Raises ``DataError`` when the frame leaves no room to move on.
    """
    room = max_length - len(around)
    if room <= overlap:
        raise DataError(
            f"the other text of the pair and the special tokens take {len(around):,} of the {max_length:,} tokens this "
            "model reads, which leaves no room for this one; shorten the other text"
        )
    waiting: list[Token] = []
    for token in _tokens(tokenizer, text):
        if len(waiting) == room:
            yield around.around(waiting)
            waiting = waiting[room - overlap :]
        waiting.append(token)
    yield around.around(waiting)


def _tokens(tokenizer: Tokenizer, text: str) -> Iterator[Token]:
    words = 0
    for start, stop in _sections(text):
        lead = int(
            start > 0 and text[start].isspace()
        )  # a character before the space: tokenizers treat the first apart
        encoding = tokenizer.encode(text[start - lead : stop])
        last = -1
        for token_id, (begin, end), sequence, word in zip(
            encoding.token_ids, encoding.offsets, encoding.sequence_ids, encoding.word_ids, strict=True
        ):
            if sequence is None or (lead and end <= lead):
                continue
            last = last if word is None else max(last, word)
            place = (start - lead + begin, start - lead + end)
            yield token_id, place, None if word is None else words + word
        words += last + 1


def _sections(text: str) -> Iterator[tuple[int, int]]:
    """Where to cut a text to tokenise it piece by piece: before white space, or anywhere when there is none nearby."""
    start = 0
    while len(text) - start > SECTION:
        stop = start + SECTION
        places = [match.start() for match in _BEFORE_SPACE.finditer(text, stop - _LOOK_BACK, stop)]
        stop = places[-1] if places else stop
        yield start, stop
        start = stop
    yield start, len(text)


def _part(encoding: Encoding, start: int, stop: int) -> Encoding:
    cut = slice(start, stop)
    return Encoding(
        encoding.token_ids[cut],
        encoding.segment_ids[cut],
        encoding.offsets[cut],
        encoding.sequence_ids[cut],
        encoding.word_ids[cut],
    )
