"""What a sample is: stated by sources, inferred where only one thing has such a shape, refused by name otherwise."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import tailwise
from tailwise.cli import commands
from tailwise.core import embedding
from tailwise.core.data import Data
from tailwise.core.modality import FEATURE_MAP, IMAGE, ROW, SPECTRUM, find, infer
from tailwise.errors import InputError
from tailwise.report import pictures
from tailwise.runs.store import open_run
from tailwise.sources.arrays import ArrayFile, from_arrays

SOURCE = Path(tailwise.__file__).parent


@pytest.mark.parametrize(
    ("shape", "modality"),
    [((12,), ROW), ((1, 205), SPECTRUM), ((1, 8, 8), IMAGE), ((3, 8, 8), IMAGE), ((4, 8, 8), IMAGE)],
)
def test_a_shape_of_one_thing_only_is_taken_for_it(shape, modality):
    assert infer(shape) is modality
    assert Data(torch.zeros(2, *shape), ["a", "b"]).modality is modality
    assert find(modality.name) is modality


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((256, 3), "point clouds"),
        ((20, 32, 32), "images of 20 channels or feature maps"),
        ((2, 8, 8), "images of 2 channels or feature maps"),
        ((64, 48, 3), "channels come last"),
        ((), "nothing that can be read"),
        ((4, 8, 8, 8), "nothing that can be read"),
    ],
)
def test_what_could_be_several_things_is_refused_with_a_hint(shape, said):
    with pytest.raises(InputError, match=said) as refused:
        from_arrays(np.zeros((5, *shape), dtype=np.float32)) if shape else Data(torch.zeros(5), "abcde")
    assert refused.value.hint


def test_an_image_of_twenty_channels_is_one_where_that_is_said():
    x = np.random.default_rng(0).random((30, 20, 12, 12), dtype=np.float32)
    image, feature_map = (from_arrays(x, modality=name).train for name in ("image", "feature map"))
    assert (image.modality, feature_map.modality) == (IMAGE, FEATURE_MAP)
    # Pixels are compared as they are; of maps the means of channels, of which there are 20.
    pixels = torch.from_numpy(x).flatten(1)
    spread = torch.linalg.svdvals(pixels - pixels.mean(0))[:10]
    assert torch.allclose(embedding.embedding_of(image, 10).norm(dim=0), spread, rtol=1e-3)
    assert embedding.embedding_of(feature_map).shape == (30, 20)


def test_samples_of_another_modality_than_was_said_are_refused():
    with pytest.raises(InputError, match=r"spectra are \[1, bands\]: got samples of shape \[256, 3\]"):
        Data(torch.zeros(2, 256, 3), ["a", "b"], modality=SPECTRUM)
    with pytest.raises(InputError, match=r"did you mean 'spectrum'"):
        from_arrays(np.zeros((3, 4)), modality="spectra")


def test_a_run_says_what_its_samples_are_and_refuses_others(tmp_path):
    x = np.random.default_rng(0).random((40, 20, 12, 12), dtype=np.float32)
    np.savez(tmp_path / "x.npz", x_train=x)
    source = ArrayFile(str(tmp_path / "x.npz"), modality="image")
    commands.fit(repr(source), detector="gaussian", out=tmp_path / "run")
    run = open_run(tmp_path / "run")
    assert run.settings.modality == "image"
    assert run.detector().modality is IMAGE
    assert len(commands.score(tmp_path / "run", repr(source))) == 40
    other = ArrayFile(str(tmp_path / "x.npz"), modality="feature map")
    with pytest.raises(InputError, match="fitted on images of shape"):
        commands.score(tmp_path / "run", repr(other))


def test_only_images_are_shown_as_pictures():
    maps = Data(torch.rand(2, 3, 8, 8), ["a", "b"])
    shown, texts = pictures.of_named(None, maps, ["b"])
    assert shown["b"].startswith("data:image")
    assert not texts
    assert pictures.of_named(None, Data(torch.rand(2, 1, 9), ["a", "b"]), ["a"]) == ({}, {})


# The number of a sample's axes, or that of a batch held against those of images and spectra.
GUESS = re.compile(r"len\([\w.]*sample_shape\)|\.dim\(\) *[!<>=]=? *[34]|\.ndim *[!<>=]=? *[34]")
# What comes from files and from other people's networks has no modality yet.
BEFORE_DATA = {"sources", "backbones"}


def test_nothing_guesses_what_a_sample_is_outside_the_modality():
    files = [path.relative_to(SOURCE) for path in SOURCE.rglob("*.py")]
    asked = [path for path in files if path.parts[0] not in BEFORE_DATA and path != Path("core/modality.py")]
    guesses = [(str(path), line) for path in asked for line in (SOURCE / path).read_text().splitlines()]
    assert [(path, line) for path, line in guesses if GUESS.search(line)] == []
    assert GUESS.search("if len(data.sample_shape) == 2:")
    assert GUESS.search("if small.dim() == 4:")


@pytest.mark.parametrize(
    ("given", "shrunk"), [((100, 20), (32, 20)), ((8, 40), (8, 32)), ((20, 20), (20, 20)), ((40, 60), (32, 32))]
)
def test_images_are_shrunk_to_32_pixels_and_never_enlarged(given, shrunk):
    assert tuple(IMAGE.shrunk(torch.rand(2, 1, *given)).shape[2:]) == shrunk
