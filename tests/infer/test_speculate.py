"""Guessing changes how soon a text is written, and never which: token for token, or by its distribution."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from sensorium.errors import UsageError
from sensorium.infer.engine import fast
from sensorium.infer.settings import GenerationSettings
from sensorium.infer.speculate import look_up, speculate_stream
from sensorium.infer.write import write
from tests.infer.random_models import random_decoder

VOCABULARY = 50
PROMPTS = st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=70), min_size=1, max_size=4)


ASSISTANT = random_decoder(7)

HOW: list[dict[str, Any]] = [
    {},
    {"no_repeat_ngram_size": 2, "min_new_tokens": 4},
    {"repetition_penalty": 1.5, "suppress_tokens": [4, 5], "forced_eos_token_id": 3},
    {"log_probs": 2},
]


@settings(max_examples=25)
@given(prompts=PROMPTS, how=st.sampled_from(HOW), guessed=st.integers(1, 9), new=st.integers(1, 30))
def test_greedy_texts_are_those_without_guesses(
    decoder: Any, prompts: list[list[int]], how: dict[str, Any], guessed: int, new: int
) -> None:
    options = GenerationSettings(**{"max_new_tokens": max(new, 4), "eos_token_id": 3, **how})
    plain = write(decoder, prompts, options)
    looked_up = write(decoder, prompts, replace(options, prompt_lookup_num_tokens=guessed))
    assisted = write(decoder, prompts, replace(options, num_assistant_tokens=guessed), assistant=ASSISTANT)
    for found in (looked_up, assisted):
        for (one,), (expected,) in zip(found, plain, strict=True):
            assert (one.token_ids, one.finish_reason) == (expected.token_ids, expected.finish_reason)
            assert one.log_probabilities == pytest.approx(expected.log_probabilities, abs=1e-4)


@settings(max_examples=15)
@given(prompts=PROMPTS, seed=st.integers(0, 99), guessed=st.integers(1, 9))
def test_samples_of_a_seed_are_those_without_look_up(
    decoder: Any, prompts: list[list[int]], seed: int, guessed: int
) -> None:
    options = GenerationSettings(
        max_new_tokens=20, eos_token_id=3, do_sample=True, temperature=0.4, seed=seed, num_return_sequences=2
    )
    assert write(decoder, prompts, options) == write(
        decoder, prompts, replace(options, prompt_lookup_num_tokens=guessed)
    )


def test_samples_with_an_assistant_have_the_distribution_of_those_without() -> None:
    model = random_decoder(1, vocabulary_size=4, spread=0.5)
    other = random_decoder(2, vocabulary_size=4, spread=0.5)
    for how in ({}, {"temperature": 0.7, "top_k": 3}):
        options = GenerationSettings(
            max_new_tokens=4,
            do_sample=True,
            num_return_sequences=3000,
            seed=5,
            num_assistant_tokens=3,
            **how,  # type: ignore[arg-type]
        )
        ((*plain,),) = write(model, [[1, 2]], options)
        ((*guessed,),) = write(model, [[1, 2]], replace(options, seed=6), assistant=other)
        ((*alone,),) = write(other, [[1, 2]], options)
        assert p_value(plain, guessed) > 0.01
        assert p_value(plain, alone) < 1e-6  # the assistant by itself would be told apart


def p_value(first: list[Any], second: list[Any]) -> float:
    """Of both lists of texts being drawn from one distribution; rare texts are counted together."""
    counts = [Counter(tuple(one.token_ids) for one in texts) for texts in (first, second)]
    common = [text for text, count in (counts[0] + counts[1]).items() if count >= 20]
    table = [[count[text] for text in common] for count in counts]
    table = [[*row, len(texts) - sum(row)] for row, texts in zip(table, (first, second), strict=True)]
    pooled = [(a + b) / 2 for a, b in zip(*table, strict=True)]
    statistic = sum(float(chisquare(row, pooled).statistic) for row in table)
    from scipy.stats import chi2

    return float(chi2.sf(statistic, len(pooled) - 1))


def test_a_text_that_repeats_itself_takes_fewer_passes(decoder: Any) -> None:
    passes: list[int] = []
    handle = decoder.stem.register_forward_pre_hook(lambda module, inputs: passes.append(inputs[0].num_tokens))
    options = GenerationSettings(max_new_tokens=60)
    plain = write(decoder, [[1, 2, 3]], options)
    without = len(passes)
    passes.clear()
    assert write(decoder, [[1, 2, 3]], replace(options, prompt_lookup_num_tokens=8)) == plain
    handle.remove()
    assert without == 60
    assert len(passes) < 40  # greedy texts of a random model fall into a loop


def test_an_assistant_that_is_the_model_is_always_right() -> None:
    model = fast(random_decoder(3), "fp32")
    passes: list[int] = []
    handle = model.stem.register_forward_pre_hook(lambda module, inputs: passes.append(inputs[0].num_tokens))
    options = GenerationSettings(max_new_tokens=25, num_assistant_tokens=5)
    plain = write(model, [[1, 2]], options)
    passes.clear()
    other = fast(random_decoder(3), "fp32")
    assert write(model, [[1, 2]], options, assistant=other) == plain
    handle.remove()
    assert passes == [2, 6, 6, 6, 6]  # the prompt's own token, then six a pass


def test_an_assistant_that_reads_less_far_guesses_until_there() -> None:
    model, short = random_decoder(3), random_decoder(4, positions=12)
    options = GenerationSettings(max_new_tokens=30)
    assert write(model, [[1, 2], [3] * 8], options, assistant=short) == write(model, [[1, 2], [3] * 8], options)


def test_what_was_said_before_is_looked_up_by_the_longest_ending() -> None:
    assert look_up([1, 2, 3, 4, 9, 3, 5, 2, 3], 2) == [4, 9]
    assert look_up([1, 2, 3, 1, 2, 4, 1, 2], 1) == [4]  # the latest
    assert look_up([1], 4) == look_up([1, 2, 3], 4) == look_up([1, 1], 0) == []


def test_the_mode_of_inference_does_not_leak_out_of_the_stream() -> None:
    stream = speculate_stream(
        random_decoder(0), [[5]], GenerationSettings(max_new_tokens=3, prompt_lookup_num_tokens=2)
    )
    next(stream)
    assert not torch.is_inference_mode_enabled()


def test_who_cannot_guess_is_one_sentence() -> None:
    model = random_decoder(0)
    with pytest.raises(UsageError, match="the assistant has 40 tokens, the model 50; it can only guess"):
        write(model, [[1]], GenerationSettings(), assistant=random_decoder(0, vocabulary_size=40))
    with pytest.raises(UsageError, match="an assistant guesses .* does not go with num_beams"):
        write(model, [[1]], GenerationSettings(num_beams=2), assistant=model)
    with pytest.raises(UsageError, match="prompt_lookup_num_tokens guesses .* does not go with num_beams"):
        GenerationSettings(num_beams=2, prompt_lookup_num_tokens=3)
