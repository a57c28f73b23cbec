"""The tables of the page on performance are what was measured."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    specification = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_page_and_its_plot_are_drawn_from_the_results(tables: ModuleType) -> None:
    text = tables.PAGE.read_text(encoding="utf-8")
    assert tables.page(text) == text, "python benchmarks/tables.py draws them anew"
    assert tables.plot() == tables.PLOT.read_text(encoding="utf-8")


def test_of_each_processor_the_latest_row_of_a_kind_counts(tables: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    rows = ["date,processor,what,value", "1,A,x,1", "2,B,x,2", "2,B,y,3", "3,A,x,4"]
    (tmp_path / "results" / "some.csv").write_text("\n".join(rows), encoding="utf-8")
    tables.__file__, before = str(tmp_path / "tables.py"), tables.__file__
    try:
        found = tables.by_processor("some", "what")
    finally:
        tables.__file__ = before
    assert [(p, [row["value"] for row in rows]) for p, rows in found.items()] == [("A", ["4"]), ("B", ["2", "3"])]
