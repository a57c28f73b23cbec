"""Probabilities of matches are what they say: against scikit-learn, and where the truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from sensorium.calibration import Calibration, fit, probability, ratios, read_calibration, write_calibration
from sensorium.errors import CheckpointError


def drawn(texts: int, images: int, strength: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    matches = np.zeros((texts, images), bool)
    matches[np.arange(texts), generator.integers(images, size=texts)] = True
    return generator.normal(size=(texts, images)) + strength * matches, matches


@given(seed=st.integers(0, 20), strength=st.floats(0.5, 3.0))
def test_slope_and_offset_are_those_of_scikit_learn(seed: int, strength: float) -> None:
    scaled, matches = drawn(30, 40, strength, seed)
    found = fit(scaled, matches)
    theirs = LogisticRegression(C=1e8, class_weight="balanced", tol=1e-10, max_iter=1000)
    theirs.fit(ratios(scaled).reshape(-1, 1), matches.ravel())
    assert found.slope == pytest.approx(theirs.coef_.item(), rel=2e-3, abs=2e-3)
    assert found.offset == pytest.approx(theirs.intercept_.item(), rel=2e-3, abs=2e-3)


def test_of_what_is_said_to_be_likely_as_much_is_right() -> None:
    """Fitted on some texts, asked of others: where one image of a gallery is right, as many are as probabilities add up
    to, in each range of them.
    """
    fitted = fit(*drawn(400, 50, 3.0, 1))
    scaled, matches = drawn(3000, 50, 3.0, 2)
    chances = probability(ratios(scaled), 50, fitted)
    for low, high in ((0.0, 0.05), (0.05, 0.2), (0.2, 0.4), (0.4, 0.7), (0.7, 1.0)):
        there = (low <= chances) & (chances < high)
        assert there.sum() > 100
        assert matches[there].mean() == pytest.approx(chances[there].mean(), abs=0.06)


def test_a_larger_gallery_makes_a_match_less_likely() -> None:
    chances = [float(probability(2.0, gallery, Calibration())) for gallery in (1, 10, 100)]
    assert chances == sorted(chances, reverse=True)


def test_pairs_that_are_told_apart_without_fail_give_finite_numbers() -> None:
    matches = np.eye(20, dtype=bool)
    found = fit(np.where(matches, 50.0, 0.0), matches)
    assert np.isfinite([found.slope, found.offset]).all()
    chances = probability(ratios(np.where(matches, 50.0, 0.0)), 20, found)
    assert (chances[matches] > 0.9).all()
    assert (chances[~matches] < 0.1).all()


def test_it_is_kept_to_the_last_bit_and_nonsense_is_refused(tmp_path: Path) -> None:
    assert read_calibration(tmp_path) is None
    write_calibration(tmp_path, Calibration(1 / 3, -2.718281828459045))
    assert read_calibration(tmp_path) == Calibration(1 / 3, -2.718281828459045)
    (tmp_path / "calibration.json").write_text('{"slope": "steep", "offset": 0}')
    with pytest.raises(CheckpointError, match="calibration.json: slope is 'steep'; a number is expected"):
        read_calibration(tmp_path)
