"""Next sentence and sentence order: what a label says is so."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from sensorium.data.batching import Example
from sensorium.objectives.masked_token import MaskedToken
from sensorium.text import Tokenizer
from sensorium.text.training import train_wordpiece

DOCUMENTS = [" ".join(f"Text {i} says word {i} {j} {i * j}." for j in range(6)) for i in range(30)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_wordpiece(DOCUMENTS, 400)


def pairs(tokenizer: Tokenizer, task: Literal["next", "order"], seed: int, max_length: int = 64) -> list[Example]:
    objective = MaskedToken(max_length=max_length, sentences=task)
    prepared = objective.prepare([{"text": text} for text in DOCUMENTS], tokenizer)
    return objective.examples(prepared, np.random.default_rng(seed))


def parts(example: Example, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The two parts without what frames them, and a check of the frame."""
    ids = example.token_ids.tolist()
    assert example.segment_ids is not None
    second = int(example.segment_ids.argmax())
    assert (ids[0], ids[second - 1], ids[-1]) == (tokenizer.cls_id, tokenizer.sep_id, tokenizer.sep_id)
    assert example.segment_ids.tolist() == [0] * second + [1] * (len(ids) - second)
    return ids[1 : second - 1], ids[second:-1]


def sources(part: list[int], tokenizer: Tokenizer) -> set[int]:
    """The documents that hold a run of tokens."""
    plain = [tokenizer.encode_plain(text) for text in DOCUMENTS]
    size = len(part)
    return {i for i, ids in enumerate(plain) if any(ids[k : k + size] == part for k in range(len(ids) - size + 1))}


def test_a_second_part_follows_or_comes_from_another_document(tokenizer: Tokenizer) -> None:
    labels = []
    for example in pairs(tokenizer, "next", seed=0):
        first, second = parts(example, tokenizer)
        labels.append(example.labels["next_sentence"])
        if labels[-1] == 0:
            assert sources(first + second, tokenizer)
        else:
            assert not sources(first, tokenizer) & sources(second, tokenizer)
    assert np.mean(labels) == pytest.approx(0.5, abs=0.15)


def test_order_swaps_two_parts_of_one_text(tokenizer: Tokenizer) -> None:
    labels = []
    for example in pairs(tokenizer, "order", seed=1):
        first, second = parts(example, tokenizer)
        labels.append(example.labels["next_sentence"])
        assert sources(second + first if labels[-1] else first + second, tokenizer)
    assert np.mean(labels) == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("max_length", [24, 40, 128])
def test_pairs_fit_and_their_words_are_numbered_apart(tokenizer: Tokenizer, max_length: int) -> None:
    for example in pairs(tokenizer, "next", seed=2, max_length=max_length):
        assert len(example) <= max_length
        words = example.labels["words"]
        framing = np.isin(example.token_ids, sorted(tokenizer.special_ids))
        assert np.array_equal(words == -1, framing)
        assert len(set(words[~framing].tolist())) == (~framing).sum()  # unit "token": each is a word of its own


def test_pairs_are_drawn_anew_each_epoch_and_the_same_for_the_same_seed(tokenizer: Tokenizer) -> None:
    def ids(seed: int) -> list[list[int]]:
        return [example.token_ids.tolist() for example in pairs(tokenizer, "next", seed)]

    assert ids(3) == ids(3) != ids(4)
