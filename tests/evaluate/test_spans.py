"""Answers that are spans: the cases where SQuAD's definition decides, and the laws of the two scores."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium.errors import DataError
from sensorium.evaluate.spans import best_threshold, exact_match, span_outcomes, span_scores, token_f1

# (prediction, reference, language, exact match, F1), computed with mlqa_evaluation_v1.py of facebookresearch/MLQA
# at commit 5ef5c73
PUBLISHED = [
    ("The Eiffel Tower", "Eiffel tower.", "en", 1.0, 1.0),
    ("in 1889", "1889", "en", 0.0, 2 / 3),
    ("a dog and the cat", "cat and dog", "en", 0.0, 1.0),
    ("can't", "cant", "en", 1.0, 1.0),
    ("state-of-the-art", "stateoftheart", "en", 1.0, 1.0),
    ("paris", "london", "en", 0.0, 0.0),
    ("cat cat dog", "cat dog dog", "en", 0.0, 2 / 3),
    ("“Paris”", "paris", "en", 1.0, 1.0),
    ("北京市", "北京", "zh", 0.0, 0.8),
    ("《红楼梦》", "红楼梦", "zh", 1.0, 1.0),
    ("1791年", "1791 年", "zh", 1.0, 1.0),
    ("曹雪芹,高鹗", "高鹗", "zh", 0.0, 4 / 7),
    ("Windows 95系统", "windows 95", "zh", 0.0, 2 / 3),
]


@pytest.mark.parametrize(("prediction", "reference", "language", "match", "f1"), PUBLISHED)
def test_scores_are_the_published_ones(prediction: str, reference: str, language: str, match: float, f1: float) -> None:
    assert exact_match(prediction, reference, language) == match
    assert token_f1(prediction, reference, language) == pytest.approx(f1)


@given(st.text(max_size=30), st.text(max_size=30), st.sampled_from(["en", "zh"]))
def test_scores_are_symmetric_bounded_and_one_for_equal_answers(a: str, b: str, language: str) -> None:
    assert token_f1(a, b, language) == token_f1(b, a, language)
    assert 0 <= exact_match(a, b, language) <= token_f1(a, b, language) <= 1
    assert exact_match(a, a, language) == token_f1(a, a, language) == 1


def test_the_best_reference_counts_and_no_answer_is_right_only_for_no_answer() -> None:
    outcomes = span_outcomes(["Paris", "", "Rome", ""], [["the city of Paris", "Paris"], [], [], ["Rome"]])
    assert span_scores(outcomes.totals()).tolist() == [0.5, 0.5]


def test_a_missing_answer_is_refused() -> None:
    with pytest.raises(DataError, match="2 questions"):
        span_outcomes(["Paris"], [["Paris"], ["Rome"]])


@given(
    st.lists(
        st.tuples(
            st.sampled_from([-0.5, -0.1, 0.0, 0.2, 0.9]), st.sampled_from([0.0, 0.4, 1.0]), st.sampled_from([0.0, 1.0])
        ),
        min_size=1,
        max_size=12,
    )
)
def test_no_other_threshold_makes_more_of_a_reader(items: list[tuple[float, float, float]]) -> None:
    margins, answered, empty = (list(column) for column in zip(*items, strict=True))

    def mean(threshold: float) -> float:
        kept = [a if margin <= threshold else b for margin, a, b in items]
        return sum(kept) / len(kept)

    threshold, score = best_threshold(margins, answered, empty)
    assert score == pytest.approx(mean(threshold))
    assert score == pytest.approx(max(mean(one) for one in [-9.0, *margins]))
