"""``sensorium index`` and ``sensorium search``: find images and texts of a folder by what they show and say."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sensorium.cli._options import Json
from sensorium.errors import UsageError

if TYPE_CHECKING:
    from sensorium.search import Answer, Report

INDEX = Path(".sensorium") / "index.sqlite"
"""Of a folder."""


def index(
    folder: Annotated[
        Path, typer.Argument(help="What is to be found: its images and texts, and those of its folders.")
    ],
    model: Annotated[str, typer.Option(help="A model that matches images with texts: a folder, or a name on the hub.")],
    store: Annotated[
        str | None,
        typer.Option(help="The index: a file, or postgresql://…; none: .sensorium/index.sqlite in the folder."),
    ] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Forget what was indexed before, as for another model.")] = False,
    json: Json = False,
) -> None:
    """Index a folder, or bring its index up to date: only files that are new or changed are read.

    Files that can't be read are skipped and listed. An index that was interrupted is gone on with by the same command.
    """
    from sensorium.search import open_store, update_index
    from sensorium.tasks.matching import open_matcher

    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder")
    vectors = open_matcher(model)
    opened = open_store(store or folder / INDEX, create=True)
    try:
        report = update_index(
            folder, opened, vectors, anew=anew, progress=None if json else _progress, waits=_say_waiting
        )
    except KeyboardInterrupt:
        typer.echo("\nstopped; what was read is kept, and the same command goes on", err=True)
        raise typer.Exit(130) from None
    finally:
        opened.close()
    _show_report(report, json)


def search(
    query: Annotated[str | None, typer.Argument(help="What to look for, in words.")] = None,
    image: Annotated[Path | None, typer.Option(help="Look for what is like this image instead.")] = None,
    folder: Annotated[Path, typer.Option(help="The folder that was indexed.")] = Path(),
    store: Annotated[
        str | None, typer.Option(help="The index: a file, or postgresql://…; none: .sensorium/index.sqlite there.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Where the index's model is now; none: where it was.")] = None,
    find: Annotated[Literal["image", "text"], typer.Option(help="What to look for: image or text.")] = "image",
    top: Annotated[int, typer.Option(help="How many to show.")] = 10,
    json: Json = False,
) -> None:
    """Find images, or parts of texts, by words or by an image; the most alike first.

    From words to images, and from an image to texts, each has a probability that it is what was meant; where not even
    the first is likely, that is said.
    """
    from sensorium.search import Searcher, open_store
    from sensorium.tasks.matching import open_matcher

    if (query is None) == (image is None):
        raise UsageError("give what to look for: words, or --image; one of them")
    opened = open_store(store or folder / INDEX)
    try:
        noted = opened.settings().get("model")
        if model is None and noted is None:
            raise UsageError("the index is empty; make it with: sensorium index FOLDER --model …")
        searcher = Searcher(opened, open_matcher(model or str(noted)))
        if query is not None:
            answer = searcher.search(query, most=top, kind=find)
        else:
            answer = searcher.search_image(image, most=top, kind=find)
    finally:
        opened.close()
    _show_answer(answer, json)


def _say_waiting() -> None:
    typer.echo("another process is indexing into it; this one begins when that one is done", err=True)


def _progress(done: int, total: int) -> None:
    typer.echo(f"\r{done:,} of {total:,} files", nl=done == total, err=True)


def _show_report(report: Report, json: bool) -> None:
    from dataclasses import asdict

    if json:
        typer.echo(json_format.dumps(asdict(report), ensure_ascii=False))
        return
    typer.echo(f"{report.read:,} read, {report.unchanged:,} unchanged, {report.forgotten:,} gone")
    if report.problems:
        typer.echo(f"{len(report.problems):,} could not be read:")
        for path, problem in report.problems.items():
            typer.echo(f"  {path}: {problem}")


def _show_answer(answer: Answer, json: bool) -> None:
    from dataclasses import asdict

    if json:
        typer.echo(json_format.dumps(asdict(answer), ensure_ascii=False))
        return
    for match in answer.matches:
        typer.echo(_line(match))
    if answer.likely is False:
        typer.echo(f"none of {answer.count:,} is likely what was meant", err=True)


def _line(match: Any) -> str:
    place = f"{match.path}:{match.line}" if match.kind == "text" else match.path
    number = f"{match.score:+.3f}" if match.probability is None else f"{100 * match.probability:5.1f} %"
    return f"{number}  {place}" + (f"  {match.text[:80]}" if match.text else "")
