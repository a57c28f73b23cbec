"""Captions are those of `transformers`, from nothing and from a beginning, in lists, streams and batches."""

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
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from sensorium import open_checkpoint, pipeline
from sensorium.errors import CheckpointError, DataError, UsageError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"a cat dog moon red picture of the sleep ##ing , .".split()]
BEGIN = len(WORDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As BLIP is published: two tokens of its own behind those that the tokenizer has."""
    place = tmp_path_factory.mktemp("blip")
    config = transformers.BlipConfig(
        vision_config={
            "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20,
            "image_size": 12, "patch_size": 4,
        },
        text_config={
            "vocab_size": len(WORDS) + 2, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 30, "bos_token_id": BEGIN, "sep_token_id": 3,
            "tie_word_embeddings": False,
        },
        tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(5)
    model = transformers.BlipForConditionalGeneration(config).eval()
    with torch.no_grad():
        for module in model.modules():
            for parameter in () if isinstance(module, torch.nn.LayerNorm) else module.parameters(recurse=False):
                parameter.normal_(0.0, 0.5) if parameter.dim() > 1 else parameter.zero_()
    model.save_pretrained(place)
    BlipImageProcessorPil(size={"height": 12, "width": 12}).save_pretrained(place)
    (place / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizer(vocab=str(place / "vocab.txt")).save_pretrained(place)
    return place


def pictures(count: int) -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (14, 15, 3), dtype=np.uint8)) for _ in range(count)]


def theirs(folder: Path, image: Image.Image, prompt: str | None = None, **options: Any) -> list[str]:
    """As the pipeline of transformers 4 did it: the text decoded with its beginning, without special tokens."""
    model = transformers.BlipForConditionalGeneration.from_pretrained(folder).eval()
    processor = BlipImageProcessorPil.from_pretrained(folder)
    tokenizer = transformers.BertTokenizer.from_pretrained(folder)
    inputs = {} if prompt is None else {"input_ids": tokenizer(prompt, return_tensors="pt")["input_ids"]}
    pixels = processor([image], return_tensors="pt")["pixel_values"]
    written = model.generate(pixel_values=pixels, max_new_tokens=10, do_sample=False, **inputs, **options)
    return [str(tokenizer.decode(row, skip_special_tokens=True)).strip() for row in written]


@pytest.mark.parametrize("prompt", [None, "a picture of", "The MOON,"])
def test_captions_are_those_of_transformers(folder: Path, prompt: str | None) -> None:
    task = pipeline("image-to-text", folder, max_new_tokens=10)
    images = pictures(4)
    expected = [theirs(folder, image, prompt) for image in images]
    assert len(set(map(str, expected))) > 1
    answers = task(images, prompt=prompt)
    assert [[answer["generated_text"] for answer in one] for one in answers] == expected
    assert task(images[0], prompt=prompt) == answers[0]


def test_several_answers_are_the_beams_of_transformers(folder: Path) -> None:
    [image] = pictures(1)
    options = {"num_beams": 3, "num_return_sequences": 2}
    answers = pipeline("image-to-text", folder, max_new_tokens=10)(image, **options)
    assert [answer["generated_text"] for answer in answers] == theirs(folder, image, **options)


def test_what_is_likely_is_said_of_tokens_that_the_tokenizer_lacks_too(folder: Path) -> None:
    [answer] = pipeline("image-to-text", folder, max_new_tokens=3)(pictures(1)[0], log_probs=len(WORDS) + 2)
    assert answer["score"] == pytest.approx(sum(token["log_prob"] for token in answer["tokens"]))
    names = {one["token"]: one["token_str"] for one in answer["tokens"][0]["top"]}
    assert names[BEGIN] == ""
    assert names[5] == "a"


def test_batches_and_streams_do_not_change_an_answer(folder: Path) -> None:
    images = pictures(5)
    whole = pipeline("image-to-text", folder, prompt="the", max_new_tokens=6)
    small = pipeline("image-to-text", folder, prompt="the", max_new_tokens=6, batch_tokens=1)
    answers = whole(images)
    assert answers == small(images) == [whole(image) for image in images]

    def endless() -> Iterator[Any]:
        while True:
            yield from images

    assert list(islice(small(endless()), 7)) == [*answers, *answers[:2]]


@pytest.mark.parametrize("dtype", ["bf16", "int8"])
def test_fewer_bits_write_captions_too(folder: Path, dtype: str) -> None:
    [answer] = pipeline("image-to-text", open_checkpoint(folder), max_new_tokens=6)(pictures(1)[0], max_new_tokens=4)
    if dtype == "int8":
        with pytest.raises(CheckpointError, match="a blip model looks at images; this is for one that reads text"):
            pipeline("image-to-text", folder, dtype=dtype)
        return
    [other] = pipeline("image-to-text", folder, dtype=dtype)(pictures(1)[0], max_new_tokens=4)
    assert other.keys() == answer.keys()


def test_a_model_that_reads_images_among_words_goes_on_behind_the_image(tiny_hub: Path) -> None:
    task = pipeline("image-to-text", tiny_hub / "llava", max_new_tokens=5)
    longer = pipeline("image-text-to-text", tiny_hub / "llava", max_new_tokens=5)
    night, day = tiny_hub / "night.png", tiny_hub / "day.png"
    for prompt, text in ((None, "<image>"), ("What?", "<image>What?"), ("Look: <image>!", "Look: <image>!")):
        expected = [longer(image, text=text)[0]["generated_text"].replace("<image>", "") for image in (night, day)]
        answers = task([night, day], prompt=prompt)
        assert [one["generated_text"] for [one] in answers] == [text.strip() for text in expected]
        assert task(night, prompt=prompt) == answers[0] == next(task(iter([night]), prompt=prompt))
        assert set(answers[0][0]) == {"generated_text"}
    with pytest.raises(DataError, match="the prompt has 2 places for an image, and there is one"):
        task(night, prompt="<image> <image>")


def test_bad_input_is_named(folder: Path, tiny_hub: Path) -> None:
    task = pipeline("image-to-text", folder, max_new_tokens=4)
    [image] = pictures(1)
    with pytest.raises(UsageError, match="prompt is a list; a text is expected, for all images"):
        task(image, prompt=["a"])
    with pytest.raises(UsageError, match="prompt 1 has 41 tokens; this model reads 30, the new ones included"):
        task(image, prompt="a " * 40)
    with pytest.raises(DataError, match="input 2 is a int; a file, its bytes"):
        task([image, 3])
    with pytest.raises(UsageError, match="there is no option 'max_token'"):
        task(image, max_token=3)
    with pytest.raises(
        UsageError, match=r"needs a model for captions \(blip\), or for images among words \(llava, janus\)"
    ):
        pipeline("image-to-text", tiny_hub / "clip")
    with pytest.raises(UsageError, match=r"needs an encoder–decoder \(marian, t5\); this is a blip"):
        pipeline("translation", tiny_hub / "blip")
