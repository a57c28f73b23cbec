"""The engine: the same answers, faster. Laws hold for every dtype, on the kernels and on torch's own operators."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium import native
from sensorium.config import (
    DecoderConfig,
    EncoderConfig,
    LanguageModelHeadConfig,
    LearnedPositions,
    MaskedTokenHeadConfig,
    StackConfig,
    TokenStemConfig,
)
from sensorium.errors import UsageError
from sensorium.infer import engine
from sensorium.infer.cache import PagedCache
from sensorium.infer.decode import new_cache
from sensorium.infer.engine import FallbackWarning, fast
from sensorium.infer.fast_stack import FastStack, unsupported
from sensorium.infer.generate import generate
from sensorium.infer.settings import GenerationSettings
from sensorium.infer.torch_stack import TorchStack
from sensorium.models.build import new_model
from sensorium.packed import Layout, Packed
from tests.infer.random_models import TORCH_BF16, VOCABULARY, batch_of, distance

WHOLE = {"hidden_size": 128, "num_heads": 4, "mlp_size": 256}
"""A shape whose products the matrix unit takes, where there is one."""
DTYPES = ("fp32", "bf16", "int8", "int8_weight_only", "int4_weight_only")
TOLERANCE = {"fp32": 2e-5, "bf16": 3e-2, "int8": 8e-2, "int8_weight_only": 8e-2, "int4_weight_only": 4e-1}
"""Of the largest value."""


def kernels_missing() -> str | None:
    try:
        native.library()
    except OSError as error:
        return str(error)
    return None


needs_kernels = pytest.mark.skipif(kernels_missing() is not None, reason=str(kernels_missing()))


def encoder(**changes: Any) -> Any:
    """A random BERT whose shapes fit nothing evenly: heads of 10, hidden layers of 100."""
    stack = {"hidden_size": 40, "num_layers": 3, "num_heads": 4, "mlp_size": 100, **changes}
    stem = TokenStemConfig(VOCABULARY, stack["hidden_size"], LearnedPositions(512), 2, 1e-12)
    model = new_model(EncoderConfig(stem, StackConfig(**stack), masked_token=MaskedTokenHeadConfig()), seed=0)
    return spread(model)


def decoder(**changes: Any) -> Any:
    """A random GPT-2."""
    stack = {"hidden_size": 64, "num_layers": 3, "num_heads": 4, "mlp_size": 200, "mask": "causal", "norm_place": "pre",
             "final_norm": True, "activation": "gelu_tanh", **changes}  # fmt: skip
    stem = TokenStemConfig(VOCABULARY, stack["hidden_size"], LearnedPositions(512))
    return spread(new_model(DecoderConfig(stem, StackConfig(**stack), LanguageModelHeadConfig()), seed=0))


def spread(model: Any) -> Any:
    """Weights far enough from zero that attention and activations are not nearly linear, and norms that matter."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(5)
            else:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "gelu_quick", "relu", "silu", "tanh"])
def test_the_kernels_agree_with_the_plain_stack(dtype: str, activation: str) -> None:
    batch = batch_of(1, 2, 7, 16, 63, 64, 65, 130, 300, 3)
    for model in (
        encoder(activation=activation), decoder(activation=activation), encoder(activation=activation, **WHOLE),
        decoder(activation=activation, **WHOLE),
    ):  # fmt: skip
        with torch.inference_mode():
            assert distance(fast(model, dtype)(batch), model(batch)) < TOLERANCE[dtype]


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("size", "heads"), [(384, 12), (64, 1), (48, 8), (80, 2), (144, 1)])
def test_the_kernels_take_heads_of_any_even_size(dtype: str, size: int, heads: int) -> None:
    model, batch = encoder(hidden_size=size, num_heads=heads, mlp_size=4 * size), batch_of(5, 40, 70)
    with torch.inference_mode():
        assert distance(fast(model, dtype)(batch), model(batch)) < TOLERANCE[dtype]


@needs_kernels
@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=12), dtype=st.sampled_from(DTYPES),
       whole=st.booleans(), threads=st.integers(1, 4))  # fmt: skip
def test_a_result_is_the_same_bit_for_bit_whatever_the_neighbours_and_the_threads(
    lengths: list[int], dtype: str, whole: bool, threads: int
) -> None:
    model, before = FAST_ENCODERS[dtype, whole], torch.get_num_threads()
    batch = batch_of(*lengths)
    together = batch.split(model(batch))
    try:
        torch.set_num_threads(threads)
        for ids, result in zip(batch.split(batch.values), together, strict=True):
            assert torch.equal(model(Packed.from_sequences([ids])), result)
    finally:
        torch.set_num_threads(before)


FAST_ENCODERS = {} if kernels_missing() else {
    (dtype, whole): fast(encoder(**(WHOLE if whole else {})), dtype) for dtype in DTYPES for whole in (False, True)
}  # fmt: skip


@needs_kernels
def test_a_batch_that_is_not_finite_leaves_nothing_behind() -> None:
    for (dtype, _), model in FAST_ENCODERS.items():
        batch = batch_of(5, 33, 70, 1)
        before = model(batch)
        x = torch.full((2000, model.config.stack.hidden_size), torch.nan)
        model.stack(x, Layout(query_lengths=(100,) * 20, key_lengths=(100,) * 20))
        assert torch.equal(model(batch), before), dtype


@needs_kernels
@pytest.mark.skipif(not native.available() or not native.matrix_unit(), reason="this processor has no AMX")
@pytest.mark.parametrize("dtype", ["bf16", "int8"])
def test_the_matrix_unit_and_the_vector_units_agree(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, models = batch_of(1, 5, 16, 40, 70, 130, 300), []
    for amx in (True, False):
        monkeypatch.setattr(native, "matrix_unit", lambda amx=amx: amx)
        models.append([fast(encoder(**WHOLE), dtype), fast(decoder(**WHOLE), dtype)])
    for one, other in zip(*models, strict=True):
        assert one.stack.code != other.stack.code
        assert (
            distance(one(batch), other(batch)) < TOLERANCE["bf16"]
        )  # int8: numbers between two are rounded either way


@pytest.mark.skipif(
    kernels_missing() is not None or native.best() != native.AVX512, reason="this processor has no AVX-512"
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_kernels_for_avx2_and_for_avx512_agree(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "matrix_unit", lambda: False)
    batch, models = batch_of(1, 5, 16, 40, 70, 130, 300), []
    for path in (native.AVX512, native.AVX2):
        monkeypatch.setattr(native, "best", lambda path=path: path)
        models.append([fast(encoder(), dtype), fast(decoder(**WHOLE), dtype)])
    for one, other in zip(*models, strict=True):
        assert one.stack.library is not other.stack.library
        assert distance(one(batch), other(batch)) < TOLERANCE["fp32" if dtype == "fp32" else "bf16"]


@needs_kernels
@pytest.mark.parametrize("shape", [{}, WHOLE])
@pytest.mark.parametrize("dtype", DTYPES)
def test_steps_with_a_cache_give_what_one_run_gives(dtype: str, shape: dict[str, int]) -> None:
    model, batch = fast(decoder(**shape), dtype), batch_of(150, 3, 64)
    whole = batch.split(model(batch))
    cache = new_cache(model, 3, 160)
    done = [0, 0, 0]
    for step in ([100, 1, 63], [1, 1, 1], [49, 1, 0]):
        if step[2] == 0:  # a sequence is at its end and leaves
            cache.select([0, 1])
            step = step[:2]
        parts = [batch.split(batch.values)[n][done[n] : done[n] + new] for n, new in enumerate(step)]
        got = model(Packed.from_sequences(parts, start_positions=done[: len(step)]), cache)
        for n, part in enumerate(got.split(step)):
            assert torch.equal(part, whole[n][done[n] : done[n] + step[n]])
            done[n] += step[n]


@needs_kernels
def test_sequences_that_go_on_from_the_same_one_share_its_pages_and_do_not_disturb_each_other() -> None:
    model, prompt = fast(decoder(), "fp32"), batch_of(130)
    cache = new_cache(model, 3, 140)
    cache.select([0])
    model(prompt, cache)
    cache.select([0, 0, 0])
    used = {page for pages in cache._pages for page in pages}
    assert len(used) == 2 + 3  # two full pages for all, and an unfinished one for each
    nexts = [torch.tensor([n]) for n in (5, 6, 7)]
    got = model(Packed.from_sequences(nexts, start_positions=[130] * 3), cache)
    for n, token in enumerate(nexts):
        alone = model(Packed.from_sequences([torch.cat([prompt.values, token])]))
        assert torch.equal(got[n], alone[-1])
    cache.select([2, 2])
    assert sorted(cache.lengths) == [131, 131]
    with pytest.raises(UsageError, match="does not fit"):
        cache.layout((20, 1))


@needs_kernels
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_generation_chooses_the_tokens_of_the_plain_model(dtype: str) -> None:
    model = decoder()
    prompts = [[1, 2, 3], [4], [*range(70)]]
    expected = generate(model, prompts, GenerationSettings(max_new_tokens=12))
    got = generate(fast(model, dtype), prompts, GenerationSettings(max_new_tokens=12))
    same = sum(a == b for x, y in zip(got, expected, strict=True) for a, b in zip(x, y, strict=True))
    assert same == 36 if dtype == "fp32" else same >= 20


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_generation_chooses_what_one_run_over_its_text_finds_likeliest(dtype: str) -> None:
    model, prompts = fast(decoder(), dtype), [[1, 2, 3], [4], [*range(70)]]
    assert isinstance(new_cache(model, 3, 90), PagedCache)
    for prompt, new in zip(prompts, generate(model, prompts, GenerationSettings(max_new_tokens=12)), strict=True):
        whole = Packed.from_sequences([prompt + new[:-1]])
        assert model.next_token_logits(model(whole)).argmax(dim=-1)[len(prompt) - 1 :].tolist() == new


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_vocabulary_heads_agree(dtype: str) -> None:
    model, batch = encoder(), batch_of(9, 30)
    with torch.inference_mode():
        hidden_states = model(batch)
        got = fast(model, dtype).masked_token_logits(hidden_states)
        assert distance(got, model.masked_token_logits(hidden_states)) < TOLERANCE[dtype]
    model = decoder()
    with torch.inference_mode():
        hidden_states = model(batch)
        got = fast(model, dtype).next_token_logits(hidden_states)
        assert distance(got, model.next_token_logits(hidden_states)) < TOLERANCE[dtype]


@needs_kernels
@pytest.mark.parametrize("make", [encoder, decoder])
def test_the_stem_is_exact_and_refuses_what_its_tables_do_not_hold(make: Any) -> None:
    model, batch = make(), batch_of(3, 70)
    segments = replace(batch, segment_ids=(batch.positions > 2).long()) if make is encoder else batch
    with torch.inference_mode():
        for one in (batch, segments):
            assert torch.allclose(fast(model).stem(one), model.stem(one), atol=1e-6)
    for wrong in ([VOCABULARY], [-1]):
        with pytest.raises(UsageError, match="token ids from .* this model knows 300"):
            fast(model)(Packed.from_sequences([wrong]))
    with pytest.raises(UsageError, match="reads at most 512"):
        fast(model)(batch_of(513))


@needs_kernels
def test_the_model_that_is_given_stays_as_it_is() -> None:
    model = encoder()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = fast(model, "int8")
    assert isinstance(result.stack, FastStack)
    assert not isinstance(model.stack, FastStack)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_hidden_size_beyond_the_kernels_is_named_before_anything_is_packed() -> None:
    config = StackConfig(hidden_size=16_388, num_layers=1, num_heads=1, mlp_size=4)
    assert unsupported(config) == "hidden_size is 16,388, and the kernels go up to 16,384"


def test_a_model_that_was_made_fast_is_not_made_fast_again() -> None:
    with pytest.raises(UsageError, match="made fast already; give the one that was opened"):
        fast(fast(encoder()), "bf16")


def test_an_unknown_dtype_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="int8"):
        fast(encoder(), "int9")


@pytest.mark.parametrize("dtype", ["fp32", TORCH_BF16])
@pytest.mark.parametrize("make", [encoder, decoder])
def test_where_the_kernels_are_missing_torch_gives_the_same(
    dtype: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_no_kernels", lambda model: "no kernels in this test")
    monkeypatch.setattr(engine, "_possible", lambda wanted, model: wanted)
    model, batch = make(), batch_of(5, 1, 40)
    result = fast(model, dtype)
    assert isinstance(result.stack, TorchStack)
    with torch.inference_mode():
        assert distance(result(batch), model(batch)) < TOLERANCE[dtype]
        if make is decoder:
            prompts = [[1, 2, 3], [4, 5]]
            answers = generate(result, prompts, GenerationSettings(max_new_tokens=3))
            assert [len(answer) for answer in answers] == [3, 3]
            assert dtype == "bf16" or answers == generate(model, prompts, GenerationSettings(max_new_tokens=3))


@pytest.mark.parametrize("dtype", ["int8", "int8_weight_only", "int4_weight_only"])
def test_a_dtype_that_can_not_run_falls_back_with_one_line(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_no_kernels", lambda model: "no kernels in this test")
    said = rf"{dtype} can't run here: no kernels in this test; (bf16|fp32) runs"
    with pytest.warns(FallbackWarning, match=said) as seen:
        fast(encoder(), dtype)
    assert len(seen) == 1
    assert "\n" not in str(seen[0].message)


def test_a_shape_that_the_kernels_do_not_take_runs_on_torch() -> None:
    model, batch = encoder(hidden_size=30, num_heads=2), batch_of(5, 40)  # heads of 15
    result = fast(model)
    assert isinstance(result.stack, TorchStack)
    with torch.inference_mode():
        assert distance(result(batch), model(batch)) < TOLERANCE["fp32"]
