"""ENVI headers as programs and people write them: read back exactly, or refused with the true reason."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailwise.errors import InputError
from tailwise.sources.auto import open_source
from tailwise.sources.cube import Cube

VALUES = np.random.default_rng(2).integers(1, 200, (4, 5, 6))
CODES = {"u1": 1, "i2": 2, "i4": 3, "f4": 4, "f8": 5, "u2": 12, "u4": 13, "i8": 14, "u8": 15}
AXES = {"bip": (0, 1, 2), "bil": (0, 2, 1), "bsq": (2, 0, 1)}
LINES = {
    "samples": "5", "lines": "4", "bands": "6", "header offset": "0", "file type": "ENVI Standard",
    "data type": "4", "interleave": "bip", "byte order": "0",
}  # fmt: skip


def pixels(values=VALUES):
    return torch.from_numpy(values.astype(np.float32).reshape(-1, 1, values.shape[2]))


def write(folder, changed=None, values=VALUES, dtype="<f4", offset=0, data_name="a.img", name="a.hdr"):
    """A header with some lines changed, or left out where they are None, and its data."""
    lines = {**LINES, **(changed or {})}
    interleave = (lines["interleave"] or "bip").lower()
    order = AXES.get(interleave, (0, 1, 2))
    data = np.ascontiguousarray(values.transpose(order)).astype(dtype).tobytes()
    (folder / data_name).write_bytes(b"\7" * offset + data)
    (folder / name).write_text(
        "ENVI\n" + "".join(f"{key} = {value}\n" for key, value in lines.items() if value is not None), encoding="utf-8"
    )
    return folder / name


def read(path):
    return Cube(str(path)).load().train


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_was_written_is_read_back_exactly(tmp_path, data):
    draw = data.draw
    height, width, bands = (draw(st.integers(1, 5)) for _ in range(3))
    kind, order = draw(st.sampled_from(sorted(CODES))), draw(st.sampled_from("<>"))
    # Whole numbers that every type and float32 hold.
    seed = draw(st.integers(0, 2**32))
    values = np.random.default_rng(seed).integers(1, 100, (height, width, bands))
    ignored = draw(st.sampled_from([None, 0, 127]))
    if ignored is not None:
        values[draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))] = ignored
    offset = draw(st.integers(0, 9))

    def capitals(text):
        return "".join(draw(st.sampled_from([str.upper, str.lower]))(letter) for letter in text)

    interleave = draw(st.sampled_from(sorted(AXES)))
    lines = {
        "samples": width, "lines": height, "bands": bands, "header offset": offset, "data type": CODES[kind],
        "interleave": capitals(interleave), "byte order": int(order == ">"), "description": "{a = 3,\n lines = 9}",
    }  # fmt: skip
    if ignored is not None:
        lines["data ignore value"] = ignored
    shuffled = draw(st.permutations(sorted(lines)))
    ends, space = draw(st.sampled_from(["\n", "\r\n", "\r"])), draw(st.sampled_from(["", " ", "\t  "]))
    text = ends.join(["ENVI", *(f"{space}{capitals(name)}{space}={space}{lines[name]}" for name in shuffled), ""])
    (tmp_path / "a.hdr").write_bytes(text.encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))))
    stored = np.ascontiguousarray(values.transpose(AXES[interleave])).astype(order + kind)
    (tmp_path / "a.img").write_bytes(b"\7" * offset + stored.tobytes())
    empty = np.zeros((height, width), bool) if ignored is None else (values == ignored).all(2)
    if empty.all():
        with pytest.raises(InputError, match="hold no data"):
            read(tmp_path / "a.hdr")
        return
    train = read(tmp_path / "a.hdr")
    assert torch.equal(train.samples, torch.from_numpy(values[~empty].astype(np.float32))[:, None])
    assert list(train.names) == [f"{row},{column}" for row, column in np.argwhere(~empty).tolist()]


@pytest.mark.parametrize("word", ["bil", "Bil", "BIL", "bSq", "BSQ", "Bip"])
def test_interleave_in_any_capitals(tmp_path, word):
    assert torch.equal(read(write(tmp_path, {"interleave": word})).samples, pixels())


@pytest.mark.parametrize("name", ["a.IMG", "a", "a.DAT", "a.Raw", "a.bil", "a.hyspex"])
def test_the_data_file_is_found_by_the_usual_names(tmp_path, name):
    assert torch.equal(read(write(tmp_path, data_name=name)).samples, pixels())
    assert torch.equal(open_source(tmp_path / name).load().train.samples, pixels())


@pytest.mark.parametrize("name", ["a.HDR", "a.img.hdr", "a.img.HDR"])
def test_the_header_is_found_by_the_usual_names(tmp_path, name):
    write(tmp_path, name=name)
    assert torch.equal(Cube(str(tmp_path / "a.img")).load().train.samples, pixels())
    assert torch.equal(Cube(str(tmp_path / name)).load().train.samples, pixels())


def test_letters_of_other_encodings_and_a_missing_byte_order(tmp_path):
    path = write(tmp_path, {"byte order": None, "header offset": None, "file type": None})
    path.write_bytes(path.read_bytes() + "description = {Größe in µm}\n; ÿ = 3\n".encode("latin-1"))
    assert torch.equal(read(path).samples, pixels())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"interleave": "bit"}, r"interleave = 'bit' is not known.*bil, bip or bsq"),
        ({"interleave": None}, "no line for its interleave"),
        ({"samples": "-1", "lines": "-1", "header offset": "-5"}, "lines = -1 cannot be"),
        ({"bands": "0"}, "bands = 0 cannot be"),
        ({"header offset": "-5"}, "header offset = -5 cannot be"),
        ({"lines": "four"}, "lines = 'four' is no whole number"),
        ({"lines": "9" * 5_000}, r"lines = '9999999.*\.\.\.' is no whole number"),
        ({"bands": None}, r"a\.hdr has no line for its bands"),
        ({"data type": None}, r"a\.hdr has no line for its data type"),
        ({"data type": "6"}, "data type = 6 is complex numbers"),
        ({"data type": "77"}, "data type = 77 is not known"),
        ({"byte order": "2"}, "byte order = 2 is not known"),
        ({"file compression": "1"}, "compressed"),
        ({"file type": "ENVI Spectral Library"}, "spectral library"),
        ({"bands": "5"}, r"a\.img holds 480 bytes, and a\.hdr describes 400: 4 x 5 pixels of 5 bands"),
        ({"bands": "7"}, r"a\.img holds 480 bytes, and a\.hdr describes 560"),
        ({"header offset": "1"}, r"holds 480 bytes, and a\.hdr describes 481.*behind 1 bytes"),
        ({"data type": "5"}, "holds 480 bytes, and a.hdr describes 960"),
        ({"samples": "1" + "0" * 20}, "describes 9,600,000,000,000,000,000,000:"),
        ({"wavelength": "{1, 2, 3}"}, "wavelength has 3 entries for 6 bands"),
        ({"bbl": "{1, 1}"}, "bbl has 2 entries for 6 bands"),
        ({"wavelength": "{1, 2, 3"}, "the brace after 'wavelength' is never closed"),
        ({"reflectance scale factor": "ten"}, "reflectance scale factor = 'ten' is no number"),
    ],
)
def test_headers_that_cannot_be_are_refused_for_their_fault(tmp_path, changed, said):
    with pytest.raises(InputError, match=said) as caught:
        read(write(tmp_path, changed))
    assert "beside its .hdr" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"#?RADIANCE\n", b"\xff\xfe", bytes(range(256)) * 4, b"ENV", b"\xef\xbb\xbf"])
def test_files_that_are_no_headers(tmp_path, content):
    write(tmp_path)
    (tmp_path / "a.hdr").write_bytes(content)
    with pytest.raises(InputError, match="begins with the line ENVI"):
        read(tmp_path / "a.hdr")


def test_the_hint_of_a_missing_data_file_is_given_only_then(tmp_path):
    path = write(tmp_path)
    (tmp_path / "a.img").unlink()
    with pytest.raises(
        InputError, match=r"cannot find the data of .*a\.hdr: looked for a and a\.img.*beside its \.hdr"
    ):
        read(path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 140), byte=st.integers(0, 255), cut=st.booleans())
def test_damaged_headers_are_read_or_refused(tmp_path, place, byte, cut):
    path = write(tmp_path)
    damaged = bytearray(path.read_bytes())
    place = min(place, len(damaged) - 1)
    if cut:
        del damaged[place:]
    else:
        damaged[place] = byte
    path.write_bytes(damaged)
    try:
        samples, refused = len(read(path)), ""
    except InputError as error:
        samples, refused = 0, str(error)
    assert samples > 0 or "a.hdr" in refused


@pytest.mark.parametrize(
    ("units", "first", "step", "expected"),
    [
        ("Nanometers", 400, 10, "400"),
        ("Micrometers", 0.4, 0.1, "400"),
        ("um", 0.4, 0.1, "400"),
        ("Angstroms", 4000, 100, "400"),
        ("Unknown", 0.4, 0.1, "400"),
        (None, 400, 10, "400"),
        ("Wavenumber", 4000, 10, None),
        ("GHz", 300, 10, None),
        ("Index", 1, 1, None),
    ],
)
def test_wavelengths_are_nanometres_whatever_their_unit(tmp_path, units, first, step, expected):
    listed = ", ".join(f"{first + step * band:g}" for band in range(6))
    path = write(tmp_path, {"wavelength": f"{{{listed}}}", "wavelength units": units})
    assert (read(path).features or (None,))[0] == expected


@pytest.mark.parametrize("folder", [True, False])
@pytest.mark.parametrize("suffix", [".img", ".dat", ""])
def test_data_that_a_link_leads_out_to_is_refused(tmp_path, folder, suffix):
    (tmp_path / "set").mkdir()
    path = write(tmp_path / "set", data_name=f"a{suffix}")
    data = path.with_suffix(suffix)
    data.rename(tmp_path / "private")
    data.symlink_to(tmp_path / "private")
    with pytest.raises(InputError, match="a link that leads out of the folder"):
        read(path.parent if folder else path)
    # Links within the folder are followed, and so is a link to a header that lies beside its data.
    (tmp_path / "private").rename(tmp_path / "set" / "real")
    data.unlink()
    data.symlink_to("real")
    torch.testing.assert_close(read(path).samples, pixels())
    (tmp_path / "b.hdr").symlink_to(path)
    (tmp_path / f"b{suffix}").symlink_to(data)
    torch.testing.assert_close(read(tmp_path / "b.hdr").samples, pixels())


@pytest.mark.parametrize("kind", ["ENVI Classification", "envi classification", "ENVI Spectral Library"])
def test_other_files_of_envi_are_no_cubes(tmp_path, kind):
    with pytest.raises(InputError, match="a cube was needed"):
        read(write(tmp_path, {"file type": kind}))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ({"data gain values": "{2, 2, 2, 2, 2, 2}"}, "data gain values are not applied"),
        ({"data offset values": "{0, 0, 0, 0, 0, 5}"}, "data offset values are not applied"),
        ({"data gain values": "{1, 1, 1, 1, 1, 1}", "data offset values": "{0, 0, 0, 0, 0, 0}"}, ""),
    ],
)
def test_gains_and_offsets_are_said_to_be_left_alone(tmp_path, caplog, lines, said):
    torch.testing.assert_close(read(write(tmp_path, lines)).read(torch.arange(20)), pixels())
    assert ("not applied" in caplog.text) == bool(said)
    assert caplog.text.count(said) == 1 or not said
    with pytest.raises(InputError, match="data gain values has 2 entries for 6 bands"):
        read(write(tmp_path, {"data gain values": "{2, 2}"}))
