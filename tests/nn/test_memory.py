"""A decoder's memory: each sequence reads its own source, and those that read the same one share it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sensorium.config import (
    EncoderDecoderConfig,
    LanguageModelHeadConfig,
    LearnedPositions,
    SinusoidalPositions,
    StackConfig,
    TokenStemConfig,
)
from sensorium.errors import UsageError
from sensorium.infer.cache import KeyValueCache
from sensorium.models.build import new_model
from sensorium.models.encoder_decoder import EncoderDecoder
from sensorium.nn.memory import Memory
from sensorium.packed import Packed


def model() -> EncoderDecoder:
    config = EncoderDecoderConfig(
        TokenStemConfig(30, 16, LearnedPositions(40), norm_eps=1e-5), StackConfig(16, 2, 4, 20),
        TokenStemConfig(30, 16, SinusoidalPositions(40), scaled=True),
        StackConfig(16, 2, 2, 24, mask="causal", norm_place="pre", memory_size=16), 1,
        LanguageModelHeadConfig(bias=True),
    )  # fmt: skip
    made = new_model(config, seed=0)
    assert isinstance(made, EncoderDecoder)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.3)
    return made.double()


MODEL = model()
texts = st.lists(st.integers(0, 29), min_size=1, max_size=15)


@given(pairs=st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
@torch.no_grad()
def test_a_pair_s_result_does_not_depend_on_its_neighbours(pairs: list[tuple[list[int], list[int]]]) -> None:
    batch = Packed.from_sequences([target for _, target in pairs])
    together = batch.split(MODEL(batch, MODEL.encode(Packed.from_sequences([source for source, _ in pairs]))))
    for (source, target), found in zip(pairs, together, strict=True):
        alone = MODEL(Packed.from_sequences([target]), MODEL.encode(Packed.from_sequences([source])))
        torch.testing.assert_close(alone, found, rtol=0, atol=1e-10)


@torch.no_grad()
def test_beams_share_their_source_and_go_on_from_each_other() -> None:
    sources = [[3, 4, 5, 6], [7, 8], [9, 10, 11]]
    memory = MODEL.encode(Packed.from_sequences(sources))
    cache = KeyValueCache(MODEL.config.decoder_stack, 3, 10, torch.float64)
    MODEL(Packed.from_sequences([[1]] * 3), memory, cache)
    written = [[1], [1], [1]]
    states = memory.states
    for parents, tokens in (([0, 0, 1, 2, 2], [5, 6, 7, 8, 9]), ([1, 0, 2, 4], [2, 3, 4, 5]), ([0, 1, 3], [6, 7, 8])):
        cache.select(parents)
        memory.select(parents)
        written = [[*written[parent], token] for parent, token in zip(parents, tokens, strict=True)]
        step = Packed.from_sequences([[token] for token in tokens], start_positions=cache.lengths)
        found = MODEL(step, memory, cache)
        # Nothing was copied while every source was read; then the second one's rows went.
        assert (memory.states is states) == (len(memory.lengths) == 3)
        owners = {5: [0, 0, 1, 2, 2], 4: [0, 0, 1, 2], 3: [0, 0, 2]}[len(tokens)]
        for row, text, owner in zip(found, written, owners, strict=True):
            alone = MODEL(Packed.from_sequences([text]), MODEL.encode(Packed.from_sequences([sources[owner]])))
            torch.testing.assert_close(row, alone[-1], rtol=0, atol=1e-10)
    assert memory.lengths == (4, 3)


def test_sequences_of_one_source_that_stand_apart_get_a_copy_each() -> None:
    memory = Memory(torch.arange(5.0)[:, None], (2, 3))
    memory.select([1, 0, 1])
    assert memory.states[:, 0].tolist() == [2, 3, 4, 0, 1, 2, 3, 4]
    assert memory.layout((1, 2, 3)).key_lengths == (3, 2, 3)


def test_a_decoder_without_a_source_and_with_too_many_say_so() -> None:
    batch = Packed.from_sequences([[1, 2]])
    with pytest.raises(UsageError, match="attends to an encoder's vectors, and none were given"):
        MODEL.decoder.stack(MODEL.decoder.stem(batch), batch.layout)
    memory = MODEL.encode(Packed.from_sequences([[3], [4]]))
    with pytest.raises(UsageError, match="1 sequences attend to the sources of 2"):
        MODEL(batch, memory)


def test_the_two_widths_must_agree() -> None:
    stem = TokenStemConfig(30, 16, LearnedPositions(40))
    with pytest.raises(UsageError, match="attends to vectors of 8, the encoder gives 16"):
        EncoderDecoderConfig(stem, StackConfig(16, 1, 2, 4), stem, StackConfig(16, 1, 2, 4, memory_size=8), 0)
