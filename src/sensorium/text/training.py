"""Learning a vocabulary from texts: WordPiece as in BERT, byte-level BPE as in GPT-2."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from sensorium.errors import DataError, UsageError
from sensorium.text import Tokenizer
from sensorium.text.asking import IMAGE
from sensorium.text.drawing import BEGIN
from sensorium.text.opening import CONVENTIONS, set_bert_pipeline, set_byte_level_pipeline

END, PADDING = "<|endoftext|>", "<pad>"
ByteLevel = Literal["gpt2", "roberta", "clip", "llava", "janus"]
"""Whose special tokens a byte-level vocabulary has."""
_BYTE_LEVEL = {
    "gpt2": (END,),
    "roberta": ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
    "clip": ("<s>", "<pad>", "<unk>", "</s>", "<mask>"),
    "llava": (END, IMAGE),
    "janus": (END, PADDING, IMAGE, BEGIN),
}
_WORDPIECE = {"bert": tuple(CONVENTIONS[0].values()), "clip": ("[PAD]", "[CLS]", "[UNK]", "[SEP]", "[MASK]")}
"""Special tokens in the order of their numbers. RoBERTa's positions begin after the number of ``<pad>``; where a CLIP's
config says that texts end with token 2, it means the token with the largest number, so none of its texts may."""


def train_wordpiece(
    texts: Iterable[str],
    vocabulary_size: int,
    *,
    family: Literal["bert", "clip"] = "bert",
    lowercase: bool = True,
    min_frequency: int = 2,
    max_length: int = 512,
) -> Tokenizer:
    """A WordPiece vocabulary (Schuster & Nakajima, 2012) with BERT's cleaning and framing; Chinese by character.

    ``family``: the special tokens of a CLIP's texts are the same in another order.
    Raises ``DataError`` when there is no text or something that is no text, ``UsageError`` for a vocabulary too small
    for its special tokens and a letter.
    """
    specials, ordered = dict(CONVENTIONS[0]), list(_WORDPIECE[family])
    check_size(vocabulary_size, len(specials) + 2)
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token=specials["unk_token"], max_input_chars_per_word=100))
    backend.add_special_tokens(ordered)
    set_bert_pipeline(
        backend,
        lowercase=lowercase,
        strip_accents=None,
        chinese_by_character=True,
        cls_token=specials["cls_token"],
        sep_token=specials["sep_token"],
    )
    texts = list(checked(texts))
    vocabulary = _wordpieces(backend, texts, vocabulary_size, min_frequency, ordered)
    backend.model = models.WordPiece(vocabulary, unk_token=specials["unk_token"], max_input_chars_per_word=100)
    config = {
        "model_max_length": max_length,
        "do_lower_case": lowercase,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }
    return Tokenizer(backend, specials, config)


def _wordpieces(
    backend: tokenizers.Tokenizer, texts: list[str], vocabulary_size: int, min_frequency: int, specials: list[str]
) -> dict[str, int]:
    """The learned vocabulary, token → id: always the same for the same texts.

    Left alone, the trainer numbers the letters inside words in the order of a hash map, another one each time, and
    breaks ties by these numbers (huggingface/tokenizers issue 1794). So a first pass without merges finds the letters,
    and the second is told their order.
    """
    letters = _pass(
        backend, texts, trainers.WordPieceTrainer(vocab_size=0, special_tokens=specials, show_progress=False)
    ).keys()
    first = [token for token in letters if len(token) == 1]
    # A Chinese text has thousands of characters; each letter may stand twice, at the beginning and inside a word.
    limit = (vocabulary_size - len(specials)) // 2
    if len(first) > limit:
        counts = Counter(letter for text in texts for letter in backend.normalizer.normalize_str(text))
        first = sorted(first, key=lambda letter: (-counts[letter], letter))[:limit]
    inside = [f"##{letter}" for letter in sorted(first) if f"##{letter}" in letters]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary_size,
        min_frequency=min_frequency,
        special_tokens=[*specials, *inside],
        initial_alphabet=first,
        limit_alphabet=len(first),
        show_progress=False,
    )
    return _pass(backend, texts, trainer)


def _pass(backend: tokenizers.Tokenizer, texts: list[str], trainer: trainers.Trainer) -> dict[str, int]:
    """What a trainer makes of the texts, cut as ``backend`` cuts them; ``backend`` stays as it is."""
    scratch = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    scratch.normalizer = backend.normalizer
    scratch.pre_tokenizer = backend.pre_tokenizer
    scratch.train_from_iterator(texts, trainer)
    vocabulary: dict[str, int] = scratch.get_vocab()
    return vocabulary


def train_byte_level_bpe(
    texts: Iterable[str],
    vocabulary_size: int,
    *,
    family: ByteLevel = "gpt2",
    min_frequency: int = 2,
    max_length: int | None = None,
) -> Tokenizer:
    """A byte-level BPE vocabulary (Radford et al., 2019): any text can be written, nothing is unknown.

    ``family``: GPT-2's single special token, with one for images for a LLaVA, and those of drawings for a Janus; or
    RoBERTa's frame and mask for an encoder, in an order of their own for a CLIP's texts. Where no spaces part the
    words, as in Chinese, a token may be a whole word. ``max_length``: what the tokenizer says of itself; 1 024, or 512
    for encoders and CLIPs. Raises ``DataError`` when there is no text or something that is no text, ``UsageError`` for
    a vocabulary too small for its special tokens and the 256 bytes.
    """
    writes = family in ("gpt2", "llava", "janus")
    specials = dict(CONVENTIONS[2 if writes else 1]) | ({"pad_token": PADDING} if family == "janus" else {})
    check_size(vocabulary_size, len(_BYTE_LEVEL[family]) + len(pre_tokenizers.ByteLevel.alphabet()))
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=min_frequency,
        special_tokens=list(_BYTE_LEVEL[family]),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(checked(texts), trainer)
    set_byte_level_pipeline(backend)
    own = max_length or (1024 if writes else 512)
    return Tokenizer(backend, specials, {"model_max_length": own, "model_input_names": ["input_ids", "attention_mask"]})


def check_size(vocabulary_size: int, least: int) -> None:
    """Raise ``UsageError`` for a vocabulary too small for what it must hold."""
    if vocabulary_size < least:
        raise UsageError(f"vocabulary_size is {vocabulary_size}; this kind of vocabulary needs at least {least}")


def checked(texts: Iterable[str]) -> Iterator[str]:
    """The texts, as long as they are texts; at least one that is not blank."""
    seen = False
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise DataError(f"text {number} to learn a vocabulary from is {type(text).__name__}, not text")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"text {number} to learn a vocabulary from holds half of a surrogate pair") from error
        seen = seen or bool(text.strip())
        yield text
    if not seen:
        raise DataError("there is no text to learn a vocabulary from")
