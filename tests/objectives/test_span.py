"""Spans: the tokens that are pointed at hold the answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium.errors import DataError
from sensorium.objectives.span import SpanAnswering
from sensorium.text import Tokenizer
from sensorium.text.training import train_wordpiece
from tests.objectives.conftest import CHINESE, ENGLISH

CONTEXTS = [" ".join(ENGLISH), CHINESE * 2]
TOKENIZER = train_wordpiece([*ENGLISH, CHINESE], 420, lowercase=False)


@given(context=st.sampled_from(CONTEXTS), where=st.data())
def test_every_window_points_at_the_answer_or_at_its_first_token(context: str, where: st.DataObject) -> None:
    begin = where.draw(st.integers(0, len(context) - 1).filter(lambda i: not context[i].isspace()))
    end = where.draw(st.integers(begin + 1, min(len(context), begin + 12)).filter(lambda i: context[i - 1] != " "))
    answer = context[begin:end]
    record = {"question": "What?", "context": context, "answer": answer, "answer_start": begin}
    examples = SpanAnswering(max_length=40, stride=12).prepare([record], TOKENIZER)
    windows = TOKENIZER.windows("What?", context, max_length=40, stride=12)
    found = 0
    for example, window in zip(examples, windows, strict=True):
        start, stop = example.labels["start"], example.labels["end"]
        if (start, stop) == (0, 0):
            continue
        found += 1
        held = context[window.offsets[start][0] : window.offsets[stop][1]]
        assert answer in held
        assert len(held) < len(answer) + 2 * max(len(piece) for piece in [*context.split(), "。"])
        assert window.sequence_ids[start] == window.sequence_ids[stop] == 1
    tokens = len(TOKENIZER.encode_plain(answer))
    assert found or tokens > 12  # the overlap is as long as the answer, or some window holds it


def test_a_question_without_an_answer_points_at_the_first_token(tokenizer: Tokenizer) -> None:
    [example] = SpanAnswering().prepare([{"question": "Why?", "context": ENGLISH[0]}], tokenizer)
    assert (example.labels["start"], example.labels["end"]) == (0, 0)


def test_an_answer_that_stands_elsewhere_is_named(tokenizer: Tokenizer) -> None:
    record = {"question": "Why?", "context": ENGLISH[0], "answer": "storm", "answer_start": 3}
    with pytest.raises(DataError, match="record 1: the answer 'storm' does not stand at character 3"):
        SpanAnswering().prepare([record], tokenizer)
