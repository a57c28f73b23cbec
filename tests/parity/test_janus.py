"""A model that sees and draws, and its codec, against `transformers` on random configurations: the same numbers."""

from __future__ import annotations

import tempfile
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.janus.configuration_janus import JanusVisionConfig, JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE

from sensorium.checkpoint import open_checkpoint
from sensorium.image.patches import pack_images
from sensorium.infer.drawing import DrawingSettings, draw_tokens, pictures_of
from sensorium.infer.engine import fast
from sensorium.packed import Packed
from tests.parity.laws import assert_saved_as_it_was_opened

VOCABULARY, IMAGE, CODES = 40, 39, 12


@st.composite
def codecs(draw: Any, grid: int | None = None) -> Any:
    """A small random published codec."""
    blocks = draw(st.integers(0, 2))
    levels = draw(st.integers(1, 3))
    multipliers = draw(st.lists(st.sampled_from([1, 2]), min_size=levels, max_size=levels)) if blocks else [1] * levels
    return JanusVQVAEConfig(
        embed_dim=draw(st.integers(1, 5)), num_embeddings=CODES, latent_channels=draw(st.integers(1, 8)),
        base_channels=32, channel_multiplier=multipliers, num_res_blocks=blocks,
        num_patches=grid or draw(st.integers(1, 4)),
    )  # fmt: skip


@st.composite
def configurations(draw: Any) -> Any:
    """A small random published config, whose parts differ in all sizes they can differ in."""
    heads, patch, grid = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    shared = draw(st.integers(1, 2))
    vision = JanusVisionConfig(
        hidden_size=heads * draw(st.sampled_from([2, 6])), num_hidden_layers=draw(st.integers(1, 3)),
        num_attention_heads=heads, mlp_ratio=draw(st.sampled_from([1.5, 4.0, 2.7])), patch_size=patch,
        image_size=patch * grid, hidden_act=draw(st.sampled_from(["gelu", "quick_gelu"])),
        attention_bias=draw(st.booleans()), projection_dim=8 * shared, depth=draw(st.integers(1, 3)),
        num_image_tokens=grid**2,
    )  # fmt: skip
    text = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=8 * shared, intermediate_size=draw(st.integers(3, 20)),
        num_hidden_layers=draw(st.integers(1, 3)), num_attention_heads=2 * shared, num_key_value_heads=shared,
        eos_token_id=2, bos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    codec = draw(codecs(grid))
    codec.projection_dim = codec.image_token_embed_dim = 8 * shared
    codec.num_hidden_layers = draw(st.integers(1, 3))
    return transformers.JanusConfig(
        vision_config=vision, text_config=text, vq_config=codec, image_token_id=IMAGE,
        tie_word_embeddings=draw(st.booleans()), attn_implementation="sdpa",
    )  # fmt: skip


def randomised(model: Any, spread: float = 0.3) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, spread)
    return model.double().eval()


def reopened(model: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return open_checkpoint(folder, dtype=torch.float64).model


@given(config=codecs())
@settings(max_examples=10)
def test_a_codec_makes_the_tokens_of_transformers_and_the_pixels_of_its_tokens(config: Any) -> None:
    model = randomised(JanusVQVAE(config))
    found = reopened(model)
    side = config.num_patches * 2 ** (len(config.channel_multiplier) - 1)
    pixels = torch.randn(3, 3, side, side).double()
    with torch.no_grad():
        expected = model.encode(pixels).image_tokens.view(3, -1)
        tokens = found.encode(pixels)  # [N, h, w]
        assert torch.equal(tokens.flatten(1), expected)
        any_tokens = torch.randint(0, CODES, expected.shape)
        torch.testing.assert_close(
            found.decode(any_tokens.view_as(tokens)), model.decode(any_tokens), rtol=0, atol=1e-9
        )


@given(data=st.data())
@settings(max_examples=10)
def test_words_images_and_drawings_give_the_logits_of_transformers(data: st.DataObject) -> None:
    config = data.draw(configurations())
    model = randomised(transformers.JanusForConditionalGeneration(config))
    found = reopened(model)
    side, places = config.vision_config.image_size, config.vision_config.num_image_tokens
    images = torch.randn(2, 3, side, side).double()
    words = data.draw(st.lists(st.integers(0, IMAGE - 1), min_size=1, max_size=5))
    drawn = data.draw(st.lists(st.integers(0, CODES - 1), min_size=1, max_size=5))
    with torch.no_grad():
        table = model.get_input_embeddings()(torch.tensor(words))
        lines = model.prepare_embeddings_for_image_generation(torch.tensor(drawn))
        states = model.model.language_model(inputs_embeds=torch.cat([table, lines])[None]).last_hidden_state[0]
        expected_drawing = model.model.generation_head(states)
        prompt = torch.tensor([[*words, *[IMAGE] * places]])
        expected = [model(input_ids=prompt, pixel_values=image[None]).logits[0] for image in images]
        first, seen_id = found.config.first_drawn_id, found.config.first_seen_id
        batch = Packed.from_sequences([[*words, *(first + code for code in drawn)]])
        logits = found.drawing.logits(found(batch))
        torch.testing.assert_close(logits, expected_drawing, rtol=1e-5, atol=1e-5)
        seen = found.see(pack_images(list(images), config.vision_config.patch_size, class_token=False))
        rows = [range(seen_id + n * places, seen_id + (n + 1) * places) for n in range(2)]
        batch = Packed.from_sequences([[*words, *row] for row in rows])
        logits = found.next_token_logits(found(batch, seen=seen))
    whole = torch.cat(expected)  # RMSNorm is float32 in the oracle, whatever the model is
    scale = max(1.0, float(whole.abs().max()))
    torch.testing.assert_close(logits / scale, whole / scale, rtol=0, atol=1e-5)


@given(data=st.data())
@settings(max_examples=5)
def test_saving_what_was_opened_gives_the_same_bytes_and_opens_in_transformers(data: st.DataObject) -> None:
    assert_saved_as_it_was_opened(
        randomised(transformers.JanusForConditionalGeneration(data.draw(configurations()))).float()
    )


@given(config=codecs())
@settings(max_examples=5)
def test_a_codec_is_saved_as_it_was_opened(config: Any) -> None:
    assert_saved_as_it_was_opened(randomised(JanusVQVAE(config)).float())


def drawer() -> Any:
    """A published model that draws 2 × 2 tokens."""
    config = transformers.JanusConfig(
        vision_config=JanusVisionConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=2, patch_size=2, image_size=4, projection_dim=16,
            num_image_tokens=4,
        ),
        text_config=transformers.LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, eos_token_id=2, bos_token_id=1, pad_token_id=0,
        ),
        vq_config=JanusVQVAEConfig(
            embed_dim=4, num_embeddings=CODES, latent_channels=4, base_channels=32, channel_multiplier=[1, 1],
            num_res_blocks=0, projection_dim=16, image_token_embed_dim=16,
        ),
        image_token_id=IMAGE, tie_word_embeddings=False,
    )  # fmt: skip
    return randomised(transformers.JanusForConditionalGeneration(config), 0.5).float()


@pytest.mark.parametrize("dtype", [None, "fp32"])
@pytest.mark.parametrize("scale", [1.0, 2.0, 5.0])
def test_what_is_drawn_is_what_transformers_draws(dtype: str | None, scale: float) -> None:
    """The likeliest tokens, guided or not; several prompts of different lengths in one batch of ours."""
    model, begin = drawer(), 38
    generation = model.generation_config
    generation.pad_token_id, generation.bos_token_id = 0, 1
    generation.generation_kwargs = {"boi_token_id": begin}
    prompts = [[1, 5, 7, begin], [1, 9, begin], [1, 30, 31, 32, 33, begin]]
    expected = []
    for prompt in prompts if scale > 1.0 else ():
        drawn = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.int64), do_sample=False,
            generation_mode="image", guidance_scale=scale, max_new_tokens=4,
        )  # fmt: skip
        expected.append(drawn[0].tolist())
    for prompt in prompts if scale == 1.0 else ():  # the oracle cannot draw without guidance
        expected.append(unguided(model, prompt))
    found = reopened(model).float()
    if dtype is not None:
        found = fast(found, dtype)
    hidden = [[token if token in (1, begin) else 0 for token in prompt] for prompt in prompts]
    tokens = draw_tokens(found, prompts, hidden, DrawingSettings(scale, do_sample=False))
    assert tokens.flatten(1).tolist() == expected
    with torch.inference_mode():
        pixels = model.decode_image_tokens(tokens.flatten(1))  # [N, H, W, 3]
        torch.testing.assert_close(pictures_of(found, tokens).permute(0, 2, 3, 1), pixels, rtol=0, atol=1e-4)


@torch.no_grad()
def unguided(model: Any, prompt: list[int]) -> list[int]:
    """The oracle's parts, one token after another."""
    vectors, drawn = model.get_input_embeddings()(torch.tensor([prompt])), []
    for _ in range(4):
        state = model.model.language_model(inputs_embeds=vectors).last_hidden_state[:, -1]
        drawn.append(int(model.model.generation_head(state).argmax()))
        vectors = torch.cat([vectors, model.prepare_embeddings_for_image_generation(torch.tensor([drawn[-1:]]))], dim=1)
    return drawn
