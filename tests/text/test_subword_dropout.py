"""Merges left out at random: by the law of the paper, and with none left out what the tokenizer itself writes."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from sensorium.errors import UsageError
from sensorium.text import Tokenizer
from sensorium.text.pieces import train_pieces
from sensorium.text.subword_dropout import BLOCK, Words
from sensorium.text.training import train_byte_level_bpe, train_wordpiece

TEXTS = [
    "The harbour was quiet, and 20 fishermen mended their nets.",
    "Der Hafen war still, und 20 Fischer flickten ihre Netze.",
    "打开设置，查看网络状态。打开网络设置。",
] * 3
TOKENIZERS = {"pieces": train_pieces(TEXTS, 420), "bytes": train_byte_level_bpe(TEXTS, 400, family="roberta")}
PIECES = TOKENIZERS["pieces"]
LONG = 1000
DRAWN = 20_000
NOISE = 0.03  # five standard deviations of the difference of two shares of so many draws, and more


def sampled(texts: list[str], dropout: float, *, seed: int = 0, tokenizer: Tokenizer = PIECES) -> list[list[int]]:
    words = Words.of(texts, tokenizer, max_length=LONG)
    return [ids.tolist() for ids in words.sample(dropout, np.random.default_rng(seed))]


def shares(texts: list[list[int]]) -> dict[tuple[int, ...], float]:
    return {ids: count / len(texts) for ids, count in Counter(map(tuple, texts)).items()}


def assert_close(ours: dict[tuple[int, ...], float], theirs: dict[tuple[int, ...], float]) -> None:
    assert max(abs(ours.get(ids, 0.0) - theirs.get(ids, 0.0)) for ids in ours | theirs) < NOISE


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(
    texts=st.lists(
        st.sampled_from([*TEXTS, "", " ", "Größe 龘 🙂 <0x41>", "a</s>b <unk> <pad>"])
        | st.text(st.sampled_from("the nFischr打开网络设置0, \n🙂é"), max_size=30),
        max_size=5,
    ),
    max_length=st.integers(3, 40),
)
def test_with_nothing_left_out_it_is_the_tokenizer(kind: str, texts: list[str], max_length: int) -> None:
    tokenizer = TOKENIZERS[kind]
    words = Words.of(texts, tokenizer, max_length=max_length)
    plain = [encoding.token_ids for encoding in tokenizer.encode_batch(texts, max_length=max_length)]
    assert [ids.tolist() for ids in words.sample(0.0, np.random.default_rng(0))] == plain


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.9])
def test_whatever_is_left_out_the_text_is_the_same(kind: str, dropout: float) -> None:
    tokenizer = TOKENIZERS[kind]
    plain = [encoding.token_ids for encoding in tokenizer.encode_batch(TEXTS)]
    other = sampled(TEXTS, dropout, tokenizer=tokenizer)
    assert other != plain
    assert [tokenizer.decode(ids) for ids in other] == [tokenizer.decode(ids) for ids in plain]
    assert [ids[-1] for ids in other] == [tokenizer.eos_id] * len(plain)


def test_with_nearly_all_left_out_a_text_is_its_letters() -> None:
    [ids] = sampled(["their nets 打开"], 1.0 - 1e-12)
    assert [PIECES.token(i) for i in ids] == [*"▁their▁nets▁打开", "</s>"]


def test_a_long_text_is_cut_before_what_frames_it() -> None:
    for tokenizer in TOKENIZERS.values():
        [plain] = tokenizer.encode_batch(TEXTS[:1])
        words = Words.of(TEXTS[:1] * 50, tokenizer, max_length=8)
        for ids in words.sample(0.4, np.random.default_rng(0)):
            assert len(ids) == 8
            assert ids[-1] == tokenizer.eos_id
            assert (ids[0] == plain.token_ids[0]) or tokenizer is PIECES


def test_the_same_numbers_give_the_same_pieces_and_others_give_others() -> None:
    texts = TEXTS * (BLOCK // len(TEXTS) + 1)  # more than are merged at once
    first, again, other = (sampled(texts, 0.3, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first[:BLOCK] != first[-BLOCK:]


def chain(*merges: tuple[str, str], dropout: float | None = None) -> Tokenizer:
    pieces = sorted({letter for pair in merges for letter in "".join(pair)})
    vocabulary = {piece: i for i, piece in enumerate([*pieces, *("".join(pair) for pair in merges)])}
    return Tokenizer(tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [*merges], dropout=dropout)), {}, {})


@pytest.mark.parametrize("dropout", [0.1, 0.4])
@pytest.mark.parametrize(
    "merges",
    [
        [("a", "b"), ("ab", "c"), ("abc", "d")],
        [("a", "b"), ("c", "d"), ("ab", "cd")],
        [("c", "d"), ("a", "b"), ("ab", "cd"), ("e", "f"), ("abcd", "ef")],
    ],
)
def test_pieces_are_as_frequent_as_those_of_the_library(merges: list[tuple[str, str]], dropout: float) -> None:
    # No two of these merges ever want the same symbol: then the library has no stale pairs and keeps to the paper.
    texts = ["abcdef"[: max(len("".join(pair)) for pair in merges)]] * DRAWN
    ours = sampled(texts, dropout, tokenizer=chain(*merges))
    theirs = [encoding.ids for encoding in chain(*merges, dropout=dropout).backend.encode_batch(texts)]
    assert_close(shares(ours), shares(theirs))
    assert np.mean([*map(len, ours)]) == pytest.approx(np.mean([*map(len, theirs)]), abs=len(merges) * NOISE)


def law(word: tuple[str, ...], ranks: dict[tuple[str, str], int], dropout: float) -> Counter[tuple[str, ...]]:
    """Every segmentation that Algorithm 1 can end with, and how likely it is."""
    pairs = sorted((ranks[pair], i) for i, pair in enumerate(pairwise(word)) if pair in ranks)
    ends = Counter({word: dropout ** len(pairs)})  # all are left out
    for left_out, (_, i) in enumerate(pairs):
        for end, chance in law((*word[:i], word[i] + word[i + 1], *word[i + 2 :]), ranks, dropout).items():
            ends[end] += dropout**left_out * (1 - dropout) * chance
    return ends


@pytest.mark.parametrize("word", ["abc", "aaa", "abcab", "bcbcabc"])
def test_where_merges_contend_pieces_are_as_frequent_as_the_paper_has_it(word: str) -> None:
    merges = [("b", "c"), ("a", "b"), ("a", "bc"), ("a", "a"), ("ab", "c"), ("c", "a"), ("bc", "abc"), ("bc", "bc")]
    tokenizer = chain(*merges)
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    expected = law(tuple(word), ranks, 0.3)
    assert expected.total() == pytest.approx(1.0)
    ids = {tuple(tokenizer.id(piece) or 0 for piece in pieces): chance for pieces, chance in expected.items()}
    assert_close(shares(sampled([word] * DRAWN, 0.3, tokenizer=tokenizer)), ids)


def test_each_occurrence_of_a_word_is_drawn_for_itself() -> None:
    [ids] = sampled(["their " * 100], 0.3)
    words = PIECES.decode(ids).split()
    assert words == ["their"] * 100
    merged = PIECES.encode("their").token_ids[0]
    assert 0 < ids.count(merged) < 100


def test_a_tokenizer_without_merges_is_refused() -> None:
    for tokenizer, kind in [
        (train_wordpiece(TEXTS, 300), "WordPiece"),
        (train_pieces(TEXTS, 400, algorithm="unigram"), "Unigram"),
    ]:
        with pytest.raises(UsageError, match=f"bpe_dropout needs a tokenizer with merges, this one is {kind}; set it"):
            Words.of(TEXTS, tokenizer, max_length=LONG)
