"""What the benchmarks of models that write share: texts in, texts out, and the scores as a row of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sensorium import open_checkpoint
from sensorium.evaluate import Comparison, Estimate
from sensorium.infer.conditioned import Conditioned
from sensorium.infer.settings import GenerationSettings
from sensorium.infer.write import write

AT_A_TIME = 32


def writer(folder: str | Path, settings: GenerationSettings) -> Callable[[Sequence[str]], list[str]]:
    """What an encoder–decoder in a folder writes for texts; those longer than it reads are cut."""
    checkpoint = open_checkpoint(folder)
    model, tokenizer = checkpoint.model.eval(), checkpoint.require_tokenizer()

    def texts(sources: Sequence[str]) -> list[str]:
        encoded = tokenizer.encode_batch(list(sources), max_length=model.config.max_length)
        order = sorted(range(len(encoded)), key=lambda n: len(encoded[n].token_ids))
        written = [""] * len(encoded)
        for start in range(0, len(order), AT_A_TIME):
            rows = order[start : start + AT_A_TIME]
            conditioned = Conditioned(model, [encoded[n].token_ids for n in rows])
            answers = write(conditioned, conditioned.prompts, settings, tokenizer)
            for n, [best, *_] in zip(rows, answers, strict=True):
                written[n] = (best.text or "").strip()
        return written

    return texts


def cells(estimate: Estimate, digits: int = 2) -> list[str]:
    """A score and its interval."""
    return [f"{estimate.value:.{digits}f}", f"{estimate.low:.{digits}f}–{estimate.high:.{digits}f}"]


def compared(one: Comparison, digits: int) -> str:
    """A paired difference in a line."""
    d = one.difference
    numbers = f"{d.value:+.{digits}f} ({d.low:+.{digits}f} to {d.high:+.{digits}f})"
    return f"{one.a} - {one.b}: {one.metric} {numbers}, p = {one.p_value:.2g}"
