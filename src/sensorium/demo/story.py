"""The demo, chapter by chapter."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from sensorium.cost import parameters
from sensorium.data.records import read_records
from sensorium.demo.material import LICENCES, Material, Sizes, gather
from sensorium.errors import UsageError
from sensorium.evaluate import (
    Comparison,
    Evaluation,
    TrainingEvidence,
    TrainingSource,
    compare,
    evaluate_classification,
    wording,
    write_evidence,
    write_report,
)
from sensorium.tasks import pipeline
from sensorium.train.loop import Outcome
from sensorium.train.recipe import check_recipe
from sensorium.train.run import run_recipe
from sensorium.train.state import discard_states

CHINESE = ("房间很干净，服务员也很热情，下次还来。", "等了一个小时才上菜，味道也很差，再也不会来了。")
ENGLISH = (
    "The composer wrote nine symphonies and many works for the piano.",
    "The river rises in the mountains and flows north into the sea.",
)
MASKED = ("The capital of France is the [MASK] of Paris.", "这家酒店的服务[MASK]好。")
SIMILAR = (
    "How do I open a bank account?",
    ["I want to become a customer of your bank.", "The weather is lovely today."],
)


@dataclass(frozen=True)
class Trained:
    """A training run of the demo."""

    folder: Path
    outcome: Outcome
    recipe: dict[str, Any]


def run_demo(output: str | Path, *, sizes: Sizes | None = None, quiet: bool = False) -> Path:
    """Tell the whole life of a small model; returns the report's path.

    Everything is written under ``output``: data, models with their evidence, logs, the report. What an earlier demo
    left there is replaced. Raises ``UsageError`` for a folder that holds something else.
    """
    output, sizes, begin = Path(output), sizes or Sizes(), time.perf_counter()
    _begin_anew(output)
    say = Chapters(quiet)
    say.chapter("Gather real text from installed packages")
    material = gather(output / "data", sizes)
    for name, count in material.counts.items():
        say.line(f"{count:,} {name}")
    for name, licence in LICENCES.items():
        say.line(f"{name}: {licence}")
    say.chapter("Learn a vocabulary, and pretrain a small BERT on English and Chinese: masked words, next sentence")
    base = _pretrain(output, material, sizes, quiet)
    say.trained(base)
    say.chapter("Fine-tune it, and the real all-MiniLM-L6-v2, on Chinese reviews: positive or negative?")
    own = _fine_tune("own-reviews", base.folder, material.reviews_train, output, quiet, epochs=3, rate=5e-4)
    say.trained(own)
    minilm = _fine_tune("minilm-reviews", material.minilm, material.reviews_train, output, quiet, epochs=2, rate=1e-4)
    say.trained(minilm)
    say.chapter("Fine-tune all-MiniLM-L6-v2 on the topics of Wikipedia articles")
    topics = _fine_tune("minilm-topics", material.minilm, material.topics_train, output, quiet, epochs=2, rate=3e-4)
    say.trained(topics)
    say.chapter("Measure on held-out texts, beside TF-IDF + logistic regression")
    reviews = [_measure(run, material.reviews_train, material.reviews_test) for run in (own, minilm)]
    subjects = _measure(topics, material.topics_train, material.topics_test)
    comparisons = [test for test in compare(reviews[0], reviews[1]) if test.metric == reviews[0].headline]
    for evaluation in (*reviews, subjects):
        say.measured(evaluation)
    _write_evidence(own, reviews[0], material, comparisons)
    _write_evidence(minilm, reviews[1], material, ())
    _write_evidence(topics, subjects, material, ())
    say.chapter("Use them")
    _use(say, base.folder, own.folder, topics.folder, material.minilm)
    report = output / "report.html"
    logs = {run.folder.name: _log(run) for run in (base, own, minilm, topics)}
    write_report(
        report, [*reviews, subjects], training_logs=logs, comparisons=comparisons, title="A language model's whole life"
    )
    say.chapter(f"Done in {(time.perf_counter() - begin) / 60:.1f} minutes")
    say.line(f"report: {report.resolve().as_uri()}")
    say.line(f"ask it yourself: sensorium run text-classification --model {own.folder} 太好了")
    return report


def _begin_anew(output: Path) -> None:
    """Forget the runs of a demo that was interrupted: the whole takes minutes, and its parts must belong together."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())) and not (output / "data").is_dir():
        raise UsageError(f"{output}: holds something else than a demo; choose another folder")
    for folder in output.glob("*.training"):
        discard_states(folder)


def _pretrain(output: Path, material: Material, sizes: Sizes, quiet: bool) -> Trained:
    heads = max(1, sizes.hidden_size // 48)
    tables = {
        "model": {"hidden_size": sizes.hidden_size, "num_layers": 3, "num_heads": heads, "max_length": 128},
        "tokenizer": {"train": "wordpiece", "vocabulary_size": sizes.vocabulary_size},
        "data": {"train": str(material.pretraining), "validation_share": 0.05},
        "objective": {"kind": "masked_token", "sentences": "next", "max_length": 128},
        "train": {
            "output": str(output / "base"), "epochs": 100, "steps": sizes.pretraining_steps,
            "batch_tokens": sizes.pretraining_tokens, "learning_rate": 7e-4, "attention_dropout": 0.0,
            "validate_every": max(1, sizes.pretraining_steps // 3), "checkpoint_every": sizes.pretraining_steps,
        },
    }  # fmt: skip
    return _train(tables, quiet)


def _fine_tune(name: str, start: Path, data: Path, output: Path, quiet: bool, *, epochs: int, rate: float) -> Trained:
    tables = {
        "model": {"open": str(start)},
        "data": {"train": str(data), "validation_share": 0.05},
        "objective": {"kind": "sequence", "max_length": 64},
        "train": {
            "output": str(output / name), "epochs": epochs, "batch_tokens": 2048, "learning_rate": rate,
            "attention_dropout": 0.0, "freeze": ["stem.positions.*"],
        },
    }  # fmt: skip
    return _train(tables, quiet)


def _train(tables: dict[str, Any], quiet: bool) -> Trained:
    recipe = check_recipe(tables, where="demo")
    return Trained(Path(recipe.train.output), run_recipe(recipe, quiet=quiet), recipe.model_dump())


def _measure(run: Trained, train: Path, test: Path) -> Evaluation:
    classify = pipeline("text-classification", run.folder, dtype="bf16")
    return evaluate_classification(
        classify_all(classify),
        read_records(test),
        labels=list(classify.model.config.sequence.labels),
        train=read_records(train),
        model=run.folder.name,
        dataset=test.name,
    )


def classify_all(classify: Any) -> Any:
    """The pipeline as the function that measuring asks for: texts → every label's score."""
    return lambda texts: classify(list(texts), top_k=None)


def _write_evidence(
    run: Trained, evaluation: Evaluation, material: Material, comparisons: Sequence[Comparison]
) -> None:
    position = run.outcome.position
    name = Path(run.recipe["data"]["train"]).name
    training = TrainingEvidence(
        sources=(
            TrainingSource(name, len(read_records(run.recipe["data"]["train"])), origin="pip packages, see data/"),
        ),
        started_from=str(run.recipe["model"]["open"]),
        steps=position.step,
        tokens=position.tokens,
        seconds=position.seconds,
        recipe=run.recipe,
    )
    write_evidence(
        run.folder, [evaluation], training=training, comparisons=comparisons,
        limits=("A demonstration: trained for minutes on little text.",),
    )  # fmt: skip


def _use(say: Chapters, base: Path, own: Path, topics: Path, minilm: Path) -> None:
    sentiment = pipeline("text-classification", own)
    for text in CHINESE:
        say.answer(text, sentiment(text)[0])
    topic = pipeline("text-classification", topics)
    for text in ENGLISH:
        say.answer(text, topic(text)[0])
    fill = pipeline("fill-mask", base)
    for text in MASKED:
        say.line(f"{text}  →  {', '.join(answer['token_str'] for answer in fill(text))}")
    source, sentences = SIMILAR
    scores = pipeline("sentence-similarity", minilm)({"source_sentence": source, "sentences": sentences})
    for sentence, score in zip(sentences, scores, strict=True):
        say.line(f"{source}  ~  {sentence}  {score:.2f}")


def _log(run: Trained) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.outcome.log.read_text("utf-8").splitlines()]


class Chapters:
    """What the demo says as it goes."""

    def __init__(self, quiet: bool) -> None:
        self.console = Console(quiet=quiet, highlight=False, soft_wrap=True)
        self.number = 0

    def chapter(self, title: str) -> None:
        """Begin a chapter."""
        self.number += 1
        self.console.print(f"\n[bold]{self.number}. {title}[/bold]")

    def line(self, text: str) -> None:
        """A line of a chapter."""
        self.console.print(f"   {text}", markup=False)

    def trained(self, run: Trained) -> None:
        """What a training run came to."""
        from sensorium.checkpoint import open_checkpoint

        position, size = run.outcome.position, parameters(open_checkpoint(run.folder).config)
        speed = position.tokens / max(1e-9, position.seconds)
        self.line(
            f"{run.folder}: {size / 1e6:.1f} million parameters, {position.tokens:,} tokens in "
            f"{position.seconds:.0f} s ({speed:,.0f} tokens/s)"
        )

    def measured(self, evaluation: Evaluation) -> None:
        """The headline metric of an evaluation with its interval, and the baselines'."""
        metric = evaluation.headline
        estimate = evaluation.metrics[metric]
        others = ", ".join(
            f"{baseline.name} {wording.value(baseline.metrics[metric], metric)}" for baseline in evaluation.baselines
        )
        self.line(
            f"{evaluation.model}: {wording.metric_title(metric)} {wording.value(estimate, metric)} "
            f"({wording.interval(estimate, metric)}); {others}"
        )

    def answer(self, text: str, answer: dict[str, Any]) -> None:
        """A text and its label."""
        self.line(f"{text}  →  {answer['label']} ({answer['score']:.0%})")
