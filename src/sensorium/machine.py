"""Settings of the process that make the same arithmetic faster on a CPU."""

from __future__ import annotations

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h


PRIMITIVES = "128"
"""How many compiled matrix products oneDNN keeps: packed batches have many shapes, and each keeps its own code and
scratch memory; the library's default of 1 024 came to gigabytes in a long run (docs/log.md)."""


def tune_process() -> None:
    """All of the settings below. Called when training or a pipeline starts, never on import."""
    keep_freed_memory()
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
