"""Laws of masking (Devlin et al., 2019, §3.1)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sensorium.data.batching import Example
from sensorium.errors import DataError, UsageError
from sensorium.objectives.masked_token import MaskedToken, choose_masked
from sensorium.text import Tokenizer
from sensorium.text.training import train_byte_level_bpe
from tests.objectives.conftest import CHINESE, ENGLISH

LENGTHS = st.lists(st.integers(1, 5), min_size=1, max_size=40)  # pieces of each word


def framed(pieces: list[int]) -> np.ndarray:
    return np.concatenate([[-1], np.repeat(np.arange(len(pieces)), pieces), [-1]]).astype(np.int32)


@given(pieces=LENGTHS, probability=st.floats(0.01, 0.9), seed=st.integers(0, 2**32))
def test_whole_words_are_hidden_and_never_special_tokens(pieces: list[int], probability: float, seed: int) -> None:
    words = framed(pieces)
    chosen = choose_masked(words, probability, np.random.default_rng(seed))
    assert len(chosen) > 0
    assert (words[chosen] >= 0).all()
    assert sorted(set(chosen)) == chosen.tolist()
    for word in set(words[chosen]):
        assert set(np.flatnonzero(words == word)) <= set(chosen)


@pytest.mark.parametrize("pieces", [[1] * 100, [1, 2, 1, 3, 1] * 12, [4, 5, 6] * 8])
def test_the_share_of_hidden_tokens_is_the_probability(pieces: list[int]) -> None:
    words, generator = framed(pieces), np.random.default_rng(1)
    hidden = [len(choose_masked(words, 0.15, generator)) for _ in range(400)]
    assert np.mean(hidden) / sum(pieces) == pytest.approx(0.15, abs=0.01)


def test_of_the_hidden_tokens_80_are_masks_10_random_and_10_as_they_were(tokenizer: Tokenizer) -> None:
    ids = np.full(128, tokenizer.id("e"), np.int32)
    example = Example(ids, None, {"words": np.arange(128, dtype=np.int32)})
    batch = MaskedToken().collate([example] * 400, tokenizer, np.random.default_rng(0))
    shown, wanted = batch.packed.values[batch.targets["rows"]], batch.targets["masked_token"]
    assert len(wanted) == 400 * round(0.15 * 128)
    assert (wanted == tokenizer.id("e")).all()
    masks, same = (shown == tokenizer.mask_id).float().mean(), (shown == wanted).float().mean()
    assert float(masks) == pytest.approx(0.8 + 0.1 / tokenizer.vocabulary_size, abs=0.02)
    assert float(same) == pytest.approx(0.1 + 0.1 / tokenizer.vocabulary_size, abs=0.015)
    random = shown[(shown != tokenizer.mask_id) & (shown != wanted)]
    assert len(random.unique()) > 0.6 * tokenizer.vocabulary_size


@pytest.mark.parametrize("unit", ["token", "word"])
def test_what_is_not_hidden_stays_and_the_targets_are_what_stood_there(
    tokenizer: Tokenizer, documents: list[dict[str, str]], unit: Literal["token", "word"]
) -> None:
    objective = MaskedToken(max_length=32, unit=unit)
    examples = objective.examples(objective.prepare(documents, tokenizer), np.random.default_rng(0))
    batch = objective.collate(examples, tokenizer, np.random.default_rng(7))
    original = torch.from_numpy(np.concatenate([example.token_ids for example in examples])).long()
    rows = batch.targets["rows"]
    assert torch.equal(batch.targets["masked_token"], original[rows])
    kept = torch.ones(len(original), dtype=torch.bool)
    kept[rows] = False
    assert torch.equal(batch.packed.values[kept], original[kept])
    special = torch.isin(original, torch.tensor(sorted(tokenizer.special_ids)))
    assert kept[special].all()
    again = objective.collate(examples, tokenizer, np.random.default_rng(7))
    assert torch.equal(again.packed.values, batch.packed.values)


def test_nothing_of_a_document_is_lost_but_the_ends_of_long_sentences(
    tokenizer: Tokenizer, documents: list[dict[str, str]]
) -> None:
    objective = MaskedToken(max_length=64)
    examples = objective.examples(objective.prepare(documents, tokenizer), np.random.default_rng(0))
    assert all(len(example) <= 64 for example in examples)
    kept = [i for example in examples for i in example.token_ids.tolist() if i not in tokenizer.special_ids]
    assert kept == [i for text in ENGLISH for i in tokenizer.encode_plain(text)]


def hidden_with_words(text: str, tokenizer: Tokenizer) -> list[list[str]]:
    """The pieces of each word, as whole-word masking sees them."""
    documents, _ = MaskedToken(unit="word").prepare([{"text": text}], tokenizer)
    words: list[list[str]] = []
    for sentence in documents[0]:
        for word in sorted(set(sentence.words.tolist())):
            words.append([tokenizer.token(int(i)) for i in sentence.token_ids[sentence.words == word]])
    return words


def test_pieces_of_an_english_word_are_one_word(tokenizer: Tokenizer) -> None:
    words = hidden_with_words("Nobody remembered the unforgettable storm", tokenizer)
    assert [piece[0].startswith("##") for piece in words] == [False] * 5
    assert [all(piece.startswith("##") for piece in word[1:]) for word in words] == [True] * 5
    assert "".join(piece.removeprefix("##") for piece in words[3]) == "unforgettable"


def test_characters_of_a_chinese_word_are_one_word(tokenizer: Tokenizer) -> None:
    jieba = pytest.importorskip("jieba")
    sentence = CHINESE.split("。")[0]
    words = ["".join(word) for word in hidden_with_words(sentence, tokenizer)]
    assert words == jieba.lcut(sentence)
    assert any(len(word) > 1 for word in words)


def test_without_a_segmenter_each_chinese_character_is_a_word(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jieba", None)
    words = hidden_with_words("北京大学", tokenizer)
    assert [len(word) for word in words] == [1, 1, 1, 1]


def test_the_head_runs_on_hidden_tokens_only(tokenizer: Tokenizer, documents: list[dict[str, str]], model: Any) -> None:
    objective = MaskedToken(max_length=32)
    examples = objective.examples(objective.prepare(documents, tokenizer), np.random.default_rng(0))
    batch = objective.collate(examples, tokenizer, np.random.default_rng(0))
    rows: list[int] = []
    model.masked_token.dense.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    losses = objective.losses(model, batch)
    assert rows == [batch.counts["masked_token"]] == [losses["masked_token"].count]
    assert rows[0] < 0.25 * batch.packed.num_tokens


def test_a_tokenizer_without_a_mask_and_a_record_without_text_are_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="needs a tokenizer with a mask token"):
        MaskedToken().prepare([{"text": "a"}], train_byte_level_bpe(ENGLISH, 300))
    with pytest.raises(DataError, match="record 2 has no 'text'; it has 'title'"):
        MaskedToken().prepare([{"text": "a"}, {"title": "b"}], tokenizer)
