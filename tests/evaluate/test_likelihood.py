"""The likelihood of a text, against the loss that `transformers` computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from sensorium import UsageError, open_checkpoint
from sensorium.evaluate.likelihood import likelihood

TEXTS = ["Once upon a time", "很好", "a", "x" * 300]  # the last is read in three windows of 128


def test_likelihood_is_that_of_transformers(tiny_hub: Path) -> None:
    checkpoint = open_checkpoint(tiny_hub / "gpt2")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tiny_hub / "gpt2").eval()
    tokenizer = checkpoint.require_tokenizer()
    for text, (nll, count) in zip(TEXTS, likelihood(checkpoint)(TEXTS), strict=True):
        token_ids = tokenizer.encode_plain(text)
        assert count == len(token_ids)
        expected = 0.0
        for start in range(0, len(token_ids), 127):
            window = torch.tensor([[tokenizer.bos_id, *token_ids[start : start + 127]]])
            with torch.inference_mode():
                expected += float(theirs(window, labels=window).loss) * (window.shape[1] - 1)
        assert nll == pytest.approx(expected, rel=1e-5)


def test_an_encoder_is_refused(tiny_hub: Path) -> None:
    with pytest.raises(UsageError, match="perplexity needs a decoder"):
        likelihood(open_checkpoint(tiny_hub / "reviews"))
