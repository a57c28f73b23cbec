"""Patches: cut and put together again, whatever the sizes; batches of all sizes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sensorium.errors import DataError
from sensorium.image.patches import from_patches, kinds_of_patches, pack_images, to_patches


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
def test_patches_put_together_again_are_the_image(channels: int, patch: int, rows: int, columns: int) -> None:
    image = torch.randn(channels, rows * patch, columns * patch)
    patches = to_patches(image, patch)
    assert patches.shape == (rows * columns, channels * patch * patch)
    assert torch.equal(from_patches(patches, rows, patch), image)


def test_patches_times_a_matrix_are_the_convolution_that_published_models_have() -> None:
    image, weight = torch.randn(3, 8, 12, dtype=torch.float64), torch.randn(5, 3, 4, 4, dtype=torch.float64)
    expected = torch.nn.functional.conv2d(image[None], weight, stride=4)[0].flatten(1).t()
    torch.testing.assert_close(to_patches(image, 4) @ weight.flatten(1).t(), expected)


def test_images_of_other_sizes_share_a_batch_and_keep_their_places() -> None:
    images = [torch.ones(1, 4, 2), torch.full((1, 2, 6), 2.0)]
    batch = pack_images(images, 2, class_token=True)
    assert batch.lengths == (3, 4)
    assert batch.values.sum(dim=1).tolist() == [0, 4, 4, 0, 8, 8, 8]
    assert batch.positions.tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 2]]
    assert pack_images(images, 2, class_token=False).lengths == (2, 3)


def test_an_image_that_is_no_multiple_of_the_patch_is_refused() -> None:
    with pytest.raises(DataError, match="an image of 5 × 4 pixels can't be cut into patches of 2 × 2"):
        to_patches(torch.zeros(3, 4, 5), 2)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_patches_are_of_one_kind_where_image_and_pixels_are_the_same(
    count: int, patch: int, rows: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 2, (count, 1, rows * patch, 2 * patch), generator=generator).float()
    kinds, counts = kinds_of_patches(images, patch)
    assert kinds.shape == (count, rows, 2)
    seen = [(n, *one.tolist()) for n, image in enumerate(images) for one in to_patches(image, patch)]
    assert kinds.flatten().bincount().tolist() == counts.tolist()
    for one, kind in zip(seen, kinds.flatten().tolist(), strict=True):
        assert [other == one for other in seen] == (kinds.flatten() == kind).tolist()
