"""``sensorium run``: a task over texts or images, from the command line, a file or a pipe."""

from __future__ import annotations

import json as json_format
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sensorium.cli._shown import shown
from sensorium.errors import UsageError


def run(
    task: Annotated[str, typer.Argument(help="text-classification, fill-mask, question-answering, …")],
    model: Annotated[str, typer.Option(help="Checkpoint: a folder, a GGUF file, or a name on the hub.")],
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Or paths of images; none: the lines of a pipe.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="Records to read: txt, csv, tsv, jsonl, parquet.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An argument of the task, such as top_k=3.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="fp32, bf16, int8, int8_weight_only or int4_weight_only.")] = "fp32",
    json: Annotated[bool, typer.Option("--json", help="Print a JSON value a line, one for each input.")] = False,
    chat: Annotated[bool, typer.Option("--chat", help="text-generation: each text is said to an assistant.")] = False,
    document: Annotated[
        Path | None, typer.Option(help="A whole document to translate or summarise: md, html, txt, srt, vtt.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where to write the document's answer (none: here), or the pictures drawn.")
    ] = None,
) -> None:
    """Run a task over texts, or over images by their paths. Answers come in the order of the inputs, as they are ready.

    Question answering reads contexts, and the question from --set question=…; next-sentence-prediction reads texts two
    by two; sentence-similarity compares the first with all others. text-to-image draws into --output: a file for one
    picture, a folder for several. Text generation goes on from a text, or answers it
    with --chat; records of a file that hold "messages" are whole chats. translation and summarization take a
    --document.
    """
    if document is not None:
        if texts or file is not None:
            raise UsageError("--document and texts or --file were both given; choose one")
        return run_document(task, model, document, output, dict(map(parse_setting, settings or ())), dtype, json)
    arguments = dict(map(parse_setting, settings or ()))
    if task == "text-to-image":
        return run_drawings(model, read_inputs(texts or [], file), output, arguments, dtype)
    if output is not None:
        raise UsageError("--output is for a --document and for drawings; other answers go to the terminal, or a pipe")
    question = arguments.pop("question", None) if task == "question-answering" else None
    records = read_inputs(texts or [], file)
    if chat:
        if task != "text-generation":
            raise UsageError(f"--chat is for text-generation; {task} has no assistant")
        records = as_messages(records)
        arguments = {"return_full_text": False, **arguments}
    inputs = as_inputs(task, records, question)

    from sensorium.tasks import call_options, pipeline

    for name, parameter in call_options(task).items():
        if parameter.default is parameter.empty and name not in arguments:
            raise UsageError(f"{task} needs --set {name}=…")
    call = pipeline(task, model=model, dtype=dtype, **arguments)
    for answer in call([*inputs] if task == "sentence-similarity" else inputs):
        typer.echo(json_format.dumps(answer, ensure_ascii=False, default=_plain) if json else shown(answer))


def run_drawings(
    model: str, records: Iterable[Mapping[str, Any]], output: Path | None, arguments: Mapping[str, Any], dtype: str
) -> None:
    """Pictures of texts: one into a file, several into a folder, with what each was drawn for on the terminal."""
    from sensorium.tasks import pipeline

    if output is None:
        raise UsageError("text-to-image needs --output: a file such as picture.png, or a folder for several pictures")
    texts = [record["text"] for record in records]
    several = len(texts) * int(arguments.get("num_images_per_prompt", 1)) > 1
    if several and output.suffix:
        raise UsageError(f"--output {output} is one file, and there are several pictures; give a folder")
    call = pipeline("text-to-image", model=model, dtype=dtype, **arguments)
    (output if several else output.parent).mkdir(parents=True, exist_ok=True)
    number = 0
    for text, drawn in zip(texts, call(iter(texts)), strict=True):
        for picture in drawn if isinstance(drawn, list) else [drawn]:
            number += 1
            path = output / f"{number}.png" if several else output.with_suffix(output.suffix or ".png")
            picture.save(path)
            typer.echo(f"{path}  {text}")


def run_document(
    task: str, model: str, path: Path, output: Path | None, arguments: Mapping[str, Any], dtype: str, json: bool
) -> None:
    """A whole document: its translation or its summary to a file or here, what happened beside it."""
    from dataclasses import asdict

    from sensorium.tasks import pipeline

    call = pipeline(task, model=model, dtype=dtype, **arguments)
    if not hasattr(call, "document"):
        raise UsageError(f"{task} takes no document; translation and summarization do")
    found = call.document(path)
    if json:
        typer.echo(json_format.dumps(asdict(found), ensure_ascii=False))
    elif output is None:
        typer.echo(found.text, nl=not found.text.endswith("\n"))
    if output is not None:
        found.save(output)
    if hasattr(found, "summary"):
        typer.echo(f"sensorium: {found.summary}", err=True)


def parse_setting(setting: str) -> tuple[str, Any]:
    """``key=value`` with a TOML value; a bare word is a text.

    >>> parse_setting("top_k=3"), parse_setting("targets=['a', 'b']"), parse_setting("question=Who wrote it?")
    (('top_k', 3), ('targets', ['a', 'b']), ('question', 'Who wrote it?'))
    """
    key, equals, value = setting.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {setting!r} is not of the form key=value")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value


def read_inputs(texts: list[str], file: Path | None) -> Iterator[Mapping[str, Any]]:
    """Records from the arguments, else from the file, else from what is piped in."""
    if texts and file is not None:
        raise UsageError("texts and --file were both given; choose one")
    if texts:
        return ({"text": text} for text in texts)
    if file is not None:
        from sensorium.data.records import read_records

        return iter(read_records(file))
    if sys.stdin.isatty():
        raise UsageError("no input: give texts, --file, or pipe text in")
    return ({"text": line.strip()} for line in sys.stdin if line.strip())


def as_messages(records: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Texts as chats of one message; a record that is a chat stays as it is."""
    for record in records:
        yield record if "messages" in record else {"messages": [{"role": "user", "content": record["text"]}]}


def as_inputs(task: str, records: Iterable[Mapping[str, Any]], question: str | None) -> Iterator[Any]:
    """What the task takes, from records."""
    if task == "question-answering":
        for record in records:
            yield {"question": record.get("question", question), "context": record.get("context", record.get("text"))}
    elif task == "next-sentence-prediction":
        yield from _pairs(records)
    elif task == "sentence-similarity":
        source, *others = [record["text"] for record in records]
        yield {"source_sentence": source, "sentences": others}
    elif task == "text-generation":
        for record in records:
            yield record["messages"] if "messages" in record else record["text"]
    else:
        for record in records:
            yield {"text": record["text"], "text_pair": record["pair"]} if "pair" in record else record["text"]


def _pairs(records: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Records with both texts; texts by themselves go two by two."""
    first: str | None = None
    for record in records:
        if "pair" in record:
            yield {"text": record["text"], "text_pair": record["pair"]}
        elif first is None:
            first = record["text"]
        else:
            yield {"text": first, "text_pair": record["text"]}
            first = None
    if first is not None:
        raise UsageError(f"this task needs two texts, and {first[:60]!r} has no second one")


def _plain(value: Any) -> Any:
    """Arrays as lists."""
    return value.tolist()
