"""The answers that transformers 4 gave, kept in ``goldens/``: values and shapes, also of tasks version 5 dropped."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from sensorium import pipeline

GOLDENS = Path(__file__).parents[1] / "goldens"
CASES = json.loads((GOLDENS / "transformers_4.json").read_text(encoding="utf-8"))["cases"]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Any]:
    build = runpy.run_path(str(GOLDENS / "transformers_4.py"))["build"]
    folder = tmp_path_factory.mktemp("version_4")
    built = cache(lambda name: build(name, folder / name))
    return lambda name, model: pipeline(name, built(model))


def close(ours: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert list(ours) == list(expected)
        for key in expected:
            close(ours[key], expected[key])
    elif isinstance(expected, list):
        assert isinstance(ours, list)
        assert len(ours) == len(expected)
        for one, other in zip(ours, expected, strict=True):
            close(one, other)
    elif isinstance(expected, float):
        assert ours == pytest.approx(expected, abs=2e-6)
    else:
        assert ours == expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['task']}-{'-'.join(case['call'])}")
def test_answers_and_shapes_are_those_of_transformers_4(task: Callable[[str, str], Any], case: dict[str, Any]) -> None:
    call = dict(case["call"])
    given = [call.pop("inputs")] if "inputs" in call else []
    close(task(case["task"], case["model"])(*given, **call), case["answer"])
