"""Pictures are read in all of their depth or refused, masks mean what their pixels say, and broken files are named."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tailwise.errors import InputError
from tailwise.sources.auto import open_source
from tailwise.sources.image_files import BadPicture, read_mask, read_picture
from tailwise.sources.images import ImageFolder

SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(1, 9)


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def filtered(rows, pixel, kinds):
    """Rows of bytes as PNG's five filters leave them: RFC 2083, section 6."""
    rows = rows.astype(np.int64)
    left = np.pad(rows, ((0, 0), (pixel, 0)))[:, : rows.shape[1]]
    up = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
    corner = np.pad(up, ((0, 0), (pixel, 0)))[:, : rows.shape[1]]
    guess = left + up - corner
    away = [np.abs(guess - one) for one in (left, up, corner)]
    paeth = np.where((away[0] <= away[1]) & (away[0] <= away[2]), left, np.where(away[1] <= away[2], up, corner))
    guesses = [np.zeros_like(rows), left, up, (left + up) // 2, paeth]
    return b"".join(
        bytes([kind]) + ((row - guesses[kind][place]) % 256).astype("u1").tobytes()
        for place, (kind, row) in enumerate(zip(kinds, rows, strict=True))
    )


def png16(samples, kinds, interlaced=False, transparent=None):
    """A PNG of 16 bits from samples [h, w, channels] and the filter of each row."""
    height, width, channels = samples.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    starts = [(0, 0, 1, 1)]
    if interlaced:  # Adam7
        starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    body = b""
    for top, left, down, across in starts:
        part = samples[top::down, left::across]
        if part.size:
            rows = np.ascontiguousarray(part.astype(">u2")).view("u1").reshape(len(part), -1)
            body += filtered(rows, 2 * channels, (kinds * height)[: len(part)])
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, int(interlaced))
    clear = b"" if transparent is None else png_chunk(b"tRNS", np.array(transparent, ">u2").tobytes())
    chunks = png_chunk(b"IHDR", head) + clear + png_chunk(b"IDAT", zlib.compress(body)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def on_white(samples, largest):
    """[h, w, 1 to 4] as three colours on white."""
    values = samples.astype(np.float64) / largest
    colours, opacity = (values, 1) if values.shape[2] in (1, 3) else (values[..., :-1], values[..., -1:])
    return np.broadcast_to(colours * opacity + 1 - opacity, (*values.shape[:2], 3))


def same(path, expected):
    """Whether a file is read as these colours [h, w, 3] to the last bit of 16."""
    np.testing.assert_allclose(np.moveaxis(read_picture(path, None, 3).numpy(), 0, 2), expected, atol=2e-7)


@given(SEEDS, SIDES, SIDES, st.integers(1, 4), st.lists(st.integers(0, 4), min_size=1, max_size=9), st.booleans())
@settings(max_examples=60, deadline=None)
def test_png_of_16_bits(tmp_path_factory, seed, height, width, channels, kinds, interlaced):
    samples = np.random.default_rng(seed).integers(0, 65_536, (height, width, channels)).astype(np.uint16)
    path = tmp_path_factory.mktemp("png") / "a.png"
    path.write_bytes(png16(samples, kinds, interlaced))
    same(path, on_white(samples, 65_535))
    if channels != 1:
        four = read_picture(path, None, 4).numpy()
        np.testing.assert_allclose(four[0], samples[..., 0] / 65_535, atol=1e-7)
        np.testing.assert_allclose(four[3], samples[..., -1] / 65_535 if channels in (2, 4) else 1, atol=1e-7)


def test_png_of_16_bits_with_a_transparent_colour(tmp_path):
    for samples in (np.array([[[300, 5, 70], [301, 5, 70]]], np.uint16), np.array([[[300], [301]]], np.uint16)):
        (tmp_path / "a.png").write_bytes(png16(samples, [0], transparent=samples[0, 0]))
        shown = read_picture(tmp_path / "a.png", None, 3).numpy()
        assert (shown[:, 0, 0] == 1).all()
        np.testing.assert_allclose(shown[:, 0, 1], samples[0, 1] / 65_535 * np.ones(3), atol=1e-7)


@given(
    SEEDS, SIDES, SIDES, st.sampled_from([1, 2, 3, 4]), st.sampled_from(["u1", "u2", "u4", "f4", "f8", "f2"]),
    st.sampled_from("<>"), st.booleans(), st.sampled_from([None, "zlib"]), st.booleans(),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_tiff_of_any_depth(tmp_path_factory, seed, height, width, channels, kind, order, apart, packed, white):
    generator = np.random.default_rng(seed)
    if kind == "u4" and channels == 1:
        kind = "u2"  # grey of 32 bits is held to 65,535, see the ramps of test_sources_images
    largest = 1 if kind[0] == "f" else np.iinfo(kind).max
    samples = generator.random((height, width, channels)) if largest == 1 else generator.integers(
        0, largest + 1, (height, width, channels)
    )  # fmt: skip
    samples = samples.astype(kind)
    colours = "rgb" if channels > 2 else "miniswhite" if white and kind == "u2" else "minisblack"
    stored = samples.copy()
    if colours == "miniswhite":
        stored[..., 0] = largest - stored[..., 0]
    apart = apart and channels > 1
    stored = np.moveaxis(stored, 2, 0) if apart else stored[..., 0] if channels == 1 else stored
    path = tmp_path_factory.mktemp("tiff") / "a.tif"
    tifffile.imwrite(
        path, np.ascontiguousarray(stored), photometric=colours, compression=packed, byteorder=order,
        planarconfig=("separate" if apart else "contig") if channels > 1 else None,
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
    )  # fmt: skip
    expected = on_white(samples, largest)
    shown = np.moveaxis(read_picture(path, None, 3).numpy(), 0, 2)
    # Pillow lays 8-bit pictures on white in 8 bits.
    np.testing.assert_allclose(shown, expected, atol=0.006 if kind == "u1" else 3e-7)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_grey_tiff_by_other_codecs(tmp_path, compression, order):
    grey = np.random.default_rng(0).integers(0, 65_536, (20, 30)).astype(f"{order}u2")
    Image.fromarray(grey.astype("u2")).save(tmp_path / "a.tif", compression=compression)
    same(tmp_path / "a.tif", on_white(grey[..., None], 65_535))


def test_colours_that_would_be_cut_are_refused(tmp_path):
    wide = np.random.default_rng(0).integers(0, 4_096, (8, 8, 3)).astype(">u2")
    (tmp_path / "a.ppm").write_bytes(b"P6\n# of a camera\n8 8\n4095\n" + wide.tobytes())
    (tmp_path / "text.ppm").write_text("P3\n2 1\n1023\n" + " ".join(["1000"] * 6))
    tifffile.imwrite(tmp_path / "cmyk.tif", np.zeros((8, 8, 4), "u2"), photometric="separated")
    tifffile.imwrite(tmp_path / "near.tif", np.zeros((8, 8, 5), "u2"), photometric="rgb")
    for name, said in (
        ("a.ppm", "cut to 8"),
        ("text.ppm", "cut to 8"),
        ("cmyk.tif", "RGB or grey"),
        ("near.tif", "channels=5"),
    ):
        with pytest.raises(InputError, match=said) as refused:
            read_picture(tmp_path / name, None, 3)
        assert name in str(refused.value)
    (tmp_path / "fine.ppm").write_bytes(b"P6 8 8 255\n" + bytes(192))
    assert read_picture(tmp_path / "fine.ppm", None, 3).shape == (3, 8, 8)


@pytest.mark.parametrize("mode", ["P", "CMYK", "LA", "L", "RGB", "1", "YCbCr", "RGBA"])
def test_pictures_of_8_bits_are_read_as_before(tmp_path, mode):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype("u1")).convert(mode)
    picture.save(tmp_path / "a.tif")
    shown = read_picture(tmp_path / "a.tif", None, 3).numpy() * 255
    alone = picture if mode not in ("LA", "RGBA") else Image.fromarray(np.asarray(picture)[..., :-1].squeeze())
    np.testing.assert_allclose(np.moveaxis(shown, 0, 2), np.asarray(alone.convert("RGB")), atol=0.5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_pictures_are_upright(tmp_path, orientation):
    deep = np.random.default_rng(0).integers(0, 65_536, (5, 8, 3)).astype("u2")
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    shallow = Image.fromarray((deep >> 8).astype("u1"))
    exif = Image.Exif()
    exif[274] = orientation
    shallow.save(tmp_path / "b.png", exif=exif)
    a, b = (read_picture(tmp_path / name, None, 3) for name in ("a.tif", "b.png"))
    np.testing.assert_allclose(a, b, atol=1 / 255)


def test_content_decides_and_postscript_never_starts(tmp_path, monkeypatch):
    started = tmp_path / "started"
    program = tmp_path / "bin/gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {started}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    text = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 24 24\n%%EndComments\nshowpage\n%%EOF\n"
    for name in ("x.png", "x.tif", "x.jpg", "x_mask.bmp", "x.npy"):
        (tmp_path / name).write_text(text)
        for read in (lambda path: read_picture(path, None, 3), lambda path: read_picture(path, None, 4), read_mask):
            with pytest.raises(BadPicture, match=name):
                read(tmp_path / name)
        with pytest.raises(InputError):
            open_source(tmp_path / name, read="pixels").load()
    assert not started.exists()
    grey = np.arange(64, dtype="u1").reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / "named.png", format="BMP")
    np.save(tmp_path / "b.npy", grey)
    (tmp_path / "b.npy").rename(tmp_path / "array.png")
    for name in ("named.png", "array.png"):
        same(tmp_path / name, on_white(grey[..., None], 255))


def test_dark_pictures_are_told_of(tmp_path):
    for folder, largest in (("camera", 4_095), ("full", 60_000)):
        (tmp_path / folder).mkdir()
        for number in range(3):
            values = np.random.default_rng(number).integers(0, largest, (16, 16, 3)).astype("u2")
            (tmp_path / folder / f"{number}.png").write_bytes(png16(values, [0]))
    notes = {
        folder: " ".join(ImageFolder(str(tmp_path / folder), size=16).load().facts.notes)
        for folder in ("camera", "full")
    }
    assert "below an eighth" in notes["camera"]
    assert "below an eighth" not in notes["full"]


SQUARE = np.zeros((32, 32), np.uint8)
SQUARE[10:18, 10:18] = 1  # 64 pixels
PARTS = SQUARE * np.repeat([1, 2, 3, 5], 16 * 16).reshape(32, 32).astype("u1")


def mask_files(folder):
    """Files whose mask is SQUARE, by name."""
    numbers = SQUARE * (1 + np.mgrid[:32, :32][0] // 13).astype("u1")  # 1 and 2 in patches
    pictures = {
        "binary.png": SQUARE * 255, "one.png": SQUARE, "classes.png": numbers, "seven.bmp": SQUARE * 7,
        "spread.png": numbers * 100, "loco.png": SQUARE * 234, "wide.png": numbers.astype("u2") * 1_000,
        "bits.png": SQUARE.astype(bool), "colours.png": np.dstack([numbers * 90, SQUARE * 0, (numbers == 2) * 200]),
        "clear.png": np.dstack([SQUARE * 255] * 4), "drawn.png": np.dstack([SQUARE * 0] * 3 + [SQUARE * 255]),
        "opaque.png": np.dstack([SQUARE * 255] * 3 + [SQUARE * 0 + 255]),
        "grey clear.png": np.dstack([SQUARE * 255] * 2),
    }  # fmt: skip
    for name, values in pictures.items():
        values = values if values.dtype in (bool, np.uint16) else values.astype("u1")
        Image.fromarray(values).save(folder / name)
    for name, colours in {
        "voc.png": [0, 0, 0, 128, 0, 0, 0, 128, 0],
        "any.gif": [9, 200, 9, 255, 0, 0, 0, 0, 255],
        "unset.png": [0, 0, 0],
    }.items():
        picture = Image.fromarray(numbers).convert("P")
        picture.putdata(numbers.ravel().tolist())
        picture.putpalette(colours + [0] * (768 - len(colours)) if name == "any.gif" else colours)
        picture.save(folder / name)
    Image.fromarray(SQUARE * 255).convert("RGB").quantize(2).save(folder / "reduced.png")
    Image.fromarray(SQUARE * 255).convert("P").save(folder / "ramp.png")
    tifffile.imwrite(folder / "classes.tif", numbers.astype("u2"))
    np.save(folder / "array.npy", numbers)
    return [*sorted(path.name for path in folder.iterdir())]


def test_masks_mean_what_their_pixels_say(tmp_path):
    names = mask_files(tmp_path)
    assert len(names) >= 18
    wrong = {name: int(read_mask(tmp_path / name).sum()) for name in names}
    assert wrong == dict.fromkeys(names, 64)
    for name in names:
        assert np.array_equal(read_mask(tmp_path / name), SQUARE == 1)


def test_soft_masks_are_cut_at_half(tmp_path):
    Image.fromarray(SQUARE * 255).save(tmp_path / "a.jpg", quality=60)
    Image.open(tmp_path / "a.jpg").save(tmp_path / "again.png")
    large = Image.fromarray(SQUARE * 255).resize((128, 128), Image.Resampling.BILINEAR)
    large.save(tmp_path / "soft.png")
    assert abs(int(read_mask(tmp_path / "a.jpg").sum()) - 64) <= 4
    assert abs(int(read_mask(tmp_path / "again.png").sum()) - 64) <= 4
    assert abs(int(read_mask(tmp_path / "soft.png").sum()) - 1_024) <= 64
    assert not read_mask_of(tmp_path, np.zeros((8, 8), "u1")).any()


def read_mask_of(folder, values):
    Image.fromarray(values).save(folder / "other.png")
    return read_mask(folder / "other.png")


def whole_files():
    """A small picture in each format, as bytes."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12, 3)).astype("u1"))
    for name, options in (("PNG", {}), ("JPEG", {}), ("TIFF", {}), ("GIF", {}), ("BMP", {}), ("WEBP", {}), ("PPM", {}),
                          ("TIFF", {"compression": "tiff_lzw"})):  # fmt: skip
        stream = io.BytesIO()
        picture.save(stream, name, **options)
        yield stream.getvalue()
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.zeros((12, 12, 3), "u2"), photometric="rgb", compression="zlib")
    yield stream.getvalue()
    yield png16(np.zeros((6, 6, 3), "u2"), [1, 4])
    stream = io.BytesIO()
    np.save(stream, np.zeros((8, 8)))
    yield stream.getvalue()


WHOLE = list(whole_files())


@given(st.integers(0, len(WHOLE) - 1), SEEDS, st.integers(0, 3))
@example(2, 7473, 0)  # one that becomes a stack, which is a cube
@settings(max_examples=200, deadline=None)
def test_damaged_files_are_named(tmp_path_factory, which, seed, cut):
    generator = np.random.default_rng(seed)
    data = np.frombuffer(WHOLE[which], np.uint8).copy()
    places = generator.integers(0, min(len(data), 400), 3)
    data[places] = generator.integers(0, 256, 3)
    if cut == 3:
        data = data[: generator.integers(0, len(data))]
    path = tmp_path_factory.mktemp("damaged") / "a.tif"
    path.write_bytes(data.tobytes())
    for read in (lambda: read_picture(path, 8, 3), lambda: read_picture(path, 8, 5), lambda: read_mask(path),
                 lambda: open_source(path.parent, read="pixels", size=8).load()):  # fmt: skip
        try:
            read()
        except InputError as error:
            assert str(path.parent) in str(error) or "a.tif" in str(error)  # noqa: PT017
