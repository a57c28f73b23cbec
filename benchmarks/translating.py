"""A translator of Marian's size beside CTranslate2: 6 + 6 layers of 512, 58 101 words, 32 sentences at a time.

    python benchmarks/translating.py

Random weights of the published shape (speed does not depend on their values), sources of 12 to 35 tokens, 24 tokens
written of each, greedily and with four beams, turn by turn in one run, two threads each, a process each: CTranslate2's
threads go on spinning for a while, and halve the speed of what comes next in their own process. Appends to
``benchmarks/results/translating.csv``.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers

sys.path.insert(0, str(Path(__file__).parent))
from _common import append
from _turns import Contestant, median_rates

from sensorium.checkpoint import open_checkpoint
from sensorium.infer.beam import beam_search
from sensorium.infer.conditioned import Conditioned
from sensorium.infer.engine import fast
from sensorium.infer.generate import generate
from sensorium.infer.settings import GenerationSettings
from sensorium.machine import usable_cores

WORDS, END, PAD = 58_101, 0, 58_100
NEW, SENTENCES, ROUNDS = 24, 32, 5
CONFIG = transformers.MarianConfig(
    vocab_size=WORDS, decoder_vocab_size=WORDS, d_model=512, encoder_layers=6, decoder_layers=6,
    encoder_attention_heads=8, decoder_attention_heads=8, encoder_ffn_dim=2048, decoder_ffn_dim=2048,
    max_position_embeddings=512, activation_function="swish", scale_embedding=True, pad_token_id=PAD,
    eos_token_id=END, bos_token_id=END, decoder_start_token_id=PAD, forced_eos_token_id=None,
)  # fmt: skip


def sources() -> list[list[int]]:
    """Token ids, each text with its end."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(12, 36, (SENTENCES,), generator=generator).tolist()
    return [[*torch.randint(2, PAD, (n,), generator=generator).tolist(), END] for n in lengths]


def ours(folder: str, dtype: str) -> Callable[[int], float]:
    """Our engine."""
    texts, model = sources(), fast(open_checkpoint(folder).model, dtype)

    def write(beams: int) -> float:
        begin = time.perf_counter()
        reader = Conditioned(model, texts)
        settings = GenerationSettings(max_new_tokens=NEW, num_beams=beams)
        if beams == 1:
            assert all(len(ids) == NEW for ids in generate(reader, reader.prompts, settings))
        else:
            assert all(len(best.token_ids) == NEW for best, *_ in beam_search(reader, reader.prompts, settings))
        return time.perf_counter() - begin

    return write


class _Words:
    """As much of a tokenizer as the converter asks for: a made-up word for each id."""

    unk_token, eos_token, bos_token, pad_token = "<unk>", "</s>", "</s>", "<pad>"

    def get_vocab(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(words())}


def words() -> list[str]:
    """The vocabulary's words by id."""
    return ["</s>", "<unk>", *(f"w{i}" for i in range(2, PAD)), "<pad>"]


def theirs(folder: str, compute_type: str) -> Callable[[int], float]:
    """CTranslate2, converted from the same checkpoint."""
    import ctranslate2
    from ctranslate2.converters.transformers import TransformersConverter

    class Converter(TransformersConverter):
        def load_tokenizer(self, *arguments: Any, **options: Any) -> Any:
            return _Words()

    target = f"{folder}/{compute_type}"
    Converter(folder).convert(target, quantization=compute_type)
    translator = ctranslate2.Translator(
        target, device="cpu", inter_threads=1, intra_threads=usable_cores(), compute_type=compute_type
    )
    known = words()
    texts = [[known[i] for i in ids] for ids in sources()]

    def write(beams: int) -> float:
        begin = time.perf_counter()
        found = translator.translate_batch(
            texts, beam_size=beams, max_decoding_length=NEW, min_decoding_length=NEW, max_batch_size=SENTENCES
        )
        assert all(len(one.hypotheses[0]) == NEW for one in found)
        return time.perf_counter() - begin

    return write


def tokens_per_second(contestant: Contestant, beams: int) -> float:
    """Of all sentences."""
    return SENTENCES * NEW / contestant.seconds(beams)


def main() -> None:
    """Take turns; report medians."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        transformers.MarianMTModel(CONFIG).eval().save_pretrained(folder)
        contestants = {"CTranslate2 int8": Contestant(theirs, folder, "int8")}
        contestants |= {f"sensorium {dtype}": Contestant(ours, folder, dtype) for dtype in ("fp32", "bf16", "int8")}
        medians = median_rates(contestants, {1: 1, 4: 4}, tokens_per_second, rounds=ROUNDS)
    peer = version("ctranslate2")
    rows = [
        [who, beams, f"{rate:.0f}", f"{rate / medians['CTranslate2 int8', beams]:.2f}", peer]
        for (who, beams), rate in medians.items()
    ]
    append("translating", ["what", "beams", "tokens_per_second", "times_ctranslate2_int8", "ctranslate2"], rows)


if __name__ == "__main__":
    main()
