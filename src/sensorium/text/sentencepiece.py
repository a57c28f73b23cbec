"""SentencePiece models (Kudo & Richardson, 2018) → ``tokenizers.Tokenizer``: the pieces that the library itself makes.

A model's file says its pieces, their scores, and how a text is normalised before. What published checkpoints add to it
(tokens at the ends of a text, languages, places for spans) is in ``published``.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

from sensorium.errors import CheckpointError
from sensorium.storage import read_bytes
from sensorium.text._protobuf import fields

MAX_PIECE = 1024
"""Characters: those of published models have a few dozen."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""What a piece can be."""
UNIGRAM, BPE = 1, 2
SPACE = "▁"
LEADING = 2**16
"""Spaces that are taken from the beginning of what was written: all."""


@dataclass(frozen=True)
class Pieces:
    """A SentencePiece model, as its file says it."""

    texts: tuple[str, ...]
    scores: tuple[float, ...]
    kinds: tuple[int, ...]
    algorithm: int = UNIGRAM
    byte_fallback: bool = False
    charsmap: bytes = b""
    """What characters become before, compiled."""
    space_before: bool = True
    """A text begins with a space, whether it was written or not."""
    single_spaces: bool = True
    """Runs of spaces are one, and a text has none at its ends."""
    escaped_spaces: bool = True
    """Spaces are written ▁."""

    @property
    def unknown(self) -> int:
        """The number of the piece that stands for what no piece covers."""
        return self.kinds.index(UNKNOWN)

    def of_kind(self, *kinds: int) -> tuple[str, ...]:
        """The pieces of these kinds, in the order of their numbers."""
        return tuple(text for text, kind in zip(self.texts, self.kinds, strict=True) if kind in kinds)


# --- reading ---------------------------------------------------------------------------------------------------------


def read_pieces(path: Path) -> Pieces:
    """Read a model's file. Raises ``CheckpointError`` for one that is none, or needs what is not implemented."""
    try:
        return _parse(read_bytes(path))
    except (ValueError, struct.error) as error:
        raise CheckpointError(f"{path}: not a SentencePiece model that can be used: {error}") from error


def _parse(data: bytes) -> Pieces:
    """The fields of https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto by number."""
    found: dict[int, list[bytes]] = {1: [], 2: [], 3: [], 5: []}
    for number, value in fields(data):
        if number in found and isinstance(value, bytes):
            found[number].append(value)
    pieces = [_piece(piece) for piece in found[1]]
    trainer = dict(fields(b"".join(found[2])))  # a message that stands in parts is those parts end to end
    normalizer = dict(fields(b"".join(found[3])))
    charsmap = normalizer.get(2, b"")
    texts, scores, kinds = zip(*pieces, strict=True) if pieces else ((), (), ())
    lacking = {
        "an algorithm that is neither unigram nor BPE": trainer.get(3, UNIGRAM) not in (UNIGRAM, BPE),
        "pieces that are not used": UNUSED in kinds,
        "spaces at the end of pieces": trainer.get(24, 0),
        "changes to what was decoded": dict(fields(b"".join(found[5]))).get(2, b""),
        "scores that are no numbers": not all(map(math.isfinite, scores)),
        f"pieces of more than {MAX_PIECE:,} characters": max(map(len, texts), default=0) > MAX_PIECE,
        "a piece twice": len(set(texts)) != len(texts),
        f"{kinds.count(UNKNOWN)} pieces for the unknown, not one": kinds.count(UNKNOWN) != 1,
        "a table of characters that is a number": not isinstance(charsmap, bytes),
    }
    for what, there in lacking.items():
        if there:
            raise ValueError(f"it has {what}")
    return Pieces(
        texts, scores, kinds,
        algorithm=int(trainer.get(3, UNIGRAM)),
        byte_fallback=bool(trainer.get(35, 0)),
        charsmap=bytes(charsmap),
        space_before=bool(normalizer.get(3, 1)),
        single_spaces=bool(normalizer.get(4, 1)),
        escaped_spaces=bool(normalizer.get(5, 1)),
    )  # fmt: skip


def _piece(data: bytes) -> tuple[str, float, int]:
    text, score, kind = b"", b"\0\0\0\0", NORMAL
    for number, value in fields(data):
        if number == 1 and isinstance(value, bytes):
            text = value
        elif number == 2 and isinstance(value, bytes):
            score = value
        elif number == 3 and isinstance(value, int):
            kind = value
    return text.decode("utf-8"), struct.unpack("<f", score)[0], kind


# --- making a tokenizer ----------------------------------------------------------------------------------------------


def backend_of(pieces: Pieces, vocabulary: Sequence[tuple[str, float]] | None = None) -> tokenizers.Tokenizer:
    """A tokenizer that cuts texts into the model's pieces and puts them together again, without tokens around them.

    ``vocabulary`` is for unigram models whose published form has its pieces in another order, and more of them; those
    that are not the model's are no pieces of a text.
    """
    own = frozenset(pieces.of_kind(USER_DEFINED))
    if pieces.algorithm == UNIGRAM:
        scored = list(zip(pieces.texts, pieces.scores, strict=True)) if vocabulary is None else list(vocabulary)
        unknown = [text for text, _ in scored].index(pieces.texts[pieces.unknown])
        backend = tokenizers.Tokenizer(models.Unigram(scored, unknown, byte_fallback=pieces.byte_fallback))
        names = [text for text, _ in scored]
    else:
        numbers = {text: number for number, text in enumerate(pieces.texts)}
        backend = tokenizers.Tokenizer(
            models.BPE(
                numbers, merges_by_score(numbers, pieces.scores, pieces.kinds),
                unk_token=pieces.texts[pieces.unknown], fuse_unk=True, byte_fallback=pieces.byte_fallback,
                ignore_merges=bool(own),  # a user's piece stands alone, and no merges lead to it
            )
        )  # fmt: skip
        names = list(pieces.texts) if own else []  # merges lead to pieces of text alone
    backend.normalizer = _normalizer(pieces)
    if parts := _cuts(pieces, names, own):
        backend.pre_tokenizer = pre_tokenizers.Sequence(parts)
    backend.decoder = _decoder(pieces)
    return backend


def merges_by_score(
    vocabulary: Mapping[str, int], scores: Sequence[float], kinds: Sequence[int]
) -> list[tuple[str, str]]:
    """Every pair of pieces that makes a piece, best score first. Control and byte tokens are no pieces of text."""
    pieces = {token for token, number in vocabulary.items() if kinds[number] in (NORMAL, USER_DEFINED)}
    merges = [
        (-scores[vocabulary[piece]], vocabulary[piece], cut, piece)
        for piece in pieces
        for cut in range(1, len(piece))
        if piece[:cut] in pieces and piece[cut:] in pieces
    ]
    return [(piece[:cut], piece[cut:]) for *_, cut, piece in sorted(merges)]


def _normalizer(pieces: Pieces) -> Any:
    steps: list[Any] = [normalizers.Precompiled(pieces.charsmap)] if pieces.charsmap else []
    if pieces.single_spaces:  # only spaces: a line break that the table of characters leaves is a character
        steps += [normalizers.Replace(Regex(r"\A +|[ ▁]+\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    space = SPACE if pieces.escaped_spaces else " "
    if pieces.space_before:
        steps.append(normalizers.Prepend(space))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", space)])


def _cuts(pieces: Pieces, names: Sequence[str], own: frozenset[str]) -> list[Any]:
    """Where no piece lies across: before words, around a user's pieces, and within what spells one of the ``names``
    that is no piece of a text.

    Special tokens that a text may have were taken out before, so what looks like one here is text: written in wide
    letters that were normalised, or by a stranger (``Tokenizer.specials_as_text``).
    """
    text = frozenset(pieces.of_kind(NORMAL, USER_DEFINED))
    no_text = [name for name in names if name not in text and len(name) > 1]
    parts: list[Any] = []
    if no_text:
        patterns = [f"{re.escape(name[0])}(?={re.escape(name[1:])})" for name in no_text if not _is_byte(name)]
        patterns += [r"<(?=0x[0-9A-F]{2}>)"] if any(map(_is_byte, no_text)) else []
        parts.append(pre_tokenizers.Split(Regex("|".join(patterns)), "merged_with_previous"))
    if own:
        longest_first = sorted(own, key=lambda piece: (-len(piece), piece))
        parts.append(pre_tokenizers.Split(Regex("|".join(map(re.escape, longest_first))), "isolated"))
    if SPACE in text and not any(SPACE in piece[1:] for piece in text):
        parts.append(pre_tokenizers.Split(SPACE, "merged_with_next"))  # words are short, and the library knows them
    return parts


def _is_byte(name: str) -> bool:
    return re.fullmatch(r"<0x[0-9A-F]{2}>", name) is not None


def _decoder(pieces: Pieces) -> Any:
    steps: list[Any] = [decoders.Replace(SPACE, " ")]
    if pieces.byte_fallback:
        steps.append(decoders.ByteFallback())
    steps.append(decoders.Fuse())
    if pieces.space_before or pieces.single_spaces:
        steps.append(decoders.Strip(" ", LEADING if pieces.single_spaces else 1, 0))
    return decoders.Sequence(steps)
