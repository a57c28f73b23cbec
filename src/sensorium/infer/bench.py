"""What this machine can do at most, and what a model does of it."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensorium import cost, native
from sensorium.checkpoint import Checkpoint
from sensorium.data.batching import token_budget_batches
from sensorium.infer.batching import BATCH_TOKENS, pack_encodings
from sensorium.infer.decode import new_cache
from sensorium.infer.engine import fast
from sensorium.infer.fast_stack import FastStack, FastVocabulary
from sensorium.infer.packing import CODES, Dtype
from sensorium.models.decoder import DecoderLM
from sensorium.packed import Packed

ROUNDS = 5
ENERGY = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
"""The processor's own meter, where the system lets it be read."""
READ_BYTES = 2**28
CONTEXT, NEW_TOKENS = 64, 48


@dataclass(frozen=True)
class Ceilings:
    """The most this machine gives: products in a dtype, and reading memory."""

    flops: dict[str, float]
    """Operations a second, by dtype."""
    bandwidth: float
    """Bytes read a second."""


@dataclass(frozen=True)
class Work:
    """What a model did."""

    name: str
    tokens_per_second: float
    share: float
    """Of the ceiling that bounds it."""
    bound: str
    joules_per_token: float | None
    """``None`` where the processor's meter can't be read."""


def ceilings() -> Ceilings:
    """Measure them: about a second."""
    flops: dict[str, float] = {}
    rows, inputs, outputs = 1536, 768, 3072
    x = torch.randn(rows, inputs)
    for dtype in CODES:
        try:
            linear = FastVocabulary(torch.randn(outputs, inputs), None, dtype)
        except OSError:  # no kernels here
            continue
        flops[dtype] = 2 * rows * inputs * outputs / _least(lambda linear=linear: linear(x))  # type: ignore[misc]
    for dtype, name in (("fp32", "float32"), ("bf16", "bfloat16")):
        flops[dtype] = max(flops.get(dtype, 0.0), cost.peak_flops(name))
    return Ceilings(flops, bandwidth())


def bandwidth(tensors: Sequence[Tensor] = ()) -> float:
    """Bytes a second that all cores read together: these tensors, or an array that no cache holds.

    On a virtual machine it depends on where the bytes lie, so a model's limit is read from its own weights.
    """
    tensors = tensors or [torch.ones(READ_BYTES // 4)]
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def read() -> None:
        for tensor in tensors:
            size = tensor.numel() * tensor.element_size()
            native.library().sensorium_read(native.pointer(tensor), size, torch.get_num_threads())

    try:
        return total / _least(read)
    except OSError:  # no kernels here
        return total / _least(lambda: [tensor.sum() for tensor in tensors])


def weights_of(model: DecoderLM) -> list[Tensor]:
    """What every step of a decoder reads, as it lies in memory."""
    stack: Any = model.stack
    if isinstance(stack, FastStack):
        head: Any = model.language_model
        return [*stack.panels, head.packed.panels]
    return [*stack.parameters(), model.stem.tokens.weight]


def encoding_work(checkpoint: Checkpoint, texts: Sequence[str], dtype: Dtype, limits: Ceilings) -> Work:
    """Texts through the model's stem and stack, in batches of similar length."""
    model = fast(checkpoint.model, dtype)
    tokenizer = checkpoint.require_tokenizer()
    encodings = sorted(tokenizer.encode_batch(texts, max_length=checkpoint.language_config.max_length), key=len)
    batches = token_budget_batches(
        list(map(len, encodings)), np.arange(len(encodings)), batch_tokens=BATCH_TOKENS, window=0
    )
    packed = [pack_encodings([encodings[i] for i in batch]) for batch in batches]

    def run() -> None:
        for batch in packed:
            model(batch)

    seconds, joules = _median(run)
    total = sum(batch.num_tokens for batch in packed)
    flops = sum(cost.forward_flops(checkpoint.config, batch.lengths) for batch in packed)
    share = flops / seconds / limits.flops[dtype]
    return Work(f"encode, {dtype}", total / seconds, share, "products", joules and joules / total)


def decoding_work(checkpoint: Checkpoint, dtype: Dtype, *, num_sequences: int = 1) -> Work:
    """New tokens after a context: every one reads all weights, so that memory bounds it (few sequences at a time)."""
    model = fast(checkpoint.model, dtype)
    if not isinstance(model, DecoderLM):
        raise TypeError("an encoder does not decode")
    weights = weights_of(model)
    size = sum(tensor.numel() * tensor.element_size() for tensor in weights)
    prompts = [list(range(CONTEXT))] * num_sequences

    @torch.inference_mode()
    def run() -> None:
        cache = new_cache(model, num_sequences, CONTEXT + NEW_TOKENS)
        step = prompts
        for _ in range(NEW_TOKENS):
            batch = Packed.from_sequences(step, start_positions=cache.lengths)
            logits = model.next_token_logits(model(batch, cache)[batch.last])
            step = [[token] for token in logits.argmax(dim=-1).tolist()]

    seconds, joules = _median(run)
    tokens = NEW_TOKENS * num_sequences
    share = (NEW_TOKENS / seconds) * size / bandwidth(weights)
    return Work(f"decode × {num_sequences}, {dtype}", tokens / seconds, share, "memory", joules and joules / tokens)


def peak_memory() -> int:
    """Bytes this process has held at most."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _least(run: Callable[[], object]) -> float:
    return min(seconds for seconds, _ in _turns(run))


def _median(run: Callable[[], object]) -> tuple[float, float | None]:
    turns = list(_turns(run))
    joules = [energy for _, energy in turns if energy is not None]
    return statistics.median(seconds for seconds, _ in turns), statistics.median(joules) if joules else None


def _turns(run: Callable[[], object]) -> Iterator[tuple[float, float | None]]:
    """Seconds and joules of some turns, after one that warms up."""
    run()
    for _ in range(ROUNDS):
        energy, begin = _energy(), time.perf_counter()
        run()
        seconds, after = time.perf_counter() - begin, _energy()
        yield seconds, None if energy is None or after is None or after < energy else (after - energy) / 1e6


def _energy() -> int | None:
    try:
        return int(ENERGY.read_text())
    except (OSError, ValueError):
        return None
