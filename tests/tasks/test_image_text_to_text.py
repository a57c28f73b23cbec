"""Texts with images in them are gone on with as `transformers` does, in batches and streams, and bad ones are named."""

from __future__ import annotations

import shutil
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
from sensorium.errors import CheckpointError, DataError, UsageError

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


TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'image' %}<image> {% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
"""Writes a message's parts in their order, as LLaVA's do."""


@pytest.fixture(scope="module")
def chatting(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = shutil.copytree(folder, tmp_path_factory.mktemp("chatting") / "llava")
    (place / "chat_template.jinja").write_text(TEMPLATE)
    (place / "tokenizer_config.json").write_text('{"unk_token": "<unk>"}')
    return place


def chat(*parts: Any) -> list[dict[str, Any]]:
    """A user's message: texts, and images by what holds them."""
    said = [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image", **part} for part in parts]
    return [{"role": "user", "content": said}]


def their_chat(folder: Path, messages: list[dict[str, Any]], **how: Any) -> list[dict[str, Any]]:
    from transformers.models.llava import LlavaProcessor

    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="</s>")
    processor = LlavaProcessor(
        CLIPImageProcessorPil.from_pretrained(folder), tokenizer, patch_size=4, chat_template=TEMPLATE,
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
    )  # fmt: skip
    model = transformers.LlavaForConditionalGeneration.from_pretrained(folder)
    run = transformers.pipeline("image-text-to-text", model=model, processor=processor)
    answers: list[dict[str, Any]] = run(text=messages, max_new_tokens=8, do_sample=False, **how)
    return answers


def test_a_chat_with_images_in_it_is_answered_as_transformers_answers_it(chatting: Path, tmp_path: Path) -> None:
    first, second = pictures(2)
    first.save(tmp_path / "first.png")
    task = pipeline("image-text-to-text", chatting, max_new_tokens=8, eos_token_id=1)
    path = {"path": str(tmp_path / "first.png")}
    for messages in (
        chat(path, "what is this"),
        chat("is", path, "a cat", {"image": second}, "no"),
        [*chat(path, "what is"), {"role": "assistant", "content": "a"}, *chat("what dog", {"image": second})],
    ):
        expected = their_chat(chatting, messages, return_full_text=False)[0]["generated_text"]
        answers = task(messages)
        assert answers == task(text=messages)
        assert answers[0]["input_text"] == messages
        assert answers[0]["generated_text"][:-1] == messages
        assert answers[0]["generated_text"][-1]["role"] == "assistant"
        said = answers[0]["generated_text"][-1]["content"]
        assert said.split() == expected.split()
        assert task(messages, return_full_text=False)[0]["generated_text"] == said
    several = [chat(path, "what is this"), chat({"url": path["path"]}, "what is this"), chat("a cat is")]
    answers = task(several)
    assert answers[0][0]["generated_text"][-1] == answers[1][0]["generated_text"][-1]
    assert answers == [task(one) for one in several] == list(task(iter(several)))


def test_an_assistant_s_last_message_is_gone_on_with(chatting: Path) -> None:
    begun = [*chat({"image": pictures(1)[0]}, "what is this"), {"role": "assistant", "content": [
        {"type": "text", "text": "the moon"}]}]  # fmt: skip
    task = pipeline("image-text-to-text", chatting, max_new_tokens=4, eos_token_id=1)
    [answer] = task(begun)
    [part] = answer["generated_text"][-1]["content"]
    assert len(answer["generated_text"]) == 2
    assert part["text"].startswith("the moon")
    expected = their_chat(chatting, begun, return_full_text=False)[0]["generated_text"]
    assert part["text"].removeprefix("the moon").split() == expected.split()[:4]
    assert len(task(begun, continue_final_message=False)[0]["generated_text"]) == 3


def test_bad_chats_are_named(folder: Path, chatting: Path) -> None:
    task = pipeline("image-text-to-text", chatting, max_new_tokens=4)
    image = {"image": pictures(1)[0]}
    for wrong, error, message in (
        (chat({}), DataError, "input 1: a part of the type 'image' holds 0 images; give one, as its 'image', 'url' or"),
        (chat({**image, "path": "a.png"}), DataError, "holds 2 images"),
        (chat({"url": "https://example.org/a.png"}), DataError, r"input 1 is an address \(https://example.org/a.png\)"),
        (chat({"path": "nowhere.png"}), DataError, r"nowhere\.png"),
        ([{"role": "user", "content": [{"type": "video", "path": "a.mp4"}]}], DataError, "'video'.* no part of a mess"),
        ([{"role": "user", "content": [{"type": "text"}]}], DataError, "is no part of a message"),
        ([{"role": "cat", "content": "what"}], UsageError, "message 1 has the role 'cat'"),
    ):
        with pytest.raises(error, match=message):
            task(wrong)
    with pytest.raises(DataError, match="input 2: a part of the type 'image' holds 0 images"):
        task([chat(image, "what"), chat({})])
    with pytest.raises(UsageError, match="a chat has its images and texts in it; give no text beside it"):
        task(chat(image, "what"), text="what")
    with pytest.raises(UsageError, match="continue_final_message is for chats"):
        task(pictures(1)[0], text="what", continue_final_message=True)
    with pytest.raises(UsageError, match="an image needs a text that speaks of it"):
        task(pictures(1)[0])
    with pytest.raises(CheckpointError, match="chat template"):
        pipeline("image-text-to-text", folder)(chat(image, "what"))


def test_words_of_people_are_no_images(chatting: Path) -> None:
    """``<image>`` in a message never becomes an image's place; this vocabulary has no other way to read it."""
    task = pipeline("image-text-to-text", chatting, max_new_tokens=4)
    with pytest.raises(UsageError, match="a message holds '<image>', which this tokenizer can't read as text"):
        task(chat({"image": pictures(1)[0]}, "what <image> is"))


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
    with pytest.raises(UsageError, match=r"needs a model for images among words \(llava, janus\); this is a clip"):
        pipeline("image-text-to-text", tiny_hub / "clip")
