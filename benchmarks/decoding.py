"""GPT-2 (124M) decoding beside `transformers`, and as a share of what memory allows.

    python benchmarks/decoding.py

Random weights of the published shape (speed does not depend on their values), greedy, 64 tokens of context and 64 new
ones, one sequence and eight at a time (with a context each: equal ones would be computed once), turn by turn in one
run, all under our memory settings. The limit is how often all cores can read the weights a second, doing nothing else,
measured every turn. Appends to ``benchmarks/results/decoding.csv``.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

sys.path.insert(0, str(Path(__file__).parent))
from _common import append

from sensorium.checkpoint import open_checkpoint
from sensorium.infer.bench import bandwidth, weights_of
from sensorium.infer.engine import fast
from sensorium.infer.generate import generate
from sensorium.infer.settings import GenerationSettings
from sensorium.machine import tune_process

CONTEXT, NEW, ROUNDS = 64, 64, 5


def prompts(count: int) -> list[list[int]]:
    """Contexts that share no beginning."""
    return [[*range(n, n + CONTEXT)] for n in range(count)]


def ours(model: Any, count: int) -> None:
    """Our generation loop."""
    assert all(len(new) == NEW for new in generate(model, prompts(count), GenerationSettings(max_new_tokens=NEW)))


def theirs(model: Any, count: int) -> None:
    """The library's generation loop."""
    ids = torch.tensor(prompts(count))
    options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
    with torch.inference_mode():
        output = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
    assert output.shape == (count, CONTEXT + NEW)


def main() -> None:
    """Take turns; report medians."""
    tune_process()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        transformers.GPT2LMHeadModel(transformers.GPT2Config()).save_pretrained(folder)
        opened = open_checkpoint(folder).model
        contestants: dict[tuple[str, str], tuple[Callable[[Any, int], None], Any]] = {}
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            peer = transformers.GPT2LMHeadModel.from_pretrained(folder, dtype=dtype).eval()
            contestants["transformers", name] = (theirs, peer)
        for name in ("fp32", "bf16", "int8", "int8_weight_only", "int4_weight_only"):
            contestants["sensorium", name] = (ours, fast(opened, name))
    seconds: dict[tuple[str, str, int], list[float]] = {}
    shares: dict[tuple[str, str, int], list[float]] = {}
    for turn in range(ROUNDS + 1):  # the first warms up
        for (who, name), (run, model) in contestants.items():
            for count in (1, 8):
                begin = time.perf_counter()
                run(model, count)
                if turn:
                    seconds.setdefault((who, name, count), []).append(time.perf_counter() - begin)
                if turn and who == "sensorium":
                    weights = weights_of(model)
                    limit = bandwidth(weights) / sum(tensor.numel() * tensor.element_size() for tensor in weights)
                    taken = NEW / seconds[who, name, count][-1]
                    shares.setdefault((who, name, count), []).append(taken / limit)
    medians = {key: statistics.median(times) for key, times in seconds.items()}
    rows = []
    for (who, name, count), median in medians.items():
        share = f"{statistics.median(shares[who, name, count]):.3f}" if who == "sensorium" else ""
        times = medians["transformers", "bf16", count] / median
        rows.append([f"{who} {name}", count, f"{NEW * count / median:.1f}", share, f"{times:.2f}"])
    append(
        "decoding", ["what", "sequences", "tokens_per_second", "share_of_bandwidth", "times_transformers_bf16"], rows
    )


if __name__ == "__main__":
    main()
