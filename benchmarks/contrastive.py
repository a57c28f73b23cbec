"""Pairs a second of CLIP training, beside open_clip's model and loss in a plain loop, on one thread each.

    OMP_NUM_THREADS=1 python benchmarks/contrastive.py

Two towers of 6 layers of 256: 64 pixels in patches of 8, texts of at most 77 tokens, which are the names of icons. Both
have as many weights, see the same pairs and use the same AdamW. open_clip fills every text up to 77 tokens, as it
always does, and is handed pixels and tokens that are made ready before the clock starts; ours are measured from the
pictures as they are. Contestants take turns, each in a process of its own under our memory settings. Seconds are those
of the processor, which on one thread are the clock's, but that other work beside it does not count. bf16 is ours where
the processor multiplies it; elsewhere torch does open_clip's with float32 products and roundings in between.
Appends to ``benchmarks/results/contrastive.csv``.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from _common import append
from _turns import Contestant, median_rates

from sensorium.config import DualEncoderConfig
from sensorium.data.batching import epoch_order
from sensorium.data.corpora import read_corpus
from sensorium.image.opening import normalised
from sensorium.models.build import new_model
from sensorium.objectives.contrastive import Contrastive
from sensorium.text.training import train_wordpiece
from sensorium.train.loop import Trainer
from sensorium.train.new_models import new_config, new_image_settings
from sensorium.train.optim import OptimizerSettings
from sensorium.train.recipe import ModelSection
from sensorium.train.settings import LoopSettings, resolve_precision

SIZES = ModelSection(
    family="clip", hidden_size=256, num_layers=6, num_heads=4, max_length=77, image_size=64, patch_size=8
)
VOCABULARY, PAIRS, BATCH = 8_000, 2_048, 128
RATE = OptimizerSettings(learning_rate=5e-4, weight_decay=0.2, betas=(0.9, 0.98), epsilon=1e-6, clip=1.0)
ROUNDS = 3
Turn = Callable[[int], float]
"""So many updates → the seconds of the processor that they took."""


def material() -> tuple[Contrastive, DualEncoderConfig, Any, list[Any]]:
    """The objective, the model's config, the tokenizer, and the pairs made ready."""
    records = read_corpus("icons:validation")[:PAIRS]
    tokenizer = train_wordpiece((record["text"] for record in records), VOCABULARY, family="clip")
    config = new_config(SIZES, {}, tokenizer)
    assert isinstance(config, DualEncoderConfig)
    objective = Contrastive(new_image_settings(SIZES), config.image.stem, SIZES.max_length)
    return objective, config, tokenizer, objective.prepare(records, tokenizer)


def ours(precision: str) -> Turn:
    """Our loop, from pictures to the optimiser."""
    objective, config, tokenizer, prepared = material()
    loop = LoopSettings(batch_size=BATCH, precision=precision, by_length=False)  # type: ignore[arg-type]
    folder = tempfile.mkdtemp()
    trainer = Trainer(
        new_model(config, seed=0), objective, tokenizer, prepared, None, loop, RATE, Path(folder), fingerprint="",
        quiet=True,
    )  # fmt: skip
    trainer._report = lambda *_: None  # type: ignore[method-assign]  # nobody reads the progress line
    trainer.started = time.perf_counter()

    def turn(steps: int) -> float:
        examples, batches = trainer._batches(0)
        begin = time.process_time()
        for k in range(steps):
            trainer._step([[examples[i] for i in batches[k]]])
        return time.process_time() - begin

    return turn


def theirs(bf16: bool) -> Turn:
    """open_clip's model and loss, and what stands around them in every loop."""
    import open_clip

    objective, config, tokenizer, prepared = material()
    model = open_clip.model.CLIP(
        SIZES.hidden_size,
        {
            "layers": SIZES.num_layers, "width": SIZES.hidden_size, "image_size": SIZES.image_size,
            "patch_size": SIZES.patch_size,
        },
        {
            "layers": SIZES.num_layers, "width": SIZES.hidden_size, "heads": SIZES.num_heads,
            "context_length": SIZES.max_length, "vocab_size": tokenizer.vocabulary_size, "pool_type": "eos",
            "eos_id": config.end_token_id,
        },
    ).train()  # fmt: skip
    weights = [sum(p.numel() for p in m.parameters()) for m in (model, new_model(config, seed=0))]
    assert weights[0] == weights[1], f"open_clip's model has {weights[0]:,} weights, ours {weights[1]:,}"
    plain = [p for p in model.parameters() if p.dim() < 2]
    decayed = [p for p in model.parameters() if p.dim() > 1]
    optimizer = torch.optim.AdamW(
        [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": RATE.weight_decay}],
        lr=RATE.learning_rate, betas=RATE.betas, eps=RATE.epsilon,
    )  # fmt: skip
    loss = open_clip.loss.ClipLoss()
    batches = [padded(objective, prepared, tokenizer, k) for k in range(4)]

    def turn(steps: int) -> float:
        begin = time.process_time()
        for k in range(steps):
            images, texts = batches[k % len(batches)]
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                total = loss(*model(images, texts))
            total.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), RATE.clip)
            optimizer.step()
            optimizer.zero_grad()
        return time.process_time() - begin

    return turn


def padded(objective: Contrastive, prepared: Any, tokenizer: Any, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The pairs of our batch k, as [N, 3, H, W] and [N, 77]."""
    order = epoch_order(0, 0, len(prepared))[k * BATCH : (k + 1) * BATCH]
    chosen = [prepared[i] for i in order]
    images = torch.stack([normalised(example.pixels, objective.images) for example in chosen])
    texts = torch.zeros(len(chosen), SIZES.max_length, dtype=torch.int64)
    for row, example in zip(texts, chosen, strict=True):
        row[: len(example)] = torch.from_numpy(example.token_ids.astype(np.int64))
    return images, texts


def main() -> None:
    """Turn by turn."""
    contestants = {
        "open_clip fp32": Contestant(theirs, False),
        "open_clip bf16 autocast": Contestant(theirs, True),
        "sensorium fp32": Contestant(ours, "fp32"),
    }
    if resolve_precision("auto", torch.device("cpu")) == "bf16":
        contestants["sensorium bf16"] = Contestant(ours, "bf16")
    work = {"pairs": int(sys.argv[1]) if len(sys.argv) > 1 else 2}
    rates = median_rates(contestants, work, lambda who, steps: steps * BATCH / who.seconds(steps), rounds=ROUNDS)
    speeds = {who: rates[who, "pairs"] for who in contestants}
    rows = [
        [who, torch.get_num_threads(), f"{speed:.1f}", *(f"{speed / speeds[f'open_clip {peer}']:.2f}" for peer in
         ("fp32", "bf16 autocast"))]
        for who, speed in speeds.items()
    ]  # fmt: skip
    append("contrastive", ["what", "threads", "images_per_second", "times_fp32", "times_bf16_autocast"], rows)


if __name__ == "__main__":
    main()
