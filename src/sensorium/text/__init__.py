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
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from sensorium.errors import CheckpointError, UsageError
from sensorium.storage import read_object, read_text, write_json, write_text

SPECIAL_NAMES = ("pad_token", "cls_token", "sep_token", "mask_token", "unk_token", "bos_token", "eos_token")
CONVENTIONS: tuple[Mapping[str, str], ...] = (
    {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]", "unk_token": "[UNK]"},
    {
        "pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>", "unk_token": "<unk>",
        "bos_token": "<s>", "eos_token": "</s>",
    },
    {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"},
)  # fmt: skip
"""BERT's, RoBERTa's and GPT-2's names, for files that do not say theirs."""
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
        self, backend: tokenizers.Tokenizer, special_tokens: Mapping[str, str], config: Mapping[str, Any]
    ) -> None:
        """``special_tokens`` maps ``cls_token`` … to their text; ``config`` is ``tokenizer_config.json``."""
        backend.no_padding()
        backend.no_truncation()
        self.backend = backend
        self.special_tokens = dict(special_tokens)
        self.config = dict(config)
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
            return Encoding.read(guard(lambda: self.backend.encode(_text(text), second)))

    def encode_batch(
        self, texts: Sequence[str | tuple[str, str]], *, max_length: int | None = None, offsets: bool = True
    ) -> list[Encoding]:
        """``encode`` for many, on all cores. Without ``offsets``, which are zeros then, it is a fifth faster."""
        encode = self.backend.encode_batch if offsets else self.backend.encode_batch_fast
        inputs = [_text(text) if isinstance(text, str) else (_text(text[0]), _text(text[1])) for text in texts]
        with self._truncation(max_length, 0, "longest_first"):
            return [Encoding.read(encoded) for encoded in guard(lambda: encode(inputs))]

    def encode_plain(self, text: str) -> list[int]:
        """Token ids without special tokens."""
        ids: list[int] = guard(lambda: self.backend.encode(_text(text), add_special_tokens=False)).ids
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
            first = guard(lambda: self.backend.encode(_text(text), None if pair is None else _text(pair)))
        return [Encoding.read(window) for window in (first, *first.overflowing)]

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Token ids → text."""
        text: str = self.backend.decode(list(token_ids), skip_special_tokens=skip_special_tokens)
        return text

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
        """Write ``tokenizer.json``, ``tokenizer_config.json`` and ``special_tokens_map.json``."""
        folder = Path(folder)
        write_text(folder / "tokenizer.json", self.backend.to_str(pretty=True))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", **self.config, **self.special_tokens}
        write_json(folder / "tokenizer_config.json", config)
        write_json(folder / "special_tokens_map.json", self.special_tokens)


def open_tokenizer(folder: str | Path) -> Tokenizer:
    """Open ``tokenizer.json``, else ``vocab.txt`` (WordPiece), else ``vocab.json`` + ``merges.txt`` (byte-level BPE).

    Raises ``CheckpointError`` naming the file that is missing or broken.
    """
    folder = Path(folder)
    path = folder / "tokenizer_config.json"
    config = read_object(path) if path.is_file() else {}
    named = _special_tokens(folder, config)
    if (folder / "tokenizer.json").is_file():
        path = folder / "tokenizer.json"
        text = read_text(path)
        backend = guard(lambda: tokenizers.Tokenizer.from_str(text), where=path)
    elif (folder / "vocab.txt").is_file():
        path = folder / "vocab.txt"
        backend = guard(lambda: _word_piece(path, config, named), where=path)
    elif (folder / "vocab.json").is_file():
        path = folder / "vocab.json"
        backend = guard(lambda: _byte_level_bpe(folder, config), where=path)
    else:
        raise CheckpointError(f"{folder}: no tokenizer.json, no vocab.txt, no vocab.json with merges.txt")
    return Tokenizer(backend, named or _conventional(backend), config)


# --- details ---------------------------------------------------------------------------------------------------------


def _special_tokens(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """``cls_token`` … as the files beside the vocabulary say; each is a text or an object with ``content``."""
    path = folder / "special_tokens_map.json"
    merged = {**(read_object(path) if path.is_file() else {}), **config}
    found = {}
    for name in SPECIAL_NAMES:
        value = merged.get(name)
        content = value.get("content") if isinstance(value, dict) else value
        if isinstance(content, str):
            found[name] = content
    return found


def _conventional(backend: tokenizers.Tokenizer) -> dict[str, str]:
    """The first convention whose tokens are all in the vocabulary."""
    for convention in CONVENTIONS:
        if all(backend.token_to_id(token) is not None for token in convention.values()):
            return dict(convention)
    return {}


def _word_piece(path: Path, config: Mapping[str, Any], named: Mapping[str, str]) -> tokenizers.Tokenizer:
    """BERT's tokenizer over a ``vocab.txt``: a token a line, its id the line's number."""
    tokens = read_text(path).replace("\r\n", "\n").removesuffix("\n").split("\n")
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise CheckpointError(f"{path}: a token stands on two lines")
    names = {**CONVENTIONS[0], **named}
    missing = [names[name] for name in ("unk_token", "cls_token", "sep_token") if names[name] not in vocabulary]
    if missing:
        raise CheckpointError(f"{path}: the special token {missing[0]} is not in the vocabulary")
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=names["unk_token"]))
    set_bert_pipeline(
        backend,
        lowercase=bool(config.get("do_lower_case", True)),
        strip_accents=config.get("strip_accents"),
        chinese_by_character=bool(config.get("tokenize_chinese_chars", True)),
        cls_token=names["cls_token"],
        sep_token=names["sep_token"],
    )
    backend.add_special_tokens([token for token in names.values() if token in vocabulary])
    return backend


def set_bert_pipeline(
    backend: tokenizers.Tokenizer,
    *,
    lowercase: bool,
    strip_accents: bool | None,
    chinese_by_character: bool,
    cls_token: str,
    sep_token: str,
) -> None:
    """What BERT does around its WordPiece vocabulary: clean, cut at spaces, punctuation and Chinese characters, frame.

    ``backend`` must know both special tokens.
    """
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=chinese_by_character,
        strip_accents=strip_accents,
        lowercase=lowercase,
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    cls_id, sep_id = backend.token_to_id(cls_token), backend.token_to_id(sep_token)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls_token}:0 $A:0 {sep_token}:0",
        pair=f"{cls_token}:0 $A:0 {sep_token}:0 $B:1 {sep_token}:1",
        special_tokens=[(cls_token, cls_id), (sep_token, sep_id)],
    )


def _byte_level_bpe(folder: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """GPT-2's or RoBERTa's tokenizer over ``vocab.json`` and ``merges.txt``."""
    vocabulary = read_object(folder / "vocab.json")
    if not all(isinstance(i, int) and i >= 0 for i in vocabulary.values()):
        raise CheckpointError(f"{folder / 'vocab.json'}: an id is not a whole number")
    lines = read_text(folder / "merges.txt").splitlines()
    merges: list[Any] = [tuple(line.split(" ")) for line in lines if line.strip() and not line.startswith("#version")]
    broken = next((merge for merge in merges if len(merge) != 2), None)
    if broken is not None:
        raise CheckpointError(f"{folder / 'merges.txt'}: {' '.join(broken)!r} is not a pair of tokens")
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    set_byte_level_pipeline(backend, add_prefix_space=bool(config.get("add_prefix_space", False)))
    return backend


def set_byte_level_pipeline(backend: tokenizers.Tokenizer, *, add_prefix_space: bool = False) -> None:
    """Byte-level cutting, framing and joining: RoBERTa's where its tokens are in the vocabulary, else GPT-2's."""
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    backend.decoder = decoders.ByteLevel()
    start, end = backend.token_to_id("<s>"), backend.token_to_id("</s>")
    if start is not None and end is not None:  # RoBERTa frames its texts, GPT-2 does not
        specials = CONVENTIONS[1]
        backend.post_processor = processors.RobertaProcessing(
            ("</s>", end), ("<s>", start), trim_offsets=True, add_prefix_space=add_prefix_space
        )
    else:
        specials = CONVENTIONS[2]
        backend.post_processor = processors.ByteLevel(trim_offsets=False)
    known = [token for token in dict.fromkeys(specials.values()) if backend.token_to_id(token) is not None]
    # RoBERTa's mask swallows the space before it, so that "a <mask>" is two tokens.
    backend.add_special_tokens(
        [tokenizers.AddedToken(token, lstrip=token == "<mask>", special=True) for token in known]
    )


def _text(text: Any) -> str:
    if not isinstance(text, str):
        raise UsageError(f"a text is expected, not {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # lone surrogates, which the library cannot take
        return text.encode("utf-8", "replace").decode("utf-8")
    return text


def guard(call: Any, *, where: Path | None = None) -> Any:
    """Run a call of the tokenizers library: its panics are not ``Exception``s, its errors are bare ``Exception``s."""
    try:
        return call()
    except (CheckpointError, UsageError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        place = "the tokenizer" if where is None else str(where)
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CheckpointError(f"{place}: cannot be used: {reason}") from error
