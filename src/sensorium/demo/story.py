"""The demo, chapter by chapter."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sensorium.data.records import read_records
from sensorium.demo.chapters import Chapters
from sensorium.demo.material import LICENCES, Material, Sizes, descriptions, gather, strings
from sensorium.demo.pictures import tell_of_pictures
from sensorium.demo.runs import Trained, log_of, train, write_run_evidence
from sensorium.demo.writers import SAMPLE, Own, Writer, converse, own_document, own_text, summariser, tell, translator
from sensorium.errors import UsageError
from sensorium.evaluate import Evaluation, compare, evaluate_classification, write_report
from sensorium.tasks import pipeline
from sensorium.text.documents import parse_document
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


def run_demo(
    output: str | Path,
    *,
    text: str | None = None,
    document: str | Path | None = None,
    ask: Callable[[str], str] | None = None,
    sizes: Sizes | None = None,
    quiet: bool = False,
) -> Path:
    """Tell the whole life of a small model; returns the report's path.

    Everything is written under ``output``: data, models with their evidence, logs, the report. Models that an earlier
    demo trained there on the same data, with the same settings, are kept; the rest is replaced. ``text`` and
    ``document`` (a file) are the reader's own, in English; ``ask`` puts a question to the reader, who may give more at
    the end. Raises ``UsageError`` for a folder that holds something else, ``DataError`` for a document that can't be
    read.
    """
    output, sizes, begin = Path(output), sizes or Sizes(), time.perf_counter()
    own = _own(text, document)
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
    tuned = _fine_tune("own-reviews", base, material.reviews_train, output, quiet, epochs=3, rate=5e-4)
    say.trained(tuned)
    minilm = _fine_tune("minilm-reviews", material.minilm, material.reviews_train, output, quiet, epochs=2, rate=1e-4)
    say.trained(minilm)
    say.chapter("Fine-tune all-MiniLM-L6-v2 on the topics of Wikipedia articles")
    topics = _fine_tune("minilm-topics", material.minilm, material.topics_train, output, quiet, epochs=2, rate=3e-4)
    say.trained(topics)
    say.chapter("Measure on held-out texts, beside TF-IDF + logistic regression")
    reviews = [_measure(run, material.reviews_train, material.reviews_test) for run in (tuned, minilm)]
    subjects = _measure(topics, material.topics_train, material.topics_test)
    comparisons = [test for test in compare(reviews[0], reviews[1]) if test.metric == reviews[0].headline]
    for evaluation in (*reviews, subjects):
        say.measured(evaluation)
    write_run_evidence(tuned, reviews[0], comparisons)
    write_run_evidence(minilm, reviews[1])
    write_run_evidence(topics, subjects)
    say.chapter("Use them")
    _use(say, base.folder, tuned.folder, topics.folder, material.minilm)
    writers = tell_of_writers(say, output, sizes, quiet=quiet)
    looking = tell_of_pictures(say, material.minilm, output, sizes, quiet=quiet)
    say.chapter("The reader's own text" if own else "A text of yours (this one is ours)")
    tell(say, own or Own(parse_document(SAMPLE, "markdown")), writers, output)
    report = output / "report.html"
    runs = (base, tuned, minilm, topics, *(one.run for one in writers), *looking)
    logs = {run.folder.name: log_of(run) for run in runs}
    write_report(
        report, [*reviews, subjects, *(one.evaluation for one in writers)], training_logs=logs,
        comparisons=comparisons, title="A language model's whole life",
    )  # fmt: skip
    say.chapter(f"Done in {(time.perf_counter() - begin) / 60:.1f} minutes")
    say.line(f"report: {report.resolve().as_uri()}")
    say.line(f"ask it yourself: sensorium run text-classification --model {tuned.folder} 太好了")
    for writer in writers:
        say.line(f"your own document: sensorium run {writer.task} --model {writer.run.folder} --document notes.md")
    if ask is not None:
        converse(say, ask, writers, output)
    return report


def _own(text: str | None, document: str | Path | None) -> Own | None:
    """What the reader gave, read before anything is trained."""
    if text is not None and document is not None:
        raise UsageError("a text and a document were both given; choose one")
    if document is not None:
        return own_document(Path(document))
    return None if text is None else own_text(text)


def tell_of_writers(say: Chapters, output: Path, sizes: Sizes, *, quiet: bool) -> list[Writer]:
    """The chapters of a translator, where its data is installed, and of a summariser."""
    writers = []
    say.chapter("Train a translator from nothing, English to Chinese, on strings of an interface")
    try:
        pairs = strings(output / "data", sizes)
    except UsageError as reason:
        say.line(f"left out: {reason}")
    else:
        say.line(f"{pairs.num_train:,} strings to learn from, {pairs.num_test:,} held out")
        writers.append(translator(say, pairs, output, sizes, quiet))
    say.chapter("Train a summariser from nothing: how an article begins, and the line that somebody described it by")
    pairs = descriptions(output / "data", sizes)
    say.line(f"{pairs.num_train:,} articles to learn from, {pairs.num_test:,} held out")
    writers.append(summariser(say, pairs, output, sizes, quiet))
    return writers


def _begin_anew(output: Path) -> None:
    """Forget a run that was interrupted: it takes a minute or two. Those that ended are kept."""
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
    return train(tables, quiet=quiet)


def _fine_tune(
    name: str, start: Trained | Path, data: Path, output: Path, quiet: bool, *, epochs: int, rate: float
) -> Trained:
    tables = {
        "model": {"open": str(start.folder if isinstance(start, Trained) else start)},
        "data": {"train": str(data), "validation_share": 0.05},
        "objective": {"kind": "sequence", "max_length": 64},
        "train": {
            "output": str(output / name), "epochs": epochs, "batch_tokens": 2048, "learning_rate": rate,
            "attention_dropout": 0.0, "freeze": ["stem.positions.*"],
        },
    }  # fmt: skip
    return train(tables, start=start if isinstance(start, Trained) else None, quiet=quiet)


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
