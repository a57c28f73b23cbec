"""Families that look at images against `transformers`, on random configurations: same numbers, same files."""

from __future__ import annotations

import tempfile
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sensorium.checkpoint import Checkpoint, open_checkpoint
from sensorium.image.patches import pack_images
from sensorium.packed import Packed
from tests.parity.laws import assert_saved_as_it_was_opened

ARCHITECTURES = {"ViTModel": "last_hidden_state", "ViTForImageClassification": "logits"}


@st.composite
def configurations(draw: Any) -> Any:
    """A small random published config; in float64 only the fused attention of the oracle stays in float64."""
    heads, patch = draw(st.sampled_from([1, 2, 3])), draw(st.integers(1, 4))
    return transformers.ViTConfig(
        hidden_size=heads * draw(st.sampled_from([2, 6])), num_hidden_layers=draw(st.integers(1, 3)),
        num_attention_heads=heads, intermediate_size=draw(st.integers(3, 20)),
        num_channels=draw(st.sampled_from([1, 3])),
        hidden_act=draw(st.sampled_from(["gelu", "gelu_new", "relu"])), patch_size=patch,
        image_size=patch * draw(st.integers(1, 4)) + draw(st.integers(0, patch - 1)),
        layer_norm_eps=draw(st.sampled_from([1e-12, 1e-3])), num_labels=draw(st.integers(2, 5)),
        attn_implementation="sdpa",
    )  # fmt: skip


def randomised(architecture: str, config: Any) -> Any:
    torch.manual_seed(0)
    model = getattr(transformers, architecture)(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3)
    return model


def theirs(model: Any, image: Tensor) -> Tensor:
    """One image alone: [R · K + 1, D], or logits [1, C]."""
    with torch.no_grad():
        output = model(image[None], interpolate_pos_encoding=True)
    return getattr(output, ARCHITECTURES[type(model).__name__])[:1].flatten(0, -2)


@torch.no_grad()
def ours(checkpoint: Checkpoint, images: list[Tensor]) -> Tensor:
    """All images in one batch."""
    model: Any = checkpoint.model
    batch = pack_images(images, model.config.stem.patch_size, class_token=True)
    hidden_states = model(batch)
    return hidden_states if model.sequence is None else model.sequence_logits(hidden_states, batch)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@given(data=st.data())
@settings(max_examples=12)
def test_images_of_all_sizes_in_one_batch_come_out_as_in_transformers(architecture: str, data: st.DataObject) -> None:
    config = data.draw(configurations())
    model = randomised(architecture, config)
    patch, grid = config.patch_size, config.image_size // config.patch_size
    sizes = data.draw(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), max_size=4))
    sizes = [(grid, grid), *sizes] if data.draw(st.booleans()) or not sizes else sizes
    images = [torch.randn(config.num_channels, rows * patch, columns * patch).double() for rows, columns in sizes]
    expected = torch.cat([theirs(model, image) for image in images])
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        exact = ours(open_checkpoint(folder, dtype=torch.float64), images)
        single = ours(open_checkpoint(folder), images)
    torch.testing.assert_close(exact, expected, rtol=0, atol=1e-9)
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(single.double() / scale, expected / scale, rtol=0, atol=1e-5)


@given(data=st.data())
@settings(max_examples=6)
def test_the_pooled_vector_is_that_of_transformers(data: st.DataObject) -> None:
    config = data.draw(configurations())
    model = randomised("ViTModel", config)
    image = torch.randn(config.num_channels, config.image_size, config.image_size).double()
    side = config.image_size // config.patch_size * config.patch_size
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        expected = model(image[None]).pooler_output
        model.save_pretrained(folder)
        checkpoint = open_checkpoint(folder, dtype=torch.float64)
        batch = pack_images([image[:, :side, :side]], config.patch_size, class_token=True)
        found: Any = checkpoint.model
        torch.testing.assert_close(found.pooled(found(batch), batch), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@given(data=st.data())
@settings(max_examples=5)
def test_saving_what_was_opened_gives_the_same_bytes_and_opens_in_transformers(
    architecture: str, data: st.DataObject
) -> None:
    assert_saved_as_it_was_opened(randomised(architecture, data.draw(configurations())).float())


# --- CLIP ------------------------------------------------------------------------------------------------------------


def assert_matches_as(model: Any, expected: Any, images: list[Tensor], texts: list[list[int]], *, atol: float) -> None:
    """The published model, saved and opened, has the vectors and logits that it gave; both towers in one batch each."""
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        found: Any = open_checkpoint(folder, dtype=torch.float64).model
        stem = found.config.image.stem
        image_vectors = found.image_vectors(pack_images(images, stem.patch_size, class_token=stem.class_token))
        text_vectors = found.text_vectors(Packed.from_sequences(texts))
        logits = found.logits(image_vectors, text_vectors)
    torch.testing.assert_close(image_vectors, expected.image_embeds, rtol=0, atol=1e-9)
    torch.testing.assert_close(text_vectors, expected.text_embeds, rtol=0, atol=1e-9)
    torch.testing.assert_close(logits, expected.logits_per_image, rtol=0, atol=atol)


@st.composite
def clip_configurations(draw: Any) -> Any:
    """A small random CLIP; ends of texts as newer and as the first files have them."""

    def tower() -> dict[str, Any]:
        heads = draw(st.integers(1, 3))
        return {
            "hidden_size": heads * draw(st.sampled_from([2, 6])), "num_hidden_layers": draw(st.integers(1, 2)),
            "num_attention_heads": heads, "intermediate_size": draw(st.integers(3, 20)),
            "hidden_act": draw(st.sampled_from(["quick_gelu", "gelu"])),
            "layer_norm_eps": draw(st.sampled_from([1e-5, 1e-2])),
        }  # fmt: skip

    patch = draw(st.integers(1, 4))
    text = {
        "vocab_size": 40, "max_position_embeddings": 20, "eos_token_id": draw(st.sampled_from([2, 39])),
        "bos_token_id": 0, "pad_token_id": 1, **tower(),
    }  # fmt: skip
    vision = {"patch_size": patch, "image_size": patch * draw(st.integers(1, 3)), **tower()}
    return transformers.CLIPConfig(
        text_config=text, vision_config=vision, projection_dim=draw(st.integers(1, 9)), attn_implementation="sdpa"
    )


@given(data=st.data())
@settings(max_examples=12)
def test_clip_matches_images_and_texts_as_transformers_does(data: st.DataObject) -> None:
    config = data.draw(clip_configurations())
    model = randomised("CLIPModel", config)
    texts = data.draw(
        st.lists(st.lists(st.integers(3, 38), max_size=15).map(lambda t: [0, *t, 39]), min_size=1, max_size=4)
    )
    side = config.vision_config.image_size
    images = torch.randn(data.draw(st.integers(1, 3)), 3, side, side).double()
    longest = max(map(len, texts))
    with torch.no_grad():
        ids = torch.tensor([text + [39] * (longest - len(text)) for text in texts])
        mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
        expected = model(input_ids=ids, attention_mask=mask, pixel_values=images)
    assert_matches_as(model, expected, list(images), texts, atol=1e-9)


@given(data=st.data())
@settings(max_examples=5)
def test_a_clip_is_saved_as_it_was_opened(data: st.DataObject) -> None:
    assert_saved_as_it_was_opened(randomised("CLIPModel", data.draw(clip_configurations())).float())


# --- SigLIP ----------------------------------------------------------------------------------------------------------


@st.composite
def siglip_configurations(draw: Any) -> Any:
    """A small random SigLIP: its text tower is as wide as its image tower."""
    heads = {"text": draw(st.integers(1, 3)), "image": draw(st.integers(1, 3))}
    size = {side: count * draw(st.sampled_from([2, 6])) for side, count in heads.items()}

    def tower(side: str) -> dict[str, Any]:
        return {
            "hidden_size": size[side], "num_hidden_layers": draw(st.integers(1, 2)),
            "num_attention_heads": heads[side], "intermediate_size": draw(st.integers(3, 20)),
            "hidden_act": draw(st.sampled_from(["gelu_pytorch_tanh", "gelu"])),
            "layer_norm_eps": draw(st.sampled_from([1e-6, 1e-2])),
        }  # fmt: skip

    patch = draw(st.integers(1, 4))
    text = {"vocab_size": 40, "max_position_embeddings": 12, "projection_size": size["image"], **tower("text")}
    vision = {"patch_size": patch, "image_size": patch * draw(st.integers(1, 3)), **tower("image")}
    return transformers.SiglipConfig(text_config=text, vision_config=vision, attn_implementation="sdpa")


@given(data=st.data())
@settings(max_examples=12)
def test_siglip_matches_images_and_texts_as_transformers_does(data: st.DataObject) -> None:
    config = data.draw(siglip_configurations())
    model = randomised("SiglipModel", config)
    texts = data.draw(st.lists(st.lists(st.integers(2, 39), min_size=1, max_size=12), min_size=1, max_size=4))
    side = config.vision_config.image_size
    images = torch.randn(data.draw(st.integers(1, 3)), 3, side, side).double()
    with torch.no_grad():
        ids = torch.tensor([text + [1] * (12 - len(text)) for text in texts])
        expected = model(input_ids=ids, pixel_values=images)
    assert_matches_as(model, expected, list(images), texts, atol=1e-8)


@given(data=st.data())
@settings(max_examples=5)
def test_a_siglip_is_saved_as_it_was_opened(data: st.DataObject) -> None:
    assert_saved_as_it_was_opened(randomised("SiglipModel", data.draw(siglip_configurations())).float())
