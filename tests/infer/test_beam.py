"""Beam search against `transformers` on random models that do end; alone and together; on both caches."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.checkpoint import open_checkpoint
from sensorium.config import DecoderConfig, LanguageModelHeadConfig, LearnedPositions, StackConfig, TokenStemConfig
from sensorium.errors import UsageError
from sensorium.infer import beam
from sensorium.infer.beam import beam_search
from sensorium.infer.cache import PagedCache
from sensorium.infer.decode import start
from sensorium.infer.generate import generate
from sensorium.infer.settings import GenerationSettings
from sensorium.models.build import new_model
from sensorium.packed import Packed

VOCABULARY, POSITIONS, EOS = 60, 160, 7
PROMPTS = [[1, 2, 3, 4, 5], [20, 21], [30, 31, 32, 33, 34, 35, 36, 37, 38], [9]]


def theirs(seed: int) -> Any:
    """A random GPT-2 whose end token is likely enough that beams end early, late and not at all."""
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=POSITIONS, n_embd=32, n_layer=2, n_head=4, bos_token_id=EOS,
        eos_token_id=EOS, tie_word_embeddings=False,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "ln" not in name:
                parameter.normal_(0.0, 0.3)
        model.lm_head.weight[EOS] *= 1.6
    return model


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, Any]]:
    """(the oracle, our model with its weights), for some seeds."""
    made = []
    for seed in range(3):
        oracle, folder = theirs(seed), tmp_path_factory.mktemp("gpt2")
        oracle.save_pretrained(folder)
        made.append((oracle, open_checkpoint(folder).model))
    return made


def oracle_search(model: Any, prompt: list[int], options: GenerationSettings) -> list[tuple[list[int], float]]:
    """Their answers: new tokens up to the end token, and scores."""
    answer = model.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.int64), do_sample=False,
        max_new_tokens=options.max_new_tokens, num_beams=options.num_beams, length_penalty=options.length_penalty,
        early_stopping=options.early_stopping, num_return_sequences=options.num_return_sequences,
        repetition_penalty=options.repetition_penalty, pad_token_id=EOS, output_scores=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    rows = [row[len(prompt) :] for row in answer.sequences.tolist()]
    return [
        (row[: row.index(EOS)] if EOS in row else row, score)
        for row, score in zip(rows, answer.sequences_scores.tolist(), strict=True)
    ]


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("length_penalty", [-0.5, 0.0, 1.0, 2.0])
@pytest.mark.parametrize(("num_beams", "repetition_penalty"), [(2, 1.0), (4, 1.0), (5, 1.3)])
def test_the_answers_are_those_of_transformers(
    pairs: list[tuple[Any, Any]], early_stopping: Any, length_penalty: float, num_beams: int, repetition_penalty: float
) -> None:
    options = GenerationSettings(
        max_new_tokens=16, eos_token_id=EOS, num_beams=num_beams, length_penalty=length_penalty,
        early_stopping=early_stopping, num_return_sequences=num_beams, repetition_penalty=repetition_penalty,
    )  # fmt: skip
    for oracle, model in pairs:
        got = beam_search(model, PROMPTS, options)
        for prompt, ours in zip(PROMPTS, got, strict=True):
            expected = oracle_search(oracle, prompt, options)
            assert [one.token_ids for one in ours] == [token_ids for token_ids, _ in expected]
            assert [one.score for one in ours] == pytest.approx([score for _, score in expected], rel=1e-4, abs=1e-4)


def test_the_answers_compared_do_end_early_and_late_and_the_settings_matter(pairs: list[tuple[Any, Any]]) -> None:
    lengths, answers = set(), {}
    for early_stopping, penalty in itertools.product([False, True, "never"], [-0.5, 1.0, 2.0]):
        options = GenerationSettings(
            max_new_tokens=16, eos_token_id=EOS, num_beams=4, length_penalty=penalty, num_return_sequences=4,
            early_stopping=early_stopping,  # type: ignore[arg-type]
        )  # fmt: skip
        got = [beam_search(model, PROMPTS, options) for _, model in pairs]
        lengths |= {len(one.token_ids) for found in got for beams in found for one in beams}
        answers[early_stopping, penalty] = str([[[o.token_ids for o in beams] for beams in found] for found in got])
    assert {1, 16} <= lengths
    assert len(lengths) > 8
    assert len(set(answers.values())) > 5


PROMPT = st.lists(st.integers(0, 49), min_size=1, max_size=9)
BATCHES = st.tuples(st.lists(st.integers(0, 49), max_size=130), st.lists(PROMPT, min_size=1, max_size=4)).map(
    lambda drawn: [drawn[0] + own for own in drawn[1]]
)


@settings(max_examples=25)
@given(prompts=BATCHES, num_beams=st.integers(2, 5))
def test_a_prompt_gets_what_it_gets_alone(decoder: Any, prompts: list[list[int]], num_beams: int) -> None:
    options = GenerationSettings(max_new_tokens=9, eos_token_id=3, num_beams=num_beams, num_return_sequences=num_beams)
    together = beam_search(decoder, prompts, options)
    for prompt, answers in zip(prompts, together, strict=True):
        (alone,) = beam_search(decoder, [prompt], options)
        assert [one.token_ids for one in answers] == [one.token_ids for one in alone]
        assert [one.score for one in answers] == pytest.approx([one.score for one in alone], rel=1e-6)


@settings(max_examples=25)
@given(prompts=st.lists(PROMPT, min_size=1, max_size=4), max_new_tokens=st.integers(1, 20))
def test_one_beam_is_greedy(decoder: Any, prompts: list[list[int]], max_new_tokens: int) -> None:
    options = GenerationSettings(max_new_tokens=max_new_tokens, eos_token_id=3)
    got = beam_search(decoder, prompts, options)
    expected = generate(decoder, prompts, options)
    assert [[one.token_ids for one in answers] for answers in got] == [[tokens] for tokens in expected]


@torch.inference_mode()
def every_answer(
    model: Any, prompt: list[int], length_penalty: float, most: int, vocabulary: int
) -> list[tuple[float, list[int]]]:
    """All continuations there are, 0 being the end token, each computed by itself without a cache; the best first."""
    answers = []
    for size in range(1, most + 1):
        for tokens in itertools.product(range(vocabulary), repeat=size):
            if 0 in tokens[:-1] or (tokens[-1] != 0 and size < most):
                continue
            batch = Packed.from_sequences([[*prompt, *tokens]])
            rows = model.next_token_logits(model(batch))[len(prompt) - 1 : -1].log_softmax(dim=-1)
            total = float(rows[range(size), list(tokens)].sum())
            answers.append((total / size**length_penalty, [token for token in tokens if token]))
    return sorted(answers, key=lambda one: -one[0])


@settings(max_examples=15)
@given(
    seed=st.integers(0, 999),
    length_penalty=st.floats(0.0, 2.0),
    prompt=st.lists(st.integers(0, 4), min_size=1, max_size=20),
)
def test_beams_enough_for_every_continuation_find_the_best_of_all(
    seed: int, length_penalty: float, prompt: list[int]
) -> None:
    config = DecoderConfig(
        TokenStemConfig(5, 8, LearnedPositions(64)),
        StackConfig(8, 1, 2, 8, mask="causal", norm_place="pre", final_norm=True),
        LanguageModelHeadConfig(),
    )
    model: Any = new_model(config, seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.5, generator=generator)
    options = GenerationSettings(
        max_new_tokens=3, eos_token_id=0, num_beams=25, length_penalty=length_penalty, early_stopping="never",
        num_return_sequences=3,
    )  # fmt: skip
    (got,) = beam_search(model, [prompt], options)
    expected = every_answer(model, prompt, length_penalty, 3, 5)[:3]
    assert [one.score for one in got] == pytest.approx([score for score, _ in expected], abs=1e-5)
    assert [one.token_ids for one in got] == [token_ids for _, token_ids in expected]


def test_prompts_are_computed_once_and_then_only_new_tokens(decoder: Any) -> None:
    seen: list[int] = []
    handle = decoder.stem.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].num_tokens))
    beam_search(
        decoder, [[1] * 70, [2] * 30], GenerationSettings(max_new_tokens=4, num_beams=3, early_stopping="never")
    )
    handle.remove()
    assert seen == [100, 6, 6, 6]


def test_beams_never_run_out_of_pages_and_share_those_of_their_prompt(
    decoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches: list[Any] = []

    def watched(*inputs: Any, **options: Any) -> Any:
        cache, logits = start(*inputs, **options)
        caches.append(cache)
        return cache, logits

    monkeypatch.setattr(beam, "start", watched)
    prompts = [[1] * 129, [2] * 63, [3] * 64, [1] * 129]
    found = beam_search(decoder, prompts, GenerationSettings(max_new_tokens=65, num_beams=4, early_stopping="never"))
    assert [len(answers[0].token_ids) for answers in found] == [65] * 4
    if isinstance(caches[0], PagedCache):
        free, pages = caches[0]._free, caches[0].keys.shape[1]
        assert pages == (2 + 8 * 2) + 4 * 2 + (1 + 4)  # [1] * 129 is there twice, and 129 + 64 tokens fill four pages
        caches[0].select([])
        assert sorted(free) == list(range(pages))


def test_an_answer_ends_where_the_positions_end(decoder: Any) -> None:
    ((answer,), (other,)) = beam_search(decoder, [[1] * 190, [2]], GenerationSettings(max_new_tokens=15, num_beams=3))
    assert (len(answer.token_ids), len(other.token_ids)) == (10, 15)


def test_a_vocabulary_too_small_for_the_beams_gives_the_answers_there_are() -> None:
    config = DecoderConfig(
        TokenStemConfig(2, 4, LearnedPositions(8)), StackConfig(4, 1, 1, 4, mask="causal"), LanguageModelHeadConfig()
    )
    model: Any = new_model(config, seed=0)
    options = GenerationSettings(max_new_tokens=2, eos_token_id=0, num_beams=6, num_return_sequences=6)
    (answers,) = beam_search(model, [[1]], options)
    assert sorted(one.token_ids for one in answers) == [[], [1], [1, 1]]


def test_prompts_are_checked_as_in_generation(decoder: Any) -> None:
    with pytest.raises(UsageError, match="prompt 2 is empty"):
        beam_search(decoder, [[1], []], GenerationSettings(num_beams=2))
