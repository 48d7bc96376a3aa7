"""The cache of features: what is kept comes back to the last bit, and whatever changed is noticed."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from tailwise.backbones import cache, networks
from tailwise.core import identity
from tailwise.errors import InputError
from tailwise.sources import image_files
from tailwise.sources.auto import open_source
from tailwise.sources.images import ImageFolder

NAME = "counting"


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """A backbone that counts how often it is asked, gives each pixel's value and half of it, and a cache of its own."""
    asked = []

    def mapped(name, layers):
        return lambda images: asked.append(name) or torch.cat([images, images / 2], 1)

    monkeypatch.setenv("TAILWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(networks, "mapped", mapped)
    monkeypatch.setattr(networks, "pooled", lambda name: lambda images: mapped(name, ())(images).mean((2, 3)))
    monkeypatch.setattr(networks, "identity", lambda name: f"{name} weights 1")
    return asked


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "photos"
    place.mkdir()
    generator = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(place / f"{number}.png")
    return place


def samples(folder, layers=(1,)):
    return ImageFolder(str(folder), read=NAME, layers=layers, size=16).load().train.samples


def entries(tmp_path):
    return sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file())


@pytest.mark.parametrize("layers", [(), (1,)])
def test_a_second_reading_asks_the_backbone_for_nothing(folder, calls, layers):
    first = samples(folder, layers)
    assert len(calls) == 3
    assert torch.equal(first, samples(folder, layers))
    assert len(calls) == 3


def test_maps_are_kept_to_half_precision(folder, calls):
    pixels = ImageFolder(str(folder), size=16).load().train.samples
    assert torch.equal(samples(folder), torch.cat([pixels, pixels / 2], 1).half().float())


def test_a_range_beyond_half_precision_is_kept_in_single(folder, calls, monkeypatch):
    monkeypatch.setattr(networks, "mapped", lambda name, layers: lambda images: images * 1e6)
    pixels = ImageFolder(str(folder), size=16).load().train.samples
    assert torch.equal(samples(folder), pixels * 1e6)
    assert torch.equal(samples(folder), pixels * 1e6)


def test_a_changed_image_is_computed_again(folder, calls):
    before = samples(folder)
    Image.new("RGB", (16, 16), "white").save(folder / "1.png")
    after = samples(folder)
    assert len(calls) == 4
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, False, True]
    (folder / "1.png").rename(folder / "renamed.png")  # the content counts, not the name
    samples(folder)
    assert len(calls) == 4


def test_other_weights_layers_or_size_are_computed_again(folder, calls, monkeypatch):
    samples(folder)
    samples(folder, (1, 2))
    assert len(calls) == 6
    ImageFolder(str(folder), read=NAME, layers=(1,), size=8).load()
    assert len(calls) == 9
    monkeypatch.setattr(networks, "identity", lambda name: f"{name} weights 2")
    samples(folder)
    assert len(calls) == 12


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_damaged_entry_is_computed_again_and_mended(folder, calls, tmp_path, damage):
    first = samples(folder)
    entry = entries(tmp_path)[1]
    content = entry.read_bytes()
    entry.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if damage is None else damage)
    assert torch.equal(first, samples(folder))
    assert len(calls) == 4
    assert entry.read_bytes() == content


def test_nothing_unfinished_is_left_and_a_cache_that_takes_nothing_costs_only_time(folder, calls, tmp_path):
    (tmp_path / "cache").write_text("a file, where a folder is needed")
    first = samples(folder)
    asked = len(calls)
    assert torch.equal(first, samples(folder))
    assert len(calls) == 2 * asked
    assert sorted(os.listdir(tmp_path)) == ["cache", "photos"]


def test_small_pictures_are_kept_and_a_changed_file_is_noticed(folder, calls, monkeypatch):
    source = ImageFolder(str(folder))
    decoded = []
    read = image_files.read_within
    monkeypatch.setattr(image_files, "read_within", lambda *given: decoded.append(given) or read(*given))
    first = source.preview("0.png")
    assert torch.equal(first, source.preview("0.png"))
    assert len(decoded) == 1
    monkeypatch.setenv("TAILWISE_CACHE", "off")
    assert torch.allclose(first, source.preview("0.png"), atol=0.51 / 255)
    assert len(decoded) == 2
    monkeypatch.setenv("TAILWISE_CACHE", str(folder.parent / "cache"))
    Image.fromarray(np.zeros((16, 16, 3), dtype=np.uint8)).save(folder / "0.png")
    assert not source.preview("0.png").any()


def test_an_emptied_cache_is_filled_again(folder, calls, tmp_path):
    samples(folder)
    assert len(entries(tmp_path)) == 3
    for entry in entries(tmp_path):
        entry.unlink()
    samples(folder)
    assert len(calls) == 6


def test_off_keeps_nothing(folder, calls, monkeypatch, tmp_path):
    monkeypatch.setenv("TAILWISE_CACHE", "off")
    samples(folder)
    asked = len(calls)
    samples(folder)
    assert len(calls) == 2 * asked
    assert not (tmp_path / "cache").exists()


def test_what_does_not_fit_in_memory_is_read_from_the_cache(folder, calls, monkeypatch):
    whole = samples(folder)
    monkeypatch.setattr(cache, "IN_MEMORY_BYTES", 100)
    data = ImageFolder(str(folder), read=NAME, layers=(1,), size=16).load().train
    assert not data.in_memory
    assert torch.equal(data.take([2, 0]).read(torch.tensor([1, 0])), whole[[0, 2]])
    assert len(calls) == 3


def test_what_stays_on_disk_is_checked_once_and_again_after_it_changed(folder, calls, monkeypatch, tmp_path):
    monkeypatch.setattr(cache, "IN_MEMORY_BYTES", 100)
    data = ImageFolder(str(folder), read=NAME, layers=(1,), size=16).load().train
    made, checked, read = data.read(torch.arange(3)), [], cache._read
    monkeypatch.setattr(cache, "_read", lambda path, check: checked.append(check) or read(path, check))
    assert all(torch.equal(data.read(torch.arange(3)), made) for _ in range(2))
    assert checked[3:] == [False] * 3
    entry = entries(tmp_path)[1]
    entry.write_bytes(entry.read_bytes()[:-1] + b"?")
    assert torch.equal(data.read(torch.arange(3)), made)
    assert len(calls) == 4


def test_digests_of_what_stays_on_disk_are_computed_once(folder, calls, monkeypatch):
    monkeypatch.setattr(cache, "IN_MEMORY_BYTES", 100)
    data = ImageFolder(str(folder), read=NAME, layers=(1,), size=16).load().train
    expected = identity.sample_digests(data.read(torch.arange(3)))
    assert identity.digests(data.take([2, 0])) == [expected[2], expected[0]]
    assert identity.digests(data) == expected
    monkeypatch.setattr(identity, "sample_digests", None)
    assert identity.digests(data.take([1, 2]).take([1])) == [expected[2]]


def test_images_at_hand_are_looked_up_by_their_pixels(calls):
    images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    first, again = (cache.of_images(images, NAME, lambda batch: batch) for _ in range(2))
    assert torch.equal(first, torch.cat([images, images / 2], 1).mean((2, 3)))
    assert torch.equal(first, again)
    assert len(calls) == 5
    cache.of_images(images + 1, NAME, lambda batch: batch)
    cache.of_images(images, NAME, lambda batch: batch[..., :4, :4])
    assert len(calls) == 15


def test_layers_need_a_backbone():
    with pytest.raises(InputError, match="pixels have none"):
        ImageFolder("photos", layers=(4,))
    with pytest.raises(InputError, match="numbers of blocks"):
        ImageFolder("photos", read="efficientnet-lite0", layers=("4",))


def test_maps_are_read_where_they_are_wanted(folder):
    chosen = open_source(folder, read="efficientnet-lite0", maps=True)
    assert chosen.layers == networks.map_layers("efficientnet-lite0")
    assert open_source(folder, read="efficientnet-lite0").layers == ()
    assert open_source(folder, read="efficientnet-lite0", layers=(2,), maps=True).layers == (2,)
    assert open_source(folder, read="pixels", maps=True).layers == ()


@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_each_platform_has_its_folder(system, monkeypatch):
    monkeypatch.delenv("TAILWISE_CACHE")
    monkeypatch.setattr(cache.sys, "platform", system)
    assert cache.cache_folder().parts[-2:] == ("tailwise", "features")
