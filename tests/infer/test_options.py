"""The likelihood of a continuation is that of `transformers`, whatever it is computed beside."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.checkpoint import open_checkpoint
from sensorium.infer.engine import fast
from sensorium.infer.options import score_options
from sensorium.infer.prefix import PrefixStore

TOKENS = st.lists(st.integers(0, 49), min_size=1, max_size=8)
ITEMS = st.tuples(
    st.lists(st.integers(0, 49), max_size=90),
    st.lists(st.tuples(TOKENS, st.lists(TOKENS, min_size=1, max_size=4)), min_size=1, max_size=4),
).map(lambda drawn: [(drawn[0] + own, options) for own, options in drawn[1]])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """(the oracle, our model with its weights)."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=50, n_positions=120, n_embd=16, n_layer=2, n_head=2)
    oracle, folder = transformers.GPT2LMHeadModel(config).eval(), tmp_path_factory.mktemp("gpt2")
    with torch.no_grad():
        for parameter in oracle.parameters():
            parameter.normal_(0.0, 0.3)
    oracle.save_pretrained(folder)
    return oracle, open_checkpoint(folder).model


@torch.no_grad()
def theirs(model: Any, context: list[int], option: list[int]) -> float:
    scores = model(torch.tensor([context + option])).logits[0].log_softmax(dim=-1)[len(context) - 1 : -1]
    return float(scores.gather(1, torch.tensor(option)[:, None]).double().sum())


@settings(max_examples=25)
@given(items=ITEMS, batch_tokens=st.sampled_from([1, 200, 8192]), kernels=st.booleans())
def test_the_scores_are_those_of_transformers(
    pair: tuple[Any, Any], items: list[Any], batch_tokens: int, kernels: bool
) -> None:
    oracle, model = pair
    model = fast(model, "fp32") if kernels else model
    prefixes = PrefixStore(model, 2**20).salted("")
    for kept in (None, prefixes, prefixes):
        found = list(score_options(model, items, prefixes=kept, batch_tokens=batch_tokens))
        for (context, options), scores in zip(items, found, strict=True):
            assert scores == pytest.approx([theirs(oracle, context, option) for option in options], abs=2e-3, rel=1e-4)


def test_a_shared_beginning_is_computed_once_and_each_context_once(pair: tuple[Any, Any]) -> None:
    model = fast(pair[1], "fp32")
    seen: list[int] = []
    handle = model.stem.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].num_tokens))  # type: ignore[union-attr]
    shared = [5] * 64
    items = [([*shared, n], [[1, 2, 3], [4]]) for n in range(3)]
    list(score_options(model, items, prefixes=PrefixStore(model, 2**20).salted(""), batch_tokens=1))
    handle.remove()
    assert seen == [65, 2, 1, 2, 1, 2]  # then only what is new, and the tokens of options that are read
