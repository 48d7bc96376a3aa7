"""Where weightings look for neighbours."""

import torch

from tailwise.core.data import Data
from tailwise.core.embedding import embedding_of


def test_spectra_are_placed_by_their_shape_and_not_by_their_brightness():
    generator = torch.Generator().manual_seed(0)
    shape = torch.rand(2, 1, 30, generator=generator)
    kinds = torch.arange(40) % 2
    brightness = 0.2 + torch.rand(40, 1, 1, generator=generator)
    places = embedding_of(Data(shape[kinds] * brightness, range(40)))
    assert torch.allclose(places, places[kinds], atol=1e-5)
    assert float((places[0] - places[1]).norm()) > 0.1


def test_a_black_spectrum_has_a_place():
    samples = torch.rand(10, 1, 5, generator=torch.Generator().manual_seed(0))
    samples[3] = 0
    assert bool(torch.isfinite(embedding_of(Data(samples, range(10)))).all())
