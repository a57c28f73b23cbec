"""Texts with images in them are gone on with as `transformers` does, in batches and streams, and bad ones are named."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from sensorium import pipeline
from sensorium.errors import DataError, UsageError

WORDS = ["<s>", "</s>", "<unk>", "<image>", *"what is this a cat dog the moon it no yes red".split()]
PLACES = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("llava")
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=20, image_size=12,
            patch_size=4,
        ),
        text_config=transformers.LlamaConfig(
            vocab_size=len(WORDS), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
            eos_token_id=1, bos_token_id=0, pad_token_id=0, max_position_embeddings=64,
        ),
        image_token_index=WORDS.index("<image>"),
    )  # fmt: skip
    torch.manual_seed(1)
    model = transformers.LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.5)
    model.generation_config.eos_token_id = None
    model.save_pretrained(place)
    size = {"height": 12, "width": 12}
    CLIPImageProcessorPil(size={"shortest_edge": 12}, crop_size=size).save_pretrained(place)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    words.add_special_tokens(["<s>", "</s>", "<unk>", "<image>"])
    words.save(str(place / "tokenizer.json"))
    return place


def pictures(count: int) -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (12, 15, 3), dtype=np.uint8)) for _ in range(count)]


def theirs(folder: Path, images: list[Image.Image], words: str) -> str:
    model = transformers.LlavaForConditionalGeneration.from_pretrained(folder)
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    ids = tokenizer(words.replace("<image>", " ".join(["<image>"] * PLACES)))["input_ids"]
    pixels = processor(images, return_tensors="pt")["pixel_values"]
    written = model.generate(
        input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), pixel_values=pixels,
        max_new_tokens=8, do_sample=False, eos_token_id=1,
    )  # fmt: skip
    return str(tokenizer.decode(written[0, len(ids) :], skip_special_tokens=True))


def test_what_is_written_is_what_transformers_writes(folder: Path) -> None:
    task = pipeline("image-text-to-text", folder, max_new_tokens=8, return_full_text=False, eos_token_id=1)
    first, second = pictures(2)
    texts = ["<image> what is this", "is this a <image> cat"]
    answers = task([first, second], text=texts)
    for image, text, [answer] in zip((first, second), texts, answers, strict=True):
        assert answer["input_text"] == text
        assert answer["generated_text"].split() == theirs(folder, [image], text).split()
    [both] = task([[first, second]], text="the <image> the <image> is")[0]
    assert both["generated_text"].split() == theirs(folder, [first, second], "the <image> the <image> is").split()


def test_an_image_stands_before_a_text_that_does_not_say_where(folder: Path, tmp_path: Path) -> None:
    task = pipeline("image-text-to-text", folder, max_new_tokens=4)
    [image] = pictures(1)
    image.save(tmp_path / "a.png")
    [answer] = task(tmp_path / "a.png", text="what is this")
    assert answer["input_text"] == "<image>\nwhat is this"
    assert answer["generated_text"].startswith("<image>\nwhat is this")
    assert task(image, text="<image>\nwhat is this") == [answer]


def test_batches_and_streams_do_not_change_an_answer(folder: Path) -> None:
    images = pictures(5)
    whole = pipeline("image-text-to-text", folder, text="is this a cat", max_new_tokens=6)
    small = pipeline("image-text-to-text", folder, text="is this a cat", max_new_tokens=6, batch_tokens=1)
    answers = whole(images)
    assert answers == small(images) == [whole(image) for image in images]

    def endless() -> Iterator[Any]:
        while True:
            yield from images

    assert list(islice(small(endless()), 7)) == [*answers, *answers[:2]]


def test_several_answers_have_their_scores(folder: Path) -> None:
    task = pipeline("image-text-to-text", folder, text="what", max_new_tokens=4)
    answers = task(pictures(1)[0], num_beams=3, num_return_sequences=2, log_probs=0)
    assert len(answers) == 2
    assert answers[0]["score"] >= answers[1]["score"]


def test_bad_input_is_named(folder: Path, tiny_hub: Path) -> None:
    task = pipeline("image-text-to-text", folder, max_new_tokens=4)
    image = pictures(1)[0]
    with pytest.raises(DataError, match="input 1: 1 images, and 2 places for one in the text"):
        task(image, text="<image> <image> what")
    with pytest.raises(DataError, match="input 2 is a int; a file, its bytes"):
        task([image, 3], text="what")
    with pytest.raises(UsageError, match="there are 1 texts and more images"):
        task([image, image], text=["what"])
    with pytest.raises(UsageError, match="prompt 1 has .* tokens; this model reads 64"):
        task(image, text="what " * 80)
    with pytest.raises(UsageError, match=r"needs a model for images among words \(llava\); this is a clip"):
        pipeline("image-text-to-text", tiny_hub / "clip")
