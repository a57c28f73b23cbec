"""Published tokenizer files → ``tokenizers.Tokenizer``: what they say of special tokens, and the pipelines around their
vocabularies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from sensorium.errors import CheckpointError, UsageError
from sensorium.storage import read_object, read_text

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


@dataclass(frozen=True)
class Opened:
    """What a published form of tokenizer files says."""

    backend: Any
    special_tokens: Mapping[str, str]
    """For files that do not say theirs."""
    config: Mapping[str, Any]
    target: Any = None
    """The backend of the texts that are written, where it is another."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """What is saved in place of ``tokenizer.json``, where that can't say it."""


def special_tokens(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
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


def conventional(backend: tokenizers.Tokenizer) -> dict[str, str]:
    """The first convention whose tokens are all in the vocabulary."""
    for convention in CONVENTIONS:
        if all(backend.token_to_id(token) is not None for token in convention.values()):
            return dict(convention)
    return {}


def word_piece(path: Path, config: Mapping[str, Any], named: Mapping[str, str]) -> tokenizers.Tokenizer:
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


def byte_level_bpe(folder: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
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


def guarded(call: Any, *, where: Path | None = None) -> Any:
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
