"""From how alike an image and a text are to how likely they belong together.

A softmax over pairs learns, up to a constant of each text, the logarithm of how much likelier an image is beside the
text than by itself (van den Oord et al., 2018, §2.3). So of a text's scaled cosines s with the N images of a gallery,

    r = s - log mean exp(s)        (the mean over the gallery)

is that logarithm, and where one image of the gallery is right, the odds that this one is are
exp(slope · r + offset) / N. Slope and offset are 1 and 0 until they are fitted on pairs that were not trained on
(Platt, 1999), with as much weight on all pairs that match as on all that don't; they are kept in ``calibration.json``.

Shapes: N images of a gallery, M texts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sensorium.errors import CheckpointError
from sensorium.storage import read_object, write_json

FILE = "calibration.json"
Array = npt.NDArray[np.float64]
STEPS = 100
RIDGE = 1e-6
"""Keeps the slope finite where all pairs that match are above all others."""


@dataclass(frozen=True)
class Calibration:
    """Of a model's ratios: ``slope · r + offset``."""

    slope: float = 1.0
    offset: float = 0.0


def read_calibration(folder: Path) -> Calibration | None:
    """What stands beside a checkpoint, ``None`` where nothing does. Raises ``CheckpointError`` for no number."""
    path = folder / FILE
    if not path.is_file():
        return None
    found = read_object(path)
    numbers = {name: found.get(name) for name in ("slope", "offset")}
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise CheckpointError(f"{path}: {name} is {number!r}; a number is expected")
    return Calibration(**numbers)  # type: ignore[arg-type]


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Beside a checkpoint."""
    write_json(folder / FILE, {"slope": calibration.slope, "offset": calibration.offset})


def ratios(scaled: Array) -> Array:
    """[M, N] scaled cosines of texts with a gallery → [M, N] r, as above.

    >>> ratios(np.log([[3.0, 1.0, 1.0, 1.0]])).round(3)  # the mean is 1.5
    array([[ 0.693, -0.405, -0.405, -0.405]])
    """
    largest = scaled.max(axis=1, keepdims=True)
    background = largest + np.log(np.exp(scaled - largest).mean(axis=1, keepdims=True))
    return np.asarray(scaled - background)


def probability(ratio: Any, gallery: int, calibration: Calibration) -> Any:
    """That an image is the right one of a gallery of so many, of which one is.

    >>> round(float(probability(math.log(30), 10, Calibration())), 3)  # odds of 30 to 10
    0.75
    """
    odds = calibration.slope * np.asarray(ratio) + calibration.offset - math.log(gallery)
    return logistic(odds)


def logistic(odds: Any) -> Any:
    """Logarithms of odds → probabilities."""
    return 1 / (1 + np.exp(-np.clip(odds, -500, 500)))


def fit(scaled: Array, matches: npt.NDArray[np.bool_]) -> Calibration:
    """Scaled cosines [M, N] of pairs not trained on, and which match → slope and offset, by Newton's method."""
    r = ratios(scaled).ravel()
    y = matches.ravel().astype(np.float64)
    weights = np.where(y > 0, 0.5 / y.sum(), 0.5 / (len(y) - y.sum()))
    x = np.stack([r, np.ones_like(r)], axis=1)  # [M · N, 2]
    theta = np.array([1.0, 0.0])
    for _ in range(STEPS):
        p = logistic(x @ theta)
        gradient = x.T @ (weights * (p - y)) + RIDGE * theta
        hessian = (x * (weights * p * (1 - p))[:, None]).T @ x + RIDGE * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        theta = theta - step / max(1.0, float(np.abs(step).max()))  # a step is at most 1 long
        if np.abs(step).max() < 1e-9:
            break
    return Calibration(float(theta[0]), float(theta[1]))
