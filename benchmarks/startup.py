"""How long the library and the command line take to answer: the best of several fresh interpreters, in seconds.

Run with ``python benchmarks/startup.py``: prints, and appends to ``benchmarks/results/startup.csv``.
"""

from __future__ import annotations

import csv
import datetime
import platform
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "startup.csv"
REPEATS = 15
# Name, arguments of the interpreter, budget in seconds (None: for comparison only).
CASES = (
    ("python -c pass", ["-c", "pass"], None),
    ("import sensorium", ["-c", "import sensorium"], 0.15),
    ("sensorium --help", ["-m", "sensorium", "--help"], 0.40),
    ("import torch", ["-c", "import torch"], None),
)


def measure(arguments: list[str]) -> list[float]:
    """Wall-clock seconds of each repeat, start of the interpreter included; the first (cold) run is not counted."""
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def processor() -> str:
    """The name of the processor, where the system says it."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} × {len(names)}"


def main() -> int:
    """Measure, print, write; exit status 1 when a budget is missed."""
    machine = [datetime.date.today().isoformat(), processor(), platform.python_version()]
    rows, late = [], 0
    for name, arguments, budget in CASES:
        seconds = sorted(measure(arguments))
        best, median = seconds[0], seconds[len(seconds) // 2]
        rows.append([*machine, name, f"{best:.3f}", f"{median:.3f}", "" if budget is None else f"{budget:.2f}"])
        missed = budget is not None and best > budget
        late += missed
        verdict = f"  MISSED {budget:.2f} s" if missed else ""
        print(f"{name:<18}  best {best:.3f} s  median {median:.3f} s{verdict}")
    new = not RESULTS.exists()
    with RESULTS.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["date", "processor", "python", "what", "best_seconds", "median_seconds", "budget_seconds"])
        writer.writerows(rows)
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
