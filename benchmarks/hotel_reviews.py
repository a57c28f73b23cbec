"""Chinese hotel reviews: a small model from scratch with our own pretraining, beside TF-IDF with the same labels.

    python benchmarks/hotel_reviews.py

Recipes in turn, each skipped when its output is there: masked tokens of reviews and news (chinese-mlm.toml), then
sentiment of the hotel reviews (hotel-reviews.toml), straight away and after sentiment of other reviews
(chinese-reviews.toml). The hotel reviews lose what they share with the other reviews (exactly or nearly), then a
quarter is held out by a hash of the text; no model sees it. The baseline is TF-IDF + logistic regression on the hotel
reviews; a second one is given the labels of the other reviews too, so that both ways are compared on equal labels.
Appends to ``benchmarks/results/hotel_reviews.csv``.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _common import ROOT, append, need, write_csv

from sensorium.data.corpora import chinese_reviews
from sensorium.data.records import read_records
from sensorium.data.splits import deduplicate, remove_overlap, split_by_text
from sensorium.evaluate import compare, evaluate_classification
from sensorium.evaluate.baselines import tfidf_regression
from sensorium.tasks import pipeline
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe

FOLDER = ROOT / "runs" / "hotel"
LABELS = ["negative", "positive"]
OURS, OURS_MORE = "sensorium, pretrained on texts", "sensorium, pretrained on texts and other reviews' labels"
TFIDF, TFIDF_MORE = "TF-IDF + logistic regression", "TF-IDF + logistic regression, with other reviews' labels"


def prepare() -> None:
    """Write train.csv and test.csv."""
    path = need("chnsenticorp_htl") / "ChnSentiCorp_htl_all.csv.gz"
    reviews = [record for record in read_records(path, text="review") if str(record["text"]).strip()]
    reviews = remove_overlap(deduplicate(reviews), chinese_reviews())
    for name, part in zip(("train", "test"), split_by_text(reviews, 0.25, seed=0), strict=True):
        write_csv(FOLDER / f"{name}.csv", [(record["text"], LABELS[int(record["label"])]) for record in part])


def tfidf_on(records: list[dict[str, Any]]) -> Any:
    """TF-IDF + logistic regression learned from records, as the function that measuring asks for."""

    def predict(texts: list[str]) -> list[dict[str, Any]]:
        labels, scores = tfidf_regression([r["text"] for r in records], [r["label"] for r in records], list(texts))
        return [{"label": label, "score": score} for label, score in zip(labels, scores, strict=True)]

    return predict


def train() -> None:
    """Run the recipes whose output is not there yet."""
    corpora = f'data.train=["corpus:chinese_reviews", "corpus:chinese_news", "{FOLDER / "train.csv"}"]'
    for name, settings in (
        ("chinese-mlm", [corpora]),
        ("chinese-reviews", []),
        ("hotel-reviews", []),
        ("hotel-reviews", ["model.open=runs/chinese-mlm", "train.output=runs/hotel-alone"]),
    ):
        recipe = read_recipe(ROOT / "recipes" / f"{name}.toml", settings)
        if not Path(recipe.train.output).exists():
            run_recipe(recipe, resume=True)


def main() -> None:
    """Train what is not there yet, measure, compare."""
    if not (FOLDER / "test.csv").is_file():
        prepare()
    train()
    hotels, test = read_records(FOLDER / "train.csv"), read_records(FOLDER / "test.csv")
    more: list[dict[str, Any]] = [*hotels, *chinese_reviews()]
    predictors = {
        OURS: partial(classify_all, pipeline("text-classification", ROOT / "runs" / "hotel-alone")),
        OURS_MORE: partial(classify_all, pipeline("text-classification", ROOT / "runs" / "hotel-reviews")),
        TFIDF: tfidf_on(hotels),
        TFIDF_MORE: tfidf_on(more),
    }
    found = {
        name: evaluate_classification(
            predict, test, labels=LABELS, train=hotels, model=name, dataset="hotel reviews test"
        )
        for name, predict in predictors.items()
    }
    rows = []
    for name, evaluation in found.items():
        accuracy, f1 = evaluation.metrics["accuracy"], evaluation.metrics["macro_f1"]
        rows.append(
            [name, len(test), f"{accuracy.value:.4f}", f"{accuracy.low:.4f}–{accuracy.high:.4f}",
             f"{f1.value:.4f}", f"{f1.low:.4f}–{f1.high:.4f}", ""]
        )  # fmt: skip
    for ours, theirs in ((OURS_MORE, TFIDF), (OURS, TFIDF), (OURS_MORE, TFIDF_MORE)):
        difference = next(one for one in compare(found[ours], found[theirs]) if one.metric == "accuracy")
        d = difference.difference
        interval = f"{d.low:+.4f}–{d.high:+.4f}"
        rows.append([f"{ours} - {theirs}", len(test), f"{d.value:+.4f}", interval, "", "", difference.p_value])
    append("hotel_reviews", ["what", "n", "accuracy", "interval", "macro_f1", "f1_interval", "p_value"], rows)


def classify_all(classify: Any, texts: list[str]) -> Any:
    """Every label's score for every text."""
    return classify(list(texts), top_k=None)


if __name__ == "__main__":
    main()
