"""Drawings of captions whose words were never together in training, and what four judges see in them.

    python benchmarks/drawing.py [train.epochs=2 …]

Trains ``recipes/codec-shapes.toml`` and ``recipes/draw-shapes.toml`` unless their outputs are there; arguments are for
the second. Judges: the pixels (``_shapes.py``), the model of ``recipes/vqa-easy.toml`` where ``runs/vqa-easy`` is,
which never saw a drawing, and a classifier trained on real pictures alone, by which R-precision (the caption asked for
is the likeliest of all 24) and the Fréchet distance are measured too. Each judge is asked of real pictures first. Draws
a sheet of them to ``runs/drawings.png``. Appends to ``benchmarks/results/drawing.csv``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from _common import ROOT, append
from _shapes import Classifier, by_pixels, frechet_distance, trained, values

from sensorium import pipeline
from sensorium.data.corpora import read_corpus
from sensorium.evaluate.statistics import bootstrap_intervals, mean, outcomes
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe

EACH, SIZE, SCALE = 50, 32, 2.0
"""Drawings of each caption; pixels of a side; how far they are guided."""
VQA = Path("runs/vqa-easy")
QUESTIONS = ("what color is the shape?", "what shape is in the image?")
Kind = tuple[str, str]


def made(recipe_name: str, arguments: Sequence[str] = ()) -> tuple[Path, float]:
    """The folder of a model, and the seconds it took to train (0: it was there)."""
    recipe = read_recipe(ROOT / "recipes" / f"{recipe_name}.toml", arguments)
    output, begin = Path(recipe.train.output), time.perf_counter()
    if output.exists():
        return output, 0.0
    run_recipe(recipe)
    return output, time.perf_counter() - begin


def share(right: Sequence[bool]) -> list[str]:
    """In percent, with its interval."""
    [found] = bootstrap_intervals(outcomes(np.stack([right, np.ones(len(right))], axis=1)), mean)
    return [f"{100 * found.value:.1f}", f"{100 * found.low:.1f}–{100 * found.high:.1f}"]


def asked(pictures: Sequence[Image.Image]) -> list[Kind]:
    """What the model for questions says of pictures, as large as those it knows."""
    task = pipeline("visual-question-answering", VQA)
    large = [picture.resize((64, 64), Image.Resampling.BICUBIC) for picture in pictures]
    answers = [[one[0]["answer"] for one in task(large, question=question)] for question in QUESTIONS]
    return list(zip(*answers, strict=True))


class Judges:
    """Who looks at pictures of known kinds."""

    def __init__(self) -> None:
        real = [one for side in ("train", "validation", "test") for one in read_corpus(f"easy_shapes:{side}")]
        real = [one for one in real if "/train/" in one["image"]]  # the published test pictures are for measuring
        self.kinds = sorted({kind_of(one) for one in real})
        pixels = values([Image.open(one["image"]) for one in real], SIZE)
        labels = torch.tensor([self.kinds.index(kind_of(one)) for one in real])
        self.classifier: Classifier = trained(pixels, labels)

    @torch.inference_mode()
    def features(self, pictures: Sequence[Image.Image]) -> np.ndarray[Any, Any]:
        """[N, D]."""
        found: np.ndarray[Any, Any] = self.classifier.body(values(pictures, SIZE)).numpy()
        return found

    @torch.inference_mode()
    def classified(self, pictures: Sequence[Image.Image]) -> list[Kind]:
        """The likeliest of all kinds."""
        return [self.kinds[i] for i in self.classifier(values(pictures, SIZE)).argmax(dim=1).tolist()]

    def judge(self, who: str, pictures: Sequence[Image.Image], wanted: Sequence[Kind]) -> list[list[Any]]:
        """A row for each judge: who drew, which judge, how many pictures, the share that is right."""
        seen: dict[str, list[Any]] = {"pixels": [by_pixels(one) for one in pictures]}
        if VQA.exists():
            seen["questions (vqa-easy)"] = asked(pictures)
        seen["R-precision among 24"] = self.classified(pictures)
        return [
            [who, name, len(pictures), *share([one == kind for one, kind in zip(found, wanted, strict=True)]), "", ""]
            for name, found in seen.items()
        ]


def kind_of(record: dict[str, Any]) -> Kind:
    """Its colour and its shape."""
    return record["colour"], record["shape"]


def sheet(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Rows of pictures, three times as large."""
    rows = -(-len(pictures) // columns)
    whole = Image.new("RGB", (columns * (SIZE + 1), rows * (SIZE + 1)), "white")
    for place, one in enumerate(pictures):
        whole.paste(one, (place % columns * (SIZE + 1), place // columns * (SIZE + 1)))
    return whole.resize((3 * whole.width, 3 * whole.height), Image.Resampling.NEAREST)


def main() -> None:
    """Train what is not there yet, draw, and let the judges look."""
    _, codec_seconds = made("codec-shapes")
    drawer, seconds = made("draw-shapes", sys.argv[1:])
    judges = Judges()
    real = [one for one in read_corpus("easy_shapes:test") if "/test/" in one["image"]]  # no judge has seen them
    photographs = [Image.open(one["image"]).resize((SIZE, SIZE), Image.Resampling.BICUBIC) for one in real]
    rows = judges.judge("real pictures", photographs, [kind_of(one) for one in real])
    half = len(real) // 2
    floor = frechet_distance(*(judges.features(part) for part in (photographs[:half], photographs[half:])))
    rows.append(["real pictures", "Fréchet distance of halves", len(real), f"{floor:.2f}", "", "", ""])
    draw = pipeline("text-to-image", drawer, guidance_scale=SCALE, seed=0)
    unseen = sorted({kind_of(one) for one in real})
    groups = {"never together": unseen, "seen together": [kind for kind in judges.kinds if kind not in unseen]}
    for who, kinds in groups.items():
        begin = time.perf_counter()
        drawn = draw([f"a {colour} {shape}" for colour, shape in kinds], num_images_per_prompt=EACH)
        speed = f"{EACH * len(kinds) / (time.perf_counter() - begin):.1f}"
        pictures = [one for several in drawn for one in several]
        found = judges.judge(who, pictures, [kind for kind in kinds for _ in range(EACH)])
        found[0][-2:] = [f"{codec_seconds:.0f} + {seconds:.0f}" if seconds else "", speed]
        rows += found
        if who == "never together":
            distance = frechet_distance(judges.features(pictures), judges.features(photographs))
            rows.append([who, "Fréchet distance from real", len(pictures), f"{distance:.2f}", "", "", ""])
            sheet([one for several in drawn for one in several[:16]], 16).save("runs/drawings.png")
    append("drawing", ["what", "judge", "n", "value", "interval", "seconds", "drawings_per_second"], rows)


if __name__ == "__main__":
    main()
