"""Icons drawn from names: a thing and what is added to it, "cloud off", each known from training, never together.

    python benchmarks/drawing_icons.py [train.epochs=2 …]

Trains ``recipes/codec-icons.toml`` and ``recipes/draw-icons.toml`` unless their outputs are there; arguments are for
the second. Two judges look for each drawing's name among all names of the test: a classifier that was trained on real
icons of the other two sides, and pixels, which say which of the test's real icons is nearest, moved by a pixel or two.
Both are asked of the test's real icons first, and of what draws nothing: the thing's own icon, without what should be
added. Fréchet distances are those of the classifier's features. Draws a sheet of names, real icons and drawings to
``runs/drawn-icons.png``. Appends to ``benchmarks/results/drawing_icons.csv``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from _common import append
from _shapes import frechet_distance, values
from drawing import made, share

from sensorium import pipeline
from sensorium.data.corpora import read_corpus
from sensorium.data.corpora.glyphs import ADDED

EACH, SIZE, SCALE, MOVES = 4, 32, 3.0, (-2, -1, 0, 1, 2)
"""Drawings of each name; pixels of a side; how far they are guided; how far pixels are moved when they are compared."""
ROW, SHOWN = 12, 60
WORDS = sorted(ADDED)
Pictures = Sequence[Image.Image]
Records = Sequence[dict[str, Any]]


class Judge(nn.Module):
    """A convolutional network that shares nothing with what draws: which thing an icon shows, and what is added."""

    def __init__(self, bases: int, width: int = 128, features: int = 48) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for inputs, outputs in ((3, width // 2), (width // 2, width), (width, 2 * width)):
            steps += [nn.Conv2d(inputs, outputs, 5, stride=2, padding=2), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.body = nn.Sequential(*steps, nn.Flatten(), nn.Linear(2 * width * (SIZE // 8) ** 2, features))
        self.bases, self.words = nn.Linear(features, bases), nn.Linear(features, len(WORDS))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """[N, 3, H, W] → logits of things [N, B], of words that are added [N, W]."""
        features = self.body(pixels)
        return self.bases(features), self.words(features)


def taught(records: Records, bases: Sequence[str], *, epochs: int = 30, batch: int = 64) -> Judge:
    """A judge that has seen these icons, moved a little each time."""
    torch.manual_seed(0)
    model = Judge(len(bases))
    pixels, (things, words) = values(images(records), SIZE), labels(records, bases)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    steps = epochs * (len(pixels) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(pixels))
        for chosen in order[: len(order) // batch * batch].split(batch):
            down, right = torch.randint(-2, 3, (2,)).tolist()
            thing, word = model(pixels[chosen].roll((down, right), (2, 3)))
            loss = F.cross_entropy(thing, things[chosen])
            loss = loss + len(WORDS) * F.binary_cross_entropy_with_logits(word, words[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def images(records: Records) -> list[Image.Image]:
    """Of one size."""
    return [Image.fromarray(one["image"]).resize((SIZE, SIZE), Image.Resampling.BICUBIC) for one in records]


def labels(records: Records, bases: Sequence[str]) -> tuple[Tensor, Tensor]:
    """[N] which thing, [N, W] what is added."""
    number = {base: n for n, base in enumerate(bases)}
    words = [[float(word in one["added"].split()) for word in WORDS] for one in records]
    return torch.tensor([number[one["base"]] for one in records]), torch.tensor(words)


class Judges:
    """Who looks for the names of pictures among those of the test."""

    def __init__(self, known: Records, test: Records) -> None:
        bases = sorted({one["base"] for one in (*known, *test)})
        self.judge = taught(known, bases)
        self.test, (self.things, self.words) = test, labels(test, bases)
        self.real = values(images(test), SIZE).mean(dim=1)  # [M, H, W]

    @torch.inference_mode()
    def by_classifier(self, pictures: Pictures) -> list[int]:
        """The name whose thing and words are likeliest."""
        things, words = self.judge(values(pictures, SIZE))
        there = F.logsigmoid(words) @ self.words.T + F.logsigmoid(-words) @ (1 - self.words).T  # [N, M]
        return (things.log_softmax(dim=-1)[:, self.things] + there).argmax(dim=1).tolist()

    def by_pixels(self, pictures: Pictures) -> list[int]:
        """The name of the nearest icon."""
        drawn = values(pictures, SIZE).mean(dim=1)  # [N, H, W]
        moved = [drawn.roll((down, right), (1, 2)) for down in MOVES for right in MOVES]
        apart = torch.stack([torch.cdist(one.flatten(1), self.real.flatten(1)) for one in moved])
        return apart.amin(dim=0).argmin(dim=1).tolist()

    @torch.inference_mode()
    def features(self, pictures: Pictures) -> np.ndarray[Any, Any]:
        """[N, D]."""
        found: np.ndarray[Any, Any] = self.judge.body(values(pictures, SIZE)).numpy()
        return found

    def judged(self, who: str, pictures: Pictures, each: int = 1) -> list[list[Any]]:
        """Rows of pictures of all names of the test, so many of each."""
        wanted, rows = np.repeat(np.arange(len(self.test)), each), []
        for judge, found in (("classifier", self.by_classifier(pictures)), ("pixels", self.by_pixels(pictures))):
            right = [one == name for one, name in zip(found, wanted.tolist(), strict=True)]
            rows.append([who, f"R-precision among {len(self.test)}, {judge}", len(pictures), *share(right), "", ""])
        return rows


def sheet(test: Records, real: Pictures, drawn: Pictures) -> Image.Image:
    """A name, the real icon, a drawing, so many in a row."""
    chosen = np.linspace(0, len(test) - 1, SHOWN).astype(int)
    side = 2 * SIZE
    whole = Image.new("RGB", (ROW * (2 * side + 12), -(-SHOWN // ROW) * (side + 30)), "white")
    pen = ImageDraw.Draw(whole)
    for place, n in enumerate(chosen):
        x, y = place % ROW * (2 * side + 12), place // ROW * (side + 30)
        for k, one in enumerate((real[n], drawn[n])):
            whole.paste(one.resize((side, side), Image.Resampling.LANCZOS), (x + k * side, y))
        pen.text((x + 2, y + side + 4), test[n]["text"][:22], fill="black")
    return whole


def main() -> None:
    """Train what is not there yet, draw, and let the judges look."""
    _, codec_seconds = made("codec-icons")
    drawer, seconds = made("draw-icons", sys.argv[1:])
    known = [one for side in ("train", "validation") for one in read_corpus(f"icon_variants:{side}")]
    test = read_corpus("icon_variants:test")
    judges, real = Judges(known, test), images(test)
    icon_of = {one["text"]: picture for one, picture in zip(known, images(known), strict=True)}
    rows = judges.judged("real icons", real)
    rows += judges.judged("the thing alone, with nothing added", [icon_of[one["base"]] for one in test])
    begin = time.perf_counter()
    draw = pipeline("text-to-image", drawer, guidance_scale=SCALE, seed=0)
    several = draw([one["text"] for one in test], num_images_per_prompt=EACH)
    speed = f"{EACH * len(test) / (time.perf_counter() - begin):.1f}"
    drawn = [one for some in several for one in some]
    found = judges.judged("sensorium recipe", drawn, EACH)
    found[0][-2:] = [f"{codec_seconds:.0f} + {seconds:.0f}" if seconds else "", speed]
    rows += found
    wanted = judges.features(real)
    others = [images(known)[n] for n in np.random.default_rng(0).choice(len(known), len(test), replace=False)]
    for who, pictures in (("sensorium recipe", drawn), ("as many other real icons", others)):
        distance = frechet_distance(judges.features(pictures), wanted)
        rows.append([who, "Fréchet distance from the test's", len(pictures), f"{distance:.2f}", "", "", ""])
    sheet(test, real, [some[0] for some in several]).save("runs/drawn-icons.png")
    append("drawing_icons", ["what", "judge", "n", "value", "interval", "seconds", "drawings_per_second"], rows)


if __name__ == "__main__":
    main()
