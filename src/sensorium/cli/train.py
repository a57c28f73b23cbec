"""``sensorium train``: run a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe: a TOML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[section.key=value]...", help="Settings in place of the recipe's.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was interrupted.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Train as a recipe says. Ctrl-C saves first; --resume goes on, bit for bit.

    Any setting can be given on the command line: sensorium train recipes/my.toml train.epochs=3 data.train=my.csv
    """
    from sensorium.train.recipe import read_recipe

    checked = read_recipe(recipe, overrides or ())

    from sensorium.train.run import run_recipe  # torch: only once the recipe is known to be right

    outcome = run_recipe(checked, resume=resume, quiet=quiet)
    position = outcome.position
    if not outcome.finished:
        command = " ".join(["sensorium train", str(recipe), *(overrides or ()), "--resume"])
        typer.echo(f"stopped after step {position.step:,}; everything is saved. To go on: {command}", err=True)
        raise typer.Exit(130)
    typer.echo(
        f"{checked.train.output}: {position.step:,} steps, {position.tokens:,} tokens, {position.seconds:,.0f} s"
    )
    typer.echo(f"log: {outcome.log}")
