"""The log of a resumed run is that of one that was never stopped."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from sensorium.train.interruption import Interruption
from sensorium.train.log import JsonLog


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_a_resumed_log_drops_what_came_after_and_a_line_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    log = JsonLog(path, resume_step=0)
    for step in range(1, 6):
        log.write(kind="train", step=step)
    log.file.write('{"kind": "train", "st')
    log.close()
    log = JsonLog(path, resume_step=3)
    log.write(kind="train", step=4)
    log.close()
    assert steps(path) == [1, 2, 3, 4]


def test_a_new_run_begins_an_empty_log(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"step": 1}\n')
    JsonLog(path, resume_step=0).close()
    assert steps(path) == []


def test_a_first_signal_asks_and_a_second_stops() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), Interruption() as interruption:
        assert not interruption.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.requested
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
