"""Captions of pictures (easy-vqa), learnt from nothing, beside the most frequent caption and the nearest picture's.

    python benchmarks/captions.py [train.epochs=5 …]

Trains ``recipes/caption-shapes.toml`` unless its output is there, and writes about the official test pictures whose
shape and colour their questions give away (880 of 1 000). Both are right where the caption names the picture's colour
and shape, and no other; BLEU and chrF compare it with all wordings that training had of that picture. The nearest
picture is the training picture whose pixels differ least, as a sum of squares. Intervals are bootstraps over pictures;
differences are paired. Appends to ``benchmarks/results/captions.csv``.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _common import ROOT, append
from _writing import cells

from sensorium import pipeline
from sensorium.data.corpora import read_corpus
from sensorium.data.corpora.pictures import COLOURS, SHAPES, WORDINGS
from sensorium.evaluate.overlap import bleu_chrf, bleu_chrf_outcomes
from sensorium.evaluate.statistics import Outcomes, bootstrap_intervals, mean, outcomes, paired_difference
from sensorium.image.opening import open_image
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe

Records = Sequence[dict[str, Any]]


def named(caption: str) -> tuple[set[str], set[str]]:
    """The colours and the shapes in a caption."""
    words = set(caption.split())
    return words & set(COLOURS), words & set(SHAPES)


def right(captions: Sequence[str], records: Records) -> Outcomes:
    """A row a picture: both right, colour right, shape right, 1."""
    rows = []
    for caption, record in zip(captions, records, strict=True):
        colours, shapes = named(caption)
        colour, shape = colours == {record["colour"]}, shapes == {record["shape"]}
        rows.append([colour and shape, colour, shape, 1])
    return outcomes(np.array(rows, dtype=np.float64))


def nearest(train: Records, test: Records) -> list[str]:
    """The caption of the training picture whose pixels are nearest to each test picture's."""
    pixels = [np.stack([open_image(r["image"]).ravel() for r in side]).astype(np.float32) for side in (train, test)]
    known, asked = pixels  # [n, 12 288]
    distances = (known**2).sum(axis=1) - 2 * asked @ known.T  # [M, n], but for what all of a row share
    return [train[n]["text"] for n in distances.argmin(axis=1)]


def main() -> None:
    """Train if need be, write, measure."""
    recipe = read_recipe(ROOT / "recipes" / "caption-shapes.toml", sys.argv[1:])
    begin, seconds = time.perf_counter(), ""
    if not Path(recipe.train.output).exists():
        run_recipe(recipe)
        seconds = f"{time.perf_counter() - begin:.0f}"
    train, test = read_corpus("easy_vqa_captions:train"), read_corpus("easy_vqa_captions:test")
    task = pipeline("image-to-text", recipe.train.output)
    [[frequent, _]] = Counter(record["text"] for record in train).most_common(1)
    written = {
        "sensorium recipe": [answer["generated_text"] for [answer] in task([record["image"] for record in test])],
        "the most frequent caption": [frequent] * len(test),
        "the nearest picture's caption": nearest(train, test),
    }
    references = [[wording.format(**record) for wording in WORDINGS] for record in test]
    found, rows = {}, []
    for name, captions in written.items():
        found[name] = right(captions, test)
        shares = bootstrap_intervals(found[name], lambda sums: 100 * mean(sums), best=100.0)
        overlap = bootstrap_intervals(bleu_chrf_outcomes(captions, references), bleu_chrf)
        took = seconds if name == "sensorium recipe" else ""
        rows.append([name, len(test), *(cell for one in (*shares, *overlap) for cell in cells(one)), took])
    ours, *others = written
    for other in others:
        d, *_ = paired_difference(found[ours], found[other], lambda sums: 100 * mean(sums))
        print(f"{ours} - {other}: both right {d.value:+.2f} ({d.low:+.2f} to {d.high:+.2f}), p = {d.p_value:.2g}")
    for caption, record in list(zip(written[ours], test, strict=True)):
        if named(caption) != ({record["colour"]}, {record["shape"]}):
            print(f"{Path(record['image']).name}: {record['colour']} {record['shape']}, written: {caption}")
    columns = ["both", "colour", "shape", "bleu", "chrf"]
    append("captions", ["what", "n", *(c for name in columns for c in (name, f"{name}_interval")), "seconds"], rows)


if __name__ == "__main__":
    main()
