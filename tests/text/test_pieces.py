"""Vocabularies of pieces: any text can be written and read back, and `transformers` cuts it alike."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from sensorium.errors import DataError, UsageError
from sensorium.text import open_tokenizer
from sensorium.text.pieces import Algorithm, train_pieces

TEXTS = [
    "The harbour was quiet, and 20 fishermen mended their nets.",
    "Der Hafen war still, und 20 Fischer flickten ihre Netze.",
    "打开设置，查看网络状态。",
] * 3
LEARNT = {algorithm: train_pieces(TEXTS, 380, algorithm=algorithm) for algorithm in get_args(Algorithm)}


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
@given(text=st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.just(" "), max_size=30))
def test_any_text_can_be_written_as_pieces_and_bytes(algorithm: str, text: str) -> None:
    tokenizer = LEARNT[algorithm]
    normal = tokenizer.backend.normalizer.normalize_str(text)
    ids = tokenizer.encode(text).token_ids
    assert tokenizer.unk_id not in ids
    assert tokenizer.decode(ids) == normal.replace("▁", " ")


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
def test_a_text_ends_with_the_end_token_and_digits_stand_alone(algorithm: str) -> None:
    tokenizer = LEARNT[algorithm]
    tokens = [tokenizer.token(i) for i in tokenizer.encode("20 Netze").token_ids]
    assert tokens[:3] == ["▁", "2", "0"]
    assert tokens[-1] == "</s>"
    assert (tokenizer.eos_id, tokenizer.unk_id, tokenizer.pad_id) == (0, 1, 2)


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
def test_the_saved_folder_opens_in_transformers(algorithm: str, tmp_path: Path) -> None:
    tokenizer = LEARNT[algorithm]
    tokenizer.save(tmp_path)
    peer = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    again = open_tokenizer(tmp_path)
    for text in (*TEXTS, "Größe 龘 🙂 <0x41>", ""):
        ids = tokenizer.encode(text).token_ids
        assert peer(text)["input_ids"] == ids == again.encode(text).token_ids
        assert peer.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids)
    assert (peer.eos_token_id, peer.pad_token_id, peer.unk_token_id) == (0, 2, 1)


def test_merges_are_the_same_for_the_same_texts_and_common_words_are_one_piece() -> None:
    again = train_pieces(TEXTS, 380)
    assert again.backend.to_str() == LEARNT["bpe"].backend.to_str()
    assert len(again.encode("The harbour was quiet").token_ids) < 12


def test_letters_are_lowered_only_when_asked() -> None:
    lower = train_pieces(TEXTS, 380, lowercase=True)
    assert lower.decode(lower.encode("Der HAFEN").token_ids) == "der hafen"
    assert LEARNT["bpe"].decode(LEARNT["bpe"].encode("Der HAFEN").token_ids) == "Der HAFEN"


def test_what_cannot_be_learnt_is_named() -> None:
    with pytest.raises(UsageError, match="vocabulary_size is 200; this kind of vocabulary needs at least 261"):
        train_pieces(TEXTS, 200)
    with pytest.raises(DataError, match="there is no text"):
        train_pieces(["  "], 400)
