"""Multi30k, English → German: a small Transformer from scratch by our recipe, on the 1 000 captions of test 2016.

    python benchmarks/multi30k.py [train.epochs=40 …]

The recipe reads the 29 000 training pairs and nothing else; validation pairs choose nothing, they are only looked at.
What it writes (beam 5) is measured twice with sacreBLEU: as it is, cased and detokenised, and with both sides in lower
case, which is the figure to set beside published ones. Those count tokens of the Moses tokeniser where sacreBLEU counts
those of mteval-v13a; ``--moses`` adds a row of Moses tokens (it needs ``sacremoses``). A translation memory and
the source as it is are measured beside it. The row holds the seconds of training. Appends to
``benchmarks/results/multi30k.csv``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _common import ROOT, append, need
from _writing import cells, writer

from sensorium.data.corpora import lines
from sensorium.evaluate import evaluate_generation
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe

BEAMS = {"num_beams": 5, "max_new_tokens": 80}


def lowered(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The references in lower case; the sources stay what the model read."""
    return [{**record, "target": record["target"].lower()} for record in records]


def moses(text: str) -> str:
    """Tokens of the Moses tokeniser, in lower case."""
    from sacremoses import MosesPunctNormalizer, MosesTokenizer

    normal = MosesPunctNormalizer("de").normalize(text)
    return str(MosesTokenizer("de").tokenize(normal, return_str=True, escape=False)).lower()


def main() -> None:
    """Train, translate once, count in two or three ways."""
    data = need("multi30k")
    train_files, test_files = (f"{data}/{part}.{{en,de}}.gz" for part in ("train", "test_2016_flickr"))
    arguments = [argument for argument in sys.argv[1:] if argument != "--moses"]
    settings = [f"data.train=corpus:lines:{train_files}", f"data.validation=corpus:lines:{data}/val.{{en,de}}.gz"]
    recipe = read_recipe(ROOT / "recipes" / "translate-multi30k.toml", [*settings, *arguments])
    seconds = ""
    if not Path(recipe.train.output).exists():  # one that was trained before is measured as it is
        begin = time.perf_counter()
        run_recipe(recipe)
        seconds = f"{time.perf_counter() - begin:.0f}"
    train, test = lines(train_files), lines(test_files)
    begin = time.perf_counter()
    translations = writer("translation", recipe.train.output, **BEAMS)([record["text"] for record in test])
    print(f"translated {len(test):,} captions in {time.perf_counter() - begin:.0f} s")
    rows = []

    def measure(how: str, references: list[dict[str, Any]], written: list[str], **tokens: Any) -> None:
        evaluation = evaluate_generation(
            lambda _: written, references, task="translation", train=train, model=recipe.train.output, **tokens
        )
        [signature] = [note for note in evaluation.notes if note.startswith("BLEU")]
        scores = [("sensorium recipe", evaluation.metrics, seconds)]
        if how == "cased":
            scores += [(baseline.name, baseline.metrics, "") for baseline in evaluation.baselines]
        for name, metrics, took in scores:
            rows.append([name, how, *cells(metrics["bleu"]), *cells(metrics["chrf"]), took, signature])

    measure("cased", test, translations)
    measure("lower case", lowered(test), [text.lower() for text in translations])
    if "--moses" in sys.argv:
        references = [{**record, "target": moses(record["target"])} for record in test]
        measure("lower case, Moses tokens", references, [moses(text) for text in translations], tokenize="none")
    append("multi30k", ["what", "how", "bleu", "bleu_interval", "chrf", "chrf_interval", "seconds", "signature"], rows)


if __name__ == "__main__":
    main()
