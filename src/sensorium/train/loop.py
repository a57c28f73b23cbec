"""The one training loop.

Everything random is a function of (seed, epoch, batch) or (seed, step), so a run that was killed goes on bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensorium import cost
from sensorium.config import num_layers
from sensorium.data.batching import WINDOW, Example, epoch_order, token_budget_batches
from sensorium.errors import DataError, TrainingError
from sensorium.machine import tune_process
from sensorium.objectives._base import Batch, Objective, total_counts, weighted
from sensorium.train.interruption import Interruption
from sensorium.train.log import JsonLog, LiveLine, TensorBoard, duration
from sensorium.train.optim import MasterAdamW, MovingAverage, OptimizerSettings, learning_rate_factor, rising_steps
from sensorium.train.settings import LoopSettings, resolve_device, resolve_precision, set_dropout
from sensorium.train.stack_kernel import compile_stacks, leave_kernels
from sensorium.train.state import Position, discard_states, load_state, save_state
from sensorium.train.validation import Judge, validation_scores

# What a generator is seeded with beside (seed, epoch …), so that no two uses share their numbers.
EXAMPLES, COLLATE = 1, 2


@dataclass(frozen=True)
class Outcome:
    """How a run ended. The model holds the weights to keep."""

    position: Position
    finished: bool
    """``False``: it was interrupted, and its state saved."""
    log: Path


class Trainer:
    """A run: model, objective, data, and where it stands."""

    def __init__(
        self,
        model: Any,
        objective: Objective,
        tokenizer: Any,
        train: Any,
        validation: Any,
        settings: LoopSettings,
        optimizer: OptimizerSettings,
        folder: Path,
        *,
        fingerprint: str,
        judge: Judge | None = None,
        resume: bool = False,
        tensorboard: bool = False,
        quiet: bool = False,
    ) -> None:
        """``train`` and ``validation`` (or ``None``) come from ``objective.prepare``; ``folder`` takes the state."""
        tune_process()
        folder.mkdir(parents=True, exist_ok=True)
        self.model, self.objective, self.tokenizer = model, objective, tokenizer
        self.train_data, self.validation, self.judge = train, validation, judge
        self.settings, self.folder, self.fingerprint, self.quiet = settings, folder, fingerprint, quiet
        self.device = resolve_device(settings.device)
        self.dtype_name = {"bf16": "bfloat16", "fp32": "float32"}[resolve_precision(settings.precision, self.device)]
        set_dropout(model, settings.dropout, settings.attention_dropout)
        model.to(self.device)
        self.optimizer = MasterAdamW(model, optimizer, num_layers(model.config), getattr(torch, self.dtype_name))
        compile_stacks(model)
        self.position = Position()
        self.average: MovingAverage | None = None
        self.best_weights: dict[str, Tensor] | None = None
        self.interruption = Interruption()
        self.total_steps = settings.steps or settings.epochs * math.ceil(
            len(self._batches(0)[1]) / settings.accumulation
        )
        if not resume:
            discard_states(folder)
        elif loaded := load_state(folder, fingerprint):
            self._restore(*loaded)
        self.log = JsonLog(folder / "train.jsonl", resume_step=self.position.step)
        self.board = TensorBoard(folder / "tensorboard") if tensorboard else None

    # --- the run ---

    def run(self) -> Outcome:
        """Train to the end, or until a signal asks to stop; then the state is saved first."""
        self.line = LiveLine(self.total_steps, done=self.position.step, quiet=self.quiet)
        self.clock, self.clock_tokens = time.perf_counter(), self.position.tokens
        self.started = time.perf_counter() - self.position.seconds
        try:
            with self.interruption:
                while not self._over() and not self.interruption.requested:
                    self._epoch()
            self._save()
            if self._over():
                self._keep_final_weights()
        finally:
            self.line.close()
            self.log.close()
            if self.board is not None:
                self.board.close()
        return Outcome(self.position, self._over(), self.log.path)

    def _over(self) -> bool:
        """All updates are made, all epochs are, or patience has run out."""
        position, settings = self.position, self.settings
        # Batches are drawn anew each epoch, and their number with them: a little fewer than expected is no reason to
        # begin another epoch.
        read = settings.steps is None and position.epoch >= settings.epochs
        impatient = settings.patience is not None and position.bad_rounds >= settings.patience
        return position.step >= self.total_steps or read or impatient

    def _epoch(self) -> None:
        """The rest of the current epoch, unless the run is over before or asked to stop."""
        examples, batches = self._batches(self.position.epoch)
        size = self.settings.accumulation
        while self.position.batch < len(batches) and not self._over() and not self.interruption.requested:
            chosen = batches[self.position.batch : self.position.batch + size]
            self._step([[examples[i] for i in indices] for indices in chosen])
            self.position = replace(self.position, batch=self.position.batch + len(chosen))
            end_of_epoch = self.position.batch >= len(batches)
            if self._due(self.settings.validate_every, end_of_epoch or self._over()):
                self._validate()
            if self._due(self.settings.checkpoint_every, end_of_epoch) and not self._over():  # else run() saves
                self._save()
        if self.position.batch >= len(batches):
            self.position = replace(self.position, epoch=self.position.epoch + 1, batch=0)

    def _due(self, every: int | None, end_of_epoch: bool) -> bool:
        return end_of_epoch if every is None else self.position.step % every == 0

    def _batches(self, epoch: int) -> tuple[Sequence[Example], list[np.ndarray]]:
        """The examples of an epoch and their batches: a pure function of (seed, epoch)."""
        seed = self.settings.seed
        examples = self.objective.examples(self.train_data, np.random.default_rng((seed, EXAMPLES, epoch)))
        if not examples:
            raise DataError("the training data gives no examples")
        batches = token_budget_batches(
            [example.lengths for example in examples],
            epoch_order(seed, epoch, len(examples)),
            batch_tokens=self.settings.batch_tokens,
            batch_size=self.settings.batch_size,
            window=WINDOW if self.settings.by_length else 0,
            seed=seed + epoch,
        )
        return examples, batches

    # --- one update ---

    def _step(self, micro_batches: list[list[Example]]) -> None:
        """One update over one or several batches."""
        position, seed = self.position, self.settings.seed
        torch.manual_seed(seed * 1_000_003 + position.step)  # dropout
        batches = [
            self.objective.collate(
                examples, self.tokenizer, np.random.default_rng((seed, COLLATE, position.epoch, position.batch + i))
            ).to(self.device)
            for i, examples in enumerate(micro_batches)
        ]
        counts = total_counts(batches)
        self.model.train()
        means: dict[str, float] = dict.fromkeys(counts, 0.0)
        correct: dict[str, int] = {}
        for batch in batches:
            losses = self.objective.losses(self.model, batch)
            weighted(losses, counts).backward()
            self.optimizer.accumulate()
            for name, loss in losses.items():
                means[name] += float(loss.total.detach()) / max(1, counts[name])
                if loss.correct is not None:
                    correct[name] = correct.get(name, 0) + loss.correct
        for name, value in means.items():
            self._refuse_nan(f"the {name} loss", value, position)
        optimizer, total = self.optimizer.settings, self.total_steps
        factor = learning_rate_factor(position.step, total, rising_steps(optimizer, total), optimizer.schedule)
        norm = self.optimizer.step(factor)
        self._refuse_nan("the norm of the gradient", norm, position)
        tokens = sum(batch.num_tokens for batch in batches)
        self.position = replace(
            position,
            step=position.step + 1,
            tokens=position.tokens + tokens,
            seconds=time.perf_counter() - self.started,
        )
        self._take_average()
        self._report(batches, means, correct, counts, norm, factor)

    def _refuse_nan(self, what: str, value: float, position: Position) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"{what} is {value} at step {position.step + 1} (epoch {position.epoch}, batch {position.batch}); "
                f"lower the learning rate or look at that batch; the last state is in {self.folder}"
            )

    def _take_average(self) -> None:
        start = self.settings.average_from
        if start is None or self.position.step < start * self.total_steps:
            return
        if self.average is None:
            self.average = MovingAverage(self.optimizer.masters)
        else:
            self.average.update(self.optimizer.masters)
        self.position = replace(self.position, average_count=self.average.count)

    def _report(
        self,
        batches: Sequence[Batch],
        means: dict[str, float],
        correct: dict[str, int],
        counts: dict[str, int],
        norm: float,
        factor: float,
    ) -> None:
        now, position = time.perf_counter(), self.position
        speed = (position.tokens - self.clock_tokens) / max(1e-9, now - self.clock)
        parts = [part for batch in batches for part in (batch.parts or {0: batch}).values()]
        lengths = [length for part in parts for length in part.packed.lengths]
        others = [side for part in parts for side in (part.sources, part.images) if side is not None]
        sources = [length for side in others for length in side.lengths]
        rows = counts.get("masked_token", 0) + counts.get("language_model", 0)
        flops = cost.training_flops(self.model.config, lengths, vocabulary_rows=rows, source_lengths=sources or None)
        share = speed * flops / (sum(lengths) + sum(sources)) / cost.peak_flops(self.dtype_name, self.device.type)
        accuracy = {f"{name}_accuracy": right / max(1, counts[name]) for name, right in correct.items()}
        loss = sum(means.values())
        rate = self.optimizer.settings.learning_rate * factor
        self._write(
            kind="train", step=position.step, epoch=position.epoch, loss=loss, **means, **accuracy, learning_rate=rate,
            gradient_norm=norm, tokens=position.tokens,
        )  # fmt: skip
        text = f"loss {loss:.4f} · {speed:,.0f} tokens/s · {share:.0%} of peak"
        self.line.update(position.step, text)
        if position.step % self.settings.log_every == 0:
            if not self.line.console.is_terminal:
                left = (self.total_steps - position.step) * position.seconds / position.step
                self.line.line(f"step {position.step:,}/{self.total_steps:,} · {text} · {duration(left)} left")
            self.clock, self.clock_tokens = now, position.tokens  # the speed of the last few steps

    def _write(self, **record: Any) -> None:
        self.log.write(**record)
        if self.board is not None:
            self.board.write(**record)

    # --- validation ---

    def _validate(self) -> None:
        """Score the validation set, and remember the best score."""
        if self.validation is None:
            return
        scores = self._scores("validation")
        score = -scores["loss"] if self.settings.monitor == "loss" else scores["accuracy"]
        if self.position.best is None or score > self.position.best:
            self.position = replace(self.position, best=score, best_step=self.position.step, bad_rounds=0)
            if self.settings.patience is not None:
                self.best_weights = {name: w.detach().clone() for name, w in self.optimizer.masters.items()}
        else:
            self.position = replace(self.position, bad_rounds=self.position.bad_rounds + 1)

    def _scores(self, kind: str) -> dict[str, float]:
        """Score the weights that the model holds, and write the scores down as of a ``kind``."""
        scores = validation_scores(self.model, self.objective, self.tokenizer, self.validation, self.settings.seed)
        if self.judge is not None:
            with torch.no_grad():
                scores.update(self.judge(self.model, self.tokenizer))
        self._write(kind=kind.replace(" ", "_"), step=self.position.step, epoch=self.position.epoch, **scores)
        words = " · ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in scores.items())
        self.line.line(f"step {self.position.step:,} · {kind} · {words}")
        return scores

    # --- state ---

    def _save(self) -> None:
        tensors = self.optimizer.tensors()
        if self.average is not None:
            tensors.update({f"average/{name}": weight for name, weight in self.average.weights.items()})
        if self.best_weights is not None:
            tensors.update({f"best/{name}": weight for name, weight in self.best_weights.items()})
        self.log.sync()
        save_state(self.folder, self.position, tensors, self.fingerprint)

    def _restore(self, position: Position, tensors: dict[str, Tensor]) -> None:
        self.position = position
        tensors = {name: tensor.to(self.device) for name, tensor in tensors.items()}
        self.optimizer.load_tensors(tensors)
        if position.average_count:
            self.average = MovingAverage(_under("average/", tensors))
            self.average.count = position.average_count
        self.best_weights = _under("best/", tensors) or None

    def _keep_final_weights(self) -> None:
        """Best, averaged, or last weights, in float32; the first two are scored as they are kept."""
        weights: dict[str, Tensor] = self.optimizer.masters
        if self.average is not None:
            weights = self.average.weights
        elif self.best_weights is not None:
            weights = self.best_weights
        leave_kernels(self.model)
        self.optimizer.finish(weights)
        self.model.eval()
        if weights is not self.optimizer.masters and self.validation is not None:
            self._scores("final validation")
        self.model.to("cpu")  # whence it is saved


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
