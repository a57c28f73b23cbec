"""``sensorium demo``: the main job, on real text, from nothing to a measured model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    output: Annotated[Path, typer.Option(help="Folder for the models and the report.")] = Path("demo-output"),
) -> None:
    """Pretrain, fine-tune, compare and use a small language model on real text (some minutes)."""
    from sensorium.demo import run_demo

    run_demo(output)
