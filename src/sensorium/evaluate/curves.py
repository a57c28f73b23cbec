"""A training log (the dictionaries of ``train.jsonl``) as curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

MAX_POINTS = 400
"""A page shows no more; longer curves are averaged in stretches."""
_HELD_OUT = ("validation", "valid", "eval", "dev", "held_out")


@dataclass(frozen=True)
class Curve:
    """One quantity over steps; ``held_out`` says that it was measured on data not trained on."""

    name: str
    steps: tuple[float, ...]
    values: tuple[float, ...]
    held_out: bool


def loss_curves(log: Iterable[Mapping[str, Any]]) -> list[Curve]:
    """Every finite loss in the log, by name.

    A number is a loss when its name says so, or when it has an accuracy beside it, as a log of training with several
    objectives has: ``{"kind": "train", "step": 3, "loss": 2.1, "masked_token": 1.5, "masked_token_accuracy": 0.4}``.
    The parts are left out when there is only one. A loss counts as held out when its name, or the entry's "event",
    "kind" or "split", says validation (or eval, dev). The score of averaged weights at the end is no point of a curve.
    """
    found: dict[tuple[str, bool], list[tuple[float, float]]] = {}
    for entry in log:
        step = entry.get("step")
        if step is None or not _is_number(step) or entry.get("kind") == "final_validation":
            continue
        of_entry = any(_says_held_out(str(entry.get(key, ""))) for key in ("event", "kind", "split"))
        for path, value in _numbers(entry, ""):
            if "loss" in path.lower() or f"{path}_accuracy" in entry:
                held_out = of_entry or _says_held_out(path)
                found.setdefault((_loss_name(path), held_out), []).append((float(step), value))
    parts = {name for name, _ in found} - {"loss"}
    names = {"loss"} if "loss" in {name for name, _ in found} and len(parts) == 1 else {*parts, "loss"}
    return [_curve(name, held_out, points) for (name, held_out), points in found.items() if name in names]


def smoothed(curve: Curve, share: float = 0.04) -> Curve:
    """The mean of each point's neighbourhood, ``share`` of the curve wide; a curve of few points stays as it is.

    >>> smoothed(Curve("loss", (0, 1, 2), (3.0, 0.0, 3.0), False), share=0.7).values
    (1.5, 2.0, 1.5)
    """
    reach = round(len(curve.values) * share / 2)
    windows = [curve.values[max(0, n - reach) : n + reach + 1] for n in range(len(curve.values))]
    return Curve(curve.name, curve.steps, tuple(sum(window) / len(window) for window in windows), curve.held_out)


# --- details ---------------------------------------------------------------------------------------------------------


def _curve(name: str, held_out: bool, points: Sequence[tuple[float, float]]) -> Curve:
    ordered = sorted(points)
    if len(ordered) > MAX_POINTS:
        edges = [round(k * len(ordered) / MAX_POINTS) for k in range(MAX_POINTS + 1)]
        stretches = [ordered[start:end] for start, end in pairwise(edges)]
        ordered = [(part[-1][0], sum(y for _, y in part) / len(part)) for part in stretches]
    steps, values = zip(*ordered, strict=True)
    return Curve(name, steps, values, held_out)


def _numbers(value: Any, path: str) -> Iterable[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, f"{path}.{key}" if path else str(key))
    elif _is_number(value):
        yield path, float(value)


def _loss_name(path: str) -> str:
    """``losses.masked_token`` → "masked token", ``validation_loss`` → "loss"."""
    words = path.lower().replace(".", "_").replace("/", "_").split("_")
    kept = [word for word in words if word not in ("loss", "losses", "train", "training", "total", *_HELD_OUT, "val")]
    return " ".join(kept) or "loss"


def _says_held_out(text: str) -> bool:
    words = text.lower().replace(".", "_").replace("/", "_")
    return any(word in words for word in _HELD_OUT) or words.startswith("val_")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
