"""A model that sees and draws: an image among words is framed as the published processor frames it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from sensorium import open_checkpoint, pipeline, save_checkpoint
from sensorium.config import ImageCodecConfig
from sensorium.image.opening import normalised, open_image
from sensorium.image.settings import ImageSettings, mean_colour
from sensorium.models.build import new_model
from sensorium.text.drawing import BEGIN, END
from sensorium.text.training import train_byte_level_bpe
from sensorium.train.new_models import new_config
from sensorium.train.recipe import ModelSection

CODEC = ImageCodecConfig(
    grid=2, num_codes=8, code_size=2, channels=32, multipliers=(1, 1, 1), blocks=0, latent_size=4
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with fresh weights, spread wide enough that its words differ, and a tokenizer with both tokens."""
    tokenizer = train_byte_level_bpe(["a red square, a blue circle"], 300, family="janus")
    tokenizer.backend.add_special_tokens([END])
    sizes = ModelSection(
        family="janus", codec="x", hidden_size=32, num_layers=2, num_heads=2, max_length=64, image_size=8, patch_size=4
    )
    config: Any = new_config(sizes, {}, tokenizer, CODEC)
    model = new_model(config, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    images = ImageSettings(size=(8, 8), resample="bicubic", background=mean_colour((0.5, 0.5, 0.5)))
    path = tmp_path_factory.mktemp("janus") / "model"
    save_checkpoint(path, model, tokenizer, family="janus", images=images)
    return path


def test_an_image_among_words_is_framed_as_the_published_processor_does(folder: Path) -> None:
    opened = open_checkpoint(folder)
    tokenizer, settings = opened.require_tokenizer(), opened.require_image_settings()
    oracle: Any = transformers.JanusForConditionalGeneration.from_pretrained(folder).eval()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (11, 7, 3), dtype=np.uint8))  # not square
    pixels = normalised(open_image(image, settings), settings)[None]
    prompt = tokenizer.encode(f"a red {BEGIN}{'<image>' * 4}{END} square").token_ids
    written = oracle.generate(
        input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        pixel_values=pixels, max_new_tokens=8, do_sample=False,
    )  # fmt: skip
    theirs = tokenizer.decode([int(token) for token in written[0, len(prompt) :]])
    task = pipeline("image-text-to-text", folder, max_new_tokens=8, return_full_text=False)
    [answer] = task(image, text="a red <image> square")
    assert answer["generated_text"] == theirs
    assert len(theirs) > 4


def test_such_a_model_answers_and_draws_from_one_folder(folder: Path) -> None:
    picture = pipeline("text-to-image", folder, seed=0)("a blue circle")
    assert picture.size == (8, 8)
    [answer] = pipeline("visual-question-answering", folder)(picture, question="what is it?")
    assert 0.0 <= answer["score"] <= 1.0
