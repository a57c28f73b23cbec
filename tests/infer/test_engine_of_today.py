"""The engine over Llama-type decoders and encoder–decoders: what the plain stack gives, on the kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium import native
from sensorium.config import (
    DecoderConfig,
    EncoderDecoderConfig,
    LanguageModelHeadConfig,
    Llama3Scaling,
    RelativePositions,
    RotaryPositions,
    SinusoidalPositions,
    StackConfig,
    TokenStemConfig,
)
from sensorium.errors import UsageError
from sensorium.infer.beam import beam_search
from sensorium.infer.conditioned import Conditioned
from sensorium.infer.decode import new_cache
from sensorium.infer.engine import fast
from sensorium.infer.fast_stack import FastStack
from sensorium.infer.generate import generate
from sensorium.infer.paged_memory import PagedMemory
from sensorium.infer.quantise import agreement, smoothing
from sensorium.infer.settings import GenerationSettings
from sensorium.infer.torch_stack import TorchStack
from sensorium.models.build import new_model
from sensorium.packed import Packed
from tests.infer.random_models import TORCH_BF16, VOCABULARY, batch_of, distance

DTYPES = ("fp32", "bf16", "int8", "int8_weight_only", "int4_weight_only")
TOLERANCE = {"fp32": 1e-4, "bf16": 4e-2, "int8": 1e-1, "int8_weight_only": 8e-2, "int4_weight_only": 6e-1}
"""Of the largest value. Rounding to 4 bits is far from these small random models, and still the same function."""
LENGTHS = (1, 2, 7, 16, 63, 64, 65, 130, 300, 3)
SOURCES = [[*range(1, n + 1)] for n in (3, 70, 20, 1, 64)]
WHOLE = {"hidden_size": 128, "num_heads": 4, "mlp_size": 256}
"""A shape whose products the matrix unit takes, where there is one."""

needs_kernels = pytest.mark.skipif(not native.available(), reason="the compiled kernels can't run here")


def llama(**changes: Any) -> Any:
    """A random Llama: RMSNorm, gated MLP, rotary positions, no biases, two queries to a key."""
    stack: dict[str, Any] = {
        "hidden_size": 64, "num_layers": 3, "num_heads": 4, "num_kv_heads": 2, "mlp_size": 96, "mask": "causal",
        "norm_place": "pre", "norm": "rms", "norm_eps": 1e-6, "final_norm": True, "mlp": "gated", "activation": "silu",
        "biases": frozenset(), "rotary": RotaryPositions(512), **changes,
    }  # fmt: skip
    stem = TokenStemConfig(VOCABULARY, stack["hidden_size"], None)
    return spread(new_model(DecoderConfig(stem, StackConfig(**stack), LanguageModelHeadConfig()), seed=0))


def marian(**changes: Any) -> Any:
    """A random Marian: sinusoids, scaled token vectors, a bias on its logits."""
    stack: dict[str, Any] = {"hidden_size": 64, "num_layers": 2, "num_heads": 4, "mlp_size": 96, "norm_eps": 1e-5}
    stack |= changes
    stem = TokenStemConfig(VOCABULARY, stack["hidden_size"], SinusoidalPositions(512), scaled=True)
    writes = StackConfig(**stack, mask="causal", memory_size=stack["hidden_size"])
    head = LanguageModelHeadConfig(bias=True)
    return spread(new_model(EncoderDecoderConfig(stem, StackConfig(**stack), stem, writes, 0, head), seed=0))


def t5(**changes: Any) -> Any:
    """A random T5: RMSNorm, relative positions, no biases, scores that are not scaled."""
    stack: dict[str, Any] = {
        "hidden_size": 64, "num_layers": 2, "num_heads": 4, "mlp_size": 96, "norm_place": "pre", "norm": "rms",
        "final_norm": True, "activation": "relu", "biases": frozenset(), "attention_scale": 1.0,
        "relative": RelativePositions(8, 40, 512), **changes,
    }  # fmt: skip
    stem = TokenStemConfig(VOCABULARY, stack["hidden_size"], None)
    writes = StackConfig(**stack, mask="causal", memory_size=stack["hidden_size"])
    model = new_model(
        EncoderDecoderConfig(stem, StackConfig(**stack), stem, writes, 0, LanguageModelHeadConfig()), seed=0
    )
    return spread(model)


def spread(model: Any) -> Any:
    """Weights far enough from zero that nothing is nearly linear, and norms and biases that matter."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0.0, 0.1, generator=generator)
            else:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model


DECODERS = {
    "as it comes": {},
    "one head of keys": {"num_kv_heads": 1},
    "as many keys as queries": {"num_kv_heads": 4},
    "heads of their own size": {"own_head_size": 20},
    "norms of queries and keys": {"own_head_size": 32, "num_heads": 6, "num_kv_heads": 3, "qk_norm": True},
    "biases of queries": {"biases": frozenset({"qkv"})},
    "scaled angles": {"rotary": RotaryPositions(512, 500.0, Llama3Scaling(8.0, 1.0, 4.0, 64))},
    "after, with LayerNorm": {"norm_place": "post", "norm": "layer", "final_norm": False},
    "a window": {"window": 37},
    "a window of one page": {"window": 64, "num_kv_heads": 1},
    "for the matrix unit": {**WHOLE, "num_kv_heads": 2},
    "a window, for the matrix unit": {**WHOLE, "num_kv_heads": 2, "window": 50},
}


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("changes", DECODERS.values(), ids=DECODERS)
def test_the_kernels_agree_with_the_plain_stack_of_a_decoder(changes: dict[str, Any], dtype: str) -> None:
    model, batch = llama(**changes), batch_of(*LENGTHS)
    faster = fast(model, dtype)
    assert isinstance(faster.stack, FastStack)
    with torch.inference_mode():
        assert distance(faster(batch), model(batch)) < TOLERANCE[dtype]


@needs_kernels
@pytest.mark.parametrize("changes", DECODERS.values(), ids=DECODERS)
def test_a_decoder_writes_the_same_on_the_kernels(changes: dict[str, Any]) -> None:
    model = llama(**changes)
    faster, prompts = fast(model), [[1, 2, 3], [5] * 70, [7, 8] * 40, [9]]
    greedy, beams = GenerationSettings(max_new_tokens=30), GenerationSettings(max_new_tokens=20, num_beams=3)
    assert generate(faster, prompts, greedy) == generate(model, prompts, greedy)
    found, expected = (beam_search(one, prompts, beams) for one in (faster, model))
    assert [[one.token_ids for one in answers] for answers in found] == [
        [one.token_ids for one in answers] for answers in expected
    ]


TRANSLATORS = {
    "as it comes": marian(),
    "norms before": marian(norm_place="pre", final_norm=True),
    "for the matrix unit": marian(**WHOLE),
    "relative positions": t5(),
    "relative positions, gated and scaled": t5(mlp="gated", activation="gelu_tanh", attention_scale=0.3),
    "relative positions, for the matrix unit": t5(**WHOLE, own_head_size=64, attention_scale=0.1),
}


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", TRANSLATORS.values(), ids=TRANSLATORS)
def test_the_kernels_agree_with_the_plain_stacks_of_an_encoder_decoder(model: Any, dtype: str) -> None:
    sources = Packed.from_sequences(SOURCES)
    batch, faster = batch_of(4, 66, 2, 1, 3), fast(model, dtype)
    with torch.inference_mode():
        found, expected = faster(batch, faster.encode(sources)), model(batch, model.encode(sources))
        assert distance(found, expected) < TOLERANCE[dtype]
        logits, plain = faster.next_token_logits(found), model.next_token_logits(expected)
        assert distance(logits, plain) < TOLERANCE[dtype]


@needs_kernels
@pytest.mark.parametrize("model", TRANSLATORS.values(), ids=TRANSLATORS)
def test_an_encoder_decoder_writes_the_same_on_the_kernels(model: Any) -> None:
    def written(model: Any) -> Any:
        greedy, beams = Conditioned(model, SOURCES), Conditioned(model, SOURCES)
        four = GenerationSettings(max_new_tokens=30, num_beams=4, eos_token_id=5)
        tokens = [[one.token_ids for one in answers] for answers in beam_search(beams, beams.prompts, four)]
        return generate(greedy, greedy.prompts, GenerationSettings(max_new_tokens=70, eos_token_id=5)), tokens

    faster = fast(model)
    assert isinstance(faster.decoder.stack, FastStack)
    assert written(faster) == written(model)


@needs_kernels
@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(1, 90), min_size=2, max_size=6), dtype=st.sampled_from(DTYPES),
       threads=st.integers(1, 3))  # fmt: skip
def test_what_is_written_of_a_source_is_the_same_bit_for_bit_whatever_the_neighbours(
    lengths: list[int], dtype: str, threads: int
) -> None:
    model, before = FAST_TRANSLATORS[dtype], torch.get_num_threads()
    sources, batch = batch_of(*lengths), batch_of(*lengths[::-1], seed=1)
    with torch.inference_mode():
        together = batch.split(model(batch, model.encode(sources)))
        try:
            torch.set_num_threads(threads)
            for source, ids, found in zip(
                sources.split(sources.values), batch.split(batch.values), together, strict=True
            ):
                memory = model.encode(Packed.from_sequences([source]))
                assert torch.equal(model(Packed.from_sequences([ids]), memory), found)
        finally:
            torch.set_num_threads(before)


FAST_TRANSLATORS = {dtype: fast(marian(**WHOLE), dtype) for dtype in DTYPES} if native.available() else {}


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_cache_changes_nothing_of_a_decoder(dtype: str) -> None:
    model = fast(llama(**WHOLE, num_kv_heads=2), dtype)
    whole = batch_of(70, 5)
    with torch.inference_mode():
        expected = whole.split(model(whole))
        cache = new_cache(model, 2, 70)
        parts = [ids.tolist() for ids in whole.split(whole.values)]
        model(Packed.from_sequences([parts[0][:66], parts[1][:1]]), cache)
        for step in range(4):
            new = Packed.from_sequences([[parts[0][66 + step]], [parts[1][1 + step]]], start_positions=cache.lengths)
            found = model(new, cache)
            for row, vectors, at in zip(found, expected, (66 + step, 1 + step), strict=True):
                assert distance(row, vectors[at]) < (1e-4 if dtype == "fp32" else TOLERANCE[dtype])


@needs_kernels
def test_a_memory_lets_go_of_sources_that_nobody_reads() -> None:
    model = fast(marian())
    conditioned = Conditioned(model, SOURCES)
    assert isinstance(conditioned.memory, PagedMemory)
    with torch.inference_mode():
        expected = model(batch_of(2, 2, 3), model.encode(Packed.from_sequences([SOURCES[3], SOURCES[3], SOURCES[1]])))
        conditioned.memory.select([3, 3, 1])
        assert conditioned.memory.lengths == (1, 70)
        assert torch.equal(model(batch_of(2, 2, 3), conditioned.memory), expected)


@needs_kernels
def test_a_decoder_of_two_stacks_says_that_it_has_nothing_to_read() -> None:
    model = fast(marian())
    with pytest.raises(UsageError, match="attends to an encoder's vectors, and none were given"):
        model.decoder.stack(torch.zeros(2, 64), batch_of(2).layout)


@pytest.mark.parametrize("dtype", ["fp32", TORCH_BF16])
def test_without_kernels_both_stacks_run_on_torch(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensorium.infer.engine._no_kernels", lambda model: "they are switched off")
    model = marian(**WHOLE)
    faster, sources, batch = fast(model, dtype), Packed.from_sequences(SOURCES), batch_of(4, 66, 2, 1, 3)
    assert isinstance(faster.encoder.stack, TorchStack)
    with torch.inference_mode():
        found = faster(batch, faster.encode(sources))
        assert distance(found, model(batch, model.encode(sources))) < TOLERANCE[dtype]
    conditioned, plain = Conditioned(faster, SOURCES), Conditioned(model, SOURCES)
    if dtype == "fp32":
        assert generate(conditioned, conditioned.prompts) == generate(plain, plain.prompts)


@needs_kernels
def test_agreement_of_an_encoder_decoder_is_of_what_it_writes() -> None:
    model, sources = marian(**WHOLE), Packed.from_sequences(SOURCES)
    same = agreement(model, fast(model), sources)
    assert same.mean > 0.999999
    assert same.same_token == 1.0
    assert agreement(model, fast(model, "int4_weight_only"), sources).mean < 0.99


@needs_kernels
def test_smoothing_moves_the_same_range_into_both_maps_of_a_gated_mlp() -> None:
    model, batch = llama(**WHOLE, num_kv_heads=2), batch_of(40, 60)
    factors = smoothing(model, batch)
    assert torch.equal(factors["0.gate"], factors["0.up"])
    with torch.inference_mode():
        assert distance(fast(model, "int8", smooth=factors)(batch), model(batch)) < TOLERANCE["int8"]
