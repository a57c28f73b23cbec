"""Learning a vocabulary of pieces of raw text, spaces among them, as SentencePiece does (Kudo & Richardson, 2018).

A piece may begin with ▁, which stands for a space, so a text can be put together again as it was written; what no piece
covers is written as bytes. Made for models that write, in languages with and without spaces between words.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from string import digits
from typing import Any, Literal

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from sensorium.text import Tokenizer
from sensorium.text.training import check_size, checked

SPECIALS = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
"""In the order of their ids, as Marian numbers the first two."""
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
COVERAGE = 0.9995
"""Share of the letters of a text that have a piece of their own; the rest are written as bytes."""
Algorithm = Literal["bpe", "unigram"]


def train_pieces(
    texts: Iterable[str], vocabulary_size: int, *, algorithm: Algorithm = "bpe", lowercase: bool = False
) -> Tokenizer:
    """A vocabulary of pieces: by merging the commonest pairs (``bpe``, Sennrich et al., 2016), or the likeliest under a
    language model of pieces (``unigram``, Kudo, 2018).

    A text ends with ``</s>``. Digits are pieces of their own, so that numbers can be copied; Unicode is composed (NFC),
    runs of spaces are one. Learn it on both sides of a translation together. ``bpe`` gives the same for the same texts;
    the trainer of ``unigram`` adds up in an order of chance. Raises ``DataError`` when there is no text
    or something that is no text, ``UsageError`` for a vocabulary too small for its special tokens and the 256 bytes.
    """
    check_size(vocabulary_size, len(SPECIALS) + len(BYTES) + 2)
    backend = tokenizers.Tokenizer(models.BPE())
    lower = [normalizers.Lowercase()] if lowercase else []
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), *lower, normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="always"),
            pre_tokenizers.Punctuation("isolated"),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    texts = list(checked(texts))
    room = vocabulary_size - len(BYTES)
    letters = _letters(backend, texts, most=(room - len(SPECIALS)) // 2)
    learn = _learn_bpe if algorithm == "bpe" else _learn_unigram
    backend.model = learn(backend, texts, room, letters)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(list(SPECIALS.values()))
    end = SPECIALS["eos_token"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A $B {end}", special_tokens=[(end, backend.token_to_id(end))]
    )
    return Tokenizer(backend, SPECIALS, {"model_input_names": ["input_ids", "attention_mask"]})


def _letters(backend: tokenizers.Tokenizer, texts: list[str], *, most: int) -> list[str]:
    """▁, digits and the commonest letters, as many as cover the texts; in an order that is always the same."""
    always = ["▁", *digits]
    counts = Counter(letter for text in texts for letter in backend.normalizer.normalize_str(text) if letter != " ")
    wanted, seen, chosen = COVERAGE * counts.total(), 0, dict.fromkeys(always)
    for letter in sorted(counts, key=lambda letter: (-counts[letter], letter)):
        if seen >= wanted or len(chosen) >= most:
            break
        seen += counts[letter]
        chosen[letter] = None
    return list(chosen)


def _learn_bpe(backend: tokenizers.Tokenizer, texts: list[str], size: int, letters: list[str]) -> models.BPE:
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=list(SPECIALS.values()),
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        show_progress=False,
    )
    learned = _trained(backend, models.BPE(), texts, trainer)
    merges = [tuple(merge) for merge in learned["merges"]]
    pieces = sorted(learned["vocab"], key=learned["vocab"].__getitem__)
    ids = {piece: i for i, piece in enumerate(_with_bytes(pieces))}
    return models.BPE(ids, merges, byte_fallback=True, unk_token=SPECIALS["unk_token"], fuse_unk=True)


def _learn_unigram(backend: tokenizers.Tokenizer, texts: list[str], size: int, letters: list[str]) -> models.Unigram:
    trainer = trainers.UnigramTrainer(
        vocab_size=size,
        special_tokens=list(SPECIALS.values()),
        initial_alphabet=letters,
        unk_token=SPECIALS["unk_token"],
        show_progress=False,
    )
    learned = _trained(backend, models.Unigram(), texts, trainer)
    scores = dict(learned["vocab"])
    # A byte is worth less than any piece: a text that spells one out, <0x41>, is read as it is written.
    lowest = min(scores.values()) - 1.0
    pieces = [(piece, scores.get(piece, lowest)) for piece in _with_bytes(list(scores))]
    return models.Unigram(pieces, list(SPECIALS).index("unk_token"), byte_fallback=True)


def _trained(backend: tokenizers.Tokenizer, model: Any, texts: list[str], trainer: Any) -> dict[str, Any]:
    """What a trainer makes of the texts, cut as ``backend`` cuts them."""
    scratch = tokenizers.Tokenizer(model)
    scratch.normalizer, scratch.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    scratch.train_from_iterator(texts, trainer)
    learned: dict[str, Any] = json.loads(scratch.to_str())["model"]
    return learned


def _with_bytes(pieces: list[str]) -> list[str]:
    """Special tokens, bytes, and what was learnt, in this order."""
    learned = [piece for piece in pieces if piece not in SPECIALS.values() and piece not in BYTES]
    return [*SPECIALS.values(), *BYTES, *learned]
