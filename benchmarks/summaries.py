"""Summaries: a docstring's first line, and the one sentence of SciTLDR, by our recipes, with ROUGE beside baselines.

    python benchmarks/summaries.py docstrings
    python benchmarks/summaries.py scitldr

Each trains by its recipe unless the output is there: summarise-docstrings.toml, which begins with a model that
denoise-docstrings.toml makes of the same packages, and summarise-scitldr.toml, which begins with the docstrings'.
What is written is the best of 4 beams. Docstrings are measured on packages that are on the test side; of SciTLDR,
whose test part is not at hand, on the 619 abstracts of dev, where the best of several references counts, as published.
Baselines: the first sentence of the text, and as many sentences as reach the length of the reference. Differences are
paired. Appends to ``benchmarks/results/summaries.csv``; the published figures stand below.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _common import ROOT, append, need
from _writing import cells, compared, writer

from sensorium.data.corpora import docstring_summaries, scitldr
from sensorium.evaluate import evaluate_generation
from sensorium.train.recipe import Recipe, read_recipe
from sensorium.train.run import run_recipe

ROUGES = ("rouge1", "rouge2", "rougeL")
PUBLISHED = {
    "PACSUM": (19.3, 4.0, 15.1), "BERTSumExt": (38.5, 16.6, 30.5), "MatchSum": (42.7, 20.0, 34.0),
    "BART": (43.3, 20.8, 35.0), "CATTS": (43.8, 20.9, 35.5),
}  # fmt: skip
"""Cachola et al. (2020), table of results, abstracts alone, test part: ROUGE-1, -2, -L with the best reference."""


def docstrings() -> tuple[list[str], list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """Settings of the recipe, training and test records, how to write."""
    how = {"num_beams": 4, "max_new_tokens": 48, "no_repeat_ngram_size": 3}
    return [], docstring_summaries("train"), docstring_summaries("test"), how


def abstracts() -> tuple[list[str], list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """The same of SciTLDR; every reference of a test record counts."""
    data = need("scitldr")
    test = [{**record, "target": list(record["targets"])} for record in scitldr(f"{data}/dev.jsonl.gz")]
    how = {"num_beams": 4, "max_new_tokens": 64, "no_repeat_ngram_size": 3}
    return [f"data.train=corpus:scitldr:{data}/train.jsonl.gz"], scitldr(f"{data}/train.jsonl.gz"), test, how


def trained(recipe: Recipe) -> float:
    """Train by a recipe, and first by the one whose model it opens, unless they are there; the seconds of it."""
    opened, begin = recipe.model.open, time.perf_counter()
    if opened is not None and not Path(opened).exists():
        trained(read_recipe(ROOT / "recipes" / f"{Path(opened).name}.toml"))
    run_recipe(recipe)
    return time.perf_counter() - begin


def main() -> None:
    """Train what is not there yet, write, measure."""
    which = sys.argv[1] if len(sys.argv) > 1 else ""
    if which not in ("docstrings", "scitldr"):
        raise SystemExit("say which: docstrings or scitldr")
    settings, train, test, how = docstrings() if which == "docstrings" else abstracts()
    recipe = read_recipe(ROOT / "recipes" / f"summarise-{which}.toml", [*settings, *sys.argv[2:]])
    seconds = "" if Path(recipe.train.output).exists() else f"{trained(recipe):.0f}"
    evaluation = evaluate_generation(
        writer("summarization", recipe.train.output, **how),
        test,
        task="summarization",
        train=train,
        model="sensorium recipe",
        dataset=which,
    )
    rows = []
    for name, metrics, took in [
        ("sensorium recipe", evaluation.metrics, seconds),
        *((baseline.name, baseline.metrics, "") for baseline in evaluation.baselines),
    ]:
        rows.append([which, name, len(test), *(cell for rouge in ROUGES for cell in cells(metrics[rouge], 4)), took])
    for one in evaluation.comparisons:
        if one.metric in ROUGES:
            print(compared(one, 4))
    if which == "scitldr":
        for name, scores in PUBLISHED.items():
            print(f"{name} (published, test part): {scores}")
    header = ["data", "what", "n", *(name for rouge in ROUGES for name in (rouge, f"{rouge}_interval")), "seconds"]
    append("summaries", header, rows)


if __name__ == "__main__":
    main()
