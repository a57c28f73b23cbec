"""What fewer bits change of translations: Multi30k's test 2016 by a trained model, in each dtype beside fp32.

    python benchmarks/translating_dtypes.py runs/translate-multi30k

How many of the 1 000 captions come out the same, greedily, and BLEU (cased, as ``benchmarks/multi30k.py``). Two rows
say what rounding alone does: fp32 with the weights rounded to bf16, and ``transformers`` in bf16 beside itself in fp32.
Appends to ``benchmarks/results/translating_dtypes.csv``.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent))
from _common import append, need
from _writing import cells, writer

from sensorium.data.corpora import lines
from sensorium.evaluate import evaluate_generation

MOST = 80
"""New tokens of a translation."""
BATCH = 50


def rounded(folder: str, to: str) -> str:
    """The same checkpoint, its weights rounded to bf16 and kept in float32."""
    shutil.copytree(folder, to, dirs_exist_ok=True)
    file = Path(to) / "model.safetensors"
    # Positions follow from the config and are not weights.
    tensors = {name: w if "embed_positions" in name else w.bfloat16().float() for name, w in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    return to


def peer(folder: str, sources: list[str], dtype: torch.dtype) -> list[str]:
    """What ``transformers`` writes, greedily, of batches of equal lengths or nearly so."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=dtype).eval()
    order = sorted(range(len(sources)), key=lambda n: len(sources[n]))
    written: dict[int, str] = {}
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        batch = tokenizer([sources[n] for n in chosen], return_tensors="pt", padding=True)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            tokens = model.generate(**inputs, max_new_tokens=MOST, num_beams=1, do_sample=False)
        written.update(zip(chosen, tokenizer.batch_decode(tokens, skip_special_tokens=True), strict=True))
    return [written[n] for n in range(len(sources))]


def main() -> None:
    """Translate once in each dtype."""
    if len(sys.argv) != 2:
        raise SystemExit("give the folder of a model that benchmarks/multi30k.py has trained")
    test = lines(f"{need('multi30k')}/test_2016_flickr.{{en,de}}.gz")
    sources = [record["text"] for record in test]
    rows = []

    def measure(name: str, reference: list[str], written: list[str], seconds: float) -> None:
        same = sum(a == b for a, b in zip(reference, written, strict=True)) / len(written)
        bleu = evaluate_generation(lambda _: written, test, task="translation", model=name).metrics["bleu"]
        rows.append([name, f"{same:.3f}", *cells(bleu), f"{seconds:.1f}"])

    def ours(folder: str, dtype: str) -> tuple[list[str], float]:
        begin = time.perf_counter()
        written = writer("translation", folder, dtype=dtype, num_beams=1, max_new_tokens=MOST)(sources)
        return written, time.perf_counter() - begin

    reference, seconds = ours(sys.argv[1], "fp32")
    measure("fp32", reference, reference, seconds)
    for dtype in ("bf16", "int8", "int8_weight_only"):
        measure(dtype, reference, *ours(sys.argv[1], dtype))
    with tempfile.TemporaryDirectory() as folder:
        measure("fp32, weights rounded to bf16", reference, *ours(rounded(sys.argv[1], folder), "fp32"))
    begin = time.perf_counter()
    theirs, in_bf16 = (peer(sys.argv[1], sources, dtype) for dtype in (torch.float32, torch.bfloat16))
    measure("transformers bf16", theirs, in_bf16, time.perf_counter() - begin)
    append("translating_dtypes", ["dtype", "same_as_fp32", "bleu", "bleu_interval", "seconds"], rows)


if __name__ == "__main__":
    main()
