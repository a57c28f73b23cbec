"""Settings of the process that make the same arithmetic faster on a CPU."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h


def keep_freed_memory() -> bool:
    """Ask the C library to keep freed memory for the next tensor instead of giving it back to the system.

    A training step frees and allocates the same large tensors again and again; with glibc's defaults each of them is
    mapped anew and its pages are zeroed on first touch, which took up to half of a step (docs/log.md). The cost: the
    process stays as large as its largest step. Returns whether the C library took both settings.

    Sensorium calls it when training or a pipeline starts, never on import.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # a C library without mallopt (musl)
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1))
