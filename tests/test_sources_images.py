"""Image folders: every depth and mode ends in 0..1, layouts and masks are found, bad files are named."""

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from tailwise import backbones
from tailwise.errors import InputError
from tailwise.registry import parse
from tailwise.sources import pictures, reading
from tailwise.sources.images import ImageFolder

RAMP = np.linspace(0, 1, 32 * 32).reshape(32, 32)


def save(path, samples=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = (RAMP * 255).astype(np.uint8) if samples is None else samples
    (samples if isinstance(samples, Image.Image) else Image.fromarray(samples)).save(path, **options)
    return path


@pytest.fixture
def mvtec(tmp_path):
    for number in (1, 2, 10):
        save(tmp_path / f"train/good/{number}.png")
    save(tmp_path / "validation/good/1.png")
    save(tmp_path / "test/good/1.png")
    save(tmp_path / "test/cut [a]/x [1].png")
    save(tmp_path / "test/hole/3.png")
    mask = np.zeros((50, 40), np.uint8)
    mask[5:15, 8:20] = 255
    save(tmp_path / "ground_truth/cut [a]/x [1]_mask.png", mask)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "samples"),
    [
        ("grey.png", (RAMP * 255).round().astype(np.uint8)),
        ("deep.png", (RAMP * 65_535).round().astype(np.uint16)),
        ("deep.tif", (RAMP * 65_535).round().astype(np.uint16)),
        ("float.tif", RAMP.astype(np.float32)),
        ("whole.tif", (RAMP * 65_535).round().astype(np.int32)),
        ("colour.png", np.repeat((RAMP * 255).round().astype(np.uint8)[..., None], 3, 2)),
        (
            "opaque.png",
            np.dstack([np.repeat((RAMP * 255).round()[..., None], 3, 2), np.full((32, 32), 255)]).astype("u1"),
        ),
        ("palette.png", Image.fromarray((RAMP * 255).round().astype(np.uint8)).convert("P")),
        ("deep colour.tif", np.repeat((RAMP * 65_535).round().astype(np.uint16)[..., None], 3, 2)),
        ("float colour.tif", np.repeat(RAMP.astype(np.float32)[..., None], 3, 2)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_depth_and_mode_is_the_same_ramp(tmp_path, name, samples, channels):
    if "colour.tif" in name:
        tifffile.imwrite(tmp_path / name, samples, photometric="rgb")
    else:
        save(tmp_path / name, samples)
    unit = ImageFolder(str(tmp_path), size=32, channels=channels).load().train.units[0]
    assert unit.shape == (channels, 32, 32)
    np.testing.assert_allclose(unit.numpy(), np.broadcast_to(RAMP, unit.shape), atol=0.006)


def test_one_bit_and_transparency(tmp_path):
    save(tmp_path / "a.png", Image.fromarray(RAMP > 0.5))
    clear = np.zeros((32, 32, 4), np.uint8)
    clear[:16, :, 3] = 255
    save(tmp_path / "b.png", clear)
    first, second = ImageFolder(str(tmp_path), size=32, channels=1).load().train.units[:, 0]
    assert torch.equal(first, torch.from_numpy(RAMP > 0.5).float())
    assert bool((second[:16] == 0).all())
    assert bool((second[16:] == 1).all())


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "a.png", exif=exif)
    upright = ImageFolder(str(tmp_path), size=32, channels=1).load().train.units[0, 0].numpy()
    np.testing.assert_allclose(upright, np.rot90(RAMP, -1), atol=0.006)


def test_colour_keeps_its_order(tmp_path):
    save(tmp_path / "a.png", np.full((8, 8, 3), (255, 0, 51), np.uint8))
    unit = ImageFolder(str(tmp_path), size=16).load().train.units[0]
    np.testing.assert_allclose(unit.mean((1, 2)).numpy(), [1, 0, 0.2], atol=1e-6)


def test_mixed_sizes_are_resized_and_means_kept(tmp_path):
    save(tmp_path / "a.png", Image.fromarray((RAMP * 255).astype(np.uint8)).resize((200, 90)))
    save(tmp_path / "b.png")
    units = ImageFolder(str(tmp_path)).load().train.units
    assert units.shape == (2, 3, 128, 128)
    np.testing.assert_allclose(units.mean((1, 2, 3)).numpy(), 0.5, atol=0.01)


def test_names_order_links_and_what_is_ignored(tmp_path):
    folder = tmp_path / "good parts"
    for name in ("10.png", "2.png", "é ü.png", "sub/3.png"):
        save(folder / name)
    for name in ("Thumbs.db", ".hidden.png", "._2.png", "groups.csv"):
        (folder / name).write_bytes(b"x")
    save(tmp_path / "elsewhere/1.png")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "around").symlink_to(folder)
    problem = ImageFolder(str(folder), size=16, groups="folder").load()
    assert list(problem.train.names) == ["2.png", "10.png", "linked/1.png", "sub/3.png", "é ü.png"]
    assert problem.train_groups.tolist() == [".", ".", "linked", "sub", "."]


def test_mvtec_layout(mvtec):
    source = ImageFolder(str(mvtec), size=16)
    problem = source.load()
    assert list(problem.train.names) == ["train/good/1.png", "train/good/2.png", "train/good/10.png"]
    assert list(problem.test.data.names) == ["test/cut [a]/x [1].png", "test/good/1.png", "test/hole/3.png"]
    assert problem.test.labels.tolist() == [True, False, True]
    masks = list(problem.test.masks)
    assert masks[0].shape == (50, 40)
    assert masks[0].sum() == 120
    assert masks[1] is None
    assert masks[2] is None
    assert any("validation" in note for note in problem.facts.notes)
    everything = source.load_all()
    assert len(everything.data) == 7
    assert everything.labels.sum() == 2


def test_groups_file(mvtec):
    rows = [f"train/good/{n}.png,board{n}" for n in (1, 2, 10)]
    (mvtec / "groups.csv").write_text("\n".join(["file,board", *rows, "test/good/1.png,board1"]))
    problem = ImageFolder(str(mvtec), size=16, groups="groups.csv").load()
    assert problem.train_groups.tolist() == ["board1", "board2", "board10"]
    assert problem.test.groups.tolist() == ["", "board1", ""]
    (mvtec / "groups.csv").write_text("\n".join(["file,board", *rows]))
    with pytest.raises(InputError, match=r"no row for 'test/good/1.png'"):
        ImageFolder(str(mvtec), size=16, groups="groups.csv").load()


def test_streamed_and_in_memory_agree(mvtec, monkeypatch):
    source = ImageFolder(str(mvtec), size=16)
    held = source.load().train
    monkeypatch.setattr(reading, "IN_MEMORY_BYTES", 100)
    streamed = source.load().train
    assert held.in_memory
    assert not streamed.in_memory
    index = torch.tensor([2, 0])
    assert torch.equal(held.read(index), streamed.read(index))
    assert torch.equal(held.take([1]).read(torch.tensor([0])), streamed.take([1]).read(torch.tensor([0])))


@pytest.fixture
def with_bad(tmp_path):
    whole = save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)).read_bytes()
    (tmp_path / "b cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.jpg").write_text("no image")
    (tmp_path / "d.tif").write_bytes(b"II*\x00 broken")
    return tmp_path


def test_unreadable_images_are_refused_by_name(with_bad):
    with pytest.raises(InputError, match=r"b cut\.png as an image.*skip"):
        ImageFolder(str(with_bad)).load()


def test_skip_bad_leaves_them_out_with_one_warning(with_bad):
    with pytest.warns(UserWarning, match=r"3 of 4 images .* b cut\.png, c\.jpg, d\.tif"):
        problem = ImageFolder(str(with_bad), skip_bad=True).load()
    assert list(problem.train.names) == ["a.png"]


@pytest.mark.parametrize("samples", [RAMP * 300, RAMP - 0.5, np.where(RAMP > 0.5, np.nan, RAMP)])
def test_float_images_outside_their_range(tmp_path, samples):
    save(tmp_path / "a.tif", samples.astype(np.float32))
    with pytest.raises(InputError, match=r"a\.tif holds values from .*divide"):
        ImageFolder(str(tmp_path), skip_bad=True).load()


def test_decompression_bombs(tmp_path, monkeypatch):
    save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    with pytest.raises(InputError, match="more than 600 pixels"):
        ImageFolder(str(tmp_path)).load()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match="more than 100 pixels"):
        ImageFolder(str(tmp_path)).load()


def test_no_images_and_bad_options(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="holds no images"):
        ImageFolder(str(tmp_path)).load()
    with pytest.raises(InputError, match="channels must be 1 or 3: got 4"):
        ImageFolder(str(tmp_path), channels=4)
    with pytest.raises(InputError, match="size must be"):
        ImageFolder(str(tmp_path), size=2)


def test_one_file_and_another_folder(mvtec, tmp_path):
    source = ImageFolder(str(mvtec), size=16, groups="groups.csv")
    assert list(source.at(str(mvtec / "test/good/1.png")).load_all().data.names) == ["1.png"]
    assert source.at(str(mvtec / "test")).load_all().labels is None


def test_spelling_round_trip():
    source = ImageFolder("my parts", size=64, channels=1, groups="folder")
    assert parse(repr(source), ("source",)) == (source,)


@pytest.mark.skipif(not backbones.installed("efficientnet-lite0"), reason="needs the packages of EfficientNet-Lite0")
def test_features_are_those_of_the_backbone(mvtec):
    source = ImageFolder(str(mvtec), read="efficientnet-lite0", size=64)
    rows = source.load().train.units
    pixels = torch.stack([pictures.read_picture(mvtec / f"train/good/{n}.png", 64, 3) for n in (1, 2, 10)])
    assert torch.equal(rows, backbones.pooled("efficientnet-lite0")(pixels))


def test_unknown_backbone(mvtec):
    with pytest.raises(InputError, match="no backbone is called 'resnet'"):
        ImageFolder(str(mvtec), read="resnet").load()
