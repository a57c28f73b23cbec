"""Icons found by words, from pictures alone: a language model reads the words, or a tower from scratch; beside n-grams.

    python benchmarks/icons.py [train.epochs=5 …]

Trains ``recipes/clip-icons.toml`` (all-MiniLM-L6-v2, frozen, reads the names) and the same image tower as a CLIP whose
text tower begins from nothing, unless their outputs are there. No name of the test side was seen in training, in any
font. Two questions:

- names: glyphs of the test side and their names find each other. The baseline looks at pixels and characters: a glyph
  is called what the most alike glyph of the training side is called, and n-grams of characters compare names.
- synonyms: queries of ``icon_synonyms.csv`` say what is meant in other words, and search all glyphs.
  The models see pictures alone; the baseline is told the names, and compares n-grams.

Differences are paired, query by query. Appends to ``benchmarks/results/icons.csv``.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

sys.path.insert(0, str(Path(__file__).parent))
from _common import MINILM, ROOT, append

from sensorium.checkpoint import open_checkpoint
from sensorium.data.corpora import read_corpus
from sensorium.evaluate import evaluate_retrieval
from sensorium.evaluate.matching import matcher
from sensorium.evaluate.retrieval import FIRST, ranks
from sensorium.evaluate.statistics import bootstrap_intervals, mean, outcomes, paired_difference
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe

RECIPE, SYNONYMS = ROOT / "recipes" / "clip-icons.toml", Path(__file__).parent / "icon_synonyms.csv"
MODELS = {"pretrained": "MiniLM reads the names", "scratch": "a text tower from scratch"}
Score = Callable[[Sequence[Any], Sequence[str]], np.ndarray[Any, Any]]


def trained(which: str, arguments: Sequence[str]) -> tuple[Score, str]:
    """(images, texts → [N, M]), and the seconds it took to train, if it was trained now."""
    output = Path(f"runs/clip-icons-{which}")
    settings = [f"model.text={MINILM}", f"train.output={output}", *arguments]
    recipe = read_recipe(RECIPE, settings)
    if which == "scratch":
        path = output.with_suffix(".toml")
        path.parent.mkdir(exist_ok=True)
        lines = [line for line in RECIPE.read_text().splitlines() if not line.startswith(("text =", "freeze ="))]
        path.write_text("\n".join(lines) + "\n")
        own = [
            "model.family=clip",
            "model.max_length=64",
            "tokenizer.train=wordpiece",
            "tokenizer.vocabulary_size=4000",
        ]
        recipe = read_recipe(path, [*own, *settings[1:]])
    seconds = ""
    if not output.exists():
        begin = time.perf_counter()
        run_recipe(recipe)
        seconds = f"{time.perf_counter() - begin:.0f}"
    return matcher(open_checkpoint(output)), seconds


def ngrams(names: Sequence[str], queries: Sequence[str]) -> np.ndarray[Any, Any]:
    """[N, M] how alike names and queries are by their characters."""
    vectoriser = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True).fit(names)
    return np.asarray((vectoriser.transform(names) @ vectoriser.transform(queries).T).todense())


def by_pixels(train: Sequence[dict[str, Any]]) -> Score:
    """Pictures are called what the most alike training picture is called."""
    known = flat([record["image"] for record in train])

    def score(images: Sequence[Any], texts: Sequence[str]) -> np.ndarray[Any, Any]:
        nearest = (flat(images) @ known.T).argmax(axis=1)  # [N]
        return ngrams([str(train[i]["text"]) for i in nearest], texts)

    return score


def flat(images: Sequence[Any]) -> np.ndarray[Any, Any]:
    """[N, H · W] the ink of each, of length 1."""
    ink = 255.0 - np.stack([image[..., 0] for image in images]).reshape(len(images), -1).astype(np.float32)
    return np.asarray(ink / np.linalg.norm(ink, axis=1, keepdims=True).clip(1e-6))


def names(scores: dict[str, tuple[Score, str]], test: list[dict[str, Any]], train: list[dict[str, Any]]) -> list[Any]:
    """Rows for names of the test side, both ways."""
    measured, rows = {}, []
    for what, (score, seconds) in scores.items():
        evaluation = evaluate_retrieval(score, test, train=train, model=what, dataset="icons")
        measured[what] = evaluation.measured
        for way in ("text_to_image", "image_to_text"):
            found = [evaluation.metrics[f"{way}_recall_{k}"] for k in FIRST]
            rows.append(["names", len(test), what, way, *cells(found), seconds])
    pretrained, scratch = (measured[MODELS[which]] for which in MODELS)
    for a, b in zip(pretrained, scratch, strict=True):
        say(a.names, paired_difference(a.items, b.items, a.statistic))
    return rows


def synonyms(scores: dict[str, tuple[Score, str]], everything: list[dict[str, Any]]) -> list[Any]:
    """Rows for queries in other words: is a right icon among the first?"""
    with SYNONYMS.open(encoding="utf-8") as file:
        asked = [(row["query"], row["names"].split(";")) for row in csv.DictReader(file)]
    padded = [f" {record['text']} " for record in everything]
    right = np.array([[any(f" {name} " in text for name in meant) for text in padded] for _, meant in asked])  # [Q, N]
    assert right.any(axis=1).all(), "a query that no icon answers"
    queries = [query for query, _ in asked]
    found, rows = {}, []
    for what, (score, _) in scores.items():
        ranked = ranks(score([record["image"] for record in everything], queries).T, right)
        found[what] = outcomes(np.stack([*(ranked <= k for k in FIRST), np.ones(len(queries))], axis=1))
        rows.append(
            ["synonyms", len(queries), what, "text_to_image", *cells(bootstrap_intervals(found[what], mean)), ""]
        )
    first, *others = found.values()
    for other in others:
        say([f"synonyms_{k}" for k in FIRST], paired_difference(first, other, mean))
    return rows


def cells(estimates: Sequence[Any]) -> list[str]:
    """Values and intervals, in percent."""
    return [c for e in estimates for c in (f"{100 * e.value:.1f}", f"{100 * e.low:.1f}–{100 * e.high:.1f}")]


def say(what: Sequence[str], differences: Sequence[Any]) -> None:
    """Paired differences, in points."""
    for name, d in zip(what, differences, strict=True):
        print(f"{name}: {100 * d.value:+.1f} ({100 * d.low:+.1f} to {100 * d.high:+.1f}), p = {d.p_value:.2g}")


def main() -> None:
    """Train what is not there yet, ask both questions."""
    sides = {side: read_corpus(f"icons:{side}") for side in ("train", "validation", "test")}
    everything = [record for side in sides.values() for record in side]
    scores = {what: trained(which, sys.argv[1:]) for which, what in MODELS.items()}
    called = [str(record["text"]) for record in everything]
    rows = names({**scores, "pixels, then n-grams": (by_pixels(sides["train"]), "")}, sides["test"], sides["train"])
    told: Score = lambda images, queries: ngrams(called, queries)  # noqa: E731
    rows += synonyms({**scores, "n-grams of the names": (told, "")}, everything)
    recalls = [column for k in FIRST for column in (f"recall_{k}", f"recall_{k}_interval")]
    append("icons", ["data", "n", "what", "way", *recalls, "seconds"], rows)


if __name__ == "__main__":
    main()
