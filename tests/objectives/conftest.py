"""A small tokenizer, a small model and a few documents made up here."""

from __future__ import annotations

import pytest

from sensorium.config import (
    EncoderConfig,
    LearnedPositions,
    MaskedTokenHeadConfig,
    StackConfig,
    TokenHeadConfig,
    TokenStemConfig,
)
from sensorium.models.build import new_model
from sensorium.models.encoder import EncoderLM
from sensorium.text import Tokenizer
from sensorium.text.training import train_wordpiece

ENGLISH = [
    "The harbour was quiet. Fishermen mended their nets. Nobody remembered the unforgettable storm.",
    "A librarian catalogued manuscripts. She found a misplaced letter. It described the lighthouse keeper.",
    "Engineers rebuilt the railway bridge. Its foundations had been undermined. Trains run again.",
]
CHINESE = "北京大学的学生喜欢图书馆。今天天气很好。我们明天去公园散步。"


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    # A vocabulary too small for whole words, so that most of them have several pieces.
    return train_wordpiece([*ENGLISH, CHINESE], 420)


@pytest.fixture(scope="session")
def documents() -> list[dict[str, str]]:
    return [{"text": text} for text in ENGLISH]


@pytest.fixture
def model(tokenizer: Tokenizer) -> EncoderLM:
    stem = TokenStemConfig(tokenizer.vocabulary_size, 16, LearnedPositions(128), 2, 1e-12)
    config = EncoderConfig(stem, StackConfig(16, 2, 2, 32)).with_heads(
        masked_token=MaskedTokenHeadConfig(), token=TokenHeadConfig(("O", "PER"))
    )
    built = new_model(config, seed=0)
    assert isinstance(built, EncoderLM)
    return built
