"""Splits that do not leak, and batches that hold every example exactly once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium.data.batching import epoch_order, token_budget_batches
from sensorium.data.splits import NEAR, _jaccard, _shingles, deduplicate, overlap, remove_overlap, split_by_text
from sensorium.errors import UsageError

MARK = {True: "!", False: " "}  # what does not count behind a text with letters, and behind one without
TEXTS = st.lists(st.text(alphabet="abcde fg.,好的酒店", min_size=0, max_size=60), min_size=1, max_size=12)


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=80),
    budget=st.one_of(st.none(), st.integers(1, 100)),
    size=st.integers(1, 9),
    window=st.sampled_from([0, 1, 5]),
    seed=st.integers(0, 5),
)
def test_every_example_is_in_one_batch_and_no_limit_is_passed(
    lengths: list[int], budget: int | None, size: int, window: int, seed: int
) -> None:
    order = epoch_order(seed, 0, len(lengths))
    options = {"batch_tokens": budget, "batch_size": size, "window": window, "seed": seed}
    batches = token_budget_batches(lengths, order, **options)  # type: ignore[arg-type]
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        sizes = [lengths[i] for i in batch]
        assert len(batch) <= size
        assert budget is None or sum(sizes) <= budget or len(batch) == 1
        assert sizes == sorted(sizes)
    again = token_budget_batches(lengths, order, **options)  # type: ignore[arg-type]
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


def test_a_batch_without_a_limit_is_refused() -> None:
    with pytest.raises(UsageError, match="a batch needs a limit"):
        token_budget_batches([1], np.array([0]))


def test_epochs_have_different_orders_and_the_same_order_twice() -> None:
    assert epoch_order(3, 1, 50).tolist() == epoch_order(3, 1, 50).tolist()
    assert epoch_order(3, 1, 50).tolist() != epoch_order(3, 2, 50).tolist() != epoch_order(4, 2, 50).tolist()


@given(first=TEXTS, second=TEXTS)
def test_overlap_finds_exactly_what_comparing_all_pairs_finds(first: list[str], second: list[str]) -> None:
    found = overlap(first, second)
    exact = {b for _, b in found.exact}
    expected = {
        (a, b)
        for b, other in enumerate(second)
        if b not in exact
        for a, text in enumerate(first)
        if _jaccard(_shingles(text), _shingles(other)) >= NEAR
    }
    assert set(found.near) == expected
    assert remove_overlap([{"text": text} for text in first], [{"text": text} for text in first]) == []


def test_pairs_that_just_reach_the_limit_are_found() -> None:
    rng = np.random.default_rng(0)
    whole = ["".join(rng.choice(list("abcdefghijklmnopqrst"), 9, replace=False)) for _ in range(200)]  # 5 shingles
    part = [text[1:] for text in whole]  # 4 of them
    assert {(i, i) for i in range(200)} <= set(overlap(whole, part).near)
    assert {(i, i) for i in range(200)} <= set(overlap(part, whole).near)


def test_texts_from_one_template_are_told_apart_by_what_differs() -> None:
    first = [
        f"please call room {i:05d} now and then again, thanks a lot for it, and mind the gap as you leave the train"
        for i in range(600)
    ]
    second = [
        f"please call room {i:05d} now and then again, thanks a lot for it, and mind the gap as you left the train"
        for i in range(5, 600, 40)
    ]
    expected = {
        (a, b)
        for b, other in enumerate(second)
        for a, text in enumerate(first)
        if _jaccard(_shingles(text), _shingles(other)) >= NEAR
    }
    assert set(overlap(first, second).near) == expected != set()


def test_texts_without_letters_are_compared_as_they_are() -> None:
    records = [{"text": text} for text in ("🙂", "🙁", "!!!", "! ! !", "")]
    assert deduplicate(records) == [{"text": text} for text in ("🙂", "🙁", "!!!", "")]


@given(texts=TEXTS, share=st.floats(0.0, 0.99))
def test_a_split_keeps_everything_once_and_equal_texts_together(texts: list[str], share: float) -> None:
    records = [
        {"text": text} for text in [*texts, *(text.upper() + MARK[any(map(str.isalnum, text))] for text in texts)]
    ]
    rest, held = split_by_text(records, share, seed=1)
    assert len(rest) + len(held) == len(records)
    assert not overlap([r["text"] for r in rest], [r["text"] for r in held]).exact
    assert len(deduplicate(records)) == len(deduplicate(records[: len(texts)]))
