"""On a GPU a run is what it is on a processor: the same losses within rounding, a checkpoint that opens anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sensorium.errors import UsageError
from sensorium.objectives._base import Batch
from sensorium.packed import Packed
from sensorium.storage import read_tensors
from sensorium.train.loop import Trainer
from sensorium.train.recipe import read_recipe
from sensorium.train.run import run_recipe
from sensorium.train.settings import resolve_device
from tests.train.conftest import write_matcher, write_recipe
from tests.train.test_new_models import log_of, write_translator

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that torch can use")

PLAIN = ["train.dropout=0.0", "train.attention_dropout=0.0", "train.epochs=2", "model.hidden_size=32"]
RUNS = {
    "masked token, next sentence": ("masked_token", ["objective.sentences=next"]),
    "causal": ("causal", ["model.family=gpt2", "tokenizer.train=byte_level_bpe"]),
    "causal, grouped keys": (
        "causal", ["model.family=qwen3", "model.num_heads=4", "model.num_kv_heads=2", "tokenizer.train=byte_level_bpe"],
    ),
    "sequence": ("sequence", ["objective.head_dropout=0.0"]),
    "seq2seq": ("seq2seq", ["train.average_from=0.5"]),
    "seq2seq, read twice": ("seq2seq", ["objective.r_drop=5.0", "objective.label_smoothing=0.1"]),
    "contrastive": ("contrastive", ["model.family=clip"]),
    "contrastive, in chunks": ("contrastive", ["model.family=siglip", "objective.chunk=3"]),
    "denoising": ("denoising", ["tokenizer.train=byte_level_bpe"]),
}  # fmt: skip


def losses(folder: Path, kind: str, settings: list[str]) -> list[float]:
    folder.mkdir()
    if kind == "contrastive":
        path = write_matcher(folder)
    else:
        path = write_translator(folder) if kind in ("seq2seq", "denoising") else write_recipe(folder, kind=kind)
    assert run_recipe(read_recipe(path, [*PLAIN, f"objective.kind={kind}", *settings]), quiet=True).finished
    return [record["loss"] for record in log_of(path)]


@needs_gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-3), ("bf16", 6e-2)])
@pytest.mark.parametrize("run", RUNS)
def test_a_run_has_the_losses_it_has_on_a_processor(tmp_path: Path, run: str, precision: str, tolerance: float) -> None:
    kind, settings = RUNS[run]
    settings = [*settings, f"train.precision={precision}"]
    on_cpu = losses(tmp_path / "cpu", kind, [*settings, "train.device=cpu"])
    # Learning a vocabulary orders equally frequent tokens by chance: both runs have the same one.
    same = f"tokenizer.open={tmp_path / 'cpu' / 'model'}"
    on_gpu = losses(tmp_path / "gpu", kind, [*settings, "train.device=cuda", same])
    assert on_gpu == pytest.approx(on_cpu, rel=tolerance)
    cpu, gpu = (read_tensors(tmp_path / name / "model") for name in ("cpu", "gpu"))
    assert {name: tensor.shape for name, tensor in cpu.items()} == {name: tensor.shape for name, tensor in gpu.items()}


@needs_gpu
def test_a_run_that_was_interrupted_goes_on_on_the_gpu_and_on_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["train.average_from=0.2", "train.precision=fp32"]
    whole = losses(tmp_path / "whole", "seq2seq", [*settings, "train.device=cuda"])
    (tmp_path / "stopped").mkdir()
    path, step = write_translator(tmp_path / "stopped"), Trainer._step

    def stopping(self: Trainer, batches: Any) -> None:
        step(self, batches)
        self.interruption.requested = self.position.step in (3, 6)

    monkeypatch.setattr(Trainer, "_step", stopping)
    settings += [*PLAIN, f"tokenizer.open={tmp_path / 'whole' / 'model'}"]
    for number, device in enumerate(("cuda", "cuda", "cpu")):
        recipe = read_recipe(path, [*settings, f"train.device={device}"])
        assert run_recipe(recipe, resume=number > 0, quiet=True).finished == (number == 2)
    assert [record["loss"] for record in log_of(path)] == pytest.approx(whole, rel=2e-3)


def test_a_gpu_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, recipe_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match="train.device is 'cuda', and torch finds no GPU here; set 'auto' or 'cpu'"):
        run_recipe(read_recipe(recipe_path, ["train.device=cuda"]), quiet=True)
    assert not (recipe_path.parent / "model").exists()


def test_a_batch_goes_to_another_device_whole() -> None:
    packed = Packed.from_sequences([[1, 2], [3]], segment_ids=[[0, 1], [0]])
    batch = Batch(packed, {"next": torch.tensor([1])}, {"language_model": 1}, sources=packed).to(torch.device("meta"))
    assert batch.sources is not None
    sides = [batch.packed, batch.sources]
    tensors = [t for side in sides for t in (side.values, side.positions, side.segment_ids)]
    assert all(tensor is not None and tensor.is_meta for tensor in [*tensors, *batch.targets.values()])
    assert batch.packed.lengths == (2, 1)
