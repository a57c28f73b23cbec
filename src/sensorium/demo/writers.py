"""The chapters of models that read one text and write another: a translator, a summariser, the reader's own text."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sensorium.data.records import read_records
from sensorium.demo.chapters import Chapters
from sensorium.demo.material import Pairs, Sizes
from sensorium.demo.runs import Trained, train, write_run_evidence
from sensorium.errors import SensoriumError
from sensorium.evaluate import Evaluation, evaluate_generation
from sensorium.storage import write_text
from sensorium.tasks import pipeline
from sensorium.tasks.text2text_generation import TruncatedWarning
from sensorium.text.documents import SUFFIXES, Document, open_document, parse_document

READ = 96
"""Tokens the models read at once; what is longer is read in parts."""
SHOWN = 4
"""Held-out texts whose answers are shown."""
WIDTH = 150
"""Characters shown of a long text."""
WORD = re.compile(r"[^\W\d_]+")
SAMPLE = """# Before you close the notebook

1. **Save** all files.
2. Stop the kernel, and delete the output of the selected cells.

A notebook is a document of text, code and results. People who work with data use it to write and share what they do.
"""
"""Stands in for the reader's own text where there is none. Markdown."""


@dataclass(frozen=True)
class Writer:
    """A model that reads one text and writes another, how it is called, and how good it is."""

    task: Literal["translation", "summarization"]
    call: Any
    """The pipeline."""
    pairs: Pairs
    run: Trained
    evaluation: Evaluation


@dataclass(frozen=True)
class Own:
    """The reader's own text."""

    document: Document
    path: Path | None = None
    """Where it was read from; ``None``: it was typed."""


def own_text(text: str) -> Own:
    """A text as it was typed."""
    return Own(parse_document(text, "text"))


def own_document(path: Path) -> Own:
    """A file. Raises ``DataError`` for one that can't be read."""
    return Own(open_document(path), path)


def translator(say: Chapters, pairs: Pairs, output: Path, sizes: Sizes, quiet: bool) -> Writer:
    """English → Chinese, learnt from strings of an interface."""
    tables = _tables(output / "translator", pairs, sizes, vocabulary_size=4000, most=60)
    tables["data"] |= {"source_language": "en", "target_language": "zh"}
    tables["train"] |= {"steps": sizes.translator_steps, "dropout": 0.2}
    found = train(tables, quiet=quiet)
    call = pipeline("translation_en_to_zh", found.folder, num_beams=4, max_new_tokens=60)
    return _measured(say, "translation", call, pairs, found)


def summariser(say: Chapters, pairs: Pairs, output: Path, sizes: Sizes, quiet: bool) -> Writer:
    """An introduction → a line that says what it is about."""
    tables = _tables(output / "summariser", pairs, sizes, vocabulary_size=6000, most=32)
    tables["train"] |= {"steps": sizes.summariser_steps, "dropout": 0.1}
    found = train(tables, quiet=quiet)
    call = pipeline("summarization", found.folder, num_beams=4, max_new_tokens=32)
    return _measured(say, "summarization", call, pairs, found)


def tell(say: Chapters, own: Own, writers: list[Writer], output: Path) -> None:
    """What the models make of the reader's own text; of a file, the answers are written to files as well."""
    for writer in writers:
        try:
            (_translate if writer.task == "translation" else _summarise)(say, own, writer, output)
        except SensoriumError as error:  # a text without words, say: no reason to end a demo of minutes
            say.line(str(error))


def converse(say: Chapters, ask: Callable[[str], str], writers: list[Writer], output: Path) -> None:
    """Ask for texts, or names of files, until there is none."""
    while answer := ask("   your own English text, or a file (md, html, txt, srt, vtt); Enter ends: ").strip():
        path = Path(answer).expanduser()
        is_file = path.suffix.lower() in SUFFIXES and len(answer) < WIDTH and path.is_file()
        try:
            own = own_document(path) if is_file else own_text(answer)
        except SensoriumError as error:
            say.line(str(error))
        else:
            tell(say, own, writers, output)


# --- details ---------------------------------------------------------------------------------------------------------


def _tables(output: Path, pairs: Pairs, sizes: Sizes, *, vocabulary_size: int, most: int) -> dict[str, Any]:
    """Small sizes, and a rate that a short training can bear; ``most`` tokens are written."""
    return {
        "model": {
            "family": "marian", "hidden_size": sizes.writer_hidden_size, "num_layers": 3,
            "num_heads": max(1, sizes.writer_hidden_size // 64), "mlp_size": 2 * sizes.writer_hidden_size,
            "max_length": READ,
        },
        "tokenizer": {"train": "bpe", "vocabulary_size": min(vocabulary_size, sizes.vocabulary_size)},
        "data": {"train": str(pairs.train), "validation_share": 0.03},
        "objective": {"kind": "seq2seq", "max_length": READ, "max_target_length": most, "label_smoothing": 0.1},
        "train": {
            "output": str(output), "epochs": 100, "batch_tokens": 2048, "learning_rate": 1e-3, "weight_decay": 0.01,
            "schedule": "linear", "warmup": 0.15, "attention_dropout": 0.0, "average_from": 0.8,
            "validate_every": 100, "checkpoint_every": 10_000,
        },
    }  # fmt: skip


def _measured(
    say: Chapters, task: Literal["translation", "summarization"], call: Any, pairs: Pairs, run: Trained
) -> Writer:
    """Say what training came to, measure on held-out texts, show the first of them."""
    say.trained(run)
    test = read_records(pairs.test)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncatedWarning)  # of the longest texts the beginning is enough here
        answers = [answer[call.key] for answer in call([record["text"] for record in test], truncation=True)]
    evaluation = evaluate_generation(
        lambda texts: answers, test, task=task, train=read_records(pairs.train), model=run.folder.name,
        dataset=pairs.test.name,
    )  # fmt: skip
    say.measured(evaluation)
    say.line(_verdict(evaluation))
    step = max(1, len(test) // SHOWN)
    for record, answer in list(zip(test, answers, strict=True))[step // 2 :: step]:
        say.line(f"held out: {_short(record['text'])}  →  {answer}  (a person wrote: {record['target']})")
    write_run_evidence(run, evaluation)
    return Writer(task, call, pairs, run, evaluation)


def _verdict(evaluation: Evaluation) -> str:
    """Whether it was worth training: beside the best of the baselines."""
    headline = evaluation.headline
    best = max(evaluation.baselines, key=lambda baseline: baseline.metrics[headline].value)
    if evaluation.metrics[headline].value > best.metrics[headline].value:
        return f"That is more than {best.name!r} gives. Of texts unlike those it learnt from it makes a guess."
    return (
        f"That is less than {best.name!r} gives: a minute and so few texts teach it how such answers sound, and little "
        "of what is in the text. Recipes that train for longer are in recipes/."
    )


def _translate(say: Chapters, own: Own, writer: Writer, output: Path) -> None:
    found = writer.call.document(own.document)
    say.line("in Chinese:")
    say.line(found.text.rstrip())
    say.line(f"{_unseen(own, writer)}; {found.summary}")
    if own.path is not None:
        path = output / f"{own.path.stem}.zh{own.path.suffix}"
        found.save(path)
        say.line(f"the translation, with everything that is not text as it was: {path}")


def _summarise(say: Chapters, own: Own, writer: Writer, output: Path) -> None:
    found = writer.call.document(own.document)
    say.line(f"in a line: {found.text}")
    if len(found.sections) > 1:
        say.line("part by part:\n" + "\n".join(f"- {section}" for section in found.sections))
    say.line(_unseen(own, writer))
    if own.path is not None:
        path = output / f"{own.path.stem}.summary.txt"
        write_text(path, "\n".join([found.text, "", *(f"- {section}" for section in found.sections), ""]))
        say.line(f"the summary: {path}")


def _unseen(own: Own, writer: Writer) -> str:
    """Which of the reader's words the model never read: what it makes of them is a guess."""
    known = {word.lower() for record in read_records(writer.pairs.train) for word in WORD.findall(record["text"])}
    words = list(dict.fromkeys(word.lower() for one in own.document.sentences for word in WORD.findall(one.text)))
    unseen = [word for word in words if word not in known]
    if not unseen:
        return f"all of the {len(words):,} words stand in what it was trained on"
    return f"{len(unseen):,} of {len(words):,} words it never saw in training: {_short(', '.join(unseen))}"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= WIDTH else text[: WIDTH - 1].rpartition(" ")[0] + " …"
