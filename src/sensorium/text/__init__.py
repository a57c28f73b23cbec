"""Text ⇄ token ids: opening the published tokenizer files, encoding, windows over long texts.

The work is done by the ``tokenizers`` library. As in ``transformers``, a special token written out in a text
(``[MASK]``) is read as that token: filling masks needs it. Whoever feeds strangers' text to a model that trusts its
special tokens uses ``specials_as_text``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from sensorium.errors import CheckpointError, UsageError, nearest
from sensorium.storage import read_object, read_text, write_bytes, write_json, write_text
from sensorium.text.numbered import SOURCE, open_marian
from sensorium.text.opening import Opened, byte_level_bpe, conventional, guarded, special_tokens, word_piece
from sensorium.text.published import FORMS, LANGUAGES, add_listed, framed, language_frame

PIECES = {SOURCE: open_marian, **FORMS}
"""The SentencePiece model of a folder → what opens it."""
TOKENIZER_FILES = ("tokenizer.json", *PIECES, "vocab.txt", "vocab.json")
"""What a folder's tokenizer is opened from: the first of them that is there."""

ABSURD_LENGTH = 10**9
"""``transformers`` writes 10^30 for "no limit"."""


class Encoding:
    """One text, or a pair, as a model reads it. All lists are as long as ``token_ids``."""

    token_ids: list[int]
    segment_ids: list[int]
    offsets: list[tuple[int, int]]
    """First character and the one after the last, in the text the token comes from; (0, 0) for special tokens."""
    sequence_ids: list[int | None]
    """0: the first text, 1: the second, ``None``: a special token."""
    word_ids: list[int | None]
    """Which word of its text a token belongs to; ``None``: a special token."""
    _encoded: tokenizers.Encoding

    def __init__(
        self,
        token_ids: list[int],
        segment_ids: list[int],
        offsets: list[tuple[int, int]],
        sequence_ids: list[int | None],
        word_ids: list[int | None],
    ) -> None:
        self.token_ids, self.segment_ids, self.offsets = token_ids, segment_ids, offsets
        self.sequence_ids, self.word_ids = sequence_ids, word_ids

    @classmethod
    def read(cls, encoded: tokenizers.Encoding) -> Encoding:
        """From the library's own, list by list as they are asked for: most tasks need two of them."""
        self = cls.__new__(cls)
        self._encoded, self.token_ids = encoded, encoded.ids
        return self

    def __getattr__(self, name: str) -> Any:
        if name not in _LISTS:
            raise AttributeError(f"an Encoding has no {name!r}")
        found = getattr(self._encoded, _LISTS[name])
        setattr(self, name, found)
        return found

    def __len__(self) -> int:
        return len(self.token_ids)


_LISTS = {"segment_ids": "type_ids", "offsets": "offsets", "sequence_ids": "sequence_ids", "word_ids": "word_ids"}
"""What the library calls them."""


class Tokenizer:
    """A ``tokenizers.Tokenizer`` with the names of its special tokens."""

    def __init__(
        self,
        backend: Any,
        special_tokens: Mapping[str, str],
        config: Mapping[str, Any],
        *,
        target: Tokenizer | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """``special_tokens`` maps ``cls_token`` … to their text; ``config`` is ``tokenizer_config.json``.

        ``target`` is the tokenizer of what a model writes, where it is another; ``files`` are saved in place of
        ``tokenizer.json``, where that can't say what ``backend`` does.
        """
        backend.no_padding()
        backend.no_truncation()
        self.backend = backend
        self.special_tokens = dict(special_tokens)
        self.config = dict(config)
        self.target = self if target is None else target
        """What encodes and decodes the texts that a model writes: this one, as a rule."""
        self.files = dict(files or {})
        limit = config.get("model_max_length")
        usable = isinstance(limit, int | float) and 0 < limit < ABSURD_LENGTH
        self.max_length: int | None = int(limit) if usable and limit is not None else None

    # --- vocabulary ---

    @cached_property
    def vocabulary_size(self) -> int:
        """One more than the largest token id."""
        return max(self.backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def token(self, token_id: int) -> str:
        """The text of a token. Raises ``UsageError`` for an id that is not in the vocabulary."""
        token: str | None = self.backend.id_to_token(token_id)
        if token is None:
            raise UsageError(f"there is no token {token_id}; the vocabulary has {self.vocabulary_size:,}")
        return token

    def id(self, token: str) -> int | None:
        """The id of a token, ``None`` when it is not in the vocabulary."""
        token_id: int | None = self.backend.token_to_id(token)
        return token_id

    def _special(self, name: str) -> int | None:
        return self.id(self.special_tokens[name]) if name in self.special_tokens else None

    @cached_property
    def pad_id(self) -> int | None:
        """Padding."""
        return self._special("pad_token")

    @cached_property
    def cls_id(self) -> int | None:
        """Start of an encoder's sequence."""
        return self._special("cls_token")

    @cached_property
    def sep_id(self) -> int | None:
        """End of a text of an encoder's sequence."""
        return self._special("sep_token")

    @cached_property
    def mask_id(self) -> int | None:
        """The token to be guessed."""
        return self._special("mask_token")

    @cached_property
    def unk_id(self) -> int | None:
        """A word that is not in the vocabulary."""
        return self._special("unk_token")

    @cached_property
    def bos_id(self) -> int | None:
        """Start of a decoder's sequence."""
        return self._special("bos_token")

    @cached_property
    def eos_id(self) -> int | None:
        """End of a decoder's sequence."""
        return self._special("eos_token")

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids that stand for no text."""
        named = {self.id(token) for token in self.special_tokens.values()}
        added = {i for i, token in self.backend.get_added_tokens_decoder().items() if token.special}
        return frozenset(added | {token_id for token_id in named if token_id is not None})

    # --- encoding ---

    def encode(self, text: str, pair: str | None = None, *, max_length: int | None = None) -> Encoding:
        """Encode a text, or a pair, with special tokens; ``max_length`` cuts the longer text first, ``None`` never."""
        with self._truncation(max_length, 0, "longest_first"):
            second = None if pair is None else _text(pair)
            return Encoding.read(guarded(lambda: self.backend.encode(_text(text), second)))

    def encode_batch(
        self, texts: Sequence[str | tuple[str, str]], *, max_length: int | None = None, offsets: bool = True
    ) -> list[Encoding]:
        """``encode`` for many, on all cores. Without ``offsets``, which are zeros then, it is a fifth faster."""
        encode = self.backend.encode_batch if offsets else self.backend.encode_batch_fast
        inputs = [_text(text) if isinstance(text, str) else (_text(text[0]), _text(text[1])) for text in texts]
        with self._truncation(max_length, 0, "longest_first"):
            return [Encoding.read(encoded) for encoded in guarded(lambda: encode(inputs))]

    def frame(self) -> tuple[list[int], list[int]]:
        """The special tokens that ``encode`` puts before a text and behind it."""
        probe = self.encode("a")
        own = [row for row, sequence in enumerate(probe.sequence_ids) if sequence is not None]
        first, last = (own[0], own[-1] + 1) if own else (len(probe), len(probe))
        return probe.token_ids[:first], probe.token_ids[last:]

    def encode_plain(self, text: str) -> list[int]:
        """Token ids without special tokens."""
        ids: list[int] = guarded(lambda: self.backend.encode(_text(text), add_special_tokens=False)).ids
        return ids

    def windows(self, text: str, pair: str | None = None, *, max_length: int, stride: int) -> list[Encoding]:
        """Encode a long text as windows of at most ``max_length`` tokens that overlap by ``stride``.

        With a pair only the second text is cut, and every window carries the first (as SQuAD does). Raises
        ``UsageError`` when ``stride`` leaves no room to move on.
        """
        fixed = self.backend.num_special_tokens_to_add(pair is not None)
        fixed += 0 if pair is None else len(self.encode_plain(text))
        if max_length - fixed <= stride:
            raise UsageError(
                f"windows of {max_length} tokens, {fixed} of them fixed, cannot overlap by {stride}: there is no room "
                "left; shorten the first text, or give a smaller stride"
            )
        with self._truncation(max_length, stride, "longest_first" if pair is None else "only_second"):
            first = guarded(lambda: self.backend.encode(_text(text), None if pair is None else _text(pair)))
        return [Encoding.read(window) for window in (first, *first.overflowing)]

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Token ids that a model wrote → text."""
        text: str = self.target.backend.decode(list(token_ids), skip_special_tokens=skip_special_tokens)
        return text

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that texts are marked with, for tokenizers that frame them so (mBART)."""
        return LANGUAGES.get(str(self.config.get("tokenizer_class")), ())

    @contextmanager
    def in_language(self, language: str) -> Iterator[None]:
        """Within: texts are framed as of this language. Raises ``UsageError`` for one that the model does not know."""
        if language not in self.languages:
            hint = nearest(language, self.languages) or f"; known are {', '.join(self.languages) or 'none'}"
            raise UsageError(f"{language!r} is not a language of this tokenizer{hint}")
        before = self.backend.post_processor
        framed(self.backend, *language_frame(self.config["tokenizer_class"], language), where="this tokenizer")
        try:
            yield
        finally:
            self.backend.post_processor = before

    @contextmanager
    def specials_as_text(self) -> Iterator[None]:
        """Within: ``[MASK]`` in a text is seven characters, not the mask token."""
        self.backend.encode_special_tokens = True
        try:
            yield
        finally:
            self.backend.encode_special_tokens = False

    @contextmanager
    def _truncation(self, max_length: int | None, stride: int, strategy: str) -> Iterator[None]:
        if max_length is None:
            yield
            return
        self.backend.enable_truncation(max_length, stride=stride, strategy=strategy)
        try:
            yield
        finally:
            self.backend.no_truncation()

    # --- saving ---

    def save(self, folder: str | Path) -> None:
        """Write ``tokenizer.json``, ``tokenizer_config.json`` and ``special_tokens_map.json``.

        Where a ``tokenizer.json`` can't say what this one does, the files that it was opened from are written.
        """
        folder = Path(folder)
        for name, data in self.files.items():
            write_bytes(folder / name, data)
        if not self.files:
            write_text(folder / "tokenizer.json", self.backend.to_str(pretty=True))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", **self.config, **self.special_tokens}
        write_json(folder / "tokenizer_config.json", config)
        write_json(folder / "special_tokens_map.json", self.special_tokens)


def open_tokenizer(folder: str | Path) -> Tokenizer:
    """Open ``tokenizer.json``, else a SentencePiece model, ``vocab.txt`` (WordPiece), or ``vocab.json`` with
    ``merges.txt`` (byte-level BPE).

    Raises ``CheckpointError`` naming the file that is missing or broken.
    """
    folder = Path(folder)
    path = folder / "tokenizer_config.json"
    config = read_object(path) if path.is_file() else {}
    named = special_tokens(folder, config)
    if (folder / "tokenizer.json").is_file():
        path = folder / "tokenizer.json"
        text = read_text(path)
        backend = guarded(lambda: tokenizers.Tokenizer.from_str(text), where=path)
    elif found := [name for name in PIECES if (folder / name).is_file()]:
        return _of_pieces(folder / found[0], config, named)
    elif (folder / "vocab.txt").is_file():
        path = folder / "vocab.txt"
        backend = guarded(lambda: word_piece(path, config, named), where=path)
    elif (folder / "vocab.json").is_file():
        path = folder / "vocab.json"
        backend = guarded(lambda: byte_level_bpe(folder, config), where=path)
    else:
        raise CheckpointError(f"{folder}: none of {', '.join(TOKENIZER_FILES)}")
    return Tokenizer(backend, named or conventional(backend), config)


def _of_pieces(path: Path, config: Mapping[str, Any], named: Mapping[str, str]) -> Tokenizer:
    """The tokenizer of a SentencePiece model, as its published form has it."""
    opened: Opened = guarded(lambda: PIECES[path.name](path, config), where=path)
    if not opened.files:
        guarded(lambda: add_listed(opened.backend, path.parent, config), where=path)
    names = {**opened.special_tokens, **named}
    known = {name: token for name, token in names.items() if opened.backend.token_to_id(token) is not None}
    target = None if opened.target is None else Tokenizer(opened.target, known, opened.config)
    return Tokenizer(opened.backend, known, opened.config, target=target, files=opened.files)


def _text(text: Any) -> str:
    if not isinstance(text, str):
        raise UsageError(f"a text is expected, not {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # lone surrogates, which the library cannot take
        return text.encode("utf-8", "replace").decode("utf-8")
    return text
