"""Patches that look the same get one token, where that is asked for; other tokens are those of the published codec."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.config import ImageCodecConfig
from sensorium.models.image_codec import ImageCodec

CONFIG = ImageCodecConfig(
    grid=4, num_codes=64, code_size=4, channels=64, multipliers=(1, 1), blocks=0, latent_size=64
)  # fmt: skip


def codec() -> ImageCodec:
    torch.manual_seed(0)
    model = ImageCodec(CONFIG).eval()
    model.settle()
    return model


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_patches_of_an_image_that_are_the_same_get_the_same_token(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randint(3, (2, 4, 4), generator=generator)  # [N, h, w] which of three colours stands where
    colours = torch.rand(3, 3, generator=generator)
    pixels = colours[kinds].permute(0, 3, 1, 2).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    with torch.no_grad():
        tokens = codec().encode_alike(pixels)
        alone = codec().encode_alike(pixels[1:])
    for image in range(2):
        for kind in range(3):
            assert len(tokens[image][kinds[image] == kind].unique()) <= 1
    assert torch.equal(tokens[1:], alone)  # an image has the tokens it has alone


def test_an_image_without_two_patches_alike_has_the_tokens_of_the_published_codec() -> None:
    pixels = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(codec().encode_alike(pixels), codec().encode(pixels))
