"""Banking77: fine-tune all-MiniLM-L6-v2 by our recipe, and by a plain `transformers` loop for the same epochs.

    python benchmarks/banking77.py

Both start from the same weights and see the same 10 003 questions; accuracy is on the 3 080 of the published test set.
The plain loop is the common one: BertForSequenceClassification in float32, batches of 32 padded to their longest,
AdamW at 1e-4 with warm-up and linear decay, every weight trained. Appends to ``benchmarks/results/banking77.csv``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parent))
from _common import MINILM, ROOT, append, need

from sensorium.data.records import read_records
from sensorium.evaluate import evaluate_classification
from sensorium.tasks import pipeline
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe

BATCH, RATE, WARMUP = 32, 1e-4, 0.1


def plain_fine_tuning(train: list[dict[str, Any]], labels: list[str], epochs: int) -> tuple[Any, float]:
    """The common loop; returns (texts → label and score, seconds)."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(MINILM)
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification.from_pretrained(MINILM, num_labels=len(labels)).train()
    steps = epochs * -(-len(train) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, int(WARMUP * steps), steps)
    begin = time.perf_counter()
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(len(train))
        for start in range(0, len(order), BATCH):
            rows = [train[i] for i in order[start : start + BATCH]]
            inputs = tokenizer([row["text"] for row in rows], padding=True, truncation=True, return_tensors="pt")
            loss = model(**inputs, labels=torch.tensor([labels.index(row["label"]) for row in rows])).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    seconds = time.perf_counter() - begin
    model.eval()

    @torch.no_grad()
    def predict(texts: list[str]) -> list[list[dict[str, Any]]]:
        answers = []
        for start in range(0, len(texts), 64):
            inputs = tokenizer(list(texts[start : start + 64]), padding=True, truncation=True, return_tensors="pt")
            for scores in model(**inputs).logits.softmax(-1).tolist():
                answers.append([{"label": label, "score": s} for label, s in zip(labels, scores, strict=True)])
        return answers

    return predict, seconds


def main() -> None:
    """Train both, measure both on the same questions."""
    data = need("banking77")
    recipe = read_recipe(
        ROOT / "recipes" / "banking77.toml", [f"model.open={MINILM}", f"data.train={data / 'train.csv'}", *sys.argv[1:]]
    )
    train, test = (read_records(data / f"{part}.csv", label="category") for part in ("train", "test"))
    labels = sorted({record["label"] for record in train})
    begin = time.perf_counter()
    run_recipe(recipe)
    our_seconds = time.perf_counter() - begin
    classify = pipeline("text-classification", recipe.train.output)
    plain, plain_seconds = plain_fine_tuning(train, labels, recipe.train.epochs)
    rows = []
    for name, predict, seconds in (
        ("sensorium recipe", lambda texts: classify(list(texts), top_k=None), our_seconds),
        ("transformers plain fp32", plain, plain_seconds),
    ):
        evaluation = evaluate_classification(
            predict, test, labels=labels, train=train, model=name, dataset="banking77 test"
        )
        accuracy = evaluation.metrics["accuracy"]
        interval = f"{accuracy.low:.4f}–{accuracy.high:.4f}"
        rows.append([name, recipe.train.epochs, f"{accuracy.value:.4f}", interval, f"{seconds:.0f}"])
    tfidf = next(baseline for baseline in evaluation.baselines if "idf" in baseline.name.lower())
    accuracy = tfidf.metrics["accuracy"]
    rows.append([tfidf.name, "", f"{accuracy.value:.4f}", f"{accuracy.low:.4f}–{accuracy.high:.4f}", ""])
    append("banking77", ["what", "epochs", "accuracy", "interval", "seconds"], rows)


if __name__ == "__main__":
    main()
