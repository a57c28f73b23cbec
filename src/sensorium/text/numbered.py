"""Marian's vocabularies: a SentencePiece model for each side, and the numbers of their pieces in a file beside them.

One model cuts the texts that are read, the other those that are written; ``vocab.json`` numbers the pieces of both, or
``target_vocab.json`` those of the second. A piece without a number is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from sensorium.errors import CheckpointError
from sensorium.storage import parse_json, read_bytes
from sensorium.text.opening import Opened
from sensorium.text.published import add, check_class, framed
from sensorium.text.sentencepiece import backend_of, read_pieces

NAMES = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
SOURCE, TARGET, VOCABULARY, TARGET_VOCABULARY = "source.spm", "target.spm", "vocab.json", "target_vocab.json"


def open_marian(path: Path, config: Mapping[str, Any]) -> Opened:
    """Both sides of a folder with ``source.spm``. What is saved are the files that were opened."""
    check_class(path, config, "MarianTokenizer")
    folder = path.parent
    separate = bool(config.get("separate_vocabs", False))
    kept = (SOURCE, TARGET, VOCABULARY, *((TARGET_VOCABULARY,) if separate else ()))
    files = {name: read_bytes(folder / name) for name in kept}
    sides = [
        Numbered(_side(folder / model, numbers := _numbers(files[table], folder / table)), numbers)
        for model, table in ((SOURCE, VOCABULARY), (TARGET, kept[-1]))
    ]
    return Opened(sides[0], NAMES, {**config, "tokenizer_class": "MarianTokenizer"}, sides[1], files)


def _numbers(data: bytes, path: Path) -> dict[str, int]:
    numbers = parse_json(data.decode("utf-8", "replace"), where=str(path))
    if not isinstance(numbers, dict) or not all(type(number) is int and number >= 0 for number in numbers.values()):
        raise CheckpointError(f"{path}: a map of pieces and their numbers is expected")
    if len(set(numbers.values())) != len(numbers):
        raise CheckpointError(f"{path}: two pieces have one number")
    missing = [token for token in NAMES.values() if token not in numbers]
    if missing:
        raise CheckpointError(f"{path}: the special token {missing[0]} is not in the vocabulary")
    return numbers


def _side(path: Path, numbers: Mapping[str, int]) -> tokenizers.Tokenizer:
    backend = backend_of(read_pieces(path))
    add(backend, [*NAMES.values(), *(token for token in numbers if token.startswith(">>") and token.endswith("<<"))])
    return framed(backend, "$A </s>", "$A $B </s>", path)


class Numbered:
    """What ``Tokenizer`` asks of a backend, with the numbers of a vocabulary in place of the backend's own."""

    def __init__(self, pieces: tokenizers.Tokenizer, numbers: Mapping[str, int]) -> None:
        self.pieces, self.numbers = pieces, dict(numbers)
        self.texts = {number: text for text, number in numbers.items()}
        unknown = self.numbers[NAMES["unk_token"]]
        vocabulary = pieces.get_vocab(with_added_tokens=True)
        self.places = [unknown] * (max(vocabulary.values()) + 1)
        """The number of each of the backend's own."""
        for text, place in vocabulary.items():
            self.places[place] = self.numbers.get(text, unknown)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pieces, name)

    @property
    def encode_special_tokens(self) -> bool:
        """Whether special tokens in a text are text."""
        return bool(self.pieces.encode_special_tokens)

    @encode_special_tokens.setter
    def encode_special_tokens(self, value: bool) -> None:
        self.pieces.encode_special_tokens = value

    def encode(self, text: str, pair: str | None = None, add_special_tokens: bool = True) -> NumberedEncoding:
        """As the library's."""
        return NumberedEncoding(self.pieces.encode(text, pair, add_special_tokens=add_special_tokens), self.places)

    def encode_batch(self, inputs: Sequence[Any]) -> list[NumberedEncoding]:
        """As the library's."""
        return [NumberedEncoding(encoding, self.places) for encoding in self.pieces.encode_batch(inputs)]

    def encode_batch_fast(self, inputs: Sequence[Any]) -> list[NumberedEncoding]:
        """As the library's."""
        return [NumberedEncoding(encoding, self.places) for encoding in self.pieces.encode_batch_fast(inputs)]

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """As the library's: what has no text is left out."""
        skipped = set(NAMES.values()) if skip_special_tokens else set()
        texts = [self.texts[number] for number in token_ids if number in self.texts]
        text: str = self.pieces.decoder.decode([text for text in texts if text not in skipped])
        return text

    def token_to_id(self, token: str) -> int | None:
        """The number of a piece."""
        return self.numbers.get(token)

    def id_to_token(self, number: int) -> str | None:
        """The piece of a number."""
        return self.texts.get(number)

    def get_vocab(self, with_added_tokens: bool = True) -> dict[str, int]:
        """All pieces and their numbers."""
        return dict(self.numbers)

    def get_added_tokens_decoder(self) -> dict[int, Any]:
        """The added tokens that have a number."""
        added = self.pieces.get_added_tokens_decoder()
        return {self.places[place]: token for place, token in added.items() if token.content in self.numbers}


class NumberedEncoding:
    """The library's encoding under other numbers."""

    def __init__(self, encoding: tokenizers.Encoding, places: Sequence[int]) -> None:
        self.encoding, self.places = encoding, places
        self.ids = [places[place] for place in encoding.ids]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoding, name)

    @property
    def overflowing(self) -> list[NumberedEncoding]:
        """The windows after the first."""
        return [NumberedEncoding(encoding, self.places) for encoding in self.encoding.overflowing]
