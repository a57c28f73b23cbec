"""What fewer bits change of translations: Multi30k's test 2016 by a trained model, in each dtype beside fp32.

    python benchmarks/translating_dtypes.py runs/translate-multi30k

How many of the 1 000 captions come out the same, greedily, and BLEU (cased, as ``benchmarks/multi30k.py``).
Appends to ``benchmarks/results/translating_dtypes.csv``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _common import append, need
from _writing import cells, writer

from sensorium.data.corpora import lines
from sensorium.evaluate import evaluate_generation


def main() -> None:
    """Translate once in each dtype."""
    if len(sys.argv) != 2:
        raise SystemExit("give the folder of a model that benchmarks/multi30k.py has trained")
    test = lines(f"{need('multi30k')}/test_2016_flickr.{{en,de}}.gz")
    sources = [record["text"] for record in test]
    reference: list[str] = []
    rows = []
    for dtype in ("fp32", "bf16", "int8", "int8_weight_only"):
        begin = time.perf_counter()
        written = writer("translation", sys.argv[1], dtype=dtype, max_new_tokens=80)(sources)
        seconds = time.perf_counter() - begin
        reference = reference or written
        same = sum(a == b for a, b in zip(reference, written, strict=True)) / len(written)
        bleu = evaluate_generation(lambda _, w=written: w, test, task="translation", model=dtype).metrics["bleu"]
        rows.append([dtype, f"{same:.3f}", *cells(bleu), f"{seconds:.1f}"])
    append("translating_dtypes", ["dtype", "same_as_fp32", "bleu", "bleu_interval", "seconds"], rows)


if __name__ == "__main__":
    main()
