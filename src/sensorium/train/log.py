"""What a run tells: ``train.jsonl``, TensorBoard, and a live line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sensorium.errors import missing_extra
from sensorium.storage import write_text


class JsonLog:
    """One JSON object a line; a resumed run first drops the lines after the step it resumes from.

    A score of the weights that were kept, ``final_validation``, stands after everything else, and is dropped as well.
    """

    def __init__(self, path: Path, *, resume_step: int) -> None:
        """``resume_step`` 0 begins anew."""
        self.path = path
        kept = []
        if resume_step and path.is_file():
            for line in path.read_text("utf-8").splitlines():
                try:
                    record = json.loads(line)
                except ValueError:
                    break  # a line cut short when the run was killed
                if record.get("step", 0) <= resume_step and record.get("kind") != "final_validation":
                    kept.append(line)
        write_text(path, "".join(line + "\n" for line in kept))
        self.file = path.open("a", encoding="utf-8")

    def write(self, **record: Any) -> None:
        """Append a record; it has left this process before the next step begins."""
        self.file.write(json.dumps(record, ensure_ascii=False) + "\n")
        self.file.flush()

    def sync(self) -> None:
        """Wait until it is on the disk: before the state that counts on these lines."""
        os.fsync(self.file.fileno())

    def close(self) -> None:
        """Wait until it is on the disk, and close."""
        self.sync()
        self.file.close()


class TensorBoard:
    """The same numbers for TensorBoard."""

    def __init__(self, folder: Path) -> None:
        """Raises ``UsageError`` when the extra is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise missing_extra("tensorboard", "tensorboard") from error
        self.writer = SummaryWriter(str(folder))

    def write(self, **record: Any) -> None:
        """Every number of the record, by step."""
        step = int(record.get("step", 0))
        kind = record.get("kind", "train")
        for name, value in record.items():
            if isinstance(value, int | float) and name not in ("step", "epoch"):
                self.writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flush and close."""
        self.writer.close()


class LiveLine:
    """Progress, speed, share of the machine's peak, time left; plain lines where the output is not a terminal."""

    def __init__(self, total_steps: int, *, done: int, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = Console(stderr=True, quiet=quiet)
        self.progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.progress.add_task("train", total=total_steps, completed=done, text="")
        self.total = total_steps
        self.progress.start()

    def update(self, step: int, text: str) -> None:
        """Show a step."""
        self.progress.update(self.task, completed=step, text=text)

    def line(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, highlight=False)

    def close(self) -> None:
        """Leave the last line standing."""
        self.progress.stop()


def duration(seconds: float) -> str:
    """A time to wait, in words.

    >>> duration(42.3), duration(150), duration(7500)
    ('42 s', '2 min', '2 h 5 min')
    """
    minutes = int(seconds // 60)
    if minutes == 0:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
