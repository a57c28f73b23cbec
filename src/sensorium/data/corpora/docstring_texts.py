"""Docstrings: English technical text, and summaries of it that their authors wrote themselves.

Files are parsed, never imported. The first line of a docstring sums up the rest (PEP 257), which makes a pair: the
body, and the line that stood above it. Packages, not docstrings, are drawn for the sides, for within a package one text
is often written many times over; a text that two packages hold (vendored code) counts once, before sides are drawn.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from sensorium.data.corpora.installed import site_packages, standard_library
from sensorium.data.corpora.sides import check_side, on_side
from sensorium.data.splits import deduplicate, normalise

SHORTEST = 200
"""Characters of the shortest document worth pretraining on."""
LONGEST = 20_000
"""Characters of a docstring, beyond which it is cut: some hold a table or a manual."""
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
FILE_BYTES = 2**21
"""A longer source file is generated."""
HELD_OUT = 0.08
"""Share of the packages for validation, and as many for the test."""
DRAW = 18
"""Which draw of the packages: one that gives each side several of them, of which none is half of it. By sizes alone."""
STANDARD_LIBRARY = "python"
"""What the standard library is called among the packages."""
NOT_LIBRARY = {"site-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}

SUMMARY = (15, 150)
"""Characters of a first line that says something, and is one line."""
BODY = (120, 1500)
"""Characters of a body that can be summed up; a longer one is cut at the end of a line."""
SIGNATURE = re.compile(r"^[\w.]+\(.*\)|->|^[:.@]|::")
"""A first line that is no summary: a call, as compiled functions document themselves, or markup."""

Record = dict[str, Any]


def docstrings() -> list[Record]:
    """Docstrings of the standard library's modules, classes and functions, ``SHORTEST`` characters or more."""
    return deduplicate([{"text": text} for text in _in_folder(standard_library()) if len(text) >= SHORTEST])


def package_docstrings(side: str = "") -> list[Record]:
    """Docstrings of a side's packages, ``SHORTEST`` characters or more: ``text``, ``package``."""
    check_side(side)
    found = [record for record in all_docstrings() if len(record["text"]) >= SHORTEST]
    return on_side(found, _package, side, held_out=HELD_OUT)


def docstring_summaries(side: str = "") -> list[Record]:
    """Bodies of a side's docstrings as ``text``, their first lines as ``target``, and ``package``."""
    check_side(side)
    pairs = [pair for record in all_docstrings() if (pair := summary_pair(record)) is not None]
    return on_side(deduplicate(pairs), _package, side, held_out=HELD_OUT)


def all_docstrings(library: Path | None = None, packages: Path | None = None) -> list[Record]:
    """Every docstring once, with its package; the standard library first, then packages by name."""
    return [dict(record) for record in _read(library or standard_library(), packages or site_packages())]


def summary_pair(record: Record) -> Record | None:
    """A docstring as body and first line; ``None`` where the first line is no summary of a body that stands apart.

    >>> summary_pair({"text": "Return the mean.", "package": "a"}) is None
    True
    """
    first, _, rest = str(record["text"]).partition("\n")
    body = rest.strip()
    if not rest.startswith("\n") or not _within(len(first), SUMMARY) or len(body) < BODY[0] or SIGNATURE.search(first):
        return None
    if len(body) > BODY[1]:
        body = body[: BODY[1]].rpartition("\n")[0].rstrip()
    if normalise(first) in normalise(body) or len(body) < BODY[0]:
        return None
    return {"text": body, "target": first.strip(), "package": record["package"]}


# --- details ---------------------------------------------------------------------------------------------------------


@cache
def _read(library: Path, packages: Path) -> list[Record]:
    """Parsing some ten thousand files takes minutes, and each side of each corpus asks for it."""
    records = [{"text": text, "package": STANDARD_LIBRARY} for text in _in_folder(library)]
    for top in sorted(packages.iterdir()):
        name = top.name.partition(".")[0].lower().lstrip("_")
        records += [{"text": text, "package": name} for text in (_in_folder(top) if top.is_dir() else _in_file(top))]
    return deduplicate(records)


def _package(record: Record) -> str:
    return f"{DRAW}:{record['package']}"


def _within(size: int, bounds: tuple[int, int]) -> bool:
    return bounds[0] <= size <= bounds[1]


def _in_folder(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*.py")):
        if not NOT_LIBRARY & set(path.relative_to(folder).parts):
            yield from _in_file(path)


def _in_file(path: Path) -> Iterator[str]:
    """The docstrings of a module, its classes and functions, from top to bottom."""
    try:
        if path.suffix != ".py" or path.stat().st_size > FILE_BYTES:
            return
        tree = ast.parse(path.read_text("utf-8"))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):  # some are broken on purpose, for tests
        return
    open_nodes: list[ast.AST] = [tree]
    while open_nodes:
        node = open_nodes.pop()
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            yield text[:LONGEST]
        if not isinstance(node, ast.expr):
            open_nodes += reversed(list(ast.iter_child_nodes(node)))
