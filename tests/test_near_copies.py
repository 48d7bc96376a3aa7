"""Photos of one part are held out together, found or named, so that the threshold is that of new parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tailwise
from tailwise.cli import main
from tailwise.errors import InputError
from tailwise.sources.auto import open_source
from tailwise.training import cross_fitting, near_copies

PARTS, SHOTS, SIDE = 24, 3, 12


def burst(folder: Path, seed: int, noise: float = 1.0) -> Path:
    """Three photos each of 24 parts, no two parts alike; the camera's noise is all that differs between three."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for part in range(PARTS):
        photo = generator.normal(128, 30, (SIDE, SIDE))
        for shot in range(SHOTS):
            grey = np.clip(photo + generator.normal(0, noise, photo.shape), 0, 255).astype(np.uint8)
            Image.fromarray(grey).save(folder / f"part{part:02d}_{shot}.png")
    return folder


def opened(folder: Path, **options: object) -> tailwise.Source:
    return open_source(str(folder), read="pixels", size=SIDE, channels=1, **options)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return burst(tmp_path_factory.mktemp("bursts") / "photos", 0)


def test_photos_of_a_part_are_one_thing(photos: Path) -> None:
    source = opened(photos)
    things = near_copies.together(source.load().train, source)
    assert things is not None
    assert torch.equal(things, torch.arange(PARTS).repeat_interleave(SHOTS))


def test_parts_that_all_differ_are_no_copies(tmp_path: Path) -> None:
    """Noise as large as what differs between parts leaves nothing that is alone alike."""
    source = opened(burst(tmp_path / "photos", 0, noise=60))
    assert near_copies.together(source.load().train, source) is None


@pytest.mark.parametrize("parts", [5, 30])
def test_one_thing_is_in_one_part(parts: int) -> None:
    things = torch.tensor([0] * 9 + [1] * 5 + list(range(2, 30)))
    part = cross_fitting.parts_of(len(things), parts, 3, things)
    assert all(len(part[things == thing].unique()) == 1 for thing in things.unique())
    sizes = part.bincount()
    assert len(sizes) == min(parts, 15)  # at least two things in each
    if parts == 5:
        assert sizes.max() - sizes.min() <= 2
    with pytest.raises(InputError, match="4 samples show 2 things"):
        cross_fitting.parts_of(4, 2, 0, torch.tensor([0, 1, 1, 1]))


def test_new_parts_keep_the_threshold_of_parts_held_out_together(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The nearest photo of a part that trains is one of the same part, and that of a new one is none."""
    new = burst(tmp_path / "new", 1)
    options = ["fit", str(photos), "--read", "pixels", "--size", str(SIDE), "--channels", "1"]
    options += ["--detector", "nearest-neighbours"]
    rejected = {}
    for name, more in {
        "named": ["--cross", "5", "--groups", r"part(\d+)_", "--whole-groups"],
        "found": [],
    }.items():
        assert main.run([*options, *more, "--out", str(tmp_path / name)]) == 0
        said = capsys.readouterr().err
        assert ("72 training samples are of 24 groups" if name == "named" else "are held out together") in said
        rejected[name] = float(tailwise.open_run(tmp_path / name).score(str(new)).flagged.mean())
    assert max(rejected.values()) < 0.25


@pytest.mark.parametrize(
    ("groups", "said"),
    [("part(", "is no regular expression"), (r"bolt(\d+)", "finds nothing in 'part00_0.png' (72 such images)"),
     (r"part\d+\(?", "has no group")],
)  # fmt: skip
def test_a_pattern_that_names_no_group_is_refused(photos: Path, groups: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        opened(photos, groups=groups).load()
    assert said in str(error.value)


def test_whole_groups_have_no_thresholds_of_their_own(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--whole-groups", "--read", "pixels"]
    assert main.run(["fit", str(photos), *options]) == 2
    assert "whole groups need groups" in capsys.readouterr().err
    assert main.run(["fit", str(photos), *options, "--groups", r"part(\d+)", "--per-group"]) == 2
    assert "have no thresholds or weights of their own" in capsys.readouterr().err


def test_a_folder_of_three_photos_says_that_its_threshold_promises_nothing(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "photos"
    few.mkdir()
    for part in range(3):
        (few / f"{part}.png").write_bytes((photos / f"part0{part}_0.png").read_bytes())
    options = ["--read", "pixels", "--size", str(SIDE), "--detector", "nearest-neighbours"]
    assert main.run(["fit", str(few), *options, "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    assert "too few samples to hold any out" in said
    assert "give more samples" in said
    assert "too low: it comes from the 3 images that trained, and promises nothing" in said
