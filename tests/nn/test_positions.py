"""Rotary and relative positions: what two tokens make of each other depends on how far apart they stand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.t5.modeling_t5 import T5Attention

from sensorium.config import LinearScaling, Llama3Scaling, RelativePositions, RotaryPositions, YarnScaling
from sensorium.errors import UsageError
from sensorium.nn.positions import distance_buckets, frequencies, rotate, rotation
from sensorium.packed import Layout


@given(first=st.integers(0, 500), distance=st.integers(0, 50), shift=st.integers(0, 500))
def test_scores_depend_on_the_distance_alone(first: int, distance: int, shift: int) -> None:
    config = RotaryPositions(2000)
    q, k = torch.randn(2, 1, 1, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def score(query: int, key: int) -> float:
        turned = (
            rotate(x, rotation(config, 8, torch.tensor([place]), torch.float64)) for x, place in ((q, query), (k, key))
        )
        a, b = turned
        return float((a * b).sum())

    assert score(first + distance, first) == pytest.approx(score(first + distance + shift, first + shift), abs=1e-3)


def test_turning_keeps_lengths_and_the_first_token_as_it_is() -> None:
    x = torch.randn(5, 2, 6)
    turned = rotate(x, rotation(RotaryPositions(10), 6, torch.arange(5), torch.float32))
    assert torch.equal(turned[0], x[0])
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


def test_linear_scaling_makes_positions_smaller() -> None:
    plain = frequencies(RotaryPositions(10), 8)
    torch.testing.assert_close(frequencies(RotaryPositions(10, scaling=LinearScaling(4.0)), 8), plain / 4)


def test_llama3_scaling_leaves_fast_channels_and_slows_the_slowest() -> None:
    scaling = Llama3Scaling(8.0, 1.0, 4.0, 8192)
    plain = frequencies(RotaryPositions(131_072, 500_000.0), 128)
    scaled = frequencies(RotaryPositions(131_072, 500_000.0, scaling), 128)
    turns = 8192 * plain / (2 * math.pi)
    torch.testing.assert_close(scaled[turns > 4], plain[turns > 4])
    torch.testing.assert_close(scaled[turns < 1], plain[turns < 1] / 8)
    assert bool((scaled.diff() < 0).all())


def test_yarn_scaling_leaves_fast_channels_slows_the_slowest_and_makes_all_longer() -> None:
    scaling = YarnScaling(4.0, 4096, attention_factor=1.1)
    plain = frequencies(RotaryPositions(16_384), 128)
    scaled = frequencies(RotaryPositions(16_384, scaling=scaling), 128)
    turns = 4096 * plain / (2 * math.pi)
    torch.testing.assert_close(scaled[turns > 40], plain[turns > 40])
    torch.testing.assert_close(scaled[turns < 0.8], plain[turns < 0.8] / 4)
    x = torch.randn(5, 2, 6)
    turned = rotate(x, rotation(RotaryPositions(10, scaling=scaling), 6, torch.arange(5), torch.float32))
    torch.testing.assert_close(turned.norm(dim=-1), 1.1 * x.norm(dim=-1))


def test_places_of_queries_end_with_their_keys() -> None:
    assert Layout((1, 3), (5, 3)).query_positions.tolist() == [4, 0, 1, 2]


@given(buckets=st.integers(4, 64), beyond=st.integers(1, 300), both_ways=st.booleans())
def test_distances_fall_into_the_buckets_of_transformers(buckets: int, beyond: int, both_ways: bool) -> None:
    farthest = buckets // 2 + beyond
    distances = torch.arange(-1000, 1001)
    found = distance_buckets(distances, RelativePositions(buckets, farthest, 512), both_ways=both_ways)
    expected = T5Attention._relative_position_bucket(-distances, both_ways, buckets, farthest)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("buckets", "farthest"), [(3, 20), (32, 16)])
def test_buckets_that_make_no_sense_are_refused_with_both_numbers(buckets: int, farthest: int) -> None:
    with pytest.raises(UsageError, match=f"{buckets} buckets up to a distance of {farthest}"):
        RelativePositions(buckets, farthest, 512)
