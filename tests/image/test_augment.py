"""Crops, shifts, mirrors, other colours: the size of the whole, as much as asked for, the same for one generator."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sensorium.image.augment import DARKNESS, random_colours, random_crop, random_inks, random_mirror, random_shift


@given(height=st.integers(1, 40), width=st.integers(1, 40), smallest=st.floats(0.05, 1.0), seed=st.integers(0, 99))
def test_a_crop_has_the_size_of_the_whole_and_nothing_that_was_not_there(
    height: int, width: int, smallest: float, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(100, 150, (height, width, 3), dtype=np.uint8)
    crop = random_crop(pixels, smallest, np.random.default_rng(seed))
    assert crop.shape == pixels.shape
    assert crop.dtype == np.uint8
    assert pixels.min() <= crop.min() <= crop.max() <= pixels.max()
    np.testing.assert_array_equal(crop, random_crop(pixels, smallest, np.random.default_rng(seed)))


def test_crops_keep_as_much_as_they_must() -> None:
    """Of a ramp from left to right, what is left of the range says how wide the part was."""
    pixels = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], (64, 64, 3)).copy()
    generator = np.random.default_rng(0)
    crops = [random_crop(pixels, 0.5, generator) for _ in range(200)]
    widths = np.array([(int(crop.max()) - int(crop.min())) / 255 for crop in crops])
    assert widths.min() >= (0.5 / (4 / 3)) ** 0.5 - 0.05  # the narrowest part of half the area
    assert widths.std() > 0.05
    starts = [crop[0, 0, 0] for crop in crops]
    assert len(set(starts)) > 10


def test_an_image_of_no_shape_that_fits_stays_whole() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (2, 40, 3), dtype=np.uint8)
    np.testing.assert_array_equal(random_crop(pixels, 0.99, np.random.default_rng(1)), pixels)


def test_as_many_images_are_mirrored_as_are_asked_for() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 5, 3), dtype=np.uint8)
    generator = np.random.default_rng(0)
    seen = [random_mirror(pixels, 0.25, generator) for _ in range(400)]
    mirrored = [np.array_equal(one, pixels[:, ::-1]) for one in seen]
    assert all(swapped or np.array_equal(one, pixels) for swapped, one in zip(mirrored, seen, strict=True))
    assert 0.2 < np.mean(mirrored) < 0.3
    assert not any(np.array_equal(random_mirror(pixels, 0.0, generator), pixels[:, ::-1]) for _ in range(50))


@given(height=st.integers(1, 12), width=st.integers(1, 12), most=st.integers(0, 14), seed=st.integers(0, 99))
def test_a_shift_moves_all_pixels_alike_and_repeats_the_edge(height: int, width: int, most: int, seed: int) -> None:
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    pixels = np.stack([rows, columns, rows], axis=2).astype(np.uint8)  # each says where it stood
    moved = random_shift(pixels, most, np.random.default_rng(seed)).astype(int)
    assert moved.shape == pixels.shape
    down, right = np.random.default_rng(seed).integers(-most, most + 1, size=2)
    np.testing.assert_array_equal(moved[..., 0], (rows - down).clip(0, height - 1))
    np.testing.assert_array_equal(moved[..., 1], (columns - right).clip(0, width - 1))


def test_shifts_go_every_way_and_none_farther_than_it_may() -> None:
    pixels = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None], (64, 64, 3)).copy()
    generator = np.random.default_rng(0)
    places = [int(random_shift(pixels, 3, generator)[32, 0, 0]) - 32 for _ in range(200)]
    assert set(places) == set(range(-3, 4))


def test_other_colours_keep_what_is_white_and_where_things_stand_and_make_any_colour_of_black() -> None:
    pixels = np.full((4, 4, 3), 255, np.uint8)
    pixels[1:3, 1:3] = 0
    generator = np.random.default_rng(0)
    seen = [random_colours(pixels, 1.0, generator) for _ in range(400)]
    assert all((one[0] == 255).all() for one in seen)
    assert all((one[1:3, 1:3] == one[1, 1]).all() for one in seen)
    inks = np.array([one[1, 1] for one in seen])
    assert inks.max() <= round(255 * (1 - DARKNESS))
    assert 0.45 < (inks == 0).mean() < 0.55
    assert all(np.array_equal(random_colours(pixels, 0.0, generator), pixels) for _ in range(50))


def test_channels_come_in_every_order() -> None:
    pixels = np.array([[[0, 255, 255]]], np.uint8)
    generator = np.random.default_rng(0)
    darkest = [int(random_colours(pixels, 1.0, generator).argmin()) for _ in range(60)]
    assert set(darkest) == {0, 1, 2}


def test_other_inks_keep_white_and_make_brown_of_red_and_pure_colours_of_pure_ones() -> None:
    pixels = np.array([[[255, 255, 255], [255, 0, 0]]], np.uint8)
    generator = np.random.default_rng(0)
    seen = [random_inks(pixels, 1.0, generator) for _ in range(2000)]
    assert all((one[0, 0] == 255).all() for one in seen)
    inks = np.array([one[0, 1] for one in seen]).astype(int)
    assert np.abs(inks - (165, 42, 42)).max(axis=1).min() < 25
    pure = [tuple(np.eye(3, dtype=int)[n] * 255) for n in range(3)]
    assert 0.45 < np.mean([tuple(ink) in pure for ink in inks]) < 0.6
    assert all(np.array_equal(random_inks(pixels, 0.0, generator), pixels) for _ in range(50))
