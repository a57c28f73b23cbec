"""Real tokens per second of MLM + NSP pretraining, beside a padded loop over `transformers`, in one run.

    python benchmarks/pretraining.py

BERT 4×256, a vocabulary of 30 522, Wikipedia introductions in pairs of at most 128 tokens. All rows train the same
examples with the same AdamW settings and count only real tokens. The padded loop is the common one: batches of 32 as
they come, padded to the longest, logits for every token. It is measured first in the process as it starts, then again
under the memory settings that our training makes (`sensorium.machine`), taking turns with ours: those alone make it
faster. Compiled by `torch.compile` it is measured with every batch padded to the same length, so that it is compiled
once; packed batches have another shape every time, and each would be compiled anew. Appends to
``benchmarks/results/pretraining.csv``.
"""

from __future__ import annotations

import statistics
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

from sensorium.config import EncoderConfig, LearnedPositions, StackConfig, TokenStemConfig
from sensorium.data.batching import epoch_order
from sensorium.data.corpora import wikipedia
from sensorium.models.build import new_model
from sensorium.objectives._base import Batch
from sensorium.objectives.masked_token import MaskedToken
from sensorium.text.training import train_wordpiece
from sensorium.train.loop import Trainer
from sensorium.train.optim import OptimizerSettings
from sensorium.train.settings import LoopSettings

VOCABULARY, SIZE, LAYERS, HEADS, LENGTH = 30_522, 256, 4, 4, 128
ROUNDS, OUR_STEPS, THEIR_STEPS = 3, 8, 4


def ours(trainer: Trainer, steps: int) -> float:
    """Tokens per second of our loop over so many updates, from collating to the optimiser."""
    examples, batches = trainer._batches(0)
    trainer.clock, trainer.clock_tokens, trainer.started = time.perf_counter(), 0, time.perf_counter()
    before, begin = trainer.position.tokens, time.perf_counter()
    for batch in batches[trainer.position.step % 20 :][:steps]:
        trainer._step([[examples[i] for i in batch]])
    return (trainer.position.tokens - before) / (time.perf_counter() - begin)


def theirs(model: Any, optimizer: Any, batches: list[dict[str, torch.Tensor]], *, bf16: bool) -> float:
    """Real tokens per second of a padded loop over ``BertForPreTraining``."""
    tokens, begin = 0, time.perf_counter()
    for batch in batches:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tokens += int(batch["attention_mask"].sum())
    return tokens / (time.perf_counter() - begin)


def padded(
    objective: MaskedToken, examples: Any, tokenizer: Any, start: int, count: int, *, length: int | None = None
) -> list[dict[str, Any]]:
    """Batches of 32 examples, padded, masked by the same function as ours."""
    order, batches = epoch_order(0, 0, len(examples)), []
    for i in range(start, start + count):
        chosen = [examples[j] for j in order[i * 32 : (i + 1) * 32]]
        batch = objective.collate(chosen, tokenizer, np.random.default_rng(i))
        batches.append(padded_batch(batch, [example.segment_ids for example in chosen], length=length))
    return batches


def padded_batch(batch: Batch, segment_ids: list[Any], *, length: int | None = None) -> dict[str, Any]:
    """A packed batch as a rectangle, as long as its longest or ``length``: the arguments of ``BertForPreTraining``."""
    lengths = batch.packed.lengths
    ids, mask, types = (torch.zeros(len(lengths), length or max(lengths), dtype=torch.int64) for _ in range(3))
    labels = torch.full(ids.shape, -100)
    flat = torch.full((batch.packed.num_tokens,), -100)
    flat[batch.targets["rows"]] = batch.targets["masked_token"]
    for n, (values, wanted) in enumerate(
        zip(batch.packed.split(batch.packed.values), batch.packed.split(flat), strict=True)
    ):
        ids[n, : len(values)], mask[n, : len(values)], labels[n, : len(values)] = values, 1, wanted
        types[n, : len(values)] = torch.from_numpy(segment_ids[n])
    return {
        "input_ids": ids, "attention_mask": mask, "token_type_ids": types, "labels": labels,
        "next_sentence_label": batch.targets["next_sentence"],
    }  # fmt: skip


def model_config(objective: MaskedToken) -> EncoderConfig:
    """BERT 4×256."""
    stem = TokenStemConfig(VOCABULARY, SIZE, LearnedPositions(512), 2, 1e-12, 0.1)
    stack = StackConfig(SIZE, LAYERS, HEADS, 4 * SIZE, dropout=0.1, attention_dropout=0.1)
    return EncoderConfig(stem, stack).with_heads(**objective.heads())


def main() -> None:
    """Take turns, so that the machine's moods hit both; report medians."""
    records = wikipedia()[:3000]
    tokenizer = train_wordpiece((record["text"] for record in wikipedia()), VOCABULARY)
    objective = MaskedToken(max_length=LENGTH, sentences="next")
    prepared = objective.prepare(records, tokenizer)
    config = model_config(objective)
    examples = objective.examples(prepared, np.random.default_rng(0))
    peer = transformers.BertForPreTraining(
        transformers.BertConfig(
            vocab_size=VOCABULARY, hidden_size=SIZE, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
            intermediate_size=4 * SIZE,
        )
    ).train()  # fmt: skip
    compiled = torch.compile(peer)
    adamw = torch.optim.AdamW(peer.parameters(), lr=1e-4)
    speeds: dict[str, list[float]] = {}

    def measure_peer(turn: int, settings: str) -> None:
        batches = padded(objective, examples, tokenizer, turn * THEIR_STEPS, THEIR_STEPS)
        for name, bf16 in (("fp32", False), ("bf16 autocast", True)):
            name = f"transformers padded {name}{settings}"
            speeds.setdefault(name, []).append(theirs(peer, adamw, batches, bf16=bf16))

    for turn in range(ROUNDS + 1):  # the first warms up
        measure_peer(turn, "")
    with tempfile.TemporaryDirectory() as folder:
        trainers = {
            f"sensorium {name}": Trainer(
                new_model(config, seed=0), objective, tokenizer, prepared, None,
                LoopSettings(batch_tokens=8192, precision=precision, attention_dropout=dropout),
                OptimizerSettings(), Path(folder) / name, fingerprint="", quiet=True,
            )
            for name, precision, dropout in (
                ("bf16", "bf16", 0.0), ("bf16, attention dropout 0.1", "bf16", 0.1), ("fp32", "fp32", 0.0),
            )
        }  # fmt: skip
        for trainer in trainers.values():
            trainer.line = Quiet()  # type: ignore[assignment]
        for turn in range(ROUNDS + 1):
            for name, trainer in trainers.items():
                speeds.setdefault(name, []).append(ours(trainer, OUR_STEPS))
            measure_peer(turn, ", our memory settings")
            batches = padded(objective, examples, tokenizer, turn * THEIR_STEPS, THEIR_STEPS, length=LENGTH)
            name = "transformers bf16 autocast, our memory settings, torch.compile, all padded to 128"
            speeds.setdefault(name, []).append(theirs(compiled, adamw, batches, bf16=True))
    medians = {name: statistics.median(values[1:]) for name, values in speeds.items()}
    slowest, fastest_peer = medians["transformers padded fp32"], medians["transformers padded bf16 autocast"]
    header = ["what", "tokens_per_second", "times_padded_fp32", "times_padded_bf16"]
    rows = [[name, f"{v:.0f}", f"{v / slowest:.1f}", f"{v / fastest_peer:.1f}"] for name, v in medians.items()]
    append("pretraining", header, rows)


class Quiet:
    """A progress line that shows nothing."""

    class console:
        """As the real one."""

        is_terminal = True

    def update(self, step: int, text: str) -> None:
        """Show nothing."""

    def line(self, text: str) -> None:
        """Show nothing."""


if __name__ == "__main__":
    main()
