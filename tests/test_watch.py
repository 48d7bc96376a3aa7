"""A run that keeps an eye on what arrives: counts that survive, calls that are told, a sheet that `fit` takes."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import tailwise
from tailwise.cli import commands, main
from tailwise.errors import InputError
from tailwise.runs.sheets import read_csv
from tailwise.workflows.watch import Watched
from tailwise.workflows.watch_ledger import Arrival, Ledger

COLUMNS = ["width", "height", "mass"]


def rows(seed: int, count: int, shift: float = 0.0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    kinds = random.integers(0, 2, size=(count, 1))
    return pd.DataFrame(random.normal(size=(count, 3)) + 8 * kinds + shift, columns=COLUMNS).round(4)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    rows(0, 400).to_csv(folder / "parts.csv", index=False)
    commands.fit(str(folder / "parts.csv"), detector="gaussian", cross=0, out=folder / "parts")
    return folder / "parts"


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    """A folder of four tables."""
    (tmp_path / "in" / "later").mkdir(parents=True)
    for place, name in enumerate(("a.csv", "b.csv", "later/c.csv", "d.csv")):
        rows(10 + place, 25).to_csv(tmp_path / "in" / name, index=False)
    return tmp_path / "in"


def watch(run: Path, place: Path, out: Path, **options: Any) -> Watched:
    return commands.watch(run, str(place), out=out, **{"once": True, "settle": 0.0, "every": 0.05, **options})


def counted(out: Path) -> pd.DataFrame:
    with sqlite3.connect(out / "watch.sqlite") as file:
        return pd.read_sql("SELECT * FROM counts ORDER BY cluster", file)


def test_what_arrives_is_counted_once(run: Path, incoming: Path, tmp_path: Path) -> None:
    found = watch(run, incoming, tmp_path / "out")
    assert (found.samples, found.alarm) == (100, False)
    assert "place of kind 0 along axis 1" in (tmp_path / "out" / "watch.html").read_text()
    opened, expected = tailwise.open_run(run), {}
    table = pd.concat([opened.score(str(path)) for path in sorted(incoming.rglob("*.csv"))])
    places = np.concatenate([_nearest(opened, path) for path in sorted(incoming.rglob("*.csv"))])
    for cluster in np.unique(places):
        part = table[places == cluster]
        expected[int(cluster)] = (len(part), int(part["flagged"].sum()), int((part["cluster"] == "unknown").sum()))
    counts = counted(tmp_path / "out")
    assert {int(row[0]): tuple(map(int, row[1:])) for row in counts.to_numpy()} == expected
    assert watch(run, incoming, tmp_path / "out").samples == 100
    rows(20, 7).to_csv(incoming / "e.csv", index=False)
    assert watch(run, incoming, tmp_path / "out").samples == 107
    page = (tmp_path / "out" / "watch.html").read_text()
    assert "No change was seen in 107 samples" in page


def _nearest(run: tailwise.Run, path: Path) -> np.ndarray:
    clusters = run.clusters()
    assert clusters is not None
    return clusters.place(run.samples(str(path)).data).nearest.numpy()


def test_a_process_that_is_killed_counts_nothing_twice_and_loses_nothing(
    run: Path, incoming: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever within the transaction it ends."""
    expected = watch(run, incoming, tmp_path / "whole")
    import tailwise.workflows.arrivals as arrivals

    monkeypatch.setattr(arrivals, "_FILES", 1)
    connect = sqlite3.connect
    for left in (3, 9, 20, 45, 30):
        monkeypatch.setattr(sqlite3, "connect", partial(connect, factory=_doomed(left)))
        with pytest.raises(_Dies):
            watch(run, incoming, tmp_path / "out")
    monkeypatch.setattr(sqlite3, "connect", connect)
    assert watch(run, incoming, tmp_path / "out").samples == expected.samples
    pd.testing.assert_frame_equal(counted(tmp_path / "out"), counted(tmp_path / "whole"))
    states = [Ledger(tmp_path / name / "watch.sqlite", {}).bets() for name in ("out", "whole")]
    # One file at a time or all at once: what is bet is the same.
    assert states[0] == states[1]


class _Dies(Exception):
    pass


def _doomed(left: int) -> type[sqlite3.Connection]:
    """A connection on which so many statements are carried out, and the next ends the process."""
    statements = [left]

    class Doomed(sqlite3.Connection):
        def execute(self, statement: str, *rest: Any) -> Any:
            if not statement.startswith("ROLLBACK"):
                statements[0] -= 1
                if statements[0] == 0:
                    raise _Dies
            return super().execute(statement, *rest)

    return Doomed


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
def test_kill_9_loses_no_count(run: Path, tmp_path: Path) -> None:
    """While a stream grows, the command is killed and begun again: its counts are those of one that was not."""
    stream = tmp_path / "stream.csv"
    lines = rows(30, 600).to_csv(index=False).splitlines(keepends=True)
    stream.write_text(lines[0])
    command = [sys.executable, "-m", "tailwise", "watch", str(run), str(stream), "--out", str(tmp_path / "out")]
    for part in (lines[1:301], lines[301:]):
        with subprocess.Popen([*command, "--every", "0.01", "--level", "1e-9"], stderr=subprocess.DEVNULL) as process:
            with open(stream, "a") as file:
                for start in range(0, len(part), 20):
                    file.write("".join(part[start : start + 20]))
                    file.flush()
                    time.sleep(0.005)
            deadline = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < deadline:
                if (tmp_path / "out" / "watch.sqlite").exists() and _samples(tmp_path / "out") > 0:
                    break
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    watch(run, stream, tmp_path / "out", level=1e-9)
    watch(run, stream, tmp_path / "whole", level=1e-9)
    pd.testing.assert_frame_equal(counted(tmp_path / "out"), counted(tmp_path / "whole"))
    assert _samples(tmp_path / "out") == 600


def _samples(out: Path) -> int:
    try:
        with sqlite3.connect(out / "watch.sqlite", timeout=5) as file:
            return int(file.execute("SELECT COUNT(*) FROM samples").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_file_that_grows(run: Path, tmp_path: Path, kind: str) -> None:
    stream, table = tmp_path / f"stream.{kind}", rows(40, 30)
    lines = table.to_csv(index=False).splitlines() if kind == "csv" else [
        "", *(json.dumps(row) for row in table.to_dict("records"))]  # fmt: skip
    head = [] if kind == "jsonl" else lines[:1]
    stream.write_text("\n".join([*head, *lines[1:11]]) + "\n" + lines[11][:5])
    out = tmp_path / "out"
    assert watch(run, stream, out).samples == 10  # the eleventh has not ended
    with open(stream, "a") as file:
        file.write(lines[11][5:] + "\nnonsense\n" + "\n".join(lines[12:]) + "\n")
    assert watch(run, stream, out).samples == 30
    with sqlite3.connect(out / "watch.sqlite") as file:
        names = [name for (name,) in file.execute("SELECT name FROM samples ORDER BY id")]
        assert [bool(said) for (said,) in file.execute("SELECT refused FROM arrivals ORDER BY id")].count(True) == 1
    assert names == [f"stream.{kind}:{row}" for row in range(31) if row != 11]
    assert "1 arrivals could not be read" in (out / "watch.html").read_text()
    expected = tailwise.open_run(run).score(table)
    with sqlite3.connect(out / "watch.sqlite") as file:
        scores = [score for (score,) in file.execute("SELECT score FROM samples ORDER BY id")]
    assert np.allclose(scores, expected["score"], rtol=1e-4)
    whole = stream.read_bytes()
    another = rows(90, 31).to_csv(index=False).splitlines()[1:] if kind == "csv" else [line + " " for line in lines[1:]]
    stream.write_text("\n".join([*head, *another, *another]) + "\n")
    with pytest.raises(InputError, match="another file: what was counted of it has changed"):
        watch(run, stream, out)
    stream.write_bytes(whole)
    assert watch(run, stream, out).samples == 30
    stream.write_text("\n".join([*head, *lines[1:3]]) + "\n")
    with pytest.raises(InputError, match="shorter than what was counted"):
        watch(run, stream, out)


def test_a_change_ends_the_command_with_status_4(run: Path, incoming: Path, tmp_path: Path, capsys: Any) -> None:
    for place in range(4):
        rows(50 + place, 30, shift=3.0).to_csv(incoming / f"x{place}.csv", index=False)
    words = ["watch", str(run), str(incoming), "--out", str(tmp_path / "out"), "--settle", "0"]
    assert main.run(words) == 4
    printed = capsys.readouterr().out
    assert "something new comes" in printed
    assert str(tmp_path / "out" / "watch.html") in printed
    page = (tmp_path / "out" / "watch.html").read_text()
    assert "unknown of all samples" in page
    assert "<svg" not in page or "default-src 'none'" in page
    again = watch(run, incoming, tmp_path / "out")
    assert not again.alarm
    assert "tests before" in str(again)


class _Hook(BaseHTTPRequestHandler):
    heard: ClassVar[list[dict[str, Any]]] = []
    refuse = 1

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if type(self).refuse:
            type(self).refuse -= 1
            self.send_error(503)
            return
        self.heard.append(content)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    _Hook.heard, _Hook.refuse = [], 1
    with HTTPServer(("127.0.0.1", 0), _Hook) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", _Hook.heard
        server.shutdown()
        thread.join()


def test_a_webhook_hears_of_each_call_once(
    run: Path, incoming: Path, tmp_path: Path, hook: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    address, heard = hook
    for place in range(4):
        rows(50 + place, 30, shift=3.0).to_csv(incoming / f"x{place}.csv", index=False)
    first = watch(run, incoming, tmp_path / "out", webhook=address)
    assert first.alarm
    for _ in range(2):
        watch(run, incoming, tmp_path / "out", webhook=address)
    tests = [call["test"] for content in heard for call in content["calls"]]
    assert len(tests) == len(set(tests)) == len(first.called) > 0
    assert heard[0]["run"] == "parts"
    assert str(tmp_path) not in json.dumps(heard)


def test_the_sheet_keeps_what_a_person_wrote_and_fit_takes_it(run: Path, incoming: Path, tmp_path: Path) -> None:
    odd = rows(60, 6)
    odd.loc[:2, "mass"] += 30
    odd.to_csv(incoming / "odd.csv", index=False)
    out = tmp_path / "out"
    watch(run, incoming, out)
    sheet = read_csv(out / "review.csv", dtype=str, keep_default_na=False)
    kept = pd.read_csv(out / "kept.csv")
    assert len(sheet) == len(kept) >= 3
    origin = sheet.set_index("from")
    place = int(origin.loc["odd.csv:1", "sample"])
    assert kept.loc[place].to_numpy() == pytest.approx(odd.loc[1].to_numpy(), rel=1e-4)
    sheet["verdict"] = np.where(sheet["from"].str.startswith("odd.csv"), "anomaly", "normal")
    sheet.to_csv(out / "review.csv", index=False)
    more = rows(61, 5)
    more["height"] -= 40
    more.to_csv(incoming / "more.csv", index=False)
    watch(run, incoming, out)
    later = read_csv(out / "review.csv", dtype=str, keep_default_na=False)
    assert len(later) >= len(sheet) + 5
    assert later["verdict"][: len(sheet)].tolist() == sheet["verdict"].tolist()
    assert not later["sample"].duplicated().any()
    learnt = tailwise.fit(
        str(out / "kept.csv"), detector="gaussian", reviewed=str(out / "review.csv"), cross=0, out=tmp_path / "learnt"
    )
    assert learnt.settings.n_samples == len(later) - int((later["verdict"] == "anomaly").sum())


def test_pictures_are_watched_and_what_is_reviewed_updates_the_run(tmp_path: Path) -> None:
    random = np.random.default_rng(0)

    def photo(path: Path, bright: int) -> None:
        pixels = (bright + 10 * random.normal(size=(16, 16))).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path)

    for name in ("good", "in"):
        (tmp_path / name).mkdir()
    for i in range(30):
        photo(tmp_path / "good" / f"{i:02}.png", 90)
    for i in range(8):
        photo(tmp_path / "in" / f"{i}.png", 90 if i < 6 else 240)
    source = f"ImageFolder({str(tmp_path / 'good')!r}, size=16, channels=1)"
    run, out = tmp_path / "run", tmp_path / "out"
    commands.fit(source, detector="patch-memory", scores="own", out=run)
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    assert watch(run, tmp_path / "in", out).samples == 8
    sheet = read_csv(out / "review.csv", dtype=str, keep_default_na=False)
    assert {"6.png", "7.png"} <= set(sheet["sample"])
    (tmp_path / "in" / "broken.png").unlink()
    sheet["verdict"] = np.where(sheet["sample"] == "7.png", "anomaly", "normal")
    sheet.to_csv(out / "review.csv", index=False)
    updated = commands.update(run, str(tmp_path / "in"), reviewed=out / "review.csv", out=tmp_path / "updated")
    assert updated.settings.n_samples == 30 + 7
    assert "7.png" not in set(updated.scores()["sample"])


def test_a_long_stream_keeps_a_curve_and_not_every_look(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "watch.sqlite", {"run": "a"})
    for place in range(600):
        sample = (0, str(place), 0.0, 0.5, False, 0, False, [0.25])
        ledger.enter([Arrival(f"{place}.csv", 0, 9)], [sample], [], {"samples": place}, {"score": 0.1 * place}, [])
    looks = ledger.looks()["samples"]
    assert 100 < len(looks) < 300
    assert looks.is_monotonic_increasing
    assert len(ledger.files()) == 600
    ledger.close()


def test_a_watch_is_of_one_run_and_one_process(run: Path, incoming: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    watch(run, incoming, out)
    with pytest.raises(InputError, match="begun with another level"):
        watch(run, incoming, out, level=0.01)
    from filelock import FileLock

    with FileLock(out / ".lock"), pytest.raises(InputError, match="another watch"):
        watch(run, incoming, out)


def test_a_watch_is_of_one_place(run: Path, incoming: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of another folder may have the same names; a folder that was moved is watched through a link."""
    out, other = tmp_path / "out", tmp_path / "other"
    other.mkdir()
    rows(70, 25).to_csv(other / "a.csv", index=False)
    watch(run, incoming, out)
    with pytest.raises(InputError, match="another place") as refused:
        watch(run, other, out)
    assert str(incoming) in refused.value.hint
    monkeypatch.chdir(tmp_path)
    assert watch(run, Path(incoming.name), out).samples == 100
    incoming.rename(tmp_path / "moved")
    incoming.symlink_to(tmp_path / "moved")
    rows(71, 5).to_csv(tmp_path / "moved" / "e.csv", index=False)
    assert watch(run, incoming, out).samples == 105


def test_streams_of_one_name_are_two_places(run: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        rows(72, 9).to_csv(tmp_path / name / "stream.csv", index=False)
    watch(run, tmp_path / "a" / "stream.csv", tmp_path / "out")
    with pytest.raises(InputError, match="another place"):
        watch(run, tmp_path / "b" / "stream.csv", tmp_path / "out")


@pytest.mark.parametrize("below", [".", "later", "new/out"])
def test_a_watch_does_not_count_what_it_writes(run: Path, incoming: Path, below: str) -> None:
    with pytest.raises(InputError, match=r"lies in the data|take the place of the data"):
        watch(run, incoming, incoming / below)
    assert not (incoming / "new").exists()
    watch(run, incoming / "a.csv", incoming)
    rows(73, 2).to_csv(incoming / "kept.csv", index=False)
    with pytest.raises(InputError, match=r"lies in the data|take the place of the data"):
        watch(run, incoming / "kept.csv", incoming)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"webhook": "file:///etc/passwd"}, "webhook"),
        ({"level": 2.0}, "level"),
        ({"level": math.nan}, "level"),
        *(({"every": value}, "every") for value in (0.0, math.nan, math.inf)),
        *(({"settle": value}, "settle") for value in (-1.0, math.nan, math.inf)),
        ({"keep": -1}, "keep"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    run: Path, incoming: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        watch(run, incoming, tmp_path / "out", **options)
    assert "level" in options or not (tmp_path / "out").exists()


def test_a_file_that_is_no_stream_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match="grows by lines"):
        watch(run, tmp_path / "a.png", tmp_path / "out")
