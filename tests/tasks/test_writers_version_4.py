"""What transformers 4 wrote for texts, kept in ``goldens/``: words and shapes of the tasks that version 5 dropped."""

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
CASES = json.loads((GOLDENS / "transformers_4_writers.json").read_text(encoding="utf-8"))["cases"]
TRUNCATED = "ignore::sensorium.tasks.text2text_generation.TruncatedWarning"


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Any]:
    build = runpy.run_path(str(GOLDENS / "transformers_4_writers.py"))["build"]
    folder = tmp_path_factory.mktemp("version_4")
    built = cache(lambda name: build(name, folder / name))
    return lambda name, model: pipeline(name, built(model))


@pytest.mark.filterwarnings(TRUNCATED)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['task']}-{case['model']}-{'-'.join(case['call'])}")
def test_answers_and_shapes_are_those_of_transformers_4(task: Callable[[str, str], Any], case: dict[str, Any]) -> None:
    call = dict(case["call"])
    own = {} if case["task"] == "text2text-generation" else {"cut_loops": False}
    assert task(case["task"], case["model"])(call.pop("inputs"), **call, **own) == case["answer"]


def test_the_goldens_say_something() -> None:
    texts = {str(case["answer"]) for case in CASES}
    assert len(texts) == len(CASES)
