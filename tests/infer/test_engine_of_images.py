"""The engine and models that look at images: the same answers, faster, in every dtype."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sensorium import native
from sensorium.config import (
    CaptionerConfig,
    DecoderConfig,
    DualEncoderConfig,
    EncoderConfig,
    ImageEncoderConfig,
    LearnedPositions,
    MaskedTokenHeadConfig,
    PatchStemConfig,
    ProbePoolerConfig,
    StackConfig,
    TokenStemConfig,
)
from sensorium.image.patches import pack_images
from sensorium.infer.conditioned import Conditioned
from sensorium.infer.engine import fast
from sensorium.infer.fast_stack import FastStack
from sensorium.infer.generate import generate
from sensorium.infer.settings import GenerationSettings
from sensorium.models.build import new_model
from sensorium.packed import Packed
from tests.infer.random_models import distance

pytestmark = pytest.mark.skipif(not native.available(), reason="the kernels can't run here")

TOWER = StackConfig(64, 2, 4, 128, norm_place="pre", final_norm=True, activation="gelu_quick")
STEM = TokenStemConfig(50, 64, LearnedPositions(16), pad_token_id=0)
IMAGES = ImageEncoderConfig(PatchStemConfig(64, 16, 4, norm_eps=1e-5), TOWER)
PROBED = ImageEncoderConfig(PatchStemConfig(64, 16, 4, class_token=False), TOWER, ProbePoolerConfig())
CAUSAL = StackConfig(64, 2, 4, 128, mask="causal", norm_place="pre", final_norm=True, activation="gelu_quick")
PAIRS = {
    "clip": DualEncoderConfig(IMAGES, DecoderConfig(STEM, CAUSAL), 32),
    "siglip": DualEncoderConfig(
        PROBED, EncoderConfig(STEM, TOWER), 64, "last", text_length=9, image_projection=False, text_bias=True,
        logit_bias=True,
    ),
}  # fmt: skip
WRITES = StackConfig(96, 2, 4, 128, mask="causal", memory_size=64)
CAPTIONS = CaptionerConfig(
    ImageEncoderConfig(PatchStemConfig(64, 16, 4), TOWER),
    TokenStemConfig(50, 96, LearnedPositions(16), norm_eps=1e-12), WRITES, 49, 3, MaskedTokenHeadConfig(),
)  # fmt: skip
TOLERANCE = {"fp32": 2e-5, "bf16": 3e-2, "int8": 8e-2}


def spread(model: Any) -> Any:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.15)
    return model


def pictures(*sizes: tuple[int, int], class_token: bool = True) -> Packed:
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(3, 4 * rows, 4 * columns, generator=generator) for rows, columns in sizes]
    return pack_images(images, 4, class_token=class_token)


@pytest.mark.parametrize("dtype", TOLERANCE)
@torch.inference_mode()
def test_images_of_any_shape_have_the_vectors_of_the_plain_stack(dtype: str) -> None:
    model = spread(new_model(IMAGES, seed=0))
    batch = pictures((4, 4), (2, 7), (9, 1))
    faster: Any = fast(model, dtype)
    assert isinstance(faster.stack, FastStack)
    assert distance(faster(batch), model(batch)) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", PAIRS)
@torch.inference_mode()
def test_both_towers_run_on_the_kernels_and_match_as_before(kind: str, dtype: str) -> None:
    model = spread(new_model(PAIRS[kind], seed=0))
    images = pictures((4, 4), (4, 4), (3, 5), class_token=kind == "clip")
    texts = Packed.from_sequences([[1, 5, 7, 49], [2, 49], [4, 4, 8, 9, 10, 49]])
    faster: Any = fast(model, dtype)
    assert isinstance(faster.image.stack, FastStack)
    assert isinstance(faster.text.stack, FastStack)
    assert distance(faster.image_vectors(images), model.image_vectors(images)) < TOLERANCE[dtype]
    assert distance(faster.text_vectors(texts), model.text_vectors(texts)) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@torch.inference_mode()
def test_captions_have_the_logits_of_the_plain_stacks(dtype: str) -> None:
    """The tower, attention to its vectors, which are narrower than the decoder's, and the head run on the kernels."""
    model: Any = spread(new_model(CAPTIONS, seed=0))
    images, texts = pictures((4, 4), (2, 7), (3, 5)), Packed.from_sequences([[49, 5, 7], [49], [49, 4, 4, 8, 9, 10]])
    faster: Any = fast(model, dtype)
    assert isinstance(faster.image.stack, FastStack)
    assert isinstance(faster.decoder.stack, FastStack)
    reader = Conditioned(faster, images)
    cache = reader.new_cache([[49] * length for length in texts.lengths], texts.lengths, 1)
    found = faster.next_token_logits(reader(texts, cache))
    expected = model.next_token_logits(model(texts, model.encode(images)))
    assert distance(found, expected) < TOLERANCE[dtype]


def test_a_caption_does_not_depend_on_the_images_beside_it() -> None:
    model: Any = spread(new_model(CAPTIONS, seed=0))
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(3, 4 * rows, 4 * columns, generator=generator) for rows, columns in ((4, 4), (2, 7), (3, 5))]
    settings = GenerationSettings(max_new_tokens=9, eos_token_id=3)

    def written(one: Any, images: list[torch.Tensor]) -> list[list[int]]:
        reader = Conditioned(one, pack_images(images, 4, class_token=True))
        return generate(reader, reader.prompts, settings)

    faster = fast(model)
    together = written(faster, images)
    assert together == written(model, images)
    assert together == [written(faster, [image])[0] for image in images]
