"""What must hold of every family, whatever its models are."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from sensorium.checkpoint import open_checkpoint, save_checkpoint


def assert_saved_as_it_was_opened(model: Any, dead: Collection[str] = ()) -> None:
    """What was opened is saved to the same bytes again, and opens in `transformers` with all weights but the dead."""
    with tempfile.TemporaryDirectory() as name:
        first, second, third = (Path(name) / part for part in ("first", "second", "third"))
        model.save_pretrained(first)
        for source, target in ((first, second), (second, third)):
            opened = open_checkpoint(source)
            save_checkpoint(target, opened.model, None, family=opened.family)
        for file in ("model.safetensors", "config.json"):
            assert (second / file).read_bytes() == (third / file).read_bytes()
        again, report = type(model).from_pretrained(second, output_loading_info=True)
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        theirs = model.state_dict()
        for key, weight in again.state_dict().items():
            assert key in dead or torch.equal(weight, theirs[key]), key
