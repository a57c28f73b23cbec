"""Sentence embeddings of real texts: the engine and its peers, turn by turn in one run.

    python benchmarks/peers.py [--rounds 5]

all-MiniLM-L6-v2 (its real weights), 1 000 texts of natural length: first sentences of Wikipedia introductions, and
every twentieth introduction whole. Everyone gets them as a list of strings and gives an array [1 000, 384]: tokenising,
sorting and pooling are part of the work. Everyone has a process of its own and takes its turn while the others wait.
Every peer sorts by length and has the batch size it is fastest with here; only the first row is a library as it comes.
Peers that are not installed are left out:

    pip install 'sensorium[peers]'

Appends to ``benchmarks/results/peers.csv``, draws ``docs/assets/peers.svg`` and writes the table of
``docs/performance.md``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
import tables
from _common import MINILM, append

from sensorium import pipeline
from sensorium.data.corpora import wikipedia
from sensorium.text import open_tokenizer

Embed = Callable[[list[str]], np.ndarray]
LENGTH = 256


def real_texts(count: int = 1000) -> list[str]:
    """First sentences, and every twentieth text whole."""
    records = wikipedia()[:count]
    return [r["text"] if i % 20 == 0 else re.split(r"(?<=[.!?])\s", r["text"])[0] for i, r in enumerate(records)]


def in_batches(texts: list[str], size: int, run: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Sort by length, pad each batch to its longest, pool the mean and normalise: what a padded peer needs.

    ``run`` takes token ids and mask [n, L] and gives hidden states [n, L, D].
    """
    encodings = TOKENIZER.encode_batch(texts, max_length=LENGTH)
    order = np.argsort([-len(encoding) for encoding in encodings], kind="stable")
    result = np.zeros((len(texts), 384), np.float32)
    for start in range(0, len(texts), size):
        chosen = order[start : start + size]
        ids = np.zeros((len(chosen), len(encodings[chosen[0]])), np.int64)
        mask = np.zeros_like(ids)
        for row, n in enumerate(chosen):
            length = len(encodings[n])
            ids[row, :length], mask[row, :length] = encodings[n].token_ids, 1
        hidden = run(ids, mask)  # [n, L, D]
        sums = np.einsum("nld,nl->nd", hidden, mask.astype(np.float32))
        result[chosen] = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return result


TOKENIZER = open_tokenizer(MINILM)

# --- who takes part: each of these makes the function that embeds, in its own process ---


def sensorium(dtype: str, calibrate: bool = False) -> Embed:
    """The engine."""
    calibration = [record["text"] for record in wikipedia()[1000:1100]] if calibrate else None
    return partial(pipeline("sentence-embedding", MINILM, dtype=dtype, calibration=calibration), long_text="truncate")


def sentence_transformers() -> Embed:
    """The library as it comes."""
    from sentence_transformers import SentenceTransformer

    return partial(SentenceTransformer(str(MINILM), device="cpu").encode, show_progress_bar=False)


def transformers(dtype: str) -> Embed:
    """The library's model in sorted batches."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(MINILM, dtype=getattr(torch, dtype)).eval()

    @torch.inference_mode()
    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        output = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
        hidden: np.ndarray = output.last_hidden_state.float().numpy()
        return hidden

    return partial(in_batches, size=32, run=run)


def onnx_runtime(path: Path) -> Embed:
    """ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        hidden: np.ndarray = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return hidden

    return partial(in_batches, size=16, run=run)


def openvino(path: Path, precision: str, quantise: bool = False) -> Embed:
    """OpenVINO; int8 by NNCF, its calibrated scheme for Transformers, with bf16 between."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    if quantise:
        import nncf

        rows = [np.asarray([e.token_ids]) for e in TOKENIZER.encode_batch(real_texts()[:300:3], max_length=LENGTH)]
        data = nncf.Dataset([{"input_ids": ids, "attention_mask": np.ones_like(ids)} for ids in rows])
        model = nncf.quantize(model, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(rows))
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = core.compile_model(model, "CPU", settings)

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        hidden: np.ndarray = compiled({"input_ids": ids, "attention_mask": mask})[0]
        return hidden

    return partial(in_batches, size=16, run=run)


def ctranslate2(folder: Path, kind: str) -> Embed:
    """CTranslate2."""
    import ctranslate2

    encoder = ctranslate2.Encoder(
        str(folder), compute_type=kind, inter_threads=1, intra_threads=torch.get_num_threads()
    )

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        lengths = mask.sum(axis=1).astype(np.int32)
        views = (ctranslate2.StorageView.from_array(x) for x in (ids.astype(np.int32), lengths))
        return np.asarray(encoder.forward_batch(*views).last_hidden_state)

    return partial(in_batches, size=32, run=run)


def contestants(folder: Path) -> dict[str, tuple[str, Callable[..., Embed], tuple[Any, ...]]]:
    """Name → dtype, maker and its arguments, of everyone that is installed."""
    found: dict[str, tuple[str, Callable[..., Embed], tuple[Any, ...]]] = {
        FIRST: ("fp32", sentence_transformers, ()),
        "transformers fp32": ("fp32", transformers, ("float32",)),
        "transformers bf16": ("bf16", transformers, ("bfloat16",)),
    }
    path = folder / "model.onnx"
    if find_spec("onnx"):
        exported(path)
    if path.exists() and find_spec("onnxruntime"):
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(path, folder / "int8.onnx", weight_type=QuantType.QInt8, per_channel=True)
        found["ONNX Runtime fp32"] = ("fp32", onnx_runtime, (path,))
        found["ONNX Runtime int8"] = ("int8", onnx_runtime, (folder / "int8.onnx",))
    if path.exists() and find_spec("openvino"):
        found["OpenVINO fp32"] = ("fp32", openvino, (path, "f32"))
        found["OpenVINO bf16"] = ("bf16", openvino, (path, "bf16"))
        if find_spec("nncf"):
            found["OpenVINO int8"] = ("int8", openvino, (path, "bf16", True))
    if find_spec("ctranslate2"):
        from ctranslate2.converters import TransformersConverter

        TransformersConverter(str(MINILM)).convert(str(folder / "ct2"), force=True)
        found["CTranslate2 fp32"] = ("fp32", ctranslate2, (folder / "ct2", "float32"))
        found["CTranslate2 int8"] = ("int8", ctranslate2, (folder / "ct2", "int8"))
    found |= {f"sensorium {dtype}": (dtype, sensorium, (dtype,)) for dtype in ("fp32", "bf16", "int8")}
    return found | {"sensorium int8, smoothed": ("int8", sensorium, ("int8", True))}


FIRST = "sentence-transformers as it comes"


def exported(path: Path) -> None:
    """Write the model as an ONNX file."""
    from transformers import AutoModel

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(MINILM, attn_implementation="eager").eval()

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            hidden: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            return hidden

    axes = {0: torch.export.Dim("n", min=1, max=4096), 1: torch.export.Dim("l", min=2, max=LENGTH)}
    ids, mask = torch.ones(2, 3, 7, dtype=torch.int64).unbind()  # one tensor twice would become one input
    torch.onnx.export(
        Plain(), (ids, mask), path, input_names=["input_ids", "attention_mask"], output_names=["hidden"],
        dynamic_shapes={"input_ids": axes, "attention_mask": axes}, dynamo=True,
    )  # fmt: skip


# --- turn by turn ---


def work(connection: Connection, maker: Callable[..., Embed], arguments: tuple[Any, ...]) -> None:
    """A contestant's process: its vectors, then the seconds of every turn it is given."""
    texts, embed = real_texts(), maker(*arguments)
    connection.send(np.asarray(embed(texts)))
    while connection.recv():
        begin = time.perf_counter()
        embed(texts)
        connection.send(time.perf_counter() - begin)


def main() -> None:
    """Medians and spread of the turns, cosine with the first."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    tokens = sum(map(len, TOKENIZER.encode_batch(real_texts(), max_length=LENGTH)))
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        everyone = contestants(Path(folder))
        lines: dict[str, Connection] = {}
        vectors: dict[str, np.ndarray] = {}
        for name, (_, maker, arguments) in everyone.items():
            lines[name], theirs = context.Pipe()
            context.Process(target=work, args=(theirs, maker, arguments), daemon=True).start()
            vectors[name] = lines[name].recv()
        seconds: dict[str, list[float]] = {name: [] for name in everyone}
        for _ in range(rounds):
            for name, line in lines.items():
                line.send(True)
                seconds[name].append(line.recv())
        for line in lines.values():
            line.send(False)
    oracle, first = vectors[FIRST].astype(np.float64), statistics.median(seconds[FIRST])
    rows = []
    for name, times in seconds.items():
        cosine = (oracle * vectors[name]).sum(axis=1) / np.linalg.norm(vectors[name], axis=1)
        median = statistics.median(times)
        rows.append(
            [name, everyone[name][0], f"{tokens / median:.0f}", f"{tokens / max(times):.0f}–{tokens / min(times):.0f}",
             f"{first / median:.2f}", f"{cosine.mean():.6f}", f"{cosine.min():.6f}"]
        )  # fmt: skip
    append("peers", ["what", "dtype", "tokens_per_second", "spread", "times_first", "cosine", "least_cosine"], rows)
    tables.main()


if __name__ == "__main__":
    main()
