"""`sensorium info` says what a checkpoint is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sensorium import open_checkpoint


def test_facts_are_those_of_the_checkpoint(call: Any, tiny_hub: Path) -> None:
    facts = json.loads(call("info", tiny_hub / "reviews", "--json").out)
    checkpoint = open_checkpoint(tiny_hub / "reviews")
    assert facts["family"] == "bert"
    assert facts["parameters"] == sum(parameter.numel() for parameter in checkpoint.model.parameters())
    assert facts["bytes_on_disk"] == (tiny_hub / "reviews" / "model.safetensors").stat().st_size
    assert (facts["heads"], facts["labels"]) == (["sequence"], {"sequence": ["bad", "good"]})


def test_every_fact_has_a_line(call: Any, tiny_hub: Path) -> None:
    answer = call("info", tiny_hub / "gpt2")
    facts = json.loads(call("info", tiny_hub / "gpt2", "--json").out)
    assert [line.split("  ")[0] for line in answer.out.splitlines()] == [name.replace("_", " ") for name in facts]


def test_a_model_that_is_not_there_is_one_sentence(call: Any) -> None:
    assert call("info", "./no/such/model") == (
        2, "", "sensorium: ./no/such/model: there is no such checkpoint folder\n",
    )  # fmt: skip
