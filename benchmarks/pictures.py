"""Emoji and clip art that were never shown, found by what they are called: emoji in three languages, having learnt one.

    python benchmarks/pictures.py [emoji clipart] [train.epochs=2 …]

Trains ``recipes/clip-emoji.toml`` and ``recipes/clip-clipart.toml``, one after the other, unless their outputs are
there, with the text tower that ``benchmarks/e5.py`` makes, beside the image tower of ``runs/clip-icons``. A concept is
on one side alone, of icons, emoji and clip art alike, so no name of the test was seen with any picture in training.
Every picture of the test is looked for among them all. Beside it: chance, and two that look at pixels, which say of a
picture what the most alike picture of the training side is called; names are compared by n-grams, or by the text
tower's own vectors, which know languages but no pictures. Differences are paired. Appends to
``benchmarks/results/pictures.csv``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _common import ROOT, append, need
from e5 import convert
from icons import Score, cells, ngrams, say

from sensorium import pipeline
from sensorium.checkpoint import open_checkpoint
from sensorium.data.corpora import read_corpus
from sensorium.evaluate import evaluate_retrieval
from sensorium.evaluate.evaluation import Evaluation
from sensorium.evaluate.matching import matcher
from sensorium.evaluate.retrieval import FIRST
from sensorium.evaluate.statistics import paired_difference
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe

E5, ICONS = Path("runs/e5"), Path("runs/clip-icons")
OURS, CHANCE = "sensorium recipe", "chance"
ASKED = {"emoji": ("en", "zh", "de"), "clipart": ("title",)}
WAYS = ("text_to_image", "image_to_text")
Alike = Callable[[Sequence[str], Sequence[str]], np.ndarray[Any, Any]]


def trained(which: str, arguments: Sequence[str]) -> tuple[Path, str]:
    """The folder of a model, and the seconds it took to train, if it was trained now."""
    output = Path(f"runs/clip-{which}")
    if output.exists():
        return output, ""
    if which == "clipart":
        trained("emoji", arguments)
    if not E5.exists():
        convert(E5)
    if not ICONS.exists():
        raise SystemExit(f"skipped: {ICONS} is not there; sensorium train recipes/clip-icons.toml makes it")
    begin = time.perf_counter()
    run_recipe(read_recipe(ROOT / "recipes" / f"clip-{which}.toml", arguments))
    return output, f"{time.perf_counter() - begin:.0f}"


def by_pixels(train: Sequence[dict[str, Any]], alike: Alike) -> Score:
    """Pictures are called what the most alike training picture is called."""
    known = colours([record["image"] for record in train])

    def score(images: Sequence[Any], texts: Sequence[str]) -> np.ndarray[Any, Any]:
        nearest = (colours(images) @ known.T).argmax(axis=1)  # [N]
        return alike([str(train[i]["text"]) for i in nearest], texts)

    return score


def colours(images: Sequence[Any]) -> np.ndarray[Any, Any]:
    """[N, H · W · 3] what each has on a white ground, of length 1."""
    ink = 255.0 - np.stack(list(images)).reshape(len(images), -1).astype(np.float32)
    return np.asarray(ink / np.linalg.norm(ink, axis=1, keepdims=True).clip(1e-6))


def meaning(names: Sequence[str], queries: Sequence[str]) -> np.ndarray[Any, Any]:
    """[N, M] how alike names and queries are by the text tower's own vectors."""
    embed = reader()
    called, asked = (np.stack(list(embed(list(texts)))) for texts in (names, queries))
    return np.asarray(called @ asked.T)


@cache
def reader() -> Any:
    """The text tower alone."""
    return pipeline("sentence-embedding", str(E5))


def rows_of(data: str, who: str, way: str, evaluation: Evaluation, seconds: str) -> list[Any]:
    """A row of the table."""
    [chance] = evaluation.baselines
    metrics = chance.metrics if who == chance.name else evaluation.metrics
    found = [metrics[f"{way}_recall_{k}"] for k in FIRST]
    return [data, evaluation.provenance.num_items, who, way, *cells(found), seconds]


def measure(which: str, arguments: Sequence[str]) -> list[Any]:
    """The rows of emoji or of clip art."""
    folder, seconds = trained(which, arguments)
    place = f"{which}:{need('pictures')}:"
    train = read_corpus(f"{place}{ASKED[which][0]}/train")
    scores = {
        OURS: matcher(open_checkpoint(folder)),
        "pixels, then n-grams": by_pixels(train, ngrams),
        "pixels, then meaning": by_pixels(train, meaning),
    }
    rows = []
    for text in ASKED[which]:
        data = which if len(ASKED[which]) == 1 else f"{which}, {text}"
        test = read_corpus(f"{place}{text}/test")
        found = {who: evaluate_retrieval(score, test, model=who, dataset=data) for who, score in scores.items()}
        for way in WAYS:
            rows += [rows_of(data, who, way, found[who], seconds if who == OURS else "") for who in scores]
            rows.append(rows_of(data, CHANCE, way, found[OURS], ""))
        for who in list(scores)[1:]:
            for ours, other in zip(found[OURS].measured, found[who].measured, strict=True):
                names = [f"{data}, beside {who}: {name}" for name in ours.names]
                say(names, paired_difference(ours.items, other.items, ours.statistic))
    return rows


def main() -> None:
    """Train what is not there yet, ask."""
    chosen = [argument for argument in sys.argv[1:] if argument in ASKED] or list(ASKED)
    arguments = [argument for argument in sys.argv[1:] if argument not in ASKED]
    rows = [row for which in chosen for row in measure(which, arguments)]
    recalls = [column for k in FIRST for column in (f"recall_{k}", f"recall_{k}_interval")]
    append("pictures", ["data", "n", "what", "way", *recalls, "seconds"], rows)


if __name__ == "__main__":
    main()
