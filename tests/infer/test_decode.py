"""What prompts share is computed once, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium import native
from sensorium.config import DecoderConfig, LanguageModelHeadConfig, LearnedPositions, StackConfig, TokenStemConfig
from sensorium.infer.cache import PagedCache
from sensorium.infer.decode import SHORTEST_PREFIX, start
from sensorium.infer.engine import fast
from sensorium.infer.generate import generate
from sensorium.infer.sampling import SamplingSettings
from sensorium.models.build import new_model

VOCABULARY, POSITIONS = 50, 200


def plain() -> Any:
    """A random GPT-2 in float64, whose cache is torch's."""
    config = DecoderConfig(
        TokenStemConfig(VOCABULARY, 16, LearnedPositions(POSITIONS)),
        StackConfig(16, 2, 2, 32, mask="causal", norm_place="pre", final_norm=True),
        LanguageModelHeadConfig(),
    )
    model = new_model(config, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return model.double()


def kernels_missing() -> bool:
    try:
        native.library()
    except OSError:
        return True
    return False


MODELS = {"torch": plain()}
if not kernels_missing():
    MODELS |= {dtype: fast(plain(), dtype) for dtype in ("fp32", "bf16", "int8")}
each_model = pytest.mark.parametrize("name", MODELS)
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


@each_model
@settings(max_examples=25)
@given(prompts=PROMPTS, repeats=st.integers(1, 3))
def test_sharing_changes_nothing(name: str, prompts: list[list[int]], repeats: int) -> None:
    model = MODELS[name]
    together = generate(model, prompts * repeats, max_new_tokens=12, eos_id=3)
    assert together == [generate(model, [prompt], max_new_tokens=12, eos_id=3)[0] for prompt in prompts] * repeats


@each_model
@settings(max_examples=15)
@given(prompts=PROMPTS, seed=st.integers(0, 99))
def test_samples_of_one_prompt_are_those_it_gives_alone(name: str, prompts: list[list[int]], seed: int) -> None:
    model = MODELS[name]
    sampling = SamplingSettings(do_sample=True, temperature=1.5, seed=seed)
    streams = [0, 1, 2]
    several = [prompt for prompt in prompts for _ in streams]
    together = generate(model, several, max_new_tokens=8, eos_id=3, sampling=sampling, streams=streams * len(prompts))
    alone = [
        generate(model, [prompt], max_new_tokens=8, eos_id=3, sampling=sampling, streams=[stream])[0]
        for prompt in prompts
        for stream in streams
    ]
    assert together == alone


@each_model
def test_equal_prompts_are_computed_once(name: str) -> None:
    with tokens_computed(MODELS[name]) as seen:
        generate(MODELS[name], [[1, 2, 3]] * 4 + [[5]], max_new_tokens=3)
    assert seen == [4, 5, 5]


@each_model
@pytest.mark.parametrize(("shared", "expected"), [(SHORTEST_PREFIX - 1, [128]), (SHORTEST_PREFIX, [64, 2])])
def test_a_long_beginning_of_all_prompts_is_computed_once(name: str, shared: int, expected: list[int]) -> None:
    beginning = [*range(7, 7 + shared % VOCABULARY)] + [6] * (shared - shared % VOCABULARY)
    with tokens_computed(MODELS[name]) as seen:
        generate(MODELS[name], [[*beginning, 1], [*beginning, 2]], max_new_tokens=1)
    assert seen == expected


@each_model
def test_a_prompt_that_is_the_beginning_of_another_keeps_a_token_to_go_on_from(name: str) -> None:
    with tokens_computed(MODELS[name]) as seen:
        generate(MODELS[name], [[4] * 70, [4] * 80], max_new_tokens=1)
    assert seen == [69, 1 + 11]


@pytest.mark.skipif(kernels_missing(), reason="only the kernels have pages")
def test_samples_of_one_prompt_share_its_full_pages() -> None:
    cache, logits = start(MODELS["fp32"], [[4] * 130] * 3, max_new_tokens=20)
    assert isinstance(cache, PagedCache)
    assert logits.shape == (3, VOCABULARY)
    assert cache.keys.shape[1] == 2 + 3  # two full pages for all, and one for each to go on in
