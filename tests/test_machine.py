"""Process settings."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sensorium import machine
from sensorium.machine import PRIMITIVES, keep_freed_memory, limit_threads, tune_process, usable_cores

PROGRAM = """
import resource, torch
from sensorium.machine import keep_freed_memory
assert keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(8_000_000)  # 32 MB: 7 800 pages each time they are mapped anew
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_large_tensors_reuse_the_pages_of_those_before_them() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 7_800


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    tune_process()
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == PRIMITIVES
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    tune_process()
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "7"


def system(root: Path, monkeypatch: pytest.MonkeyPatch, *, siblings: list[str], files: dict[str, str]) -> Path:
    """A machine whose logical core n is one of ``siblings[n]``, with these files under ``sys/fs/cgroup``."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(len(siblings))), raising=False)
    for number, names in enumerate(siblings):
        path = root / f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list"
        path.parent.mkdir(parents=True)
        path.write_text(names + "\n")
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


PAIRS = ["0,4", "1,5", "2,6", "3,7"] * 2


@pytest.mark.parametrize(
    ("siblings", "files", "cores"),
    [
        (PAIRS, {}, 4),
        (["0", "1", "2"], {}, 3),
        (PAIRS, {"cpu.max": "max 100000"}, 4),
        (PAIRS, {"cpu.max": "150000 100000"}, 2),
        (PAIRS, {"cpu.max": "10000 100000"}, 1),
        (PAIRS, {"cpu.max": "nonsense"}, 4),
        (PAIRS, {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        (PAIRS, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 4),
    ],
)
def test_usable_cores_are_whole_cores_within_the_container_s_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, siblings: list[str], files: dict[str, str], cores: int
) -> None:
    assert usable_cores(system(tmp_path, monkeypatch, siblings=siblings, files=files)) == cores


def test_where_the_system_says_nothing_every_logical_core_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert usable_cores(tmp_path) == 3


def test_threads_are_limited_unless_the_user_has_said_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[int] = []
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    monkeypatch.setenv("OMP_NUM_THREADS", "16")
    limit_threads()
    monkeypatch.delenv("OMP_NUM_THREADS")
    limit_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    limit_threads()
    assert set_to == [2]
