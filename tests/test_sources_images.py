"""Image folders: every depth and mode ends in 0..1, layouts and masks are found, bad files are named."""

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from tailwise_runtime import pictures

from tailwise.backbones import networks
from tailwise.core.registry import parse
from tailwise.errors import InputError
from tailwise.sources import image_files, image_samples
from tailwise.sources.auto import open_source
from tailwise.sources.images import ImageFolder
from tailwise.training.options import Training

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
    sample = ImageFolder(str(tmp_path), size=32, channels=channels).load().train.samples[0]
    assert sample.shape == (channels, 32, 32)
    np.testing.assert_allclose(sample.numpy(), np.broadcast_to(RAMP, sample.shape), atol=0.006)


def test_one_bit_and_transparency(tmp_path):
    save(tmp_path / "a.png", Image.fromarray(RAMP > 0.5))
    clear = np.zeros((32, 32, 4), np.uint8)
    clear[:16, :, 3] = 255
    save(tmp_path / "b.png", clear)
    first, second = ImageFolder(str(tmp_path), size=32, channels=1).load().train.samples[:, 0]
    assert torch.equal(first, torch.from_numpy(RAMP > 0.5).float())
    assert bool((second[:16] == 0).all())
    assert bool((second[16:] == 1).all())


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "a.png", exif=exif)
    upright = ImageFolder(str(tmp_path), size=32, channels=1).load().train.samples[0, 0].numpy()
    np.testing.assert_allclose(upright, np.rot90(RAMP, -1), atol=0.006)


def test_colour_keeps_its_order(tmp_path):
    save(tmp_path / "a.png", np.full((8, 8, 3), (255, 0, 51), np.uint8))
    sample = ImageFolder(str(tmp_path), size=16).load().train.samples[0]
    np.testing.assert_allclose(sample.mean((1, 2)).numpy(), [1, 0, 0.2], atol=1e-6)


def test_mixed_sizes_are_resized_and_means_kept(tmp_path):
    save(tmp_path / "a.png", Image.fromarray((RAMP * 255).astype(np.uint8)).resize((200, 90)))
    save(tmp_path / "b.png")
    samples = ImageFolder(str(tmp_path)).load().train.samples
    assert samples.shape == (2, 3, 128, 128)
    np.testing.assert_allclose(samples.mean((1, 2, 3)).numpy(), 0.5, atol=0.01)


def test_names_order_links_and_what_is_ignored(tmp_path):
    folder = tmp_path / "good parts"
    for name in ("10.png", "2.png", "é ü.png", "sub/3.png"):
        save(folder / name)
    for name in ("Thumbs.db", ".hidden.png", "._2.png", "groups.csv"):
        (folder / name).write_bytes(b"x")
    save(tmp_path / "elsewhere/1.png")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "around").symlink_to(folder)
    problem = ImageFolder(str(folder), size=16, groups="folder", follow_links=True).load()
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


@pytest.mark.parametrize("name", ["boards (1).csv", "boards (1.CSV", "(parts)/boards.csv"])
@pytest.mark.parametrize("beside", [True, False])
def test_a_groups_file_with_parentheses_in_its_name(mvtec, tmp_path_factory, name, beside):
    folder = mvtec if beside else tmp_path_factory.mktemp("elsewhere")
    (folder / name).parent.mkdir(exist_ok=True)
    rows = [f"{part}/good/{n}.png,board{n}" for part in ("train", "test") for n in (1, 2, 10)]
    (folder / name).write_text("\n".join(["file,board", *rows]))
    source = ImageFolder(str(mvtec), size=16, groups=name if beside else str(folder / name))
    assert source.load().train_groups.tolist() == ["board1", "board2", "board10"]
    assert source.at(str(mvtec / "test")).groups is None
    assert source.at(str(mvtec)).groups == (name if beside else None)
    with pytest.raises(InputError, match="no file or folder"):
        ImageFolder(str(mvtec), size=16, groups="boards (2).csv").load()


def test_streamed_and_in_memory_agree(mvtec, monkeypatch):
    source = ImageFolder(str(mvtec), size=16)
    held = source.load().train
    monkeypatch.setattr(image_samples, "IN_MEMORY_BYTES", 100)
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
    for channels in (0, -1, 2.5, True):
        with pytest.raises(InputError, match="channels must be a whole number of at least 1"):
            ImageFolder(str(tmp_path), channels=channels)
    with pytest.raises(InputError, match="reads images in colour: got channels=4"):
        ImageFolder(str(tmp_path), read="efficientnet-lite0", channels=4)
    for size in (2, (64, 4), (64, 64, 64), "64 by 64", 5_000, 64.0):
        with pytest.raises(InputError, match="size must be from 8 to 4096 pixels"):
            ImageFolder(str(tmp_path), size=size)


BANDS = np.stack([RAMP, RAMP[::-1], RAMP.T, 1 - RAMP, RAMP**2, np.sqrt(RAMP)], -1)  # [32, 32, 6]


@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
@pytest.mark.parametrize("form", ["samples.tif", "planes.tif", "pages.tif", "last.npy", "first.npy"])
@pytest.mark.parametrize("bands", [2, 4, 5, 6])
def test_any_number_of_bands_of_any_depth(tmp_path, kind, form, bands):
    largest = 1 if kind == "f4" else np.iinfo(kind).max
    samples = (BANDS[..., :bands] * largest).round(0 if largest > 1 else 9).astype(kind)
    first = np.ascontiguousarray(np.moveaxis(samples, 2, 0))
    path = tmp_path / form
    if form.endswith("npy"):
        np.save(path, samples if form == "last.npy" else first)
    elif form == "samples.tif":
        tifffile.imwrite(path, samples, photometric="minisblack", planarconfig="contig")
    elif form == "planes.tif":
        tifffile.imwrite(path, first, photometric="minisblack", planarconfig="separate")
    else:
        tifffile.imwrite(path, first, photometric="minisblack")
    source = open_source(tmp_path, channels=bands, size=32)
    sample = source.load().train.samples[0].numpy()
    np.testing.assert_allclose(sample, np.moveaxis(BANDS[..., :bands], 2, 0), atol=0.003)
    assert open_source(path, channels=bands, size=32).load_all().data.sample_shape == (bands, 32, 32)
    assert source.picture(form).shape == source.picture(form).expand(3, 32, 32).shape
    with pytest.raises(InputError, match=rf"has {bands} bands: asked for were 7.*channels={bands}"):
        open_source(tmp_path, channels=7).load()


def test_opacity_is_data_only_where_four_channels_are_asked_for(tmp_path):
    samples = (BANDS[..., :4] * 255).round().astype(np.uint8)
    save(tmp_path / "a.png", samples)
    save(tmp_path / "b.png", samples[..., :3])
    four = ImageFolder(str(tmp_path), size=32, channels=4).load().train.samples.numpy()
    np.testing.assert_allclose(four[0], np.moveaxis(BANDS[..., :4], 2, 0), atol=0.003)
    np.testing.assert_array_equal(four[1, :3], four[0, :3])
    assert (four[1, 3] == 1).all()
    three = ImageFolder(str(tmp_path), size=32).load().train.samples.numpy()
    alpha = BANDS[..., 3]
    np.testing.assert_allclose(three[0], np.moveaxis(BANDS[..., :3], 2, 0) * alpha + 1 - alpha, atol=0.006)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("samples", [RAMP, RAMP[..., None], np.repeat(RAMP[..., None], 3, 2), RAMP > 0.5])
def test_arrays_are_images_where_there_are_no_others(tmp_path, channels, samples):
    np.save(tmp_path / "a.npy", samples)
    source = ImageFolder(str(tmp_path), size=32, channels=channels)
    sample = source.load().train.samples[0].numpy()
    np.testing.assert_allclose(sample, np.broadcast_to(samples.reshape(32, 32, -1)[..., 0], sample.shape), atol=1e-6)
    save(tmp_path / "b.png")
    assert list(source.load().train.names) == ["b.png"]


@pytest.mark.parametrize("samples", [np.array(["a"]), np.zeros(0), np.zeros((2, 2, 2, 2)), np.zeros((4, 4, 9))])
def test_arrays_that_are_no_images_are_named(tmp_path, samples):
    np.save(tmp_path / "a.npy", samples)
    with pytest.raises(InputError, match=r"a\.npy as an image"):
        ImageFolder(str(tmp_path)).load()


def test_any_shape_and_its_spelling(tmp_path):
    wide = np.repeat(np.repeat((RAMP * 255).round().astype(np.uint8), 2, 0), 5, 1)  # [64, 160]
    save(tmp_path / "a.png", wide)
    source = ImageFolder(str(tmp_path), size="64x160", channels=1)
    assert source.size == (64, 160)
    assert parse(repr(source), ("source",)) == (source,)
    np.testing.assert_array_equal((source.load().train.samples[0, 0].numpy() * 255).round(), wide)
    assert ImageFolder(str(tmp_path), size="64") == ImageFolder(str(tmp_path), size=64)
    assert open_source(tmp_path, size="16x40", read="pixels").load().train.sample_shape == (3, 16, 40)
    assert "resized to 64 x 160" in source.load().facts.notes[0]


def test_streamed_images_of_another_shape_and_many_bands_agree(tmp_path, monkeypatch):
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", np.roll(BANDS, number, 0))
    source = ImageFolder(str(tmp_path), size=(16, 24), channels=6)
    held = source.load().train
    monkeypatch.setattr(image_samples, "IN_MEMORY_BYTES", 100)
    streamed = source.load().train
    assert not streamed.in_memory
    assert torch.equal(held.read(torch.tensor([2, 0])), streamed.read(torch.tensor([2, 0])))


@pytest.mark.parametrize("detector", ["gaussian", "autoencoder"])
def test_detectors_take_any_number_of_channels(tmp_path, detector):
    from tailwise.cli.commands import fit, score
    from tailwise.sources.options import SourceOptions

    generator = np.random.default_rng(0)
    (tmp_path / "parts").mkdir()
    for number in range(24):
        np.save(tmp_path / f"parts/{number}.npy", generator.random((16, 24, 5)).astype(np.float32))
    reading = SourceOptions(channels=5, size="16x24")
    run = fit(
        str(tmp_path / "parts"), detector=detector, reading=reading, training=Training(epochs=2), out=tmp_path / "run"
    )
    assert run.settings.sample_shape == (5, 16, 24)
    table = score(run.path, str(tmp_path / "parts"), maps=tmp_path / "maps")
    assert len(table) == 24
    assert tifffile.imread(tmp_path / "maps/3.npy.map.tiff").shape == (16, 24)


def test_one_file_and_another_folder(mvtec, tmp_path):
    source = ImageFolder(str(mvtec), size=16, groups="groups.csv")
    assert list(source.at(str(mvtec / "test/good/1.png")).load_all().data.names) == ["1.png"]
    assert source.at(str(mvtec / "test")).load_all().labels is None


def test_spelling_round_trip():
    source = ImageFolder("my parts", size=64, channels=1, groups="folder")
    assert parse(repr(source), ("source",)) == (source,)


@pytest.mark.skipif(not networks.installed("efficientnet-lite0"), reason="needs the packages of EfficientNet-Lite0")
def test_features_are_those_of_the_backbone(mvtec):
    source = ImageFolder(str(mvtec), read="efficientnet-lite0", size=64)
    rows = source.load().train.samples
    pixels = torch.stack([image_files.read_picture(mvtec / f"train/good/{n}.png", 64, 3) for n in (1, 2, 10)])
    assert torch.equal(rows, networks.pooled("efficientnet-lite0")(pixels))


def test_unknown_backbone(mvtec):
    with pytest.raises(InputError, match="no backbone is called 'resnet'"):
        ImageFolder(str(mvtec), read="resnet").load()


def test_figures_leave_out_test_images_that_equal_training_ones(tmp_path):
    from tailwise.cli.commands import fit
    from tailwise.sources.options import SourceOptions

    generator = np.random.default_rng(0)
    for part, count, bad in (("train/ok", 30, 0), ("test/ok", 6, 0), ("test/ko", 4, 90)):
        for number in range(count):
            grey = generator.integers(60, 120, (16, 16)).astype(np.uint8)
            grey[4:9, 4:9] += np.uint8(bad)
            save(tmp_path / f"data/{part}/{number}.png", grey)
    reading = SourceOptions(read="pixels", size=16, channels=1)
    reports = []
    for copies in (0, 3):
        for number in range(copies):
            (tmp_path / f"data/test/ok/1{number}.png").write_bytes(
                (tmp_path / f"data/train/ok/{number}.png").read_bytes()
            )
        run = fit(str(tmp_path / "data"), detector="gaussian", reading=reading, out=tmp_path / f"run{copies}")
        reports.append((run.report(), (run.path / "report.html").read_text()))
    (before, _), (after, page) = reports
    assert before["test"] | {"copies": 3} == after["test"]
    assert (after["test"]["normals"], after["test"]["anomalies"]) == (6, 4)
    assert "3 more test samples equal a training one and are left out of these figures" in page
    assert "trains on 30 images: train/ok 30" in page


@pytest.mark.parametrize("ending", [".jfif", ".jpe", ".JPE"])
def test_a_jpeg_by_its_other_endings(tmp_path, ending):
    save(tmp_path / "a.jpg")
    save(tmp_path / f"b{ending}", format="JPEG")
    problem = ImageFolder(str(tmp_path), size=32, channels=1).load()
    assert problem.train.names == ["a.jpg", f"b{ending}"]
    assert torch.equal(problem.train.samples[0], problem.train.samples[1])


def test_the_runtime_reads_the_same_endings():
    assert pictures.SUFFIXES == image_files.SUFFIXES


def unread_beside(folder):
    """Two images of a format that is not read, one with another ending and one without; and what is no image."""
    for number in range(2):
        (folder / f"{number}.heic").write_bytes(b"\0\0\0\x18ftypheic")
    save(folder / "c.dat", format="PNG")
    save(folder / "d.bmp")
    save(folder / "sub/e", format="JPEG")
    for name, content in (("notes.txt", b"BM"), ("weights.bin", b"\0" * 20), ("empty", b""), (".hidden.heic", b"x")):
        (folder / name).write_bytes(content)
    return "4 files are images that are not read: 2 of .heic, 1 of .dat, 1 without an ending; save them as .png"


def test_images_that_are_not_read_are_counted_by_their_endings(tmp_path, caplog):
    save(tmp_path / "a.png")
    said = unread_beside(tmp_path)
    source = ImageFolder(str(tmp_path), size=32, channels=1)
    assert [note for note in source.load().facts.notes if note.startswith(said)]
    with caplog.at_level("INFO", "tailwise"):
        assert source.load_all().data.names == ["a.png", "d.bmp"]
    assert said in caplog.text
    assert "not read" not in " ".join(ImageFolder(str(tmp_path / "a.png"), size=32).load().facts.notes)


def test_a_folder_of_nothing_but_images_that_are_not_read(tmp_path):
    (tmp_path / "0.heic").write_bytes(b"x")
    with pytest.raises(InputError, match=r"holds no images: 1 files are images that are not read: 1 of \.heic"):
        ImageFolder(str(tmp_path)).load()
