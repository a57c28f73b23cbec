"""SST-2 (the 6 920 sentences): all-MiniLM-L6-v2 fine-tuned by our recipe, beside TF-IDF, on the 872 of dev.

    python benchmarks/sst2.py

Appends to ``benchmarks/results/sst2.csv``.
"""

from __future__ import annotations

import gzip
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _common import MINILM, ROOT, append, need, write_csv

from sensorium.data.records import read_records
from sensorium.evaluate import evaluate_classification
from sensorium.tasks import pipeline
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe

LABELS = {"0": "negative", "1": "positive"}


def rows_of(path: Path) -> list[tuple[str, str]]:
    """(text, label) of a file without a header."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        pairs = [line.rstrip("\n").rsplit("\t", 1) for line in file]
    return [(text, LABELS[label]) for text, label in pairs]


def main() -> None:
    """Write the files the recipe reads, train, measure."""
    data = need("sst2")
    train = write_csv(ROOT / "runs" / "sst2" / "train.csv", rows_of(data / "train.tsv.gz"))
    dev = write_csv(ROOT / "runs" / "sst2" / "dev.csv", rows_of(data / "dev.tsv.gz"))
    settings = [f"model.open={MINILM}", f"data.train={train}", f"train.output={ROOT / 'runs' / 'sst2-model'}"]
    recipe = read_recipe(ROOT / "recipes" / "sst2.toml", [*settings, *sys.argv[1:]])
    begin = time.perf_counter()
    run_recipe(recipe)
    seconds = time.perf_counter() - begin
    classify = pipeline("text-classification", recipe.train.output)
    evaluation = evaluate_classification(
        lambda texts: classify(list(texts), top_k=None), read_records(dev), labels=sorted(LABELS.values()),
        train=read_records(train), model="sensorium recipe", dataset="sst2 dev",
    )  # fmt: skip
    rows = []
    for name, metrics, took in [
        ("sensorium recipe", evaluation.metrics, f"{seconds:.0f}"),
        *((baseline.name, baseline.metrics, "") for baseline in evaluation.baselines),
    ]:
        accuracy = metrics["accuracy"]
        rows.append([name, f"{accuracy.value:.4f}", f"{accuracy.low:.4f}–{accuracy.high:.4f}", took])
    append("sst2", ["what", "accuracy", "interval", "seconds"], rows)


if __name__ == "__main__":
    main()
