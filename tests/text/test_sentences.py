"""Sentences end where a reader ends them, in Chinese, in Western text and in both at once; nothing is lost."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium.text.sentences import sentence_spans, split_sentences

MARKS = st.text(alphabet="aB1 .!?…。！？“”'\")（\n您-", max_size=80)


@given(st.one_of(st.text(max_size=200), MARKS))
def test_spans_are_in_order_and_what_lies_between_is_white_space(text: str) -> None:
    end = 0
    for start, stop in sentence_spans(text):
        assert not text[end:start].strip()
        assert start < stop
        assert text[start:stop] == text[start:stop].strip()
        end = stop
    assert not text[end:].strip()


@pytest.mark.parametrize(
    "sentences",
    [
        # abbreviations, initials, numbers
        ["Mr. J. Smith paid 3.50 dollars.", "Nobody asked why."],
        ["See Fig. 3 and pp. 12 ff. of vol. 2.", "It is there."],
        ["Apples, pears etc. are sold by Brown Inc. in the market.", "We buy some."],
        ["He works at Green Ltd.", "The firm is small."],
        ["She moved to the U.S. in 1990.", "They stayed in the U.S.", "He left."],
        ["The meeting is at 5 p.m. on Monday.", "Bring e.g. a pen."],
        ["Version 2.0.1 is out.", "Open config.toml first."],
        ["Am 3. Mai war z. B. niemand da.", "Das gilt bzw. galt immer."],
        ["1. Open the lid.", "2. Close it."],
        # ellipses and several marks
        ["Wait ... what?", "No!"],
        ["And then…", "Silence followed."],
        ["Really?!", "Yes."],
        # quotes and brackets
        ['"Why?" he asked.', "She said nothing."],
        ['He said "Stop."', "Then he stopped."],
        ["(It was late.)", "We went home."],
        ["„Komm!“ rief er.", "Sie kam."],
        # Chinese
        ["今天很冷。", "你来吗？", "来！"],
        ["他说：“我明天去。”", "大家都笑了。"],
        ["价格是3.5元。", "太贵了！"],
        ["等等……", "他走了。"],
        ["（详见第二章。）", "下面继续。"],
        ["《春天来了！》", "是一本书。"],
        # both
        ["我用的是GPT-2模型。", "It works well.", "很好。"],
        ["Python 3.11很快。", "你试试！"],
        ["这是OK.", "那也行。"],
    ],
    ids=lambda sentences: sentences[0][:20],
)
def test_sentences_end_where_a_reader_ends_them(sentences: list[str]) -> None:
    western = " ".join(sentences)
    assert split_sentences(western) == sentences
    if not any(character.isascii() and character.isalpha() for character in western):
        assert split_sentences("".join(sentences)) == sentences


def test_empty_lines_and_items_of_a_list_end_a_sentence_without_a_mark() -> None:
    text = "A heading\n\nSome text that goes\non here\n- one thing\n- another\n1) last"
    assert split_sentences(text) == ["A heading", "Some text that goes on here", "- one thing", "- another", "1) last"]


@pytest.mark.parametrize("unit", ["A. ", "3.", "“", "e.g. ", "\n", "…", ". ", "a! "])
def test_a_hostile_text_is_read_in_time_that_grows_with_its_length(unit: str) -> None:
    started = time.perf_counter()
    sentence_spans(unit * (200_000 // len(unit)))
    assert time.perf_counter() - started < 5
