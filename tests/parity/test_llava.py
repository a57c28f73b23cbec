"""A decoder that reads images among words, against `transformers`, on random configurations: same numbers and files."""

from __future__ import annotations

import tempfile
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sensorium.checkpoint import open_checkpoint
from sensorium.image.patches import pack_images
from sensorium.infer.engine import fast
from sensorium.infer.generate import generate
from sensorium.infer.looking import Looking
from sensorium.infer.settings import GenerationSettings
from sensorium.packed import Packed
from tests.parity.laws import assert_saved_as_it_was_opened

VOCABULARY, IMAGE = 40, 39


@st.composite
def configurations(draw: Any) -> Any:
    """A small random published config, whose two towers differ in all sizes."""
    heads, layers, patch = draw(st.integers(1, 3)), draw(st.integers(2, 4)), draw(st.integers(1, 4))
    vision = transformers.CLIPVisionConfig(
        hidden_size=heads * draw(st.sampled_from([2, 6])), num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=draw(st.integers(3, 20)), patch_size=patch, image_size=patch * draw(st.integers(1, 3)),
        hidden_act=draw(st.sampled_from(["quick_gelu", "gelu"])),
    )  # fmt: skip
    shared = draw(st.integers(1, 2))
    text = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=8 * shared, intermediate_size=draw(st.integers(3, 20)),
        num_hidden_layers=draw(st.integers(1, 3)), num_attention_heads=2 * shared, num_key_value_heads=shared,
        tie_word_embeddings=draw(st.booleans()), eos_token_id=None, bos_token_id=None,
    )  # fmt: skip
    return transformers.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE,
        vision_feature_layer=draw(st.sampled_from([-1, -2, 1, layers])),
        vision_feature_select_strategy=draw(st.sampled_from(["default", "full"])),
        projector_hidden_act=draw(st.sampled_from(["gelu", "relu"])),
        multimodal_projector_bias=draw(st.booleans()), attn_implementation="sdpa",
    )  # fmt: skip


def randomised(config: Any, spread: float = 0.3) -> Any:
    torch.manual_seed(0)
    model = transformers.LlavaForConditionalGeneration(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, spread)
    model.generation_config.eos_token_id = None
    return model


def published(config: Any, words: list[int], where: int) -> list[int]:
    """A prompt with the image's places in it, as `transformers` wants it."""
    side = config.vision_config.image_size // config.vision_config.patch_size
    places = side**2 + (config.vision_feature_select_strategy == "full")
    return [*words[:where], *[IMAGE] * places, *words[where:]]


def ours_of(looking: Looking, number: int, prompt: list[int]) -> list[int]:
    """The same with our ids."""
    rows = iter(looking.image_ids[number])
    return [next(rows) if token_id == IMAGE else token_id for token_id in prompt]


@given(data=st.data())
@settings(max_examples=12)
def test_images_among_words_give_the_logits_of_transformers(data: st.DataObject) -> None:
    config = data.draw(configurations())
    model = randomised(config)
    side = config.vision_config.image_size
    images = torch.randn(2, 3, side, side).double()
    words = data.draw(st.lists(st.integers(0, IMAGE - 1), min_size=1, max_size=6))
    prompts = [published(config, words, data.draw(st.integers(0, len(words)))) for _ in images]
    expected: list[Tensor] = []
    with torch.no_grad():
        for image, prompt in zip(images, prompts, strict=True):
            expected.append(model(input_ids=torch.tensor([prompt]), pixel_values=image[None]).logits[0])
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        found: Any = open_checkpoint(folder, dtype=torch.float64).model
    looking = Looking(found, pack_images(list(images), config.vision_config.patch_size, class_token=True))
    batch = Packed.from_sequences([ours_of(looking, n, prompt) for n, prompt in enumerate(prompts)])
    with torch.no_grad():
        logits = found.next_token_logits(found(batch, seen=looking.seen))
    whole = torch.cat(expected)  # RMSNorm is float32 in the oracle, whatever the model is
    scale = max(1.0, float(whole.abs().max()))
    torch.testing.assert_close(logits / scale, whole / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [None, "fp32"])
def test_what_is_written_about_images_is_what_transformers_writes(dtype: str | None) -> None:
    """Several prompts in one batch, with and without an image, one image in two of them."""
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=20, image_size=12,
            patch_size=4,
        ),
        text_config=transformers.LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, eos_token_id=None, bos_token_id=None, pad_token_id=0,
        ),
        image_token_index=IMAGE,
    )  # fmt: skip
    model = randomised(config, 0.5).float()
    images = torch.randn(2, 3, 12, 12)
    prompts = [published(config, [3, 5, 7], 1), published(config, [3, 5, 7], 3), published(config, [4], 0), [3, 5, 7]]
    shown = [0, 1, 1, None]
    expected = []
    for number, prompt in zip(shown, prompts, strict=True):
        inputs = {} if number is None else {"pixel_values": images[number : number + 1]}
        written = model.generate(input_ids=torch.tensor([prompt]), max_new_tokens=12, do_sample=False, **inputs)
        expected.append(written[0, len(prompt) :].tolist())
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        found: Any = open_checkpoint(folder).model
    if dtype is not None:
        found = fast(found, dtype)
    looking = Looking(found, pack_images(list(images), 4, class_token=True))
    ids = [ours_of(looking, number or 0, prompt) for number, prompt in zip(shown, prompts, strict=True)]
    assert generate(looking, ids, GenerationSettings(max_new_tokens=12)) == expected


@given(data=st.data())
@settings(max_examples=6)
def test_saving_what_was_opened_gives_the_same_bytes_and_opens_in_transformers(data: st.DataObject) -> None:
    assert_saved_as_it_was_opened(randomised(data.draw(configurations())).float())


def test_files_of_version_4_open_as_well() -> None:
    """There, the names of the image tower had one part more."""
    from sensorium.storage import read_tensors, write_weights

    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, image_size=4, patch_size=2
        ),
        text_config=transformers.LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
        ),
        image_token_index=IMAGE,
    )
    model = randomised(config).float()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        today = open_checkpoint(folder).model.state_dict()
        tensors = read_tensors(folder)
        old = {name.replace("vision_tower.", "vision_tower.vision_model."): t for name, t in tensors.items()}
        write_weights(folder, old)
        then = open_checkpoint(folder).model.state_dict()
    assert all(torch.equal(today[name], then[name]) for name in today)
