"""The tokenizer of a run: opened, the model's own, or learnt from the training texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sensorium.checkpoint import Checkpoint
from sensorium.data.records import texts_of
from sensorium.errors import UsageError
from sensorium.text import Tokenizer, open_tokenizer
from sensorium.text.pieces import train_pieces
from sensorium.text.training import ByteLevel, train_byte_level_bpe, train_wordpiece
from sensorium.train.kinds import DECODERS, LEARNERS
from sensorium.train.recipe import Recipe


def new_tokenizer(recipe: Recipe, source: Checkpoint | None, train: Sequence[Mapping[str, Any]]) -> Tokenizer:
    """The one that the recipe names, with the languages of a translator."""
    tokenizer = _named_tokenizer(recipe, source, train)
    languages = {"source_lang": recipe.data.source_language, "target_lang": recipe.data.target_language}
    tokenizer.config |= {name: language for name, language in languages.items() if language is not None}
    return tokenizer


def _named_tokenizer(recipe: Recipe, source: Checkpoint | None, train: Sequence[Mapping[str, Any]]) -> Tokenizer:
    section = recipe.tokenizer
    if section.open is not None:
        return open_tokenizer(section.open)
    texts = (text for record in train for text in texts_of(record))
    kind = recipe.objective.kind
    if section.train == "wordpiece":
        pieces: Literal["bert", "clip"] = "clip" if kind == "contrastive" else "bert"
        lowercase = section.lowercase is not False
        return train_wordpiece(texts, section.vocabulary_size, family=pieces, lowercase=lowercase)
    if section.train == "byte_level_bpe":
        # An encoder needs the frame and the mask, whatever it is called.
        encoder_or_decoder: ByteLevel = "gpt2" if LEARNERS[kind] == DECODERS else "roberta"
        own: dict[str, ByteLevel] = {"contrastive": "clip", "answering": "llava", "drawing": "janus"}
        family = "janus" if recipe.model.family == "janus" else own.get(kind, encoder_or_decoder)
        return train_byte_level_bpe(texts, section.vocabulary_size, family=family)
    if section.train is not None:
        return train_pieces(texts, section.vocabulary_size, algorithm=section.train, lowercase=bool(section.lowercase))
    if source is None:
        raise UsageError("a new model needs a tokenizer: set tokenizer.open or tokenizer.train")
    return source.require_tokenizer()
