"""The loss after the same tokens: ours on the kernels and on torch's operators, and a padded `transformers` loop.

    python benchmarks/pretraining_loss.py

The model and data of ``pretraining.py``. All begin with the same weights and see the same examples, hidden tokens and
updates in the same order; dropout is drawn by each on its own. What is compared is the loss on held-out documents,
worked out by the same code for all. Appends to ``benchmarks/results/pretraining_loss.csv``.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parent))
from _common import append
from pretraining import LENGTH, VOCABULARY, Quiet, model_config, padded_batch

from sensorium import open_checkpoint, save_checkpoint
from sensorium.data.corpora import wikipedia
from sensorium.models.build import new_model
from sensorium.objectives.masked_token import MaskedToken
from sensorium.text.training import train_wordpiece
from sensorium.train.loop import COLLATE, Trainer
from sensorium.train.optim import OptimizerSettings, learning_rate_factor, rising_steps
from sensorium.train.settings import LoopSettings
from sensorium.train.validation import validation_scores

UPDATES, HELD_OUT, RATE = 60, 300, 5e-4
SETTINGS = OptimizerSettings(learning_rate=RATE, schedule="constant", warmup=0.1)


def ours(
    model: Any, data: Any, tokenizer: Any, objective: Any, folder: Path, precision: Any, *, kernels: bool
) -> tuple[int, float]:
    """Tokens and seconds of the updates; the model ends in float32."""
    settings = LoopSettings(batch_tokens=8192, precision=precision, steps=UPDATES, checkpoint_every=10**9)
    trainer = Trainer(model, objective, tokenizer, data, None, settings, SETTINGS, folder, fingerprint="", quiet=True)
    trainer.line = Quiet()  # type: ignore[assignment]
    if not kernels:
        model.stack.kernel = None
    begin = time.perf_counter()
    outcome = trainer.run()
    return outcome.position.tokens, time.perf_counter() - begin


def theirs(model: Any, batches: list[Any]) -> float:
    """Seconds of the same updates, padded, in float32."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": SETTINGS.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=RATE, betas=SETTINGS.betas, eps=SETTINGS.epsilon)
    begin = time.perf_counter()
    for step, batch in enumerate(batches):
        for group in adamw.param_groups:
            group["lr"] = RATE * learning_rate_factor(step, UPDATES, rising_steps(SETTINGS, UPDATES), SETTINGS.schedule)
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), SETTINGS.clip)
        adamw.step()
        adamw.zero_grad()
    return time.perf_counter() - begin


def main() -> None:
    """One run of each."""
    records = wikipedia()[: 3000 + HELD_OUT]
    tokenizer = train_wordpiece((record["text"] for record in wikipedia()), VOCABULARY)
    objective = MaskedToken(max_length=LENGTH, sentences="next")
    data, held_out = (objective.prepare(part, tokenizer) for part in (records[:3000], records[3000:]))
    model = new_model(model_config(objective), seed=0)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start"
        save_checkpoint(start, model, tokenizer, family="bert")

        def add(name: str, trained: Any, tokens: int, seconds: float) -> None:
            score = validation_scores(trained.eval(), objective, tokenizer, held_out, 0)
            rows.append([name, UPDATES, tokens, f"{score['loss']:.3f}", f"{seconds:.0f}"])
            print(*rows[-1])

        add("before", model, 0, 0.0)
        for name, precision, kernels in (
            ("sensorium bf16", "bf16", True), ("sensorium fp32", "fp32", True),
            ("sensorium bf16, torch's operators", "bf16", False),
        ):  # fmt: skip
            trained = open_checkpoint(start).model
            tokens, seconds = ours(trained, data, tokenizer, objective, Path(folder) / name, precision, kernels=kernels)
            add(name, trained, tokens, seconds)
        trainer = Trainer(
            open_checkpoint(start).model, objective, tokenizer, data, None, LoopSettings(batch_tokens=8192, epochs=9),
            SETTINGS, Path(folder) / "order", fingerprint="", quiet=True,
        )  # fmt: skip
        batches, tokens = [], 0
        for epoch in range(9):
            examples, chosen = trainer._batches(epoch)
            for number, indices in enumerate(chosen[: UPDATES - len(batches)]):
                generator = np.random.default_rng((0, COLLATE, epoch, number))
                batch = objective.collate([examples[i] for i in indices], tokenizer, generator)
                tokens += batch.packed.num_tokens
                batches.append(padded_batch(batch, [examples[i].segment_ids for i in indices]))
        peer = transformers.BertForPreTraining.from_pretrained(start).train()
        seconds = theirs(peer, batches)
        peer.save_pretrained(Path(folder) / "peer")
        tokenizer_files = [p for p in start.iterdir() if "token" in p.name or p.name == "vocab.txt"]
        for file in tokenizer_files:
            (Path(folder) / "peer" / file.name).write_bytes(file.read_bytes())
        add("transformers padded fp32", open_checkpoint(Path(folder) / "peer").model, tokens, seconds)
    append("pretraining_loss", ["what", "updates", "tokens", "held_out_loss", "seconds"], rows)


if __name__ == "__main__":
    main()
