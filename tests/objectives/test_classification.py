"""Labels stand where they belong, for texts and for words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers

from sensorium.errors import DataError
from sensorium.objectives.sequence import SequenceClassification
from sensorium.objectives.token import TokenClassification
from sensorium.text import Tokenizer
from tests.objectives.test_parity import collated

WORDS = ["Fishermen", "remembered", "unforgettable", "storms", "and", "manuscripts"]


def test_texts_and_pairs_are_what_the_tokenizer_makes_of_them_cut_to_length(tokenizer: Tokenizer) -> None:
    records = [
        {"text": " ".join(WORDS * 5), "label": "b"},
        {"text": "The storm", "pair": "The letter", "label": "a"},
        {"text": "A", "pair": "", "label": 7},
    ]
    examples = SequenceClassification(("7", "a", "b"), max_length=20).prepare(records, tokenizer)
    assert [example.labels["sequence"] for example in examples] == [2, 1, 0]
    assert len(examples[0]) == 20
    pair = tokenizer.encode("The storm", "The letter")
    assert examples[1].token_ids.tolist() == pair.token_ids
    assert examples[1].segment_ids is not None
    assert examples[1].segment_ids.tolist() == pair.segment_ids
    assert examples[2].segment_ids is None


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": "A", "label": "c"}, "record 2 has the label 'c', which is not one of a, b"),
        ({"text": "", "label": "a"}, "record 2: its 'text' is empty"),
        ({"text": "A"}, "record 2 has no 'label'; it has 'text'"),
    ],
)
def test_a_record_that_cannot_be_learned_from_is_named(
    tokenizer: Tokenizer, record: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        SequenceClassification(("a", "b")).prepare([{"text": "A", "label": "a"}, record], tokenizer)


def test_the_first_token_of_each_word_carries_its_label_as_transformers_aligns_them(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    tokenizer.save(tmp_path)
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    tags = ["A", "O", "B", "O", "A", "B"]
    objective = TokenClassification(("O", "A", "B"), max_length=24)
    [example] = objective.prepare([{"tokens": WORDS, "tags": tags}], tokenizer)
    encoding = peer(WORDS, is_split_into_words=True, truncation=True, max_length=24)
    assert example.token_ids.tolist() == encoding["input_ids"]
    expected, seen = {}, set()
    for row, word in enumerate(encoding.word_ids()):
        if word is not None and word not in seen:
            seen.add(word)
            expected[row] = ("O", "A", "B").index(tags[word])
    assert dict(zip(example.labels["rows"].tolist(), example.labels["token"].tolist(), strict=True)) == expected
    assert len(expected) < len(WORDS)  # the last ones were cut off


def test_the_token_head_runs_on_labelled_tokens_only(tokenizer: Tokenizer, model: Any) -> None:
    objective = TokenClassification(("O", "PER"))
    batch = collated(objective, [{"tokens": WORDS, "tags": ["O"] * 6}] * 2, tokenizer)
    rows: list[int] = []
    model.token.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    objective.losses(model, batch)
    assert rows == [12]
    assert batch.packed.num_tokens > 24


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "record 1 has 2 tokens and 1 tags"),
        ({"tokens": ["a"], "tags": ["LOC"]}, "record 1 has the label 'LOC', which is not one of O, PER"),
    ],
)
def test_words_and_tags_that_do_not_match_are_named(tokenizer: Tokenizer, record: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        TokenClassification(("O", "PER")).prepare([record], tokenizer)
