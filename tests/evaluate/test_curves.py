"""Curves from logs of several shapes, and the geometry of the drawings."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium.evaluate import charts
from sensorium.evaluate.curves import MAX_POINTS, Curve, loss_curves
from sensorium.evaluate.evaluation import CalibrationBin


@pytest.mark.parametrize(
    ("entry", "name", "held_out"),
    [
        ({"step": 1, "loss": 2.0}, "loss", False),
        ({"step": 1, "kind": "validation", "loss": 2.0}, "loss", True),
        ({"step": 1, "validation_loss": 2.0}, "loss", True),
        ({"step": 1, "losses": {"masked_token": 2.0}}, "masked token", False),
        ({"step": 1, "event": "eval", "losses": {"masked_token": 2.0}}, "masked token", True),
        ({"step": 1, "loss/next_sentence": 2.0}, "next sentence", False),
    ],
)
def test_losses_are_found_by_name_and_split(entry: dict[str, object], name: str, held_out: bool) -> None:
    assert loss_curves([entry]) == [Curve(name, (1.0,), (2.0,), held_out)]


def test_the_parts_of_a_loss_are_known_by_their_accuracy_and_left_out_when_there_is_one() -> None:
    both = {"step": 1, "loss": 3.0, "masked_token": 2.0, "masked_token_accuracy": 0.1, "learning_rate": 0.1}
    assert [curve.name for curve in loss_curves([both])] == ["loss"]
    both |= {"next_sentence": 1.0, "next_sentence_accuracy": 0.5}
    assert [curve.name for curve in loss_curves([both])] == ["loss", "masked token", "next sentence"]


def test_a_chart_names_the_best_step_on_held_out_data() -> None:
    log = [{"step": step, "validation_loss": abs(step - 3)} for step in range(1, 6)]
    (chart,) = charts.loss_charts(loss_curves(log))
    assert chart.facts == (("Held-out, at the end", "2.000"), ("Held-out, best", "0.000 at step 3"))


def test_what_is_no_finite_loss_is_left_out() -> None:
    log = [{"step": 1, "loss": math.nan}, {"loss": 1.0}, {"step": 2, "rate": 0.1}, {"step": 3, "loss": True}]
    assert loss_curves(log) == []


def test_a_long_curve_is_averaged_and_keeps_its_mean() -> None:
    (curve,) = loss_curves({"step": step, "loss": step % 10} for step in range(MAX_POINTS * 10))
    assert len(curve.values) == MAX_POINTS
    assert set(curve.values) == {4.5}


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_ticks_are_round_rising_and_hold_the_range(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    ticks = charts.nice_ticks(low, high)
    assert ticks == sorted(set(ticks))
    assert 2 <= len(ticks) <= 12
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.floats(-50, 50)), min_size=1, max_size=60, unique_by=lambda p: p[0]),
    st.booleans(),
)
def test_a_loss_chart_stays_on_its_canvas(points: list[tuple[int, float]], held_out: bool) -> None:
    steps, values = zip(*sorted(points), strict=True)
    (chart,) = charts.loss_charts([Curve("loss", steps, values, held_out)])
    for line in chart.lines:
        places = [tuple(map(float, place.split())) for place in line.path[1:].split("L")]
        for x, y in places:
            assert charts.LEFT - 0.01 <= x <= charts.WIDTH - charts.RIGHT + 0.01
            assert charts.TOP - 0.01 <= y <= charts.HEIGHT - charts.BOTTOM + 0.01


def test_a_bin_stands_where_its_score_and_its_accuracy_meet() -> None:
    diagram = charts.reliability([CalibrationBin(0.4, 0.6, 10, 0.5, 0.5), CalibrationBin(0.8, 1.0, 40, 1.0, 1.0)])
    middle, corner = diagram.points
    assert middle.x == pytest.approx((charts.LEFT + charts.WIDTH - charts.RIGHT) / 2)
    assert (corner.x, corner.y) == (charts.WIDTH - charts.RIGHT, charts.TOP)
    assert corner.bar_height == 4 * middle.bar_height
    assert middle.low > middle.y > middle.high
