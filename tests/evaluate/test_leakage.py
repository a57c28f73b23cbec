"""Evaluation texts that stand in the training data are counted, shown, and left out once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sensorium.evaluate import Evaluation, Settings, evaluate_classification

Evaluated = Callable[..., Evaluation]
Reviews = Callable[..., list[dict[str, str]]]


def test_no_text_of_another_source_counts_as_leaked(evaluated: Evaluated) -> None:
    others = ["The harbour lies an hour to the north.", "Nobody came to the meeting but the two clerks."]
    train = [{"text": text, "label": label} for text, label in zip(others, ["negative", "positive"], strict=True)]
    leakage = evaluated(train=train).leakage
    assert leakage is not None
    assert (leakage.num_training, leakage.num_items) == (2, 60)
    assert (leakage.exact, leakage.near, leakage.examples, leakage.clean) == (0, 0, (), None)


def test_leaked_texts_are_counted_once_shown_and_left_out() -> None:
    stories = [
        "The night train to Vienna was late and the restaurant car had run out of bread.",
        "Her report on the northern fisheries runs to four hundred pages without a single table.",
        "We repaired the clock in the tower twice, and both times it stopped at noon.",
        "A dentist from Leeds bought the farm and planted nothing but lavender.",
    ]
    records = [{"text": story, "label": "a" if number % 2 else "b"} for number, story in enumerate(stories)]
    train = [
        {"text": stories[0].upper(), "label": "b"},
        {"text": stories[0], "label": "b"},
        {"text": stories[1].replace("four", "five"), "label": "a"},
        {"text": "Something else entirely, about the weather on the coast.", "label": "a"},
    ]
    said = [{"label": label, "score": 0.9} for label in ("b", "a", "b", "b")]  # the last is wrong
    evaluation = evaluate_classification(
        lambda texts: said, records, labels=["a", "b"], train=train, settings=Settings(resamples=200)
    )
    leakage = evaluation.leakage
    assert leakage is not None
    assert (leakage.exact, leakage.near) == (1, 1)
    assert leakage.clean is not None
    assert (leakage.clean.value, leakage.clean.n) == (0.5, 2)
    assert evaluation.headline_estimate.value == 0.75
    assert {text for text, _ in leakage.examples} == set(stories[:2])


def test_when_everything_leaked_there_is_no_clean_figure(evaluated: Evaluated, reviews: Reviews) -> None:
    leakage = evaluated(train=reviews()).leakage
    assert leakage is not None
    assert leakage.exact == 60
    assert leakage.clean is None


@pytest.mark.parametrize("count", [1, 3])
def test_no_more_examples_are_kept_than_asked(count: int, evaluated: Evaluated, reviews: Reviews) -> None:
    leakage = evaluated(train=reviews(), settings=Settings(resamples=200, examples=count)).leakage
    assert leakage is not None
    assert len(leakage.examples) == count
