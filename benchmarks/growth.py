"""Cost a token and peak memory as the number of texts grows.

    python benchmarks/growth.py

Sentence embeddings of 100, 1 000 and 10 000 texts from a generator, each number in a process of its own, the numbers
taking turns. Appends to ``benchmarks/results/growth.csv``.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _common import append

COUNTS, ROUNDS = (100, 1_000, 10_000), 3
CHILD = """
import sys, time
sys.path.insert(0, sys.argv[1])
from _common import MINILM
from peers import TOKENIZER, real_texts
from sensorium import pipeline
from sensorium.infer.bench import peak_memory
texts, count = real_texts(1000), int(sys.argv[2])
embed = pipeline("sentence-embedding", MINILM, dtype="bf16")
def stream():
    for n in range(count):
        yield texts[n * 7 % 1000]
def run():
    for _ in embed(stream(), long_text="truncate"):
        pass
run()
repeats = max(1, 2000 // count)
begin = time.perf_counter()
for _ in range(repeats):
    run()
seconds = (time.perf_counter() - begin) / repeats
memory = peak_memory() / 2**20  # before the tokens of all are counted
read = TOKENIZER.encode_batch(list(stream()), max_length=256)
print(seconds / sum(map(len, read)) * 1e6, memory)
"""


def main() -> None:
    """Medians of the turns."""
    found: dict[int, list[tuple[float, float]]] = {count: [] for count in COUNTS}
    for _ in range(ROUNDS):
        for count in COUNTS:
            command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(count)]
            cost, memory = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            found[count].append((float(cost), float(memory)))
    rows = []
    for count, turns in found.items():
        costs, memories = zip(*turns, strict=True)
        rows.append([count, f"{statistics.median(costs):.2f}", f"{statistics.median(memories):.0f}"])
    append("growth", ["texts", "microseconds_per_token", "peak_memory_mib"], rows)


if __name__ == "__main__":
    main()
