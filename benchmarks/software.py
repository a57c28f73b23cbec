"""Translate software into Chinese and German: our recipe beside a translation memory, with chrF and BLEU.

    python benchmarks/software.py zh
    python benchmarks/software.py de

Trains by ``recipes/translate-software.toml`` unless the output is there, and translates the test side with beam 5. No
English text (normalised) of the test side is among those trained on. The translation memory gives the translation of
the training text most like the source. Both corpora are measured apart as well: strings are short, help is prose.
Differences are paired. Where Debian's libreoffice-help packages are missing, interface strings alone are used, and the
row says so. Appends to ``benchmarks/results/software.csv``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _common import ROOT, append
from _writing import cells, compared, writer

from sensorium.data.corpora import read_corpus
from sensorium.data.corpora.software import HELP
from sensorium.evaluate import evaluate_generation
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe

BEAMS = {"num_beams": 5, "max_new_tokens": 250}


def main() -> None:
    """Train what is not there yet, translate, measure together and apart."""
    language = sys.argv[1] if len(sys.argv) > 1 else ""
    if language not in ("zh", "de"):
        raise SystemExit("say into which language: zh or de")
    corpora = ["interface_strings", *(["libreoffice_help"] if HELP.is_dir() else [])]
    sides = {side: [f"corpus:{name}:{language}/{side}" for name in corpora] for side in ("train", "validation")}
    settings = [f"data.{side}={names}" for side, names in sides.items()]
    output = f"train.output=runs/translate-software-{language}"
    settings.append(f"data.target_language={language}")
    recipe = read_recipe(ROOT / "recipes" / "translate-software.toml", [*settings, output, *sys.argv[2:]])
    seconds = ""
    if not Path(recipe.train.output).exists():
        begin = time.perf_counter()
        run_recipe(recipe)
        seconds = f"{time.perf_counter() - begin:.0f}"
    train = [record for name in corpora for record in read_corpus(f"{name}:{language}/train")]
    parts = {name: read_corpus(f"{name}:{language}/test") for name in corpora}
    if len(parts) > 1:
        parts = {" and ".join(corpora): [record for part in parts.values() for record in part], **parts}
    translate = writer("translation", recipe.train.output, **BEAMS)
    whole = next(iter(parts.values()))
    known = dict(zip((record["text"] for record in whole), translate([r["text"] for r in whole]), strict=True))
    rows: list[list[Any]] = []
    for name, test in parts.items():
        evaluation = evaluate_generation(
            lambda texts: [known[text] for text in texts], test, task="translation", train=train,
            model="sensorium recipe", dataset=name,
        )  # fmt: skip
        [signature] = [note for note in evaluation.notes if note.startswith("BLEU")]
        for what, metrics, took in [
            ("sensorium recipe", evaluation.metrics, seconds),
            *((baseline.name, baseline.metrics, "") for baseline in evaluation.baselines),
        ]:
            scores = [*cells(metrics["chrf"]), *cells(metrics["bleu"])]
            rows.append([language, name, len(test), what, *scores, took, signature])
        for one in evaluation.comparisons:
            if one.metric in ("chrf", "bleu"):
                print(compared(one, 2))
    header = ["language", "data", "n", "what", "chrf", "chrf_interval", "bleu", "bleu_interval", "seconds", "signature"]
    append("software", header, rows)


if __name__ == "__main__":
    main()
