"""Loops at the end of a text are found and cut; texts that repeat themselves in earnest are left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium.text.loops import LEAST_REPEATS, cut_loop, find_loop


@pytest.mark.parametrize(
    "text", ["", "a", "No, no, no!", "The cat sat on the mat.", "很好很好", "1 000 000", "a b a b", "-----------------"]
)
def test_what_is_no_loop_is_left_alone(text: str) -> None:
    assert cut_loop(text) == text


@given(
    head=st.text(alphabet="abc ", max_size=12),
    turn=st.text(alphabet="xyz 是", min_size=1, max_size=12).filter(lambda turn: sum(map(str.isalnum, turn)) > 1),
    repeats=st.integers(9, 40),
    rest=st.integers(0, 11),
)
def test_a_loop_is_cut_to_one_turn(head: str, turn: str, repeats: int, rest: int) -> None:
    text = head + turn * repeats + turn[:rest]
    loop = find_loop(text)
    assert loop is not None
    assert loop.repeats >= LEAST_REPEATS
    shorter = cut_loop(text)
    assert text.startswith(shorter)
    assert len(shorter) <= len(head) + 2 * len(turn)
    assert cut_loop(shorter) == shorter or len(cut_loop(shorter)) < len(shorter)


def test_a_loop_of_the_source_is_the_source() -> None:
    chant = "we will win, " * 6
    assert cut_loop("wir siegen, " * 6, chant) == "wir siegen, " * 6
    assert cut_loop("wir siegen, " * 20, chant) == "wir siegen,"
