"""Restaurant8k: slots found by all-MiniLM-L6-v2 fine-tuned by our recipe, by the published definition of F1.

    python benchmarks/restaurant8k.py

The recipe trains on the 8 198 utterances of the full training set; F1 is on the 3 731 of the published test set. A slot
counts as found only with both borders of its span; F1 is worked out for each slot over all utterances and averaged over
the five slots, as Coope et al. (2020) do. An utterance gives at most one value to a slot, so of two spans of one slot
the surer one is kept. The baseline marks what stood in a slot in training. Appends to
``benchmarks/results/restaurant8k.csv``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _common import MINILM, ROOT, append, need

from sensorium.data.corpora import restaurant8k
from sensorium.data.corpora.published import SLOTS
from sensorium.evaluate import evaluate_token_classification
from sensorium.tasks import pipeline
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe


def one_a_slot(entities: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The surest span of each slot."""
    surest: dict[str, dict[str, Any]] = {}
    for entity in sorted(entities, key=lambda entity: entity["score"]):
        surest[entity["entity_group"]] = entity
    return list(surest.values())


def main() -> None:
    """Train, measure."""
    data = need("restaurant8k")
    train_file, test_file = data / "train_0.json.gz", data / "test.json.gz"
    settings = [f"model.open={MINILM}", f"data.train=corpus:restaurant8k:{train_file}", *sys.argv[1:]]
    recipe = read_recipe(ROOT / "recipes" / "slots-restaurant8k.toml", settings)
    begin = time.perf_counter()
    run_recipe(recipe)
    seconds = time.perf_counter() - begin
    find = pipeline("token-classification", recipe.train.output)
    train, test = restaurant8k(str(train_file)), restaurant8k(str(test_file))
    evaluation = evaluate_token_classification(
        lambda texts: [one_a_slot(found) for found in find(texts, aggregation_strategy="simple")],
        test, labels=SLOTS, train=train, model="sensorium recipe", dataset="restaurant8k test",
    )  # fmt: skip
    f1 = evaluation.metrics["macro_f1"]
    slots = [f"{scores.f1.value:.4f}" for scores in evaluation.classes]
    rows = [["sensorium recipe", recipe.train.epochs, f"{f1.value:.4f}", f"{f1.low:.4f}–{f1.high:.4f}", *slots,
             f"{seconds:.0f}"]]  # fmt: skip
    for baseline in evaluation.baselines:
        f1 = baseline.metrics["macro_f1"]
        rows.append([baseline.name, "", f"{f1.value:.4f}", f"{f1.low:.4f}–{f1.high:.4f}", *[""] * len(SLOTS), ""])
    append(
        "restaurant8k", ["what", "epochs", "average_f1", "interval", *(f"f1_{slot}" for slot in SLOTS), "seconds"], rows
    )
    for mistake in evaluation.mistakes:
        print(f"{mistake.text}\n    expected {mistake.expected}\n    found    {mistake.predicted}")


if __name__ == "__main__":
    main()
