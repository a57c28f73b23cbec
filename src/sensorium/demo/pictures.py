"""The chapters of pictures: icons found by words, a model that draws and answers, and the page that shows both."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sensorium.data.corpora import easy_shapes, easy_vqa, icons
from sensorium.data.corpora.pictures import COLOURS
from sensorium.data.records import read_records
from sensorium.demo.chapters import Chapters
from sensorium.demo.material import Sizes, json_lines, spread
from sensorium.demo.runs import Trained, train, write_run_evidence
from sensorium.errors import missing_extra
from sensorium.evaluate import evaluate_retrieval
from sensorium.evaluate.pages import page_templates
from sensorium.storage import write_text
from sensorium.tasks import pipeline
from sensorium.tasks.matching import ImageTextVectors

QUERIES = ("rubbish bin", "it is raining", "my money", "something burns", "insects", "a present")
"""None of them is the name of a glyph, and glyphs that are searched show each."""
FOUND, DRAWN, ASKED = 7, 6, 6
"""Icons shown for a query, drawings for a caption, pictures that are asked about."""
TITLE = "Pictures: found, drawn, asked about"
QUESTIONS = ("what shape is in the image?", "what color is the shape?")
KIND = "what "
"""How the questions begin that are learnt: those for yes or no take longer to learn than a demonstration has."""


@dataclass(frozen=True)
class Seen:
    """A picture with what is said beside it, ready for the page."""

    picture: str
    """PNG, as a data URL."""
    words: str = ""
    right: bool | None = None


@dataclass(frozen=True)
class Row:
    """What was asked for, and what came."""

    asked: str
    answers: list[Seen]


def tell_of_pictures(say: Chapters, minilm: Path, output: Path, sizes: Sizes, *, quiet: bool) -> list[Trained]:
    """Both chapters, and the page ``pictures.html``."""
    say.chapter("Find icons by words: a new image tower beside all-MiniLM-L6-v2, on the glyphs of icon fonts")
    finder, found = _find_icons(say, minilm, output, sizes, quiet)
    say.chapter("Draw, and answer: a codec turns pictures into tokens, and one decoder writes both tokens and answers")
    codec, drawer, drawings, answers = _draw(say, output, sizes, quiet)
    page = output / "pictures.html"
    write_text(page, _page(found, drawings, answers))
    say.line(f"look at them: {page.resolve().as_uri()}")
    return [finder, codec, drawer]


def _find_icons(
    say: Chapters, minilm: Path, output: Path, sizes: Sizes, quiet: bool
) -> tuple[Trained, list[Row]]:  # fmt: skip
    folder = output / "data" / "icons"
    path = _written(folder, "train", spread(icons("train"), sizes.icons))
    test = _written(folder, "test", spread(icons("test"), sizes.icons_found))
    run = train(
        {
            "model": {
                "family": "vit", "text": str(minilm), "hidden_size": sizes.looking_hidden_size, "num_layers": 4,
                "num_heads": 3, "image_size": 48, "patch_size": 8, "projection_size": 256,
            },
            "data": {"train": str(path), "validation_share": 0.05},
            "objective": {"kind": "contrastive", "max_length": 24, "crop": 0.6},
            "train": {
                "output": str(output / "icon-search"), "epochs": sizes.icon_epochs, "batch_size": 128,
                "learning_rate": 1e-3, "weight_decay": 0.1, "schedule": "cosine", "freeze": ["text.*"],
            },
        },
        quiet=quiet,
    )  # fmt: skip
    say.trained(run)
    records = read_records(test, image="image")
    task = pipeline("zero-shot-image-classification", run.folder)
    vectors = ImageTextVectors(task.checkpoint)
    images = vectors.images([record["image"] for record in records])  # [N, P]

    def score(_: Sequence[Any], texts: Sequence[str]) -> Any:
        return images @ vectors.texts(list(texts)).T

    evaluation = evaluate_retrieval(
        score, records, train=read_records(path, image="image"), model=run.folder.name, dataset=test.name
    )
    say.measured(evaluation)
    say.line(f"of {len(records):,} icons of concepts that it never saw; at a query's words:")
    write_run_evidence(run, evaluation)
    rows = []
    for query, scores in zip(QUERIES, score((), QUERIES).T, strict=True):
        best = [records[place] for place in np.argsort(-scores)[:FOUND]]
        say.line(f"{query}  →  {', '.join(dict.fromkeys(one['text'] for one in best[:5]))}")
        rows.append(Row(query, [Seen(_url(Path(one["image"])), one["text"]) for one in best]))
    return run, rows


def _draw(
    say: Chapters, output: Path, sizes: Sizes, quiet: bool
) -> tuple[Trained, Trained, list[Row], list[Row]]:  # fmt: skip
    captions = spread(easy_shapes("train"), sizes.shapes)
    shown = {record["image"] for record in captions}
    # Questions about other pictures would show pairs of a colour and a shape that are kept back.
    about = [one for one in easy_vqa("train") if one["image"] in shown and one["text"].startswith(KIND)]
    folder = output / "data"
    pictures = json_lines(folder / "shapes.jsonl", captions)
    both = json_lines(folder / "shapes-and-questions.jsonl", [*captions, *spread(about, sizes.questions)])
    held_out = json_lines(folder / "shapes-held-out.jsonl", spread(easy_shapes("validation"), sizes.shapes // 20))
    codec = train(
        {
            "model": {
                "family": "janus_vqgan", "image_size": 32, "patch_size": 4, "channels": [64, 64, 64], "num_codes": 256,
            },
            "data": {"train": str(pictures), "validation": str(held_out)},
            "objective": {"kind": "codec", "recolour": 0.8, "use": 3e-4},
            "train": {
                "output": str(output / "codec"), "epochs": 100, "steps": sizes.codec_steps, "batch_size": 8,
                "learning_rate": 2e-3, "weight_decay": 0.0, "betas": [0.9, 0.95], "rates": {"codes.*": 10.0},
                "average_from": 0.75, "validate_every": sizes.codec_steps, "checkpoint_every": sizes.codec_steps,
            },
        },
        quiet=quiet,
    )  # fmt: skip
    say.trained(codec)
    write_run_evidence(codec)
    drawer = train(_drawer(both, codec, output, sizes), codec=codec, quiet=quiet)
    say.trained(drawer)
    write_run_evidence(drawer)
    unseen = sorted({record["text"] for record in easy_shapes("test")})
    say.line(f"words that were never together in training: {', '.join(unseen)}")
    draw = pipeline("text-to-image", drawer.folder, guidance_scale=2.0, seed=0)
    drawings = [
        Row(caption, [Seen(_data_url(picture)) for picture in several])
        for caption, several in zip(unseen, draw(unseen, num_images_per_prompt=DRAWN), strict=True)
    ]
    return codec, drawer, drawings, _answers(say, drawer.folder)


def _drawer(data: Path, codec: Trained, output: Path, sizes: Sizes) -> dict[str, Any]:
    return {
        "model": {
            "family": "janus", "codec": str(codec.folder), "hidden_size": sizes.drawing_hidden_size, "num_layers": 4,
            "num_heads": max(1, sizes.drawing_hidden_size // 32), "max_length": 128, "image_size": 32, "patch_size": 4,
        },
        "tokenizer": {"train": "byte_level_bpe", "vocabulary_size": 400},
        "data": {"train": str(data)},
        "objective": {
            "kind": "drawing", "max_length": 128, "word_dropout": 0.1, "recolour": 0.5, "colour_words": COLOURS,
        },
        "train": {
            "output": str(output / "drawer"), "epochs": 100, "steps": sizes.drawing_steps, "batch_size": 32,
            "learning_rate": 2e-3, "weight_decay": 0.05, "schedule": "cosine", "checkpoint_every": sizes.drawing_steps,
        },
    }  # fmt: skip


def _answers(say: Chapters, folder: Path) -> list[Row]:
    """Questions about the published test's pictures; its answers say what was right."""
    task = pipeline("visual-question-answering", folder)
    known: dict[str, dict[str, str]] = {}
    for record in easy_vqa("test"):
        known.setdefault(record["image"], {})[record["text"]] = record["target"]
    rows = []
    for question in QUESTIONS:
        pictures = spread([image for image, asked in known.items() if question in asked], ASKED)
        answers = [found["answer"] for [found] in task(pictures, question=question)] if pictures else []
        seen = [
            Seen(_url(Path(picture)), answer, answer == known[picture][question])
            for picture, answer in zip(pictures, answers, strict=True)
        ]
        right = sum(one.right or False for one in seen)
        say.line(f"{question}  →  {', '.join(answers)} ({right} of {len(seen)} right)")
        rows.append(Row(question, seen))
    return rows


def _written(folder: Path, name: str, glyphs: Sequence[dict[str, Any]]) -> Path:
    """Records with their pictures as files beside them."""
    try:
        from PIL import Image
    except ImportError as error:
        raise missing_extra("pillow", "images") from error
    (folder / name).mkdir(parents=True, exist_ok=True)
    records = []
    for number, glyph in enumerate(glyphs):
        file = f"{name}/{number}.png"
        Image.fromarray(glyph["image"]).save(folder / file)
        records.append({"image": file, "text": glyph["text"]})
    return json_lines(folder / f"{name}.jsonl", records)


def _url(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _data_url(picture: Any) -> str:
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _page(found: Sequence[Row], drawings: Sequence[Row], answers: Sequence[Row]) -> str:
    template = page_templates(Path(__file__).parent / "templates" / "pictures.css").get_template("pictures.html")
    page: str = template.render(title=TITLE, found=found, drawings=drawings, answers=answers)
    return page
