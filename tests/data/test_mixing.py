"""A mixed stream: its shares, its epochs, and that it can be entered anywhere."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium.data.mixing import BLOCK, mixed_order
from sensorium.errors import UsageError

SOURCES = st.dictionaries(
    st.text("abcd", min_size=1, max_size=3), st.tuples(st.integers(1, 50), st.floats(0.01, 10)), min_size=1, max_size=5
)


@given(sources=SOURCES, seed=st.integers(0, 9), start=st.integers(0, 2500), count=st.integers(0, 1500))
def test_the_stream_can_be_entered_anywhere(
    sources: dict[str, tuple[int, float]], seed: int, start: int, count: int
) -> None:
    sizes = {name: size for name, (size, _) in sources.items()}
    weights = {name: weight for name, (_, weight) in sources.items()}
    whole = mixed_order(sizes, weights, seed=seed, start=0, count=start + count)
    assert len(whole) == start + count
    assert mixed_order(sizes, weights, seed=seed, start=start, count=count) == whole[start:]


@given(sources=SOURCES, seed=st.integers(0, 9))
def test_a_source_gives_each_record_once_an_epoch(sources: dict[str, tuple[int, float]], seed: int) -> None:
    sizes = {name: size for name, (size, _) in sources.items()}
    stream = mixed_order(sizes, {name: weight for name, (_, weight) in sources.items()}, seed=seed, start=0, count=2000)
    for name, size in sizes.items():
        taken = [number for source, number in stream if source == name]
        for epoch in range(len(taken) // size):
            assert sorted(taken[epoch * size : (epoch + 1) * size]) == list(range(size))


@given(sources=SOURCES, block=st.integers(0, 3))
def test_every_block_keeps_the_shares(sources: dict[str, tuple[int, float]], block: int) -> None:
    sizes = {name: size for name, (size, _) in sources.items()}
    weights = {name: weight for name, (_, weight) in sources.items()}
    counts = Counter(name for name, _ in mixed_order(sizes, weights, seed=0, start=block * BLOCK, count=BLOCK))
    total = sum(weights.values())
    for name, weight in weights.items():
        assert counts[name] >= 1
        assert abs(counts[name] - BLOCK * weight / total) <= len(sizes)


def test_seeds_and_epochs_give_other_orders() -> None:
    sizes, weights = {"en": 40, "zh": 40}, {"en": 1.0, "zh": 1.0}
    one, other = (mixed_order(sizes, weights, seed=seed, start=0, count=200) for seed in (1, 2))
    assert one != other
    english = [number for name, number in one if name == "en"]
    assert english[:40] != english[40:80]


@pytest.mark.parametrize(
    ("sizes", "weights", "message"),
    [
        ({}, {}, "at least one"),
        ({"en": 1}, {"zh": 1.0}, "must name the same"),
        ({"en": 0}, {"en": 1.0}, "source 'en' holds no records"),
        ({"en": 1}, {"en": 0.0}, "the weight of 'en' is 0.0"),
        ({"en": 1}, {"en": float("nan")}, "the weight of 'en' is nan"),
    ],
)
def test_what_cannot_be_mixed_is_named(sizes: dict[str, int], weights: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        mixed_order(sizes, weights, seed=0, start=0, count=1)


def test_a_stream_has_no_places_before_its_first() -> None:
    with pytest.raises(UsageError, match="begins at place 0"):
        mixed_order({"en": 1}, {"en": 1.0}, seed=0, start=-1, count=1)
