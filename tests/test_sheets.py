"""What strangers named runs in no spreadsheet and steers no terminal, and is the same name on the way back."""

from __future__ import annotations

import csv
import io
import logging
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tailwise.cli.main import run
from tailwise.core import messages
from tailwise.errors import InputError, printable
from tailwise.runs.sheets import neutral, original, read_csv, to_csv

FORMULAS = (
    "=1+1.png", "+1", "@SUM(1)", "-2+3", "-cmd|' /C calc'!A0", "  =1", "\u00a0=1", "\u3000=1", "\t=1", "\r=1", "\n=1",
    "\u200b=1", "\ufeff=1", "\uff1d1+1", "\uff0bx", "\uff0dx", "\uff20x", "\u2212x", "\ufe661",
    "=HYPERLINK(\"http://a\";\"b\")", "\"=1",
    "a;=1", "a; \"@x", "a\n=1", "a\r\n+x",
)  # fmt: skip
STEERING = ("\x1b[31mred", "\x1b]0;title\x07", "\x9b31m", "a\x08b", "a\x7fb", "\u202egnp.exe", "\u2066x\u2069", "\x85")
PLAIN = (
    "a.png",
    "train/ok/1-2=3.png",
    "Größe",
    "名前",
    "\u0645\u06cc\u200c\u062e\u0648",
    "C:\\new\\x41.png",
    "a+b@c",
    "",
    "50 %",
)


def runs_in_a_spreadsheet(cell: str) -> bool:
    """By what OWASP lists, after what spreadsheets pass over; numbers are numbers."""
    try:
        float(cell)
        return False
    except ValueError:
        pass
    seen = "".join(letter for letter in cell if unicodedata.category(letter) not in ("Cf", "Cc", "Zs")).lstrip('"')
    return unicodedata.normalize("NFKC", seen[:1]) in tuple("=+-@\u2212") or cell[:1] in tuple("\t\r\n")


@pytest.mark.parametrize("text", [*FORMULAS, *STEERING, *PLAIN, "'quoted", "''", "'\\x41", "\\"])
def test_a_text_comes_back_and_its_cell_neither_runs_nor_steers(text: str) -> None:
    written = to_csv(pd.DataFrame({"sample": [text, "next"], "score": [-3.5, 1.0], text or "other": ["x", "y"]}))
    assert printable(written.replace("\n", "")) == written.replace("\n", "")
    # A spreadsheet of a country of decimal commas parts a row of this file at semicolons instead.
    for separator, first in ((",", 0), (";", 1)):
        rows = csv.reader(io.StringIO(written), delimiter=separator)
        assert not [cell for row in rows for cell in row[first:] if runs_in_a_spreadsheet(cell)]
    back = read_csv(io.StringIO(written), keep_default_na=False)
    assert back["sample"].tolist() == [text, "next"]
    assert back["score"].tolist() == [-3.5, 1.0]
    assert back.columns[-1] == (text or "other")


@pytest.mark.parametrize("text", PLAIN)
def test_a_plain_text_is_written_as_it_is(text: str) -> None:
    assert neutral(text) == original(text) == text


@pytest.mark.parametrize("text", ["-3.5", "+12", "-1e-5", "-0,25", "-12 %"])
def test_a_number_stays_a_number(text: str) -> None:
    assert neutral(text) == (text if " " not in text else f"'{text}")


@pytest.mark.parametrize("seed", range(5))
def test_any_text_comes_back(seed: int) -> None:
    letters = "=+-@\t\r\n\"',;\\x41u0 '\x1b\u202e\uff1da1é\udcff"
    generator = np.random.default_rng(seed)
    for _ in range(2_000):
        text = "".join(generator.choice(list(letters), size=generator.integers(0, 9)))
        assert original(neutral(text)) == text
        assert not runs_in_a_spreadsheet(neutral(text)) or text.strip() == neutral(text)


@pytest.mark.parametrize("text", STEERING)
def test_what_steers_a_terminal_is_shown_in_every_message(
    text: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    error = InputError(f"no {text}\nsecond line", f"try {text}")
    for shown in (error.message, error.hint, str(error)):
        assert printable(shown) == shown
        assert text not in shown
    caplog.set_level(logging.INFO, "tailwise")
    for say in (messages.progress, messages.note, messages.warning, messages.error, messages.failed_check):
        say(f"100 % of {text}")
    assert len(caplog.messages) == 5
    assert all(printable(message) == message and text not in message for message in caplog.messages)
    run(["score", f"no{text}", f"data{text}"])
    run(["describe", text])
    assert_shown(capsys.readouterr())


def assert_shown(said: pytest.CaptureResult[str]) -> None:
    for text in (said.out, said.err):
        assert all(printable(line) == line for line in text.split("\n"))
    assert "\\x" in said.out + said.err or "\\u" in said.out + said.err or "\\r" in said.out + said.err


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    names = [name.replace("/", ":") + f"{place}" for place, name in enumerate((*FORMULAS[:6], "''x", *STEERING[:7]))]
    generator = np.random.default_rng(0)
    (tmp_path / "photos" / "=cmd\x1b[1m").mkdir(parents=True)
    for place in range(30):
        folder = tmp_path / "photos" / ("=cmd\x1b[1m" if place % 2 else "")
        pixels = generator.normal(120, 6, size=(8, 8)).clip(0, 255).astype(np.uint8)
        try:
            Image.fromarray(pixels).save(folder / f"{names[place % len(names)]}-{place}.png")
        except OSError:
            pytest.skip("this file system takes no such names")
    return tmp_path / "photos"


def test_names_of_images_match_on_the_way_back(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the folder to the sheet, to a fit, to its scores."""
    reading = ["--read", "pixels", "--size", "8", "--channels", "1", "--detector", "gaussian"]
    names = {path.relative_to(photos).as_posix() for path in photos.rglob("*.png")}
    assert run(["triage", str(photos), "--out", str(tmp_path / "review"), *reading]) == 0
    sheet = tmp_path / "review" / "review.csv"
    with sheet.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert not [cell for row in rows for name in ("sample", "nearest") if runs_in_a_spreadsheet(cell := row[name])]
    assert {original(row["sample"]) for row in rows} == names
    chosen = [row["sample"] for row in rows if row["sample"].startswith("'=")][:2]
    for row in rows:
        row["verdict"] = "anomaly" if row["sample"] in chosen else "normal"
    with sheet.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    fitted = tmp_path / "run"
    assert run(["fit", str(photos), "--reviewed", str(sheet), "--out", str(fitted), *reading]) in (0, 3)
    capsys.readouterr()
    assert run(["score", str(fitted), str(photos)]) == 0
    said = capsys.readouterr()
    assert_shown(said)
    assert set(read_csv(io.StringIO(said.out))["sample"]) == names
    trained = pd.read_parquet(fitted / "scores.parquet")["sample"]
    assert names - set(trained) == {original(name) for name in chosen}
    # A name copied from the table of scores is the sample's.
    copied = next(line.split(",")[0] for line in said.out.splitlines() if line.startswith("'=1"))
    for given in (copied, original(copied)):
        assert run(["explain", str(fitted), str(photos), "--sample", given]) == 0
    scores = tmp_path / "scores.csv"
    assert run(["score", str(fitted), str(photos), "--out", str(scores)]) == 0
    assert run(["weigh", str(scores), "--column", "score", "--out", str(tmp_path / "weights.csv")]) == 0
    written = (tmp_path / "weights.csv").read_text(encoding="utf-8")
    assert set(read_csv(io.StringIO(written))["sample"]) == names
    assert "''=" not in written


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_names_of_a_table_steer_no_command(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(1)
    frame = pd.DataFrame(generator.normal(size=(90, 3)), columns=["=w\x1b[31m", "\u202eheight", "<b>m</b>"])
    frame["kind"] = np.array(["@SUM(1)", "red\x1b[0m", "-x|y"])[np.arange(90) % 3]
    data = tmp_path / f"=parts\x1b[5m{suffix}"
    frame.to_csv(data, index=False) if suffix == ".csv" else frame.to_parquet(data)
    fitted = tmp_path / "run\x1b[7m"
    assert run(["fit", str(data), "--detector", "gaussian", "--groups", "kind", "--out", str(fitted)]) in (0, 3)
    for command in (["thresholds", str(fitted)], ["explain", str(fitted)], ["drift", str(fitted), str(data)]):
        run(command)
    run(["fit", str(data), "--groups", "kinds\x1b[31m", "--detector", "gaussian"])
    run(["fit", str(data), "--columns", "x\x1b[31m", "--detector", "gaussian"])
    said = capsys.readouterr()
    assert_shown(said)
    assert "no column" in said.err
