"""What holds for every test: one thread, no network, the same examples every time."""

from __future__ import annotations

import os

# Before torch is loaded, so that the processes tests start inherit it. The models here are tiny: one thread is the
# fastest, and sums come out in the same order on every machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from hypothesis import HealthCheck, settings

settings.register_profile(
    "deterministic", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("deterministic")
