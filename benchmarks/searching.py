"""A folder of icons as an index: how fast, how much memory, how long a query takes, and whether "nothing" is known.

    python benchmarks/searching.py [speed] [queries] [absence] [bad=100000]

All but ``bad`` where nothing is named. Trains ``recipes/clip-icons.toml`` unless its output is there.

- speed: icons as PNG files. ``update_index``, as ``sensorium index`` calls it, beside a plain loop of ``transformers``
  over a tower of the same sizes with random weights: its processor on Pillow, 64 files a batch, fp32 both. Each turn
  is a process of its own, models loaded before the clock starts; they take turns, medians count. The same with one file
  a call of one decode worker says what groups of files are worth. Peak memory as files grow.
- queries: an icon's name or picture, among all of them; reading the query, two scans and the answer.
- absence: half of the test side's concepts are the gallery, and names of both halves are asked for, then the other way
  round. AUROC of the best match's probability for whether the gallery holds the concept; beside the best cosine.
  The same on as many icons of the training side, whose concepts the model knows. Intervals by bootstrap over concepts.
- bad: so many small files of which three are broken; they must be listed, and all others be there.

Appends to ``benchmarks/results/searching.csv``.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).parent))
from _common import MINILM, ROOT, append

from sensorium.calibration import Calibration, fit, probability, ratios, write_calibration
from sensorium.checkpoint import Checkpoint, open_checkpoint
from sensorium.data.corpora import read_corpus
from sensorium.search import Searcher, open_store
from sensorium.search.searcher import LIKELY
from sensorium.search.store import Entry, Item, Stamp
from sensorium.tasks.matching import ImageTextVectors, open_matcher
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe

MODEL = Path("runs/clip-icons-pretrained")
ROUNDS, FILES, GROWTH = 3, 4_000, (2_000, 8_000, 24_000)
QUERIES, RESAMPLES = 300, 2_000
OURS = """
import sys, time
from pathlib import Path
from sensorium.image import opening
from sensorium.infer.bench import peak_memory
from sensorium.search import open_store, update_index
from sensorium.tasks.matching import open_matcher
folder, place, model, group = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
if group:
    opening.GROUP, opening.MOST_WORKERS = group, 1
vectors = open_matcher(model)
store = open_store(place, create=True)
handles = len(list(Path("/proc/self/fd").iterdir()))
begin = time.perf_counter()
report = update_index(folder, store, vectors)
seconds = time.perf_counter() - begin
more = len(list(Path("/proc/self/fd").iterdir())) - handles
print(report.read, seconds, peak_memory() / 2**20, len(report.problems), store.count("image"), more)
"""
THEIRS = """
import sys, time
from pathlib import Path
import torch
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from sensorium.infer.bench import peak_memory
from sensorium.search.index import TOGETHER
torch.manual_seed(0)
config = CLIPVisionConfig(
    hidden_size=192, intermediate_size=768, num_hidden_layers=4, num_attention_heads=3, image_size=48, patch_size=8,
    projection_dim=256,
)
model = CLIPVisionModelWithProjection(config).eval()
processor = CLIPImageProcessorPil(size={"height": 48, "width": 48}, do_center_crop=False)
paths = sorted(Path(sys.argv[1]).rglob("*.png"))
begin, vectors = time.perf_counter(), []
with torch.inference_mode():
    for first in range(0, len(paths), TOGETHER):
        images = [Image.open(path).convert("RGB") for path in paths[first : first + TOGETHER]]
        found = model(**processor(images, return_tensors="pt")).image_embeds
        vectors.append(found / found.norm(dim=-1, keepdim=True))
print(len(paths), time.perf_counter() - begin, peak_memory() / 2**20)
"""
WAYS = {
    "sensorium index": (OURS, "0"),
    "sensorium index, one file a call": (OURS, "1"),
    "transformers, a plain loop": (THEIRS, ""),
}
Row = list[Any]


def trained() -> Checkpoint:
    """The recipe's model, calibrated on its validation side as a training of today leaves it."""
    if not MODEL.exists():
        run_recipe(read_recipe(ROOT / "recipes" / "clip-icons.toml", [f"model.text={MINILM}", f"train.output={MODEL}"]))
    checkpoint = open_checkpoint(MODEL)
    if checkpoint.calibration is not None:
        return checkpoint
    side = read_corpus("icons:validation")
    texts = sorted({str(record["text"]) for record in side})
    matches = np.array([[record["text"] == text for record in side] for text in texts])
    calibration = fit(scaled(checkpoint, side, texts), matches)
    write_calibration(MODEL, calibration)
    return replace(checkpoint, calibration=calibration)


def scaled(checkpoint: Checkpoint, side: Sequence[dict[str, Any]], texts: Sequence[str]) -> np.ndarray[Any, Any]:
    """[M, N] the scaled cosines of texts with a side's pictures."""
    vectors, model = ImageTextVectors(checkpoint), checkpoint.model
    images = vectors.images([record["image"] for record in side]).astype(np.float64)
    scale: float = model.logit_scale.detach().exp().item()  # type: ignore[union-attr, operator]
    return np.asarray(scale * vectors.texts(texts) @ images.T)


def draw(folder: Path, count: int) -> Path:
    """So many icons as files, a thousand a folder."""
    for number, record in enumerate(drawn()[:count]):
        Image.fromarray(record["image"]).save(path_of(folder, number))
    return folder


def path_of(folder: Path, number: int) -> Path:
    place = folder / f"{number // 1000:03}"
    place.mkdir(parents=True, exist_ok=True)
    return place / f"{number:06}.png"


@cache
def drawn() -> list[dict[str, Any]]:
    """All icons of all sides."""
    return [record for side in ("train", "validation", "test") for record in read_corpus(f"icons:{side}")]


def turn(what: str, folder: Path) -> list[float]:
    """Files, seconds, MiB and what else a child says."""
    child, group = WAYS[what]
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-c", child, str(folder), f"{place}/index", str(MODEL), group]
        return [float(word) for word in subprocess.check_output(command, text=True).split()]


def speed(scratch: Path) -> list[Row]:
    """Images a second of all ways, by turns; and the memory of ours as files grow."""
    folder = draw(scratch / "some", FILES)
    turns: dict[str, list[float]] = {what: [] for what in WAYS}
    for _ in range(ROUNDS):
        for what in WAYS:
            count, seconds, *_ = turn(what, folder)
            turns[what].append(count / seconds)
    rows: list[Row] = [
        ["images per second", what, FILES, f"{statistics.median(found):.1f}", f"{min(found):.1f}–{max(found):.1f}"]
        for what, found in turns.items()
    ]
    for count in GROWTH:
        _, seconds, memory, *_ = turn("sensorium index", draw(scratch / str(count), count))
        rows.append(["peak memory, MiB", "sensorium index", count, f"{memory:.0f}", ""])
        rows.append(["seconds", "sensorium index", count, f"{seconds:.1f}", ""])
    return rows


def queries(scratch: Path) -> list[Row]:
    """Median and 95th percentile of a query's milliseconds."""
    icons = drawn()
    vectors = open_matcher(MODEL)
    store = open_store(scratch / "index", create=True)
    found = vectors.images([record["image"] for record in icons])
    store.put(Entry(f"{i}.png", Stamp(1, 1), [Item("image", vector)]) for i, vector in enumerate(found))
    searcher = Searcher(store, vectors)
    chosen = np.random.default_rng(0).choice(len(icons), QUERIES, replace=False)
    rows: list[Row] = []
    for what in ("text", "image"):
        milliseconds = []
        for i in chosen:
            begin = time.perf_counter()
            if what == "text":
                searcher.search(str(icons[i]["text"]))
            else:
                searcher.search_image(icons[i]["image"])
            milliseconds.append((time.perf_counter() - begin) * 1e3)
        p50, p95 = np.percentile(milliseconds, [50, 95])
        rows.append(["milliseconds of a query, median", f"by {what}", len(icons), f"{p50:.1f}", ""])
        rows.append(["milliseconds of a query, 95th percentile", f"by {what}", len(icons), f"{p95:.1f}", ""])
    return rows


def absence(checkpoint: Checkpoint) -> list[Row]:
    """Whether the best match's probability tells what the gallery holds from what it doesn't."""
    unseen = read_corpus("icons:test")
    rows = _absence(checkpoint, unseen, "concepts never seen")
    return rows + _absence(checkpoint, as_many(read_corpus("icons:train"), len(unseen)), "concepts trained on")


def as_many(side: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Whole concepts of a side, at least so many icons."""
    concepts = sorted({str(record["concept"]) for record in side})
    sizes = Counter(str(record["concept"]) for record in side)
    order = np.random.default_rng(0).permutation(concepts)
    enough = np.cumsum([sizes[concept] for concept in order]).searchsorted(count) + 1
    chosen = set(order[:enough].tolist())
    return [record for record in side if record["concept"] in chosen]


def _absence(checkpoint: Checkpoint, side: list[dict[str, Any]], whose_are: str) -> list[Row]:
    names = sorted({(str(record["text"]), str(record["concept"])) for record in side})
    table = scaled(checkpoint, side, [text for text, _ in names])  # [M, N]
    concepts = sorted({concept for _, concept in names})
    first = set(np.random.default_rng(0).permutation(concepts)[::2].tolist())
    mine = np.array([str(record["concept"]) in first for record in side])
    number = {concept: i for i, concept in enumerate(concepts)}
    asked = np.array([number[concept] for _, concept in names])
    inside = np.array([concept in first for _, concept in names])
    calibration = checkpoint.calibration or Calibration()
    there, chance, cosine = [], [], []
    for gallery, held in ((mine, inside), (~mine, ~inside)):
        shown = table[:, gallery]
        there.append(held)
        chance.append(probability(ratios(shown), shown.shape[1], calibration).max(axis=1))
        cosine.append(shown.max(axis=1))
    present, whose = np.concatenate(there), np.concatenate([asked, asked])
    best = {"probability of the best match": np.concatenate(chance), "cosine of the best match": np.concatenate(cosine)}
    rows: list[Row] = []
    for what, score in best.items():
        low, high = interval(present, score, whose)
        area = roc_auc_score(present, score)
        rows.append(["AUROC", f"{what}, {whose_are}", len(present), f"{area:.4f}", f"{low:.4f}–{high:.4f}"])
    likely = np.concatenate(chance) >= LIKELY
    for what, of in (("there", present), ("not there", ~present)):
        share = f"{100 * likely[of].mean():.1f}"
        rows.append(["said to be likely, %", f"what is {what}, {whose_are}", int(of.sum()), share, ""])
    return rows


def interval(
    present: np.ndarray[Any, Any], score: np.ndarray[Any, Any], concept: np.ndarray[Any, Any]
) -> tuple[float, float]:  # fmt: skip
    """95 in 100, by drawing concepts with all their queries."""
    generator, found = np.random.default_rng(0), []
    queries_of = [np.flatnonzero(concept == one) for one in np.unique(concept)]
    for _ in range(RESAMPLES):
        drawn_ = generator.integers(len(queries_of), size=len(queries_of))
        rows = np.concatenate([queries_of[i] for i in drawn_])
        found.append(roc_auc_score(present[rows], score[rows]))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def bad(scratch: Path, count: int) -> list[Row]:
    """A folder of many files, three of them broken: one cut off, one that lies, one of 2 500 000 000 pixels."""
    sys.path.insert(0, str(ROOT))
    from tests.image.test_opening import bomb

    first = path_of(scratch / "one", 0)
    Image.fromarray(read_corpus("icons:test")[0]["image"]).save(first)
    good = first.read_bytes()
    broken = {count // 4: good[: len(good) // 2], count // 2: b"I am a text\n", count - 1: bomb()}
    for number in range(count):
        path_of(scratch / "many", number).write_bytes(broken.get(number, good))
    read, seconds, memory, problems, there, more = turn("sensorium index", scratch / "many")
    if (read, problems, there) != (count, len(broken), count - len(broken)):
        raise SystemExit(f"{read} read, {problems} listed, {there} there")
    print(f"{count:,} files: {problems:.0f} listed, {there:.0f} there, {more:.0f} more open files than before")
    return [
        ["seconds", "sensorium index, 3 broken", count, f"{seconds:.1f}", ""],
        ["peak memory, MiB", "sensorium index, 3 broken", count, f"{memory:.0f}", ""],
    ]


def main() -> None:
    """What was asked for, or all but ``bad``."""
    wanted = sys.argv[1:] or ["absence", "queries", "speed"]
    checkpoint = trained()
    for one in wanted:
        name, _, count = one.partition("=")
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            parts = {
                "absence": lambda: absence(checkpoint),
                "queries": lambda scratch=scratch: queries(scratch),
                "speed": lambda scratch=scratch: speed(scratch),
                "bad": lambda scratch=scratch, count=count: bad(scratch, int(count or 100_000)),
            }
            if name not in parts:
                raise SystemExit(f"{one}: known are {', '.join(parts)}")
            append("searching", ["measured", "what", "n", "value", "interval"], parts[name]())


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
