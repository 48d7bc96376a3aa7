"""Masks of images that cannot mean what they show are doubted; those that follow their image are not."""

import logging

import numpy as np
import pytest
from PIL import Image

from tailwise.errors import InputError
from tailwise.sources.images import ImageFolder

DEFECT = np.zeros((24, 32), np.uint8)
DEFECT[2:8, 20:30] = 255  # 60 pixels


def save(path, samples, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(samples).save(path, **options)


def with_masks(root, masks, **options):
    """Images of 24 x 32 pixels, bright where a defect is, and these masks of the defective ones."""
    grey = np.full((24, 32), 90, np.uint8)
    for number in range(3):
        save(root / f"train/good/{number}.png", grey, **options)
        save(root / f"test/good/{number}.png", grey, **options)
    for number, mask in enumerate(masks):
        save(root / f"test/bad/{number}.png", np.maximum(grey, DEFECT), **options)
        save(root / f"ground_truth/bad/{number}_mask.png", mask)
    return root


def loaded(root, caplog):
    with caplog.at_level(logging.WARNING, "tailwise"):
        return ImageFolder(str(root), size=16, channels=1).load()


def test_inverted_masks_are_doubted(tmp_path, caplog):
    loaded(with_masks(tmp_path, [255 - DEFECT] * 3), caplog)
    assert "3 of 3 masks mark most of their image and its border: are they inverted?" in caplog.text


@pytest.mark.parametrize("inner", [np.s_[:, :], np.s_[1:-1, 1:-1]])
def test_masks_of_large_defects_are_not(tmp_path, caplog, inner):
    """One of all that is there, beside two of small defects; and defects of most of an image within its border."""
    large = np.zeros_like(DEFECT)
    large[inner] = 255
    loaded(with_masks(tmp_path, [large, DEFECT, DEFECT] if large.all() else [large] * 3), caplog)
    assert not caplog.text


def test_inverted_masks_that_say_what_is_normal_are_doubted_before_all_are_anomalies(tmp_path, caplog):
    for number in range(4):
        save(tmp_path / f"{number}.png", DEFECT)
        save(tmp_path / f"{number}_mask.png", 255 - DEFECT * (number == 0))
    with pytest.raises(InputError, match="all 4 are anomalies"):
        loaded(tmp_path, caplog)
    assert "4 of 4 masks mark most" in caplog.text


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_masks_drawn_on_stored_pixels_are_turned_with_their_image(tmp_path, caplog, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    problem = loaded(with_masks(tmp_path, [DEFECT, DEFECT[::2, ::2]], exif=exif), caplog)
    whole, half = (mask for mask in problem.test.masks if mask is not None)
    shown = ImageFolder(str(tmp_path), channels=1).picture("test/bad/0.png")[0].numpy()
    assert np.array_equal(whole, shown > 0.5)
    assert half.shape == (16, 12)
    assert not caplog.text


def test_masks_of_another_shape_are_named_with_both_sizes(tmp_path, caplog):
    padded = np.pad(DEFECT, ((0, 8), (0, 0)))
    loaded(with_masks(tmp_path, [padded, DEFECT.T.copy(), DEFECT]), caplog)
    assert "2 of 3 masks are of another shape than their image" in caplog.text
    assert "ground_truth/bad/0_mask.png (32 x 32, of an image of 32 x 24)" in caplog.text
    assert "(24 x 32, of an image of 32 x 24)" in caplog.text


@pytest.mark.parametrize("shape", [(24, 32), (12, 16), (48, 64), (5, 7), (24, 33)])
def test_masks_of_their_image_s_shape_in_any_size(tmp_path, caplog, shape):
    """To a pixel, as sides are rounded."""
    loaded(with_masks(tmp_path, [np.resize(DEFECT, shape)]), caplog)
    assert "shape" not in caplog.text


def photo(number):
    return np.random.default_rng(number).integers(60, 160, (24, 32)).astype(np.uint8)


def pairs(root, photographs, masks, count=6):
    """Photographs, and their masks, of which the first marks a defect."""
    for number in range(count):
        save(root / photographs.replace("#", f"{number:03d}"), photo(number))
        save(root / masks.replace("#", f"{number:03d}"), DEFECT * (number == 0))
    return root


@pytest.mark.parametrize(
    ("photographs", "masks"),
    [("images/#.png", "seg/#.png"), ("#.png", "mask_#.png"), ("#.png", "#mask.png"), ("a/#.png", "a/#Mask.png"),
     ("#.png", "gt#.png"), ("train/#.png", "train/label_#.png"), ("#.png", "seg_#.png"), ("#.jpg", "#seg.png")],
)  # fmt: skip
def test_masks_by_their_names_do_not_train(tmp_path, caplog, photographs, masks):
    pairs(tmp_path, photographs, masks)
    assert list(loaded(tmp_path, caplog).train.names) == [photographs.replace("#", f"00{i}") for i in range(1, 6)]
    labelled = ImageFolder(str(tmp_path), size=16, channels=1).load_all()
    assert labelled.labels.tolist() == [True] + [False] * 5
    assert [int(mask.sum()) for mask in labelled.masks if mask is not None] == [60]
    # One that is of no image is a mask nonetheless.
    save(tmp_path / masks.replace("#", "900"), DEFECT)
    with pytest.raises(InputError, match="1 masks match no image"):
        loaded(tmp_path, caplog)


@pytest.mark.parametrize("names", [("label_#.png", "other/#.png"), ("label_#.png", "front_#.png")])
def test_photographs_that_are_called_as_masks_may_be_train(tmp_path, caplog, names):
    for name in names:
        for number in range(4):
            save(tmp_path / name.replace("#", str(number)), photo(number))
    assert len(loaded(tmp_path, caplog).train) == 8


@pytest.mark.parametrize(
    ("photographs", "masks"),
    [("images/#.png", "defekte/#.png"), ("a/cap/#.png", "b/cap/#.png"), ("#.png", "#_defekt.png"),
     ("#.png", "umriss#.png"), ("train/x/#.png", "train/y/#.png")],
)  # fmt: skip
def test_masks_without_a_word_for_them_are_in_doubt(tmp_path, photographs, masks):
    pairs(tmp_path, photographs, masks)
    with pytest.raises(
        InputError, match="6 of 12 images hold at most 16 values each and are called as others"
    ) as caught:
        ImageFolder(str(tmp_path), size=16, channels=1).load()
    assert "--groups folder trains on all of them" in caught.value.hint
    assert len(ImageFolder(str(tmp_path), size=16, channels=1, groups="folder").load().train) == 12


@pytest.mark.parametrize("names", [("left/#.png", "right/#.png"), ("#.png", "#_right.png"), ("#.png", "1#.png")])
def test_two_cameras_of_the_same_parts_train(tmp_path, caplog, names):
    for name in names:
        for number in range(6):
            save(tmp_path / name.replace("#", f"{number:03d}"), photo(number))
    assert len(loaded(tmp_path, caplog).train) == 12
