"""Ctrl-C and SIGTERM as a question that the loop answers between two steps."""

from __future__ import annotations

import signal
from types import TracebackType
from typing import Any


class Interruption:
    """Within it, a first SIGINT or SIGTERM sets ``requested``; a second one stops the process at once."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        """Take the signals over; outside the main thread they are somebody else's, and stay so."""
        try:
            self._before = {number: signal.signal(number, self._request) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:
            self._before = {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
