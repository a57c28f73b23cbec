"""Learning a vocabulary from texts: WordPiece as in BERT, byte-level BPE as in GPT-2."""

from __future__ import annotations

from collections.abc import Iterable

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from sensorium.errors import DataError
from sensorium.text import CONVENTIONS, Tokenizer, set_bert_pipeline


def train_wordpiece(
    texts: Iterable[str],
    vocabulary_size: int,
    *,
    lowercase: bool = True,
    min_frequency: int = 2,
    max_length: int = 512,
) -> Tokenizer:
    """A WordPiece vocabulary (Schuster & Nakajima, 2012) with BERT's cleaning and framing; Chinese by character.

    Raises ``DataError`` when there is no text.
    """
    specials = dict(CONVENTIONS[0])
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token=specials["unk_token"], max_input_chars_per_word=100))
    backend.add_special_tokens(list(specials.values()))
    set_bert_pipeline(
        backend,
        lowercase=lowercase,
        strip_accents=None,
        chinese_by_character=True,
        cls_token=specials["cls_token"],
        sep_token=specials["sep_token"],
    )
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary_size,
        min_frequency=min_frequency,
        special_tokens=list(specials.values()),
        limit_alphabet=vocabulary_size // 2,  # a Chinese text has thousands of characters
        show_progress=False,
    )
    _train(backend, texts, trainer)
    config = {
        "model_max_length": max_length,
        "do_lower_case": lowercase,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }
    return Tokenizer(backend, specials, config)


def train_byte_level_bpe(
    texts: Iterable[str], vocabulary_size: int, *, min_frequency: int = 2, max_length: int = 1024
) -> Tokenizer:
    """A byte-level BPE vocabulary (Radford et al., 2019): any text can be written, nothing is unknown."""
    specials = dict(CONVENTIONS[2])
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=min_frequency,
        special_tokens=sorted(set(specials.values())),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    _train(backend, texts, trainer)
    return Tokenizer(
        backend, specials, {"model_max_length": max_length, "model_input_names": ["input_ids", "attention_mask"]}
    )


def _train(backend: tokenizers.Tokenizer, texts: Iterable[str], trainer: trainers.Trainer) -> None:
    seen = 0

    def counted() -> Iterable[str]:
        nonlocal seen
        for text in texts:
            seen += bool(text.strip())
            yield text

    backend.train_from_iterator(counted(), trainer)
    if not seen:
        raise DataError("there is no text to learn a vocabulary from")
