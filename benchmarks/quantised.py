"""What fewer bits cost on a task: Banking77 accuracy of one fine-tuned model, by dtype.

    python benchmarks/quantised.py

The model is that of ``recipes/banking77.toml`` (trained when ``runs/banking77`` is not there); *smoothed* is calibrated
with 200 training questions; the 3 080 test questions are those of the published set. Appends to
``benchmarks/results/quantised.csv``.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _common import MINILM, ROOT, append, need

from sensorium.checkpoint import open_checkpoint
from sensorium.data.records import read_records
from sensorium.evaluate import compare, evaluate_classification
from sensorium.tasks import pipeline
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe


def main() -> None:
    """Each dtype, and its difference from fp32 on the same questions."""
    data = need("banking77")
    settings = [f"model.open={MINILM}", f"data.train={data / 'train.csv'}"]
    recipe = read_recipe(ROOT / "recipes" / "banking77.toml", settings)
    if not Path(recipe.train.output).exists():
        run_recipe(recipe)
    train, test = (read_records(data / f"{part}.csv", label="category") for part in ("train", "test"))
    checkpoint = open_checkpoint(recipe.train.output)
    questions = [record["text"] for record in train[:: len(train) // 200]]
    rows, first = [], None
    for name, dtype, calibration in (
        ("fp32", "fp32", None), ("bf16", "bf16", None), ("int8", "int8", None), ("int8, smoothed", "int8", questions),
    ):  # fmt: skip
        classify = pipeline("text-classification", checkpoint, dtype=dtype, calibration=calibration)
        evaluation = evaluate_classification(
            lambda texts, classify=classify: classify(list(texts), top_k=None), test,
            labels=sorted({record["label"] for record in train}), train=train, model=name, dataset="banking77 test",
        )  # fmt: skip
        first = first or evaluation
        d = next(one for one in compare(evaluation, first) if one.metric == "accuracy").difference
        accuracy = evaluation.metrics["accuracy"].value
        rows.append([name, len(test), f"{accuracy:.4f}", f"{d.value:+.4f}", f"{d.low:+.4f}–{d.high:+.4f}"])
    append("quantised", ["what", "n", "accuracy", "difference", "interval"], rows)


if __name__ == "__main__":
    main()
