"""Oriented gradients: of pictures whose direction is known."""

import numpy as np
import pytest
import torch

from tailwise.numerics import image_filters


def ramp(direction, size=16):
    """A picture [1, 1, size, size] that grows brighter to the right, to the left, downwards or upwards."""
    rise = torch.arange(float(size)).expand(size, size)
    return {0: rise, 1: rise.flip(1), 2: rise.T, 3: rise.T.flip(0)}[direction][None, None] / size


@pytest.mark.parametrize("direction", range(4))
def test_each_direction_has_its_own_map(direction):
    found = image_filters.oriented(ramp(direction))[0].mean((1, 2))
    assert found.argmax() == direction
    assert found.sum() == pytest.approx(float(found[direction]), abs=1e-6)


def test_brightness_contrast_and_equal_channels_change_nothing():
    picture = torch.rand(2, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    plain = image_filters.oriented(picture)
    torch.testing.assert_close(image_filters.oriented(0.3 * picture + 0.5), plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(image_filters.oriented(picture.expand(-1, 3, -1, -1)), plain)


def test_a_step_aside_matters_less_than_among_pixels():
    generator = np.random.default_rng(0)
    picture = torch.zeros(1, 1, 28, 28)
    for row, column in generator.integers(4, 22, size=(12, 2)):
        picture[0, 0, row : row + 2, column : column + 3] = 1.0
    moved, other = picture.roll(1, 3), picture.flip(2)

    def ratio(what):
        return float((what(picture) - what(moved)).norm() / (what(picture) - what(other)).norm())

    assert ratio(image_filters.oriented) < 0.7 * ratio(lambda image: image)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (9, 9)])
def test_small_and_constant_pictures_have_descriptors_without_a_length(shape):
    found = image_filters.oriented(torch.full((3, 2, *shape), 0.7))
    assert found.shape == (3, 4, (shape[0] + 1) // 2, (shape[1] + 1) // 2)
    assert not found.any()
