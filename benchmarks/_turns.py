"""Contestants that take turns, each in a process of its own: some libraries' threads go on spinning after their work,
and would slow whoever comes next in the same process."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar

PAUSE = 0.5
"""Seconds between turns: until the threads of the one before sleep."""


class Contestant:
    """``make(*arguments)``, called in a new process, gives a function that does some work and returns the seconds."""

    def __init__(self, make: Callable[..., Callable[..., float]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, make, arguments), daemon=True)
        self._process.start()

    def seconds(self, *work: Any) -> float:
        """Do it once."""
        time.sleep(PAUSE)
        self._pipe.send(work)
        taken: float = self._pipe.recv()
        return taken


Name = TypeVar("Name")
Work = TypeVar("Work")


def median_rates(
    contestants: Mapping[str, Contestant],
    work: Mapping[Name, Work],
    rate: Callable[[Contestant, Work], float],
    *,
    rounds: int,
) -> dict[tuple[str, Name], float]:
    """Of each contestant at each piece of work, as ``rate`` finds out: turn by turn, the first of which warms up."""
    rates: dict[tuple[str, Name], list[float]] = {}
    for turn in range(rounds + 1):
        for who, contestant in contestants.items():
            for name, task in work.items():
                found = rate(contestant, task)
                if turn:
                    rates.setdefault((who, name), []).append(found)
    return {key: statistics.median(values) for key, values in rates.items()}


def _serve(pipe: Connection, make: Callable[..., Callable[..., float]], arguments: tuple[Any, ...]) -> None:
    from sensorium.machine import tune_process

    tune_process()
    run = make(*arguments)
    with suppress(EOFError):  # the other end has gone
        while True:
            pipe.send(run(*pipe.recv()))
