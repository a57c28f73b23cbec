"""Sequences share pages and never a page that one of them still writes into; no page is lost, and none is missing."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.config import StackConfig
from sensorium.errors import UsageError
from sensorium.infer.cache import KeyValueCache, PagedCache, pages_needed
from sensorium.native import PANEL

CONFIG = StackConfig(4, 1, 1, 4, mask="causal")
LENGTHS = st.integers(1, 200)


def paged(num_sequences: int, capacity: int, num_pages: int | None = None) -> PagedCache:
    return PagedCache(CONFIG, num_sequences, capacity, torch.float32, num_pages=num_pages)


def check_pages(cache: PagedCache) -> None:
    """Every page is free or counted as often as it is used, and what is written into belongs to one sequence."""
    used = Counter(page for pages in cache._pages for page in pages)
    assert sorted([*used, *cache._free]) == list(range(len(cache._uses)))
    assert all(cache._uses[page] == used[page] for page in range(len(cache._uses)))
    for pages, length in zip(cache._pages, cache.lengths, strict=True):
        assert len(pages) == -(-length // PANEL)
        assert not length % PANEL or used[pages[-1]] == 1


@settings(max_examples=60)
@given(data=st.data())
def test_no_page_is_lost_or_written_by_two_whatever_is_selected(data: st.DataObject) -> None:
    cache = paged(3, 400, num_pages=60)
    for _ in range(6):
        new = data.draw(st.lists(st.integers(1, 60), min_size=len(cache.lengths), max_size=len(cache.lengths)))
        cache.layout(tuple(new))
        check_pages(cache)
        cache.select(data.draw(st.lists(st.integers(0, len(cache.lengths) - 1), min_size=1, max_size=6)))
        check_pages(cache)
        cache.truncate([data.draw(st.integers(max(length - 80, 0), length)) for length in cache.lengths])
        check_pages(cache)
    cache.select([])
    assert sorted(cache._free) == list(range(60))


@settings(max_examples=100)
@given(
    prefix=st.sampled_from([0, 64, 100, 128]),
    prompts=st.lists(st.tuples(LENGTHS, st.integers(0, 150), st.integers(1, 4)), min_size=1, max_size=4),
)
def test_the_pages_that_are_allotted_are_those_that_branches_need_at_most(
    prefix: int, prompts: list[tuple[int, int, int]]
) -> None:
    lengths = [prefix + own for own, _, _ in prompts]
    ends = [length + new for length, (_, new, _) in zip(lengths, prompts, strict=True)]
    branches = [count for _, _, count in prompts]
    num_pages = pages_needed(prefix, lengths, ends, branches)
    cache = paged(1 if prefix else len(prompts), max(ends), num_pages)
    if prefix:
        cache.layout((prefix,))
        cache.select([0] * len(prompts))
    cache.layout(tuple(own for own, _, _ in prompts))
    parents = [n for n, count in enumerate(branches) for _ in range(count)]
    cache.select(parents)
    check_pages(cache)
    while any(left := [ends[n] - length for n, length in zip(parents, cache.lengths, strict=True)]):
        cache.layout(tuple(min(1, tokens) for tokens in left))
        cache.select(range(len(parents)))
    assert not cache._free


def test_a_cache_that_has_no_page_left_says_so() -> None:
    cache = paged(2, 64, num_pages=1)
    with pytest.raises(UsageError, match="all 1 pages of the cache are in use"):
        cache.layout((1, 1))


def test_sequences_of_the_torch_cache_go_on_from_any_other() -> None:
    cache = KeyValueCache(CONFIG, 2, 4, torch.float32)
    cache.layout((1, 2))
    given = torch.arange(12.0).view(3, 1, 4)  # [T, H, Dh]
    cache.update(0, given, given)
    cache.select([1, 1, 0])
    assert cache.lengths == [2, 2, 1]
    cache.layout((1, 1, 1))
    new = torch.full((3, 1, 4), 50.0)
    key, value = cache.update(0, new, new)  # [S, H, Dh]
    assert torch.equal(key, value)
    assert key[:, 0, 0].tolist() == [4, 8, 50, 4, 8, 50, 0, 50]


def test_a_sequence_is_not_cut_to_more_than_it_has() -> None:
    for cache in (KeyValueCache(CONFIG, 2, 8, torch.float32), paged(2, 8)):
        cache.layout((3, 5))
        with pytest.raises(UsageError, match=r"sequences of \[3, 5\] tokens can't be cut to \[3, 6\]"):
            cache.truncate([3, 6])
        cache.truncate([3, 0])
        assert cache.lengths == [3, 0]


def test_selecting_all_in_order_copies_nothing() -> None:
    cache = KeyValueCache(CONFIG, 2, 4, torch.float32)
    before = cache.keys
    cache.select([0, 1])
    assert cache.keys is before
