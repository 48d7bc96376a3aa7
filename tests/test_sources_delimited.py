"""Text tables: whatever programs write is read as the same numbers and names, or refused with the option to say."""

import codecs
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailwise.cli import main
from tailwise.errors import InputError
from tailwise.sources.delimited import Writing
from tailwise.sources.table import Table


def parts(rows=60, seed=0):
    generator = np.random.default_rng(seed)
    means, spreads = [50, 20, 5], [1, 0.5, 0.2]
    return pd.DataFrame(generator.normal(means, spreads, (rows, 3)), columns=["width", "height", "mass"]).round(4)


def text_of(frame, sep=",", number="{:.4f}".format, header=True, end="", newline="\n"):
    lines = [sep.join(frame.columns)] if header else []
    lines += [sep.join(map(number, row)) + end for row in frame.to_numpy().tolist()]
    return newline.join(lines) + newline


def german(value, digits=4):
    return f"{value:,.{digits}f}".translate(str.maketrans(",.", ".,"))


def read(path, **options):
    """The features of a table, in double precision, and the warnings that came with them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = Table(str(path), **options).load().train
    return data, [str(warning.message) for warning in caught]


def check(path, frame, said=(), **options):
    """What is read are these numbers, with a warning for each of `said` and no other."""
    data, messages = read(path, **options)
    assert data.features == tuple(frame.columns)
    np.testing.assert_array_equal(data.samples.numpy(), frame.to_numpy(dtype=np.float32))
    assert len(messages) == len(said), messages
    for part, message in zip(said, messages, strict=True):
        assert part in message


PLAIN = parts()
THOUSANDS = (PLAIN * 1000).round(2)


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        (text_of(PLAIN), PLAIN),
        (text_of(PLAIN, ";"), PLAIN),
        (text_of(PLAIN, "|"), PLAIN),
        (text_of(PLAIN, "\t"), PLAIN),
        (text_of(PLAIN, "   "), PLAIN),
        (text_of(PLAIN, ", "), PLAIN),
        (text_of(PLAIN, newline="\r\n"), PLAIN),
        (text_of(PLAIN, end=","), PLAIN),
        (text_of(PLAIN, ";", end=";"), PLAIN),
        ("width,height,mass,\n" + text_of(PLAIN, header=False, end=","), PLAIN),
        (text_of(PLAIN, number='"{:.4f}"'.format), PLAIN),
        ("sep=;\n" + text_of(PLAIN, ";"), PLAIN),
        ("SEP=|\r\n" + text_of(PLAIN, "|", newline="\r\n"), PLAIN),
        ("# gauge 7\n# a, b; c\n\n" + text_of(PLAIN), PLAIN),
        ("% gauge\n" + text_of(PLAIN, "\t") + "% the end\n", PLAIN),
        ("# gauge\n# width,height,mass\n" + text_of(PLAIN, header=False), PLAIN),
        (text_of(PLAIN, ";", german), PLAIN),
        (text_of(PLAIN, "\t", german), PLAIN),
        (text_of(PLAIN, ",", lambda v: f'"{german(v)}"'), PLAIN),
        (text_of(THOUSANDS, ";", "{:,.2f}".format), THOUSANDS),
        (text_of(THOUSANDS, ";", lambda v: german(v, 2)), THOUSANDS),
        (text_of(THOUSANDS, ",", lambda v: f'"{v:,.2f}"'), THOUSANDS),
        (text_of(THOUSANDS, ";", lambda v: f"{v:,.2f}".replace(",", " ")), THOUSANDS),
        (text_of(THOUSANDS, ";", lambda v: f"{v:,.2f}".replace(",", "\u00a0").replace(".", ",")), THOUSANDS),
        (text_of(THOUSANDS, ";", lambda v: f"{v:,.2f}".replace(",", "'")), THOUSANDS),
        (text_of(-PLAIN, number=lambda v: f"{v:.4f}".replace("-", "\u2212")), -PLAIN),
        (text_of(PLAIN * 1e-7, number="{:.6e}".format), (PLAIN * 1e-7).map(lambda v: float(f"{v:.6e}"))),
    ],
)
def test_what_leaves_no_doubt_is_read(tmp_path, text, frame):
    path = tmp_path / "parts.csv"
    path.write_text(text, encoding="utf-8")
    check(path, frame)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (text_of(PLAIN, number="{:.4f}%".format), "'width' in %"),
        (text_of(PLAIN, number="{:.4f} mm".format), "'width' in mm"),
        (text_of(PLAIN, number="${:.4f}".format), "'width' in $"),
        (text_of(PLAIN, ";", lambda v: german(v) + " °C"), "'width' in °C"),
        ("width,height,mass\nmm,mm,kg\n" + text_of(PLAIN, header=False), "'mm', 'mm', 'kg'"),
        ("width,height,mass\n[mm],[mm],\n" + text_of(PLAIN, header=False), "'[mm]'"),
        ("width;height;mass\nmm;mm;kg\n" + text_of(PLAIN, ";", german, header=False), "'mm', 'mm', 'kg'"),
        ("width,height,mass\nfloat,float,float\nmm,mm,kg\n" + text_of(PLAIN, header=False), "'float'"),
        ("Gauge 7\nOperator: A. B.\n" + text_of(PLAIN), "2 lines above the names"),
        (
            "Gauge 7,,\nOperator:,A. B.,\n" + text_of(PLAIN),
            "2 lines above the names are left out: 'Gauge 7', 'Operator",
        ),
    ],
)
def test_what_is_left_out_is_said(tmp_path, text, said):
    path = tmp_path / "parts.csv"
    path.write_text(text, encoding="utf-8")
    check(path, PLAIN, [said])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("sep", [",", "\t", ";"])
def test_encodings_that_leave_no_doubt(tmp_path, encoding, sep):
    frame = PLAIN.set_axis(["Länge", "Höhe", "質量"], axis=1)
    mark = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": b""}.get(encoding, b"")
    (tmp_path / "parts.csv").write_bytes(mark + text_of(frame, sep).encode(encoding))
    check(tmp_path / "parts.csv", frame)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "cp1251"])
def test_other_bytes_are_read_with_a_warning_that_names_the_option(tmp_path, encoding):
    names = ["Длина", "Высота", "m"] if encoding == "cp1251" else ["Länge", "Höhe", "m"]
    frame = PLAIN.set_axis(names, axis=1)
    (tmp_path / "parts.csv").write_bytes(text_of(frame, ";").encode(encoding))
    data, messages = read(tmp_path / "parts.csv")
    np.testing.assert_array_equal(data.samples.numpy(), frame.to_numpy(dtype=np.float32))
    assert len(messages) == 1
    assert "--encoding" in messages[0]
    check(tmp_path / "parts.csv", frame, encoding=encoding)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [({"decimal": ","}, 1.0), ({"thousands": ","}, 1000.0), ({"decimal": ".", "thousands": ","}, 1000.0)],
)
def test_numbers_that_mean_two_things_are_asked_for(tmp_path, options, wanted):
    """50,123 is fifty and a bit, or fifty thousand."""
    frame = (PLAIN.abs() + 1).round(3)
    text = text_of(frame, ";", lambda v: f"{v:.3f}".replace(".", ","))
    (tmp_path / "parts.csv").write_text(text)
    with pytest.raises(InputError, match=r"is 51\.\d+ or 51\d+.*--decimal .*--thousands|--decimal"):
        read(tmp_path / "parts.csv")
    check(tmp_path / "parts.csv", (frame * wanted).round(3), **options)


@pytest.mark.parametrize(
    ("options", "wanted"), [({"decimal": ","}, 1.0), ({"thousands": "."}, 1.0), ({"decimal": "."}, 1e-3)]
)
def test_points_beside_smaller_whole_numbers_are_asked_for(tmp_path, options, wanted):
    """1.031 beside 987 is a thousand and some, or one and a bit beside nearly a thousand."""
    force = np.random.default_rng(0).normal(1000, 50, 60).round()
    text = "force;angle\n" + "".join(f"{value:,.0f};45\n".replace(",", ".") for value in force)
    (tmp_path / "parts.csv").write_text(text)
    with pytest.raises(InputError, match=r"column 'force': '1\.\d{3}' is 1\.\d+ or 1\d{3}, .*--decimal"):
        read(tmp_path / "parts.csv")
    frame = pd.DataFrame({"force": np.where(force < 1000, force, force * wanted), "angle": 45.0})
    check(tmp_path / "parts.csv", frame, **options)


@pytest.mark.parametrize(
    ("sep", "numbers"),
    [
        (";", ["0", "0.125", "1.375"]),
        (";", ["1.031", "0.987"]),
        (";", ["1.031", "987", "2.5"]),
        (",", ["1.031", "987"]),
    ],
)
def test_points_that_are_decimal_marks_are_not_asked_for(tmp_path, sep, numbers):
    (tmp_path / "parts.csv").write_text(f"a{sep}b\n" + "".join(f"{number}{sep}7\n" for number in numbers))
    check(tmp_path / "parts.csv", pd.DataFrame({"a": map(float, numbers), "b": 7.0}))


@pytest.mark.parametrize(("scale", "digits", "marks"), [(1000, 1, ",."), (15, 1, ","), (1000, 0, "")])
@pytest.mark.filterwarnings("default")
def test_a_run_reads_new_files_with_the_marks_of_its_fit(tmp_path, scale, digits, marks):
    fitted = (parts() * scale).round(digits)
    (tmp_path / "old.csv").write_text(text_of(fitted, ";", lambda v: german(v, digits)))
    options = {} if marks else {"decimal": ",", "thousands": "."}
    source = Table(str(tmp_path / "old.csv"), **options)
    source = source.reading(source.load().train)
    assert source.marks == marks
    (tmp_path / "new.csv").write_text("width;height;mass\n1.103;987;45\n1.090;21;47\n")
    new = source.at(str(tmp_path / "new.csv")).load_all().data
    np.testing.assert_array_equal(new.samples.numpy(), np.array([[1103, 987, 45], [1090, 21, 47]], dtype=np.float32))
    if marks:
        (tmp_path / "plain.csv").write_text(text_of(PLAIN.round(3), number="{:.3f}".format))
        plain = source.at(str(tmp_path / "plain.csv")).load_all().data
        np.testing.assert_array_equal(plain.samples.numpy(), PLAIN.round(3).to_numpy(dtype=np.float32))


@pytest.mark.filterwarnings("default")
def test_good_parts_written_shorter_than_those_of_the_fit_are_not_flagged(tmp_path):
    generator = np.random.default_rng(0)
    fitted = pd.DataFrame({"force": generator.normal(1100, 60, 300), "angle": generator.normal(45, 3, 300)})
    (tmp_path / "old.csv").write_text(text_of(fitted, ";", lambda v: german(v, 1)))
    (tmp_path / "new.csv").write_text("force;angle\n1.103;45\n1.090;47\n1.120;44\n")
    run, out = str(tmp_path / "run"), str(tmp_path / "scores.csv")
    assert main.run(["fit", str(tmp_path / "old.csv"), "--detector", "gaussian", "--out", run]) == 0
    assert main.run(["score", run, str(tmp_path / "new.csv"), "--out", out]) == 0
    assert not pd.read_csv(out)["flagged"].any()


@pytest.mark.parametrize("options", [{"sep": ";"}, {"sep": ";", "decimal": ","}, {"sep": ";", "encoding": "utf-8"}])
def test_said_options_are_followed(tmp_path, options):
    number = german if options.get("decimal") else "{:.4f}".format
    (tmp_path / "parts.txt").write_text(text_of(PLAIN, ";", number))
    check(tmp_path / "parts.txt", PLAIN, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sep": ";;"}, "sep must be one mark"),
        ({"sep": "a"}, "sep must be one mark"),
        ({"decimal": ""}, "decimal must be one mark"),
        ({"sep": ",", "decimal": ","}, "sep and decimal cannot both be ','"),
        ({"thousands": ",", "decimal": ","}, "thousands and decimal cannot both"),
        ({"encoding": "utf-88"}, "no encoding is called 'utf-88'"),
    ],
)
def test_options_that_cannot_be(options, said):
    with pytest.raises(InputError, match=said):
        Table("t.csv", **options)
    with pytest.raises(InputError, match=said):
        Writing(**options)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("width,height\n" + text_of(PLAIN, header=False), r"header names 2 columns .*'width', 'height'.* rows have 3"),
        ("a,b,c,d\n" + text_of(PLAIN, header=False), "header names 4 columns .* rows have 3 fields"),
        (
            "mass\n" + text_of(PLAIN[["mass"]], header=False, number=german),
            "header names 1 column .* rows have 2 fields",
        ),
        (text_of(PLAIN) + "1,2,3,4\n", "row 60 has 4 fields where the others have 3"),
        (text_of(PLAIN) + "1,2\n", "row 60 has 2 fields where the others have 3"),
        ("width,height,width\n" + text_of(PLAIN, header=False), "two columns called 'width'"),
        ("width,height,mass\n1,2,\n" + text_of(PLAIN, header=False), "row 0, column 'mass': nan"),
        ("width,height,mass\n", "no rows"),
        ("# nothing\n", "no rows"),
    ],
)
def test_blame_is_put_where_it_belongs(tmp_path, text, said):
    (tmp_path / "parts.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        read(tmp_path / "parts.csv")


@pytest.mark.parametrize("names", ["p{}", "{}"])
def test_a_header_without_a_name_for_row_names(tmp_path, names):
    """As R writes tables."""
    rows = "".join(
        f"{names.format(i + 1)},{line}\n" for i, line in enumerate(text_of(PLAIN, header=False).splitlines())
    )
    (tmp_path / "parts.csv").write_text("width,height,mass\n" + rows)
    check(tmp_path / "parts.csv", PLAIN)
    assert read(tmp_path / "parts.csv")[0].names[1] == names.format(2)


@pytest.mark.parametrize("seed", range(4))
def test_a_table_without_header_is_read_and_so_is_the_next(tmp_path, seed):
    for month, rows in (("january", 60), ("february", 40)):
        frame = parts(rows, seed if month == "january" else seed + 10)
        (tmp_path / f"{month}.csv").write_text(text_of(frame, header=False))
    first, messages = read(tmp_path / "january.csv")
    assert len(first) == 60
    assert len(messages) == 1
    assert "no header" in messages[0]
    source = Table(str(tmp_path / "january.csv")).reading(first).at(str(tmp_path / "february.csv"))
    assert len(source.load_all().data) == 40


@pytest.mark.parametrize("names", [["400", "410", "420"], ["0.1", "0.2", "0.3"], ["1", "2", "3"]])
def test_names_that_are_numbers_are_names(tmp_path, names):
    frame = pd.DataFrame(np.random.default_rng(0).random((30, 3)).round(4), columns=names)
    frame.to_csv(tmp_path / "spectra.csv", index=False)
    data, messages = read(tmp_path / "spectra.csv")
    assert data.features == tuple(names)
    assert len(data) == 30
    assert [("all names of columns are numbers" in message) for message in messages] == [True] * (names[0] == "0.1")


def test_wavelengths_far_from_their_values_are_no_cause_for_a_warning(tmp_path):
    frame = pd.DataFrame(np.random.default_rng(0).random((30, 4)), columns=["400", "410.5", "421", "431.5"])
    frame.to_csv(tmp_path / "spectra.csv", index=False)
    assert read(tmp_path / "spectra.csv")[1] == []


@pytest.mark.parametrize(
    "content",
    [
        b"\x00\x01\x02" * 50,
        b"a,b\n" + b"9" * 400 + b",1\n1,2\n",
        b'a,b\n"1,2\n3,4\n',
        b"\xff\xfe\x00",
        b"PK\x03\x04" * 9,
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".parquet", ".npy", ".npz", ".xlsx"])
def test_broken_files_are_refused(tmp_path, content, suffix):
    (tmp_path / f"t{suffix}").write_bytes(content)
    with pytest.raises(InputError):
        read(tmp_path / f"t{suffix}")


@pytest.mark.parametrize("shape", ["(" * 50, "(10**9, 10**9), ", "(-3, 2), ", "'x', "])
def test_broken_headers_of_arrays_are_refused(tmp_path, shape):
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    (tmp_path / "t.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)
    with pytest.raises((InputError, MemoryError)):
        read(tmp_path / "t.npy")


NAMES = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters='"#%,;\t|=/'), min_size=1, max_size=9)
NUMBERS = st.floats(min_value=-(2.0**90), max_value=2.0**90, allow_nan=False, allow_infinity=False, width=32)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=80)
@given(data=st.data())
def test_what_was_written_is_read_back(tmp_path, data):
    names = data.draw(
        st.lists(NAMES.filter(lambda name: not any(map(str.isdigit, name))), min_size=2, max_size=4, unique=True)
    )
    row = st.lists(NUMBERS, min_size=len(names), max_size=len(names))
    rows = data.draw(st.lists(row, min_size=3, max_size=6))
    sep, decimal = data.draw(
        st.sampled_from([(",", "."), (";", "."), (";", ","), ("\t", "."), ("\t", ","), ("|", ".")])
    )
    encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]))
    pd.DataFrame(rows, columns=names).to_csv(
        tmp_path / "t.csv", index=False, sep=sep, decimal=decimal, encoding=encoding
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = Table(str(tmp_path / "t.csv"), sep=sep, decimal=decimal, columns=tuple(names)).load().train
    assert found.features == tuple(names)
    np.testing.assert_array_equal(
        found.original(found.samples).numpy().astype(np.float32), np.array(rows, dtype=np.float32)
    )


def test_spreadsheets_are_read_as_text_is(tmp_path):
    pytest.importorskip("openpyxl")
    path = tmp_path / "parts.xlsx"
    PLAIN.to_excel(path, index=False)
    check(path, PLAIN)
    with pd.ExcelWriter(path) as book:
        pd.DataFrame([["mm", "mm", "kg"], *PLAIN.to_numpy().tolist()], columns=PLAIN.columns).to_excel(
            book, sheet_name="gauge", index=False
        )
        PLAIN.to_excel(book, sheet_name="other")
    check(path, PLAIN, ["of 2 sheets the first, 'gauge'", "'mm', 'mm', 'kg'"])
    with pd.ExcelWriter(path) as book:
        pd.DataFrame(["Report of line 3"]).to_excel(book, sheet_name="gauge", index=False, header=False)
        PLAIN.to_excel(book, sheet_name="gauge", index=False, startrow=2)
    check(path, PLAIN, ["1 line above the names is left out: 'Report of line 3'"])
    PLAIN.assign(at=pd.date_range("2024-01-01", periods=60, freq="h")).to_excel(path, index=False)
    check(path, PLAIN, ["column 'at' tells the time"])


def test_a_spreadsheet_without_its_package_says_which(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"needs openpyxl.*tailwise\[excel\]"):
        read(tmp_path / "t.xlsx")
