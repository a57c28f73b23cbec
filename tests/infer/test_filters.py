"""Every filter against its logits processor in transformers: the same logits, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation import logits_process

from sensorium.errors import UsageError
from sensorium.infer.branch import Branch
from sensorium.infer.filters import apply, make_filters, make_warpers
from sensorium.infer.settings import GenerationSettings

VOCABULARY, END = 12, 5
Oracle = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

FILTERS: dict[str, tuple[dict[str, Any], Callable[[int, int], Any]]] = {
    "repetition_penalty": (
        {"repetition_penalty": 1.7}, lambda prompt, most: logits_process.RepetitionPenaltyLogitsProcessor(1.7)
    ),
    "no_repeat_ngram_size 1": (
        {"no_repeat_ngram_size": 1}, lambda prompt, most: logits_process.NoRepeatNGramLogitsProcessor(1)
    ),
    "no_repeat_ngram_size 2": (
        {"no_repeat_ngram_size": 2}, lambda prompt, most: logits_process.NoRepeatNGramLogitsProcessor(2)
    ),
    "no_repeat_ngram_size 3": (
        {"no_repeat_ngram_size": 3}, lambda prompt, most: logits_process.NoRepeatNGramLogitsProcessor(3)
    ),
    "bad_words_ids": (
        {"bad_words_ids": [[1], [2, 3], [0, 1, 0], [END]]},
        lambda prompt, most: logits_process.NoBadWordsLogitsProcessor([[1], [2, 3], [0, 1, 0], [END]], END),
    ),
    "min_length": ({"min_length": 4}, lambda prompt, most: logits_process.MinLengthLogitsProcessor(4, END)),
    "min_new_tokens": (
        {"min_new_tokens": 2}, lambda prompt, most: logits_process.MinNewTokensLengthLogitsProcessor(prompt, 2, END)
    ),
    "forced_bos_token_id": (
        {"forced_bos_token_id": 3}, lambda prompt, most: logits_process.ForcedBOSTokenLogitsProcessor(3)
    ),
    "forced_eos_token_id": (
        {"forced_eos_token_id": [END, 2]},
        lambda prompt, most: logits_process.ForcedEOSTokenLogitsProcessor(prompt + most, [END, 2]),
    ),
    "suppress_tokens": (
        {"suppress_tokens": [0, 4]}, lambda prompt, most: logits_process.SuppressTokensLogitsProcessor([0, 4])
    ),
    "begin_suppress_tokens": (
        {"begin_suppress_tokens": [0, 4]},
        lambda prompt, most: logits_process.SuppressTokensAtBeginLogitsProcessor([0, 4], prompt),
    ),
}  # fmt: skip
WARPERS: list[tuple[dict[str, Any], Any]] = [
    ({"temperature": 0.7, "top_k": 0}, logits_process.TemperatureLogitsWarper(0.7)),
    ({"top_k": 3}, logits_process.TopKLogitsWarper(3)),
    ({"top_k": 50}, logits_process.TopKLogitsWarper(50)),
    ({"top_k": 0, "top_p": 0.6}, logits_process.TopPLogitsWarper(0.6)),
    ({"top_k": 0, "top_p": 0.01}, logits_process.TopPLogitsWarper(0.01)),
    ({"top_k": 0, "min_p": 0.2}, logits_process.MinPLogitsWarper(0.2)),
    ({"top_k": 0, "min_p": 1.0}, logits_process.MinPLogitsWarper(1.0)),
]
TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=9)


@pytest.mark.parametrize("name", FILTERS)
@given(seed=st.integers(0, 1000), prompt=TOKENS, new=st.lists(st.integers(0, 3), max_size=5), room=st.integers(1, 3))
def test_a_filter_is_that_of_transformers(name: str, seed: int, prompt: list[int], new: list[int], room: int) -> None:
    options, make_oracle = FILTERS[name]
    most = len(new) + room
    logits = torch.randn(2, VOCABULARY, generator=torch.Generator().manual_seed(seed))
    expected = make_oracle(len(prompt), most)(torch.tensor([prompt + new] * 2), logits.clone())
    given_options = {"eos_token_id": END, **options}
    branch = Branch(prompt + new, len(prompt), most, frozenset([END]))
    got = apply(make_filters(GenerationSettings(**given_options)), logits, [branch, branch])
    assert torch.equal(got, expected)


@pytest.mark.parametrize(("options", "oracle"), WARPERS, ids=[str(options) for options, _ in WARPERS])
@given(seed=st.integers(0, 1000))
def test_a_warper_is_that_of_transformers(options: dict[str, Any], oracle: Any, seed: int) -> None:
    logits = torch.randn(2, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 2
    branch = Branch([0], 1, 9, frozenset())
    got = apply(make_warpers(GenerationSettings(do_sample=True, **options)), logits, [branch, branch])
    assert torch.equal(got, oracle(torch.zeros(2, 1, dtype=torch.int64), logits.clone()))


def test_filters_leave_the_logits_they_were_given_alone() -> None:
    logits = torch.zeros(1, VOCABULARY)
    apply(make_filters(GenerationSettings(suppress_tokens=(1,))), logits, [Branch([0], 1, 9, frozenset())])
    assert not logits.any()


def test_nothing_left_to_choose_is_one_sentence() -> None:
    branch = Branch([0, 1, 2], 1, 9, frozenset())
    with pytest.raises(UsageError, match="leave no token to choose after 2 new ones; loosen"):
        apply(make_filters(GenerationSettings(suppress_tokens=range(3))), torch.zeros(1, 3), [branch])  # type: ignore[arg-type]
