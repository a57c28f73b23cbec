"""What is drawn: by probability, from what the warpers leave; and the likelihoods beside it."""

from __future__ import annotations

import pytest
import torch

from sensorium.infer.branch import Branch
from sensorium.infer.sampling import likelihoods, make_sampler, source_of_chance
from sensorium.infer.settings import GenerationSettings


def branches(count: int) -> list[Branch]:
    return [Branch([0], 1, 9, frozenset()) for _ in range(count)]


def test_frequencies_are_the_probabilities() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    times = 4000
    sample = make_sampler(GenerationSettings(do_sample=True, temperature=2.0))
    drawn = sample(logits.expand(times, -1), branches(times), [source_of_chance(0, i) for i in range(times)])
    shares = torch.bincount(drawn, minlength=3) / times
    assert torch.allclose(shares, (logits[0] / 2).softmax(dim=0), atol=0.03)


def test_only_what_is_left_is_drawn() -> None:
    logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(0)).expand(400, -1)
    sample = make_sampler(GenerationSettings(do_sample=True, top_k=3, suppress_tokens=(int(logits[0].argmax()),)))
    drawn = sample(logits, branches(400), [source_of_chance(1, i) for i in range(400)])
    assert set(drawn.tolist()) == set(logits[0].topk(4).indices[1:].tolist())


def test_a_stream_of_chance_is_its_own_and_the_seeds() -> None:
    def first(seed: int | None, stream: int) -> float:
        return float(torch.rand(1, generator=source_of_chance(seed, stream)))

    assert first(1, 0) == first(1, 0)
    assert len({first(1, 0), first(1, 1), first(2, 0), first(None, 0), first(None, 0)}) == 5


def test_likelihoods_are_the_log_softmax_of_the_models_own_logits() -> None:
    logits = torch.tensor([[0.0, 1.0, 3.0], [2.0, 1.0, 0.0]])
    expected = logits.log_softmax(dim=-1)
    (own, best), (other, _) = likelihoods(logits, [1, 0], 2)
    assert (own, other) == pytest.approx((float(expected[0, 1]), float(expected[1, 0])), abs=1e-5)
    assert [token_id for token_id, _ in best] == [2, 1]
    assert [value for _, value in best] == pytest.approx([float(expected[0, 2]), float(expected[0, 1])], abs=1e-5)
    assert [alternatives for _, alternatives in likelihoods(logits, [1, 0], 0)] == [[], []]
