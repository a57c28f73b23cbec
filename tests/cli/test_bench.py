"""What ``sensorium bench`` prints, and refuses. No time is asserted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sensorium.infer import bench

MODELS = {"bert-base-uncased": ["encode, bf16"], "gpt2": ["decode × 1, bf16", "decode × 8, bf16"]}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little to read, one turn."""
    monkeypatch.setattr(bench, "READ_BYTES", 2**20)
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench, "NEW_TOKENS", 3)


def test_the_machine_alone(call: Any) -> None:
    done = call("bench")
    assert done.status == 0
    assert "products, fp32" in done.out
    assert "GB/s" in done.out
    assert "peak memory" not in done.out


@pytest.mark.parametrize("model", MODELS)
def test_a_model_on_it(call: Any, tiny_hub: Path, model: str) -> None:
    facts = json.loads(call("bench", tiny_hub / model, "--dtype", "bf16", "--json").out)
    assert [work["name"] for work in facts["work"]] == MODELS[model]
    assert all(work["tokens_per_second"] > 0 and work["share"] > 0 for work in facts["work"])
    assert facts["peak_memory"] > 2**20


def test_what_is_wrong_is_one_sentence(call: Any, tmp_path: Path) -> None:
    done = call("bench", "--dtype", "int4")
    assert done.status == 2
    assert "--dtype is 'int4'; known are fp32" in done.err
    (tmp_path / "texts.txt").write_text("")
    done = call("bench", "--file", tmp_path / "texts.txt")
    assert done.status == 2
    assert done.err.count("\n") == 1
