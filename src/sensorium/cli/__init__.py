"""The command line: one leaf a command, and the door where errors become one sentence.

A leaf imports typer and the standard library; what it needs of the library it imports when it is called, so that
``sensorium --help`` answers at once.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import typer

from sensorium.cli.bench import bench
from sensorium.cli.demo import demo
from sensorium.cli.evaluate import evaluate
from sensorium.cli.info import info
from sensorium.cli.run import run
from sensorium.cli.search import index, search
from sensorium.cli.tokenizer import tokenizer
from sensorium.cli.train import train
from sensorium.errors import SensoriumError

COMMANDS: dict[str, Callable[..., None]] = {
    "bench": bench,
    "demo": demo,
    "evaluate": evaluate,
    "index": index,
    "info": info,
    "run": run,
    "search": search,
    "train": train,
}
GROUPS = {"tokenizer": tokenizer}


@dataclass
class Session:
    """What the options before the command say."""

    verbose: bool = False


def _show_version(wanted: bool) -> None:
    if wanted:
        from sensorium import __version__

        typer.echo(f"sensorium {__version__}")
        raise typer.Exit


def _root(
    context: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """The whole life of a language model on the machine you have: pretrain, fine-tune, use, measure."""
    context.obj.verbose = verbose


def build_app() -> typer.Typer:
    """The typer application with every command."""
    app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback()(_root)
    for name, command in COMMANDS.items():
        app.command(name)(command)
    for name, group in GROUPS.items():
        app.add_typer(group, name=name)
    return app


def main() -> None:
    """Run the command line. An error raised on purpose, or by the file system, is one line and exit status 2."""
    session = Session()
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            build_app()(prog_name="sensorium", obj=session)
        except (SensoriumError, OSError) as error:
            if session.verbose:
                raise
            typer.echo(f"sensorium: {error}", err=True)
            sys.exit(2)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    typer.echo(f"sensorium: warning: {message}", err=True)
