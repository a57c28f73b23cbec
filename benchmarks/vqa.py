"""Questions about pictures (easy-vqa), answered from nothing; and by models that see only the picture or the question.

    python benchmarks/vqa.py [both picture question] [train.epochs=2 …]

Trains ``recipes/vqa-easy.toml``, and the same on grey pictures and on questions that say nothing, unless their outputs
are there, and asks each the published test questions as it was trained to be asked. Intervals are bootstraps over
pictures' questions; differences are paired. Appends to ``benchmarks/results/vqa.csv``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from _common import ROOT, append

from sensorium import pipeline
from sensorium.data.corpora import read_corpus
from sensorium.evaluate.statistics import bootstrap_intervals, mean, outcomes, paired_difference
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe

SEES = {"both": "picture and question", "picture": "the picture alone", "question": "the question alone"}
GREY, NOTHING = Path("runs/vqa-grey.png"), "?"


def shown(records: Sequence[dict[str, Any]], what: str) -> list[dict[str, Any]]:
    """The records as a model sees them."""
    hidden = {"both": {}, "picture": {"text": NOTHING}, "question": {"image": str(GREY.resolve())}}[what]
    return [{**record, **hidden} for record in records]


def trained(what: str, arguments: Sequence[str]) -> tuple[Path, str]:
    """The folder of a model, and the seconds it took to train, if it was trained now."""
    output = Path("runs/vqa-easy" + ("" if what == "both" else f"-{what}"))
    settings = [f"train.output={output}", *arguments]
    if what != "both":
        for side in ("train", "validation"):
            path = Path(f"runs/vqa-{what}-{side}.jsonl")
            lines = [json.dumps(record) for record in shown(read_corpus(f"easy_vqa:{side}"), what)]
            path.write_text("\n".join(lines) + "\n")
            settings.append(f"data.{side}={path}")
    recipe = read_recipe(ROOT / "recipes" / "vqa-easy.toml", settings)
    if output.exists():
        return output, ""
    begin = time.perf_counter()
    run_recipe(recipe)
    return output, f"{time.perf_counter() - begin:.0f}"


def main() -> None:
    """Train what is not there yet, ask all of them."""
    GREY.parent.mkdir(exist_ok=True)
    Image.new("RGB", (64, 64), "grey").save(GREY)
    chosen = [argument for argument in sys.argv[1:] if argument in SEES] or list(SEES)
    arguments = [argument for argument in sys.argv[1:] if argument not in SEES]
    test = read_corpus("easy_vqa:test")
    found, rows = {}, []
    for what in chosen:
        folder, seconds = trained(what, arguments)
        task = pipeline("visual-question-answering", folder)
        seen = shown(test, what)
        answers = task([record["image"] for record in seen], question=[record["text"] for record in seen])
        right = [answer["answer"] == record["target"] for [answer], record in zip(answers, test, strict=True)]
        found[what] = outcomes(np.stack([right, np.ones(len(right))], axis=1))
        [accuracy] = bootstrap_intervals(found[what], mean)
        shares = (f"{100 * accuracy.value:.2f}", f"{100 * accuracy.low:.2f}–{100 * accuracy.high:.2f}")
        rows.append([SEES[what], len(test), *shares, seconds])
    for what in chosen[1:]:
        [d] = paired_difference(found[chosen[0]], found[what], mean)
        interval = f"({100 * d.low:+.2f} to {100 * d.high:+.2f})"
        print(f"{chosen[0]} - {what}: {100 * d.value:+.2f} {interval}, p = {d.p_value:.2g}")
    append("vqa", ["sees", "n", "accuracy", "interval", "seconds"], rows)


if __name__ == "__main__":
    main()
