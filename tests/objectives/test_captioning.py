"""Captions as what comes next after an image: the published loss, and images that are seen otherwise each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from sensorium.checkpoint import save_checkpoint
from sensorium.errors import DataError, UsageError
from sensorium.image.settings import ImageSettings
from sensorium.models.build import new_model
from sensorium.objectives.captioning import Captioning, end_of_captions
from sensorium.text import Tokenizer
from sensorium.text.training import train_byte_level_bpe, train_wordpiece
from sensorium.train.new_models import new_config, start_token_id
from sensorium.train.recipe import ModelSection
from sensorium.train.stack_kernel import compile_stacks
from sensorium.train.validation import unsampled

CAPTIONS = ["a red square", "a blue square on the left", "the picture shows nothing"]


def records() -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    sizes = [(16, 16), (16, 16), (20, 30)]
    return [
        {"image": draw.integers(0, 256, (*size, 3), dtype=np.uint8), "text": caption}
        for size, caption in zip(sizes, CAPTIONS, strict=True)
    ]


def parts(**how: Any) -> tuple[Any, Captioning, Tokenizer]:
    """A random model without dropout, its objective and its tokenizer."""
    tokenizer = train_wordpiece(CAPTIONS * 2, 320)
    sizes = ModelSection(family="blip", hidden_size=32, num_layers=2, num_heads=2, max_length=16, image_size=16,
                         patch_size=4, decoder_layers=1)  # fmt: skip
    model = new_model(new_config(sizes, {}, tokenizer), seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.1)
    start = start_token_id(tokenizer, "blip")
    stem = model.config.image.stem  # type: ignore[union-attr]
    return model, Captioning(ImageSettings(size=(16, 16)), stem, start, **how), tokenizer


def batch_of(objective: Captioning, tokenizer: Tokenizer, seed: int = 0) -> Any:
    return objective.collate(objective.prepare(records(), tokenizer), tokenizer, np.random.default_rng(seed))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_transformers(tmp_path: Path, smoothing: float) -> None:
    model, objective, tokenizer = parts(label_smoothing=smoothing)
    batch = batch_of(objective, tokenizer)
    [loss] = objective.losses(model, batch).values()
    save_checkpoint(tmp_path / "m", model, tokenizer, family="blip", images=objective.images)
    config = transformers.BlipConfig.from_pretrained(tmp_path / "m")
    config.text_config.label_smoothing = smoothing
    theirs = transformers.BlipForConditionalGeneration.from_pretrained(tmp_path / "m", config=config).eval()
    processor = BlipImageProcessorPil.from_pretrained(tmp_path / "m")
    total = 0.0
    for record in records():
        ids = torch.tensor([[objective.start_token_id, *tokenizer.encode_plain(record["text"]), tokenizer.sep_id]])
        pixels = processor([record["image"]], return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            total += float(theirs(pixel_values=pixels, input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
    assert loss.count == sum(len(tokenizer.encode_plain(caption)) + 1 for caption in CAPTIONS)
    assert float(loss.total.detach()) == pytest.approx(total, rel=2e-5)


def test_the_training_kernels_have_the_gradients_of_the_plain_blocks() -> None:
    """Of the tower through the decoder's attention as well."""
    model, objective, tokenizer = parts()
    batch = batch_of(objective, tokenizer)
    gradients = []
    for compiled in (False, True):
        if compiled:
            compile_stacks(model)
        model.zero_grad()
        objective.losses(model, batch)["language_model"].total.backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    for name, plain in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], plain, rtol=1e-3, atol=1e-4 * float(plain.abs().max() + 1))
    assert all(float(plain.abs().max()) > 0 for plain in gradients[0].values())


def test_images_are_seen_otherwise_each_time_and_as_they_are_in_validation() -> None:
    _, objective, tokenizer = parts(mirror=0.5, crop=0.5)
    seen = [batch_of(objective, tokenizer, seed).images.values for seed in range(8)]
    assert len({tuple(values.flatten().tolist()) for values in seen}) == 8
    assert torch.equal(seen[0], batch_of(objective, tokenizer, 0).images.values)
    plain = unsampled(objective)
    assert plain == replace(objective, mirror=0.0, crop=1.0)
    assert isinstance(plain, Captioning)
    once, again = (batch_of(plain, tokenizer, seed).images.values for seed in (0, 1))
    assert torch.equal(once, again)


def test_long_captions_are_cut_and_still_end() -> None:
    _, objective, tokenizer = parts(max_length=3)
    for example in objective.prepare(records(), tokenizer):
        assert len(example.token_ids) == 3
        assert example.token_ids[-1] == tokenizer.sep_id
        assert example.lengths == (3, 17)


def test_what_is_missing_is_named() -> None:
    _, objective, tokenizer = parts()
    with pytest.raises(DataError, match="record 1 has no 'text'; it has 'image'"):
        objective.prepare([{"image": records()[0]["image"]}], tokenizer)
    with pytest.raises(DataError, match="record 1 has no 'image'; it has 'text'"):
        objective.prepare([{"text": "a cat"}], tokenizer)
    assert end_of_captions(train_byte_level_bpe(CAPTIONS, 300, family="roberta")) is not None
    with pytest.raises(UsageError, match="no token that ends a text"):
        end_of_captions(Tokenizer(tokenizer.backend, {"unk_token": "[UNK]"}, {}))
