"""Settings of the process that make the same arithmetic faster on a CPU."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from functools import cache
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h


PRIMITIVES = "128"
"""How many compiled matrix products oneDNN keeps: packed batches have many shapes, and each keeps its own code and
scratch memory; the library's default of 1 024 came to gigabytes in a long run (docs/log.md)."""


def tune_process() -> None:
    """All of the settings below. Called when training or a pipeline starts, never on import."""
    keep_freed_memory()
    limit_threads()
    # Read by oneDNN when it compiles its first product; what the user has set stays.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", PRIMITIVES)


def keep_freed_memory() -> bool:
    """Ask the C library to keep freed memory for the next tensor instead of giving it back to the system.

    A training step frees and allocates the same large tensors again and again; with glibc's defaults each of them is
    mapped anew and its pages are zeroed on first touch, which took up to half of a step (docs/log.md). The cost: the
    process stays as large as its largest step. Returns whether the C library took both settings.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # a C library without mallopt (musl)
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1))


def limit_threads() -> None:
    """No more of torch's threads than there are cores to run them; what ``OMP_NUM_THREADS`` says stays."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > usable_cores():
        torch.set_num_threads(usable_cores())


@cache
def usable_cores(root: Path = Path("/")) -> int:
    """Cores that this process may keep busy, at least 1.

    Fewer than the logical cores of the machine where the process is bound to some of them, where two of them are one
    core (products gain nothing by sharing one), and where a container may use only so much time of all. ``root`` is
    where ``sys`` lies.
    """
    logical = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    cores = {_read(root / f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list") or str(n) for n in logical}
    quota, period = "max", ""
    if limits := _read(root / "sys/fs/cgroup/cpu.max").split():  # cgroup v2: "200000 100000", or "max 100000"
        quota, period = limits[0], limits[-1]
    elif _read(root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us"):  # v1: -1 for no limit
        quota, period = (_read(root / f"sys/fs/cgroup/cpu/cpu.cfs_{name}_us") for name in ("quota", "period"))
    limited = quota.isdecimal() and period.isdecimal() and int(period) > 0
    return max(1, min(len(cores), math.ceil(int(quota) / int(period)) if limited else len(cores)))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):  # another system, or no right to look
        return ""
