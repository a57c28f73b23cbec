"""What the benchmarks of models that write share: texts in, texts out, and the scores as a row of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sensorium import pipeline
from sensorium.evaluate import Comparison, Estimate


def writer(
    task: str, folder: str | Path, *, dtype: str | None = None, **options: Any
) -> Callable[[Sequence[str]], list[str]]:
    """What the model in a folder writes for texts, by the task that a user calls; of long ones it reads the start."""
    run: Any = pipeline(task, folder, dtype=dtype)

    def texts(sources: Sequence[str]) -> list[str]:
        key = {"translation": "translation_text", "summarization": "summary_text"}[task]
        return [str(answer[key]) for answer in run(list(sources), truncation=True, **options)]

    return texts


def cells(estimate: Estimate, digits: int = 2) -> list[str]:
    """A score and its interval."""
    return [f"{estimate.value:.{digits}f}", f"{estimate.low:.{digits}f}–{estimate.high:.{digits}f}"]


def compared(one: Comparison, digits: int) -> str:
    """A paired difference in a line."""
    d = one.difference
    numbers = f"{d.value:+.{digits}f} ({d.low:+.{digits}f} to {d.high:+.{digits}f})"
    return f"{one.a} - {one.b}: {one.metric} {numbers}, p = {one.p_value:.2g}"
