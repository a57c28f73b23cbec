"""Generation with a cache is generation without one, and knows no neighbours."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.config import DecoderConfig, LanguageModelHeadConfig, LearnedPositions, StackConfig, TokenStemConfig
from sensorium.errors import UsageError
from sensorium.infer.cache import KeyValueCache
from sensorium.infer.generate import generate, generate_stream
from sensorium.infer.settings import GenerationSettings
from sensorium.models.build import new_model
from sensorium.models.decoder import DecoderLM
from sensorium.packed import Packed

VOCABULARY, POSITIONS = 40, 48
CONFIG = DecoderConfig(
    TokenStemConfig(VOCABULARY, 16, LearnedPositions(POSITIONS)),
    StackConfig(16, 2, 2, 32, mask="causal", norm_place="pre", final_norm=True),
    LanguageModelHeadConfig(),
)
PROMPTS = st.lists(
    st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=12).filter(bool), min_size=1, max_size=5
)


def model() -> DecoderLM:
    made = new_model(CONFIG, seed=0)
    assert isinstance(made, DecoderLM)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0.0, 0.4, generator=generator)
    return made.double()


MODEL = model()


@torch.inference_mode()
def naive(prompt: list[int], max_new_tokens: int, eos_id: int) -> list[int]:
    """The whole prefix again for every token."""
    tokens = list(prompt)
    while len(tokens) < min(POSITIONS, len(prompt) + max_new_tokens):
        batch = Packed.from_sequences([tokens])
        tokens.append(int(MODEL.next_token_logits(MODEL(batch)[-1:]).argmax()))
        if tokens[-1] == eos_id:
            return tokens[len(prompt) : -1]
    return tokens[len(prompt) :]


@settings(max_examples=30)
@given(prompts=PROMPTS, max_new_tokens=st.integers(1, 45), eos_id=st.integers(0, VOCABULARY - 1))
def test_a_cache_changes_nothing(prompts: list[list[int]], max_new_tokens: int, eos_id: int) -> None:
    ours = generate(MODEL, prompts, GenerationSettings(max_new_tokens=max_new_tokens, eos_token_id=eos_id))
    assert ours == [naive(prompt, max_new_tokens, eos_id) for prompt in prompts]


@settings(max_examples=20)
@given(prompts=PROMPTS, seed=st.integers(0, 99))
def test_sampling_with_a_seed_knows_no_neighbours(prompts: list[list[int]], seed: int) -> None:
    sampling = GenerationSettings(
        max_new_tokens=8, eos_token_id=3, do_sample=True, temperature=1.5, top_p=0.9, seed=seed
    )
    together = generate(MODEL, prompts, sampling)
    alone = [generate(MODEL, [prompt], sampling)[0] for prompt in prompts]
    assert together == alone


def test_equal_prompts_go_on_equally_and_the_samples_of_one_do_not() -> None:
    sampling = GenerationSettings(do_sample=True, temperature=3.0, seed=1)
    same = generate(MODEL, [[1, 2], [1, 2]], sampling)
    different = generate(MODEL, [[1, 2]], replace(sampling, num_return_sequences=2))
    assert same[0] == same[1] == different[0] != different[1]


def test_each_sequence_ends_once_and_is_then_silent() -> None:
    ended: set[int] = set()
    stream = generate_stream(MODEL, [[5], [6, 7], [8]], GenerationSettings(eos_token_id=2))
    for new in stream:
        assert new.sequence not in ended
        if new.finished:
            ended.add(new.sequence)
    assert ended == {0, 1, 2}


def test_the_inference_mode_does_not_leak_out_of_the_stream() -> None:
    stream = generate_stream(MODEL, [[5]], GenerationSettings(max_new_tokens=3))
    next(stream)
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([[1], []], "prompt 2 is empty"),
        ([[1] * POSITIONS], "prompt 1 has 48 tokens; this model reads 48"),
        ([], "there is no prompt to go on from"),
    ],
)
def test_what_cannot_be_continued_is_named(prompts: list[list[int]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        generate(MODEL, prompts)


def test_a_cache_refuses_what_does_not_fit() -> None:
    cache = KeyValueCache(CONFIG.stack, num_sequences=2, capacity=4, dtype=torch.float32)
    with pytest.raises(UsageError, match="holds 2 sequences, the step brings 1"):
        cache.layout((1,))
    cache.layout((3, 4))
    with pytest.raises(UsageError, match="5 tokens does not fit a cache of 4"):
        cache.layout((1, 1))
