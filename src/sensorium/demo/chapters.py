"""What the demo says as it goes."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from sensorium.cost import parameters
from sensorium.demo.runs import Trained
from sensorium.evaluate import Evaluation, wording


class Chapters:
    """Numbered chapters of plain lines on a terminal."""

    def __init__(self, quiet: bool) -> None:
        self.console = Console(quiet=quiet, highlight=False, soft_wrap=True)
        self.number = 0

    def chapter(self, title: str) -> None:
        """Begin a chapter."""
        self.number += 1
        self.console.print(f"\n[bold]{self.number}. {title}[/bold]")

    def line(self, text: str) -> None:
        """A line of a chapter; text of several lines is kept in."""
        self.console.print(*(f"   {line}" for line in text.splitlines()), sep="\n", markup=False)

    def trained(self, run: Trained) -> None:
        """What a training run came to, or had come to in an earlier demo."""
        from sensorium.checkpoint import open_checkpoint

        position, size = run.outcome.position, parameters(open_checkpoint(run.folder).config)
        speed = position.tokens / max(1e-9, position.seconds)
        self.line(
            f"{run.folder}: {size / 1e6:.1f} million parameters, {position.tokens:,} tokens in "
            f"{position.seconds:.0f} s ({speed:,.0f} tokens/s)" + (", kept from an earlier demo" if run.kept else "")
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
