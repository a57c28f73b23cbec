"""Recall both ways, against what chance finds, and against scikit-learn's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from sensorium.checkpoint import open_checkpoint
from sensorium.errors import UsageError
from sensorium.evaluate.matching import matcher
from sensorium.evaluate.retrieval import evaluate_retrieval

RECORDS = [{"image": number, "text": f"thing {number // 2}"} for number in range(40)]


def noisy(strength: float) -> Any:
    """Scores that know the answer, with noise."""

    def score(images: Any, texts: Any) -> Any:
        right = np.array([[RECORDS[image]["text"] == text for text in texts] for image in images])
        return strength * right + np.random.default_rng(0).normal(size=right.shape)

    return score


def test_recall_of_texts_is_scikit_learns_top_k_accuracy() -> None:
    score = noisy(1.5)
    found = evaluate_retrieval(score, RECORDS).metrics
    texts = sorted({record["text"] for record in RECORDS})
    truth = [texts.index(record["text"]) for record in RECORDS]
    table = score(range(40), texts)
    for k in (1, 5, 10):
        expected = top_k_accuracy_score(truth, table, k=k, labels=range(20))
        assert found[f"image_to_text_recall_{k}"].value == pytest.approx(expected)
        assert found[f"image_to_text_recall_{k}"].low <= expected <= found[f"image_to_text_recall_{k}"].high


def test_a_model_that_knows_finds_all_and_one_that_tells_nothing_apart_finds_nothing() -> None:
    knows = evaluate_retrieval(noisy(1000.0), RECORDS).metrics
    assert all(estimate.value == 1.0 for estimate in knows.values())
    blind = evaluate_retrieval(lambda images, texts: np.zeros((len(images), len(texts))), RECORDS)
    assert all(estimate.value == 0.0 for estimate in blind.metrics.values())
    assert blind.mistakes


def test_chance_is_what_random_orders_find_on_average() -> None:
    evaluation = evaluate_retrieval(noisy(1.0), RECORDS, train=[{"text": "thing 3"}])
    [chance] = evaluation.baselines
    draws = np.random.default_rng(1)
    found = [
        evaluate_retrieval(lambda images, texts: draws.random((len(images), len(texts))), RECORDS, first=(5,)).metrics
        for _ in range(60)
    ]
    for way in ("text_to_image", "image_to_text"):
        average = np.mean([metrics[f"{way}_recall_5"].value for metrics in found])
        assert chance.metrics[f"{way}_recall_5"].value == pytest.approx(average, abs=0.04)
    assert evaluation.leakage is not None


def test_a_checkpoint_scores_images_and_texts(tiny_hub: Path) -> None:
    score = matcher(open_checkpoint(tiny_hub / "clip"))
    scores = score([tiny_hub / "night.png", tiny_hub / "day.png"], ["night", "day", "noon"])
    assert scores.shape == (2, 3)
    assert np.abs(scores).max() <= 1.0 + 1e-5
    with pytest.raises(UsageError, match="a bert model does not match images with texts"):
        matcher(open_checkpoint(tiny_hub / "reviews"))
    with pytest.raises(UsageError, match=r"scores \[1, 1\] for 40 images and 20 texts"):
        evaluate_retrieval(lambda images, texts: np.zeros((1, 1)), RECORDS)
