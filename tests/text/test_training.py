"""Learned vocabularies: their size, what they can write, and what they refuse (parity with transformers: test_text)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from sensorium.data.corpora import chinese_reviews, docstrings
from sensorium.errors import DataError, UsageError
from sensorium.text import Tokenizer
from sensorium.text.training import train_byte_level_bpe, train_wordpiece

train_roberta = partial(train_byte_level_bpe, family="roberta")
KINDS = [train_wordpiece, train_byte_level_bpe, train_roberta]
TEXTS = ["The cat sat on the mat, and the rat sat on the hat.", "今天天气很好，我们去公园。"] * 3
BPE = train_byte_level_bpe(TEXTS, 300)


@pytest.fixture(scope="module")
def real_texts() -> list[str]:
    texts = [record["text"] for record in (*chinese_reviews()[:400], *docstrings()[:200])]
    assert len(texts) == 600
    return texts


@pytest.mark.parametrize("train", KINDS)
def test_real_text_gives_the_size_asked_for_and_the_ids_of_transformers(
    tmp_path: Path, train: Any, real_texts: list[str]
) -> None:
    learned: Tokenizer = train(real_texts, 3000)
    assert learned.vocabulary_size == 3000
    learned.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert [e.token_ids for e in learned.encode_batch(real_texts)] == theirs(real_texts)["input_ids"]


@pytest.mark.parametrize("train", KINDS)
def test_the_same_texts_give_the_same_vocabulary(train: Any, real_texts: list[str]) -> None:
    one, other = (train(iter(real_texts), 1000) for _ in range(2))
    assert [one.token(i) for i in range(1000)] == [other.token(i) for i in range(1000)]


def test_an_alphabet_larger_than_the_vocabulary_is_cut_to_fit(real_texts: list[str]) -> None:
    assert train_wordpiece(real_texts, 100).vocabulary_size <= 100


@given(text=st.text(max_size=80))
def test_byte_level_bpe_writes_any_text(text: str) -> None:
    assert BPE.decode(BPE.encode_plain(text)) == text


def test_the_vocabulary_of_an_encoder_frames_masks_and_numbers_as_roberta() -> None:
    learned = train_roberta(TEXTS, 300)
    assert [learned.token(i) for i in range(5)] == ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    assert learned.encode("the cat", "a <mask>").token_ids[0] == learned.cls_id == 0
    assert learned.mask_id in learned.encode("a <mask>").token_ids
    assert learned.decode(learned.encode("今天天气很好").token_ids) == "今天天气很好"


def test_case_is_kept_where_asked() -> None:
    assert train_wordpiece(TEXTS, 200, lowercase=False).id("The") is not None
    assert train_wordpiece(TEXTS, 200).id("The") is None


@pytest.mark.parametrize("train", KINDS)
@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "there is no text"),
        (["", " \n"], "there is no text"),
        (["fine", None], "text 2 .* is NoneType, not text"),
        (["\ud800"], "text 1 .* half of a surrogate pair"),
    ],
)
def test_what_is_no_text_is_refused(train: Any, texts: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        train(texts, 300)


@pytest.mark.parametrize(("train", "least"), [(train_wordpiece, 7), (train_byte_level_bpe, 257), (train_roberta, 261)])
def test_a_vocabulary_without_room_for_its_alphabet_is_refused(train: Any, least: int) -> None:
    with pytest.raises(UsageError, match=f"vocabulary_size is {least - 1}; .* at least {least}"):
        train(TEXTS, least - 1)
    assert train(TEXTS, least).vocabulary_size <= least
