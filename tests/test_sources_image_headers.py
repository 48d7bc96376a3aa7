"""Headers of images: shapes that resizing squeezes, and depth maps beside photos, are told before any is read."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tailwise.errors import InputError
from tailwise.sources import image_headers
from tailwise.sources.auto import open_source


def shaped(folder: Path, height: int, width: int, count: int = 6, dtype: type = np.uint8, colour: bool = False) -> Path:
    """Images of noise in a folder, of a size and depth."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(height + width)
    for place in range(count):
        values = generator.integers(0, np.iinfo(dtype).max, (height, width, 3) if colour else (height, width))
        Image.fromarray(values.astype(dtype)).save(folder / f"{dtype.__name__}{height}-{place}.png")
    return folder


@pytest.mark.parametrize(
    ("height", "width", "size", "named"),
    [
        (20, 60, 16, "--size 8x24"),
        (60, 20, 32, "--size 56x16"),
        (125, 314, 224, "--size 144x352"),
        (40, 64, 64, "--size 48x80"),
        (40, 56, 64, ""),
        (64, 64, 32, ""),
        (20, 60, "8x24", ""),
        (20, 60, "64x20", ""),
    ],
)
def test_images_squeezed_to_a_square_are_told_with_a_size_that_keeps_their_shape(
    height: int, width: int, size: int | str, named: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shaped(tmp_path / "photos", height, width)
    open_source(str(tmp_path / "photos"), read="pixels", size=size, channels=1).load()
    said = [record.getMessage() for record in caplog.records if "squeezed" in record.getMessage()]
    assert len(said) == bool(named)
    if named:
        assert f"6 of 6 images, such as of {width} x {height} pixels, are squeezed to {size} x {size}" in said[0]
        assert named in said[0]
        high, wide = map(int, re.findall(r"--size (\d+)x(\d+)", said[0])[0])
        assert high / wide == pytest.approx(height / width, rel=0.35)
        assert high * wide == pytest.approx(int(size) ** 2, rel=0.35)


@pytest.mark.parametrize(
    ("height", "width", "said"),
    [
        (400, 600, "1 of 13 images are of another shape or size: other/uint8400-0.png (600 x 400); the others are "
                   "about 60 x 40 pixels"),
        (60, 40, "1 of 13 images are of another shape or size: other/uint860-0.png (40 x 60)"),
        (44, 60, ""),
    ],
)  # fmt: skip
def test_a_photo_of_another_size_than_all_others_is_named(
    height: int, width: int, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shaped(tmp_path / "photos", 40, 60, 12)
    shaped(tmp_path / "photos" / "other", height, width, 1)
    open_source(str(tmp_path / "photos"), read="pixels", size=(40, 56), channels=1).load()
    told = [record.getMessage() for record in caplog.records if "another shape or size" in record.getMessage()]
    assert [text[: len(said)] for text in told] == ([said] if said else [])


@pytest.mark.parametrize(("alike", "upright"), [(12, 1), (0, 2), (3, 1), (2, 0)])
def test_new_photos_of_another_shape_than_a_run_reads_are_named(
    alike: int, upright: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One of many, or all of them; of mixed shapes those that trained may have been too."""
    shaped(tmp_path / "photos", 40, 60, alike)
    shaped(tmp_path / "photos", 60, 40, upright)
    open_source(str(tmp_path / "photos"), read="pixels", size=(40, 56), channels=1).load_all()
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == (upright > 0 and alike != 3)
    if told:
        said = f"{upright} of {alike + upright} images are of another shape or size: uint860-0.png (40 x 60)"
        assert told[0].startswith(said)
        assert "the run reads 56 x 40 pixels" in told[0]


def test_a_camera_held_upright_is_as_its_picture_is_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """60 x 20 pixels in the file, turned by its orientation: 20 wide and 60 high."""
    exif = Image.Exif()
    exif[274] = 6
    for place in range(6):
        Image.fromarray(np.full((20, 60), 100 + place, np.uint8)).save(tmp_path / f"{place}.jpg", exif=exif)
    open_source(str(tmp_path), read="pixels", size=32, channels=1).load()
    assert "such as of 20 x 60 pixels" in caplog.text
    assert "--size 56x16" in caplog.text


@pytest.mark.parametrize("place", ["photos", "photos/depth", "photos/z"])
def test_depth_maps_beside_photos_are_named_and_do_not_train(
    place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shaped(tmp_path / "photos", 16, 16, colour=True)
    shaped(tmp_path / place, 16, 16, count=4, dtype=np.uint16)
    source = open_source(str(tmp_path / "photos"), read="pixels", size=16, channels=1)
    with pytest.raises(
        InputError, match=r"4 of 10 images .* one channel of more than 8 bits.*uint1616-0\.png"
    ) as error:
        source.load()
    assert "a folder of their own" in error.value.hint
    source.load_all()
    assert "4 of 10 images" in caplog.text


def test_depth_maps_alone_and_deep_images_beside_grey_ones_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shaped(tmp_path / "maps", 16, 16, dtype=np.uint16)
    assert len(open_source(str(tmp_path / "maps"), read="pixels", size=16, channels=1).load().train) == 6
    assert "more than 8 bits" not in caplog.text
    shaped(tmp_path / "maps", 16, 16, count=2)
    assert len(open_source(str(tmp_path / "maps"), read="pixels", size=16, channels=1).load().train) == 8
    assert "6 of 8 images" in caplog.text


@pytest.mark.parametrize("kind", ["tif", "gif", "png", "webp"])
def test_pages_that_are_not_read_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    """Also where a single image has them; overviews, masks and a phone's second picture are no pages."""
    shaped(tmp_path, 24, 24, count=3)
    frames = [Image.fromarray(np.full((24, 24), grey, np.uint8)) for grey in (90, 150, 200)]
    frames[0].save(tmp_path / f"stack.{kind}", save_all=True, append_images=frames[1:])
    source = open_source(str(tmp_path), read="pixels", size=24, channels=1)
    with caplog.at_level("WARNING", "tailwise"):
        assert len(source.load().train) == 4
    assert f"1 of 4 images have several pages or frames, and only the first is read: stack.{kind}" in caplog.text


@pytest.mark.parametrize("subfile", [1, 4, 5])
def test_smaller_copies_and_masks_in_a_tiff_are_no_pages(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, subfile: int
) -> None:
    shaped(tmp_path, 24, 24, count=3)
    first = np.full((24, 24), 90, np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(first, photometric="minisblack", metadata=None)
        second = first[::2, ::2] if subfile == 1 else first > 0
        file.write(second, photometric="minisblack", subfiletype=subfile)
    Image.fromarray(first).save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[Image.fromarray(first)])
    with caplog.at_level("WARNING", "tailwise"):
        open_source(str(tmp_path), read="pixels", size=24, channels=1).load()
    assert not caplog.text


@pytest.mark.parametrize(
    ("height", "width", "size"), [(60, 240, (128, 448)), (240, 60, (448, 128)), (90, 120, (192, 256)), (80, 84, None)]
)
def test_maps_are_read_in_the_shape_of_most_images(height: int, width: int, size: object, tmp_path: Path) -> None:
    shaped(tmp_path / "photos", height, width)
    Image.fromarray(np.zeros((30, 31), np.uint8)).save(tmp_path / "photos" / "odd.png")
    source = open_source(str(tmp_path / "photos"), read="efficientnet-lite0", maps=True)
    assert source.size == size
    assert source.at(str(tmp_path)).size == size  # new images are read as those that trained
    assert open_source(str(tmp_path / "photos"), read="efficientnet-lite0", maps=True, size=64).size == 64
    assert open_source(str(tmp_path / "photos"), read="efficientnet-lite0").size is None  # pooled


@pytest.mark.parametrize(
    ("shape", "read", "seen"),
    [
        ((100, 100), None, 0),  # enlarged to 224 x 224, as backbones were trained
        ((300, 400), (288, 384), 0),
        ((1250, 500), (1248, 512), 0),
        ((3000, 4000), (768, 1024), 20),
    ],
)
def test_maps_are_read_in_the_size_of_images_up_to_a_limit_which_is_told(
    shape: tuple[int, int], read: tuple[int, int] | None, seen: int
) -> None:
    known = {str(i): image_headers.Header(shape, "RGB") for i in range(5)} | {"odd": image_headers.Header((9, 90), "L")}
    found = image_headers.shape_of_maps(known, 224, 32)
    assert found == read
    lost = image_headers.shrunk(known, found or (224, 224), 32)
    assert (0 if lost is None else lost.smallest) == seen
    if lost is not None:
        assert "3.9 times smaller: a defect of less than 20 pixels" in lost.sentence()
        assert "--size 1536x2048 (height x width) shows those of 10" in lost.sentence()
