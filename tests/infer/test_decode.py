"""What prompts share is computed once, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.infer.cache import PagedCache
from sensorium.infer.decode import SHORTEST_PREFIX, start
from sensorium.infer.generate import generate
from sensorium.infer.settings import GenerationSettings

VOCABULARY = 50
PROMPTS = st.tuples(
    st.lists(st.integers(0, VOCABULARY - 1), max_size=130),
    st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=9), min_size=1, max_size=5),
).map(lambda drawn: [drawn[0] + own for own in drawn[1]])


@contextmanager
def tokens_computed(model: Any) -> Iterator[list[int]]:
    """The number of tokens of every pass, in order."""
    seen: list[int] = []
    handle = model.stem.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].num_tokens))
    try:
        yield seen
    finally:
        handle.remove()


@settings(max_examples=25)
@given(prompts=PROMPTS, repeats=st.integers(1, 3))
def test_sharing_changes_nothing(decoder: Any, prompts: list[list[int]], repeats: int) -> None:
    options = GenerationSettings(max_new_tokens=12, eos_token_id=3)
    together = generate(decoder, prompts * repeats, options)
    assert together == [generate(decoder, [prompt], options)[0] for prompt in prompts] * repeats


@settings(max_examples=15)
@given(prompts=PROMPTS, seed=st.integers(0, 99))
def test_samples_of_one_prompt_are_those_it_gives_alone(decoder: Any, prompts: list[list[int]], seed: int) -> None:
    sampling = GenerationSettings(max_new_tokens=8, eos_token_id=3, do_sample=True, temperature=1.5, seed=seed)
    together = generate(decoder, prompts, replace(sampling, num_return_sequences=3))
    alone = [generate(decoder, [prompt], replace(sampling, num_return_sequences=3)) for prompt in prompts]
    assert together == [sample for samples in alone for sample in samples]
    assert together[::3] == generate(decoder, prompts, sampling)


def test_equal_prompts_are_computed_once(decoder: Any) -> None:
    with tokens_computed(decoder) as seen:
        generate(decoder, [[1, 2, 3]] * 4 + [[5]], GenerationSettings(max_new_tokens=3))
    assert seen == [4, 5, 5]


@pytest.mark.parametrize(("shared", "expected"), [(SHORTEST_PREFIX - 1, [128]), (SHORTEST_PREFIX, [64, 2])])
def test_a_long_beginning_of_all_prompts_is_computed_once(decoder: Any, shared: int, expected: list[int]) -> None:
    beginning = [*range(7, 7 + shared % VOCABULARY)] + [6] * (shared - shared % VOCABULARY)
    with tokens_computed(decoder) as seen:
        generate(decoder, [[*beginning, 1], [*beginning, 2]], GenerationSettings(max_new_tokens=1))
    assert seen == expected


def test_a_prompt_that_is_the_beginning_of_another_keeps_a_token_to_go_on_from(decoder: Any) -> None:
    with tokens_computed(decoder) as seen:
        generate(decoder, [[4] * 70, [4] * 80], GenerationSettings(max_new_tokens=1))
    assert seen == [69, 1 + 11]


def test_samples_of_one_prompt_share_its_full_pages(decoder: Any) -> None:
    cache, logits = start(decoder, [[4] * 130] * 3, max_new_tokens=20)
    assert logits.shape == (3, VOCABULARY)
    if isinstance(cache, PagedCache):
        assert cache.keys.shape[1] == 2 + 3  # two full pages for all, and one for each to go on in
