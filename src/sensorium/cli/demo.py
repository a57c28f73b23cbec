"""``sensorium demo``: the main job, on real text, from nothing to a measured model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def demo(
    output: Annotated[Path, typer.Option(help="Folder for the models and the report.")] = Path("demo-output"),
    text: Annotated[str | None, typer.Option(help="Your own English text, to translate and to summarise.")] = None,
    document: Annotated[Path | None, typer.Option(help="The same from a file: md, html, txt, srt, vtt.")] = None,
) -> None:
    """Pretrain, fine-tune, compare and use small language models on real text, and on your own (some minutes).

    Models that an earlier demo trained in the same folder are kept, so that nothing is trained when you run it again
    with another text. On a terminal it asks for more texts at the end.
    """
    from sensorium.demo import run_demo

    run_demo(output, text=text, document=document, ask=_ask if sys.stdin.isatty() and sys.stdout.isatty() else None)


def _ask(question: str) -> str:
    """A line from the terminal; none when input has ended."""
    try:
        return input(question)
    except EOFError:
        return ""
