"""The tokenizer inside a GGUF file: byte-level BPE (``gpt2``) or SentencePiece BPE (``llama``), as its metadata says.

A file names how it cuts text before BPE (``tokenizer.ggml.pre``); the regular expressions are those published with each
model, and a name that is not known is refused: another cut gives other tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from sensorium.errors import CheckpointError
from sensorium.text import Tokenizer
from sensorium.text.opening import guarded
from sensorium.text.sentencepiece import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, merges_by_score

KEYS = frozenset(
    "model pre tokens token_type scores merges added_tokens bos_token_id eos_token_id eot_token_id eom_token_id "
    "unknown_token_id separator_token_id seperator_token_id padding_token_id cls_token_id mask_token_id add_bos_token "
    "add_eos_token add_sep_token add_space_prefix remove_extra_whitespaces prefix_token_id middle_token_id "
    "suffix_token_id fim_pre_token_id fim_suf_token_id fim_mid_token_id fim_pad_token_id fim_rep_token_id "
    "fim_sep_token_id token_type_count".split()
)
"""Keys of ``tokenizer.ggml`` that are read, or do not change which tokens a text becomes."""
SPECIALS = {
    "bos_token": "bos_token_id", "eos_token": "eos_token_id", "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id", "sep_token": "seperator_token_id", "cls_token": "cls_token_id",
    "mask_token": "mask_token_id",
}  # fmt: skip
MAX_TOKEN = 1024
"""Characters: those of published vocabularies have 256 at most."""

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_SHORT}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_SHORT}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CUTS: dict[str, tuple[str, ...]] = {
    "default": (r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"),
    "gpt-2": (_GPT2,),
    "smollm": (r"\p{N}", _GPT2),
    "llama-bpe": (_LLAMA3,),
    "llama3": (_LLAMA3,),
    "qwen2": (_QWEN2,),
    "deepseek-r1-qwen": (_QWEN2,),
    "tekken": (_TEKKEN,),
}
"""``tokenizer.ggml.pre`` → expressions, each of which cuts the pieces that the one before has left."""
WHOLE_WORDS = frozenset(["llama-bpe", "llama3", "tekken"])
"""Cuts whose pieces, where the vocabulary has them, are tokens whatever the merges say. Their texts begin with bos."""
COMPOSED = frozenset(["qwen2"])
"""Cuts before which characters are composed (NFC), as the published tokenizer does."""


def tokenizer_from_gguf(metadata: Mapping[str, Any], *, where: Path) -> Tokenizer:
    """The tokenizer that a file's metadata describes.

    Raises ``CheckpointError`` for a model or a cut that is not known, and for lists that contradict each other.
    """
    said = {
        key.removeprefix("tokenizer.ggml."): value
        for key, value in metadata.items()
        if key.startswith("tokenizer.ggml.")
    }
    if unknown := sorted(said.keys() - KEYS):
        raise CheckpointError(f"{where}: the key 'tokenizer.ggml.{unknown[0]}' is not known, and it may change tokens")
    tokens = _texts(said, "tokens", where)
    types = said.get("token_type", [NORMAL] * len(tokens))
    if not isinstance(types, list) or len(types) != len(tokens):
        raise CheckpointError(f"{where}: tokenizer.ggml.token_type does not say one type for each token")
    twice, times = Counter(tokens).most_common(1)[0]
    if times > 1:
        raise CheckpointError(f"{where}: the token {twice!r} stands {times} times in tokenizer.ggml.tokens")
    longest = max(tokens, key=len)
    if len(longest) > MAX_TOKEN:
        raise CheckpointError(f"{where}: a token of {len(longest):,} characters; at most {MAX_TOKEN:,} are read")
    kind = said.get("model")
    if kind == "gpt2":
        backend = guarded(lambda: _byte_level(said, tokens, types, where), where=where)
    elif kind == "llama":
        backend = guarded(lambda: _sentencepiece(said, tokens, types, where), where=where)
    else:
        raise CheckpointError(f"{where}: tokenizer.ggml.model is {kind!r}; known are gpt2 and llama")
    named = {
        name: tokens[said[key]]
        for name, key in SPECIALS.items()
        if type(said.get(key)) is int and 0 <= said[key] < len(tokens)
    }
    special = [token for token, kind in zip(tokens, types, strict=True) if kind in (CONTROL, UNKNOWN)]
    own = [token for token, kind in zip(tokens, types, strict=True) if kind == USER_DEFINED]
    for texts, is_special in ((special, True), (own, False)):
        added = [AddedToken(text, special=is_special, normalized=False) for text in texts if text]
        guarded(lambda added=added: backend.add_tokens(added), where=where)
    _frame(backend, said, named)
    length = next((value for key, value in metadata.items() if key.endswith(".context_length")), None)
    return Tokenizer(backend, named, {} if length is None else {"model_max_length": length})


def _byte_level(said: Mapping[str, Any], tokens: list[str], types: list[int], where: Path) -> tokenizers.Tokenizer:
    """GPT-2's: bytes as letters, merges in order."""
    pre = said.get("pre", "default")
    if not isinstance(pre, str) or pre not in CUTS:
        raise CheckpointError(f"{where}: tokenizer.ggml.pre is {pre!r}; known are {', '.join(CUTS)}")
    vocabulary = {token: number for number, token in enumerate(tokens)}
    merges: list[tuple[str, str]] = []
    for merge in _texts(said, "merges", where):
        left, _, right = merge.partition(" ")
        if not {left, right, left + right} <= vocabulary.keys():
            raise CheckpointError(f"{where}: the merge {merge[:80]!r} does not join two tokens to a third")
        merges.append((left, right))
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=pre in WHOLE_WORDS))
    cuts = [pre_tokenizers.Split(Regex(cut), "isolated") for cut in CUTS[pre]]
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    if pre in COMPOSED:
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(said: Mapping[str, Any], tokens: list[str], types: list[int], where: Path) -> tokenizers.Tokenizer:
    """SentencePiece's BPE: of all neighbours that make a piece, those with the best score are joined first."""
    scores = said.get("scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise CheckpointError(f"{where}: tokenizer.ggml.scores does not say one score for each token")
    if said.get("remove_extra_whitespaces", False):
        raise CheckpointError(f"{where}: tokenizer.ggml.remove_extra_whitespaces is true; it is not supported")
    vocabulary = {token: number for number, token in enumerate(tokens)}
    unknown = said.get("unknown_token_id", 0)
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocabulary,
            merges_by_score(vocabulary, scores, types),
            unk_token=tokens[unknown] if type(unknown) is int and 0 <= unknown < len(tokens) else None,
            fuse_unk=True,
            byte_fallback=BYTE in types,
        )
    )
    spaces: list[Any] = [normalizers.Replace(" ", "▁")]
    joins: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if said.get("add_space_prefix", True):
        spaces.insert(0, normalizers.Prepend("▁"))
        joins.append(decoders.Strip(" ", 1, 0))
    backend.normalizer, backend.decoder = normalizers.Sequence(spaces), decoders.Sequence(joins)
    return backend


def _frame(backend: tokenizers.Tokenizer, said: Mapping[str, Any], named: Mapping[str, str]) -> None:
    """Put bos before a text and eos after it where the file, or its kind, says so."""
    starts = said.get("model") == "llama" or said.get("pre") in WHOLE_WORDS
    before = [named["bos_token"]] if said.get("add_bos_token", starts) and "bos_token" in named else []
    after = [named["eos_token"]] if said.get("add_eos_token", False) and "eos_token" in named else []
    if before or after:
        ids = [(token, backend.token_to_id(token)) for token in {*before, *after}]
        single = [*before, "$A", *after]
        backend.post_processor = processors.TemplateProcessing(
            single=single, pair=[*single, *before, "$B", *after], special_tokens=ids
        )
    elif said.get("model") == "gpt2":
        backend.post_processor = processors.ByteLevel(trim_offsets=False)


def _texts(said: Mapping[str, Any], key: str, where: Path) -> list[str]:
    found = said.get(key)
    if not isinstance(found, list) or not found or not all(isinstance(value, str) for value in found):
        raise CheckpointError(f"{where}: tokenizer.ggml.{key} is not a list of texts")
    return found
