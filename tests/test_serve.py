"""The service: what `score` says, over HTTP; on loopback only, and to whom it says no."""

from __future__ import annotations

import base64
import contextlib
import http.client
import inspect
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import tailwise
from tailwise.cli import commands
from tailwise.errors import InputError
from tailwise.integrations import extras
from tailwise.integrations.limits import Limits

pytest.importorskip("starlette", reason="needs tailwise[serve]")
pytest.importorskip("uvicorn", reason="needs tailwise[serve]")
pytest.importorskip("prometheus_client", reason="needs tailwise[serve]")

from tailwise.integrations import http as service
from tailwise.workflows import serve
from tailwise.workflows.serve import ServedRuns, named
from tailwise.workflows.served_run import ServedRun

JSON, CSV = "application/json", "text/csv"
COLUMNS = ["width", "height", "mass", "hue"]


def rows(seed: int, count: int = 120, shift: float = 0.0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    kinds = generator.integers(0, 2, size=(count, 1))
    return pd.DataFrame(generator.normal(size=(count, 4)) + 6 * kinds + shift, columns=COLUMNS).round(4)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of a run of rows, and what they were fitted on."""
    folder = tmp_path_factory.mktemp("secret-place")
    for name, shift in (("parts", 0.0), ("moved", 1.0)):
        rows(0, 300, shift).to_csv(folder / f"{name}.csv", index=False)
        tailwise.fit(str(folder / f"{name}.csv"), detector="nearest-neighbours", out=folder / name)
    return folder


@contextlib.contextmanager
def serving(runs: Any, limits: Limits = Limits(look_seconds=0.2), token: str = "") -> Iterator[int]:  # noqa: B008
    """The port of a service in a thread of its own."""
    at = service.listening("127.0.0.1", 0)
    server = service.server(runs, limits, token)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [at]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield at.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)
        at.close()
    assert not thread.is_alive()


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.text = response.status, response.headers, response.read().decode()

    @property
    def content(self) -> Any:
        return json.loads(self.text)


def ask(port: int, path: str, body: Any = None, kind: str = JSON, method: str = "", **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    if isinstance(body, (dict, list)):
        body = json.dumps(body)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None and kind:
        given["Content-Type"] = kind
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, given)
        return Answer(connection.getresponse())
    finally:
        connection.close()


@pytest.fixture(scope="module")
def port(home: Path) -> Iterator[int]:
    with serving(ServedRuns({"parts": home / "parts"}), Limits(body_mb=1, body_seconds=0.5)) as port:
        yield port


SCORE = "/runs/parts/score"


def as_scored(table: pd.DataFrame) -> list[dict[str, Any]]:
    return json.loads(table.to_json(orient="records", double_precision=15))


def assert_alike(sample: dict[str, Any], beside: dict[str, Any]) -> None:
    assert list(sample) == list(beside)
    for name, value in beside.items():
        same = value if isinstance(value, (str, bool)) else pytest.approx(value, rel=1e-5, abs=1e-6)
        assert sample[name] == same, name


def assert_same(samples: Sequence[dict[str, Any]], expected: pd.DataFrame) -> None:
    for sample, row in zip(samples, as_scored(expected), strict=True):
        assert_alike(sample, row)


@pytest.mark.parametrize("form", ["arrays", "objects", "csv"])
def test_the_answer_is_what_score_writes(home: Path, port: int, tmp_path: Path, form: str) -> None:
    new = rows(1, 7)
    new.loc[6] += 40
    new.to_csv(tmp_path / "new.csv", index=False)
    expected = commands.score(home / "parts", str(tmp_path / "new.csv"))
    assert isinstance(expected, pd.DataFrame)
    if form == "csv":
        answer = ask(port, SCORE, (tmp_path / "new.csv").read_bytes(), CSV)
    else:
        given = new.to_numpy().tolist() if form == "arrays" else new[COLUMNS[::-1]].to_dict("records")
        answer = ask(port, SCORE, {"rows": given})
    assert answer.status == 200
    assert_same(answer.content["samples"], expected)
    assert answer.content["samples"][6]["flagged"]
    assert answer.content["fingerprint"] == tailwise.open_run(home / "parts").settings.seal
    assert answer.headers["X-Tailwise-Fingerprint"] == answer.content["fingerprint"]
    written = ask(port, SCORE, {"rows": new.to_numpy().tolist()}, accept=CSV)
    assert written.headers["Content-Type"].startswith(CSV)
    read = pd.read_csv(io.StringIO(written.text), dtype={"cluster": str, "sample": str})
    assert list(read.columns) == list(expected.columns)
    assert np.allclose(read["score"], expected["score"], rtol=1e-5)


def test_a_table_is_scored_by_a_run_that_knows_labels_and_groups(tmp_path: Path) -> None:
    table = rows(3, 300).assign(line="a", bad=0)
    table.to_csv(tmp_path / "parts.csv", index=False)
    source = tailwise.open_source(str(tmp_path / "parts.csv"), labels="bad", groups="line")
    run = tailwise.fit(source, detector="gaussian", out=tmp_path / "run")
    sent = service.Body(table[COLUMNS].head(5).to_csv(index=False).encode(), CSV)
    (answer,) = ServedRuns({"parts": run.path}).score("parts", [sent])
    assert isinstance(answer, service.Scored), answer
    assert len(answer.samples) == 5


def test_requests_that_are_scored_together_get_their_own_answers(home: Path) -> None:
    """A row that cannot be scored spoils nothing for those beside it."""
    run, new = ServedRun("parts", home / "parts"), rows(2, 6)
    given = [{"rows": new.iloc[i : i + 2].to_numpy().tolist()} for i in range(0, 6, 2)]
    given.insert(1, {"rows": [[3e38, -3e38, 3e38, 3e38]]})
    given.insert(2, {"rows": [["a", 1, 1, 1]]})
    answers = run.score([service.Body(json.dumps(each).encode(), JSON) for each in given])
    assert isinstance(answers[2], InputError)
    alone = [run.score([service.Body(json.dumps(each).encode(), JSON)])[0] for each in given]
    for answer, expected in zip(answers, alone, strict=True):
        if isinstance(expected, service.Scored):
            assert isinstance(answer, service.Scored)
            for sample, beside in zip(answer.samples, expected.samples, strict=True):
                assert_alike(dict(sample), dict(beside))


HOSTILE = {
    "nothing": (b"", JSON),
    "cut off": (b'{"rows": [[1, 2', JSON),
    "deep": (b"[" * 200_000, JSON),
    "no rows": (b'{"rows": []}', JSON),
    "not a row": (b'{"rows": [7]}', JSON),
    "other keys": (b'{"rows": [[0, 0, 0, 0]], "path": "/etc/passwd"}', JSON),
    "NaN": (b'{"rows": [[NaN, 0, 0, 0]]}', JSON),
    "infinite": (b'{"rows": [[1e999, 0, 0, 0]]}', JSON),
    "too large": (b'{"rows": [[1e200, 0, 0, 0]]}', JSON),
    "long number": (b'{"rows": [[' + b"9" * 9_000 + b", 0, 0, 0]]}", JSON),
    "text": (b'{"rows": [["0", 0, 0, 0]]}', JSON),
    "flag": (b'{"rows": [[true, 0, 0, 0]]}', JSON),
    "ragged": (b'{"rows": [[0, 0, 0, 0], [0, 0]]}', JSON),
    "nested": (b'{"rows": [[[0, 0, 0, 0]]]}', JSON),
    "too few": (b'{"rows": [[0, 0, 0]]}', JSON),
    "mixed": (b'{"rows": [[0, 0, 0, 0], {"width": 0}]}', JSON),
    "lacking": (b'{"rows": [{"width": 0, "height": 0, "mass": 0}]}', JSON),
    "no text": (b"\xff\xfe\x00\xd8", JSON),
    "other columns": (b"a,b\n1,2\n", CSV),
    "no table": (b"\x00\x01\x02", CSV),
    "empty table": (b"width,height,mass,hue\n", CSV),
    "empty": (b"", CSV),
    "words": (b"width,height,mass,hue\n/etc/passwd,1,2,3\n", CSV),
    "image": (b"\x89PNG\r\n\x1a\n", "image/png"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_scored_is_refused(port: int, name: str) -> None:
    body, kind = HOSTILE[name]
    answer = ask(port, SCORE, body, kind)
    assert answer.status == 422
    assert answer.content["error"]["message"]


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        ("/nowhere", {}, 404),
        ("/runs/other", {}, 404),
        ("/runs/other/score", {"body": "{}"}, 404),
        ("/runs/..%2f..%2fetc/score", {"body": "{}"}, 404),
        (SCORE, {}, 405),
        (SCORE, {"body": "{}", "kind": "application/x-www-form-urlencoded"}, 415),
        (SCORE, {"body": "{}", "kind": ""}, 415),
        (SCORE + "?map=perhaps", {"body": {"rows": [[0, 0, 0, 0]]}}, 422),
        (SCORE + "?map=true", {"body": {"rows": [[0, 0, 0, 0]]}}, 422),
        (SCORE + "?explain=true", {"body": {"rows": [[0, 0, 0, 0]] * 21}}, 422),
        (SCORE, {"body": b" " * 1_000_001}, 413),
    ],
)
def test_a_wrong_request_is_told_why(port: int, path: str, options: dict[str, Any], status: int) -> None:
    answer = ask(port, path, **options)
    assert answer.status == status
    assert answer.content["error"]["message"]


def raw(port: int, sent: bytes, then: Callable[[socket.socket], None] = lambda _: None) -> bytes:
    """All that comes back for these bytes on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(sent)
        with contextlib.suppress(OSError):
            then(connection)
        parts = []
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65_536):
                parts.append(part)
    return b"".join(parts)


HEAD = f"POST {SCORE} HTTP/1.1\r\nHost: here\r\nContent-Type: {JSON}\r\n".encode()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (HEAD + b"Content-Length: many\r\n\r\n{}", 400),
        (HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", 422),
        (HEAD + b"X: " + b"y" * 200_000 + b"\r\n\r\n", 400),
        (HEAD + b"Content-Length: 40\r\n\r\n{", 408),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", 408),
        (HEAD, 400),
        (b"P", 400),
    ],
)
def test_a_malformed_or_slow_request_is_ended(port: int, sent: bytes, status: int) -> None:
    if status == 422:  # two lengths: the one that smuggles nothing counts, or the request is refused
        sent += b"0\r\n\r\n"
    answer = raw(port, sent)
    assert re.match(rb"HTTP/1\.1 (\d+)", answer), answer
    assert int(answer.split()[1]) in ({400, 422} if status == 422 else {status})


def test_a_body_without_a_length_is_ended_when_it_is_too_large(port: int) -> None:
    def go_on(connection: socket.socket) -> None:
        for _ in range(40):
            connection.sendall(b"10000\r\n" + b" " * 65_536 + b"\r\n")

    answer = raw(port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", go_on)
    assert b" 413 " in answer[:20]


def test_one_who_leaves_does_no_harm(port: int) -> None:
    for sent in (b"", b"PO", HEAD, HEAD + b"Content-Length: 40\r\n\r\n{"):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(sent)
    assert ask(port, "/health").content == {"status": "ok"}


def test_no_answer_names_a_path_of_the_server(home: Path, port: int) -> None:
    sent = [ask(port, SCORE, body, kind) for body, kind in HOSTILE.values()]
    sent += [ask(port, path) for path in ("/runs", "/runs/parts", "/openapi.json", "/metrics", "/nothing", "/version")]
    sent.append(ask(port, SCORE + "?explain=true", {"rows": [[0, 0, 0, 0]]}))
    assert sent[-1].status == 200
    for answer in sent:
        for place in (home, tempfile.gettempdir() + "/tailwise", Path.home(), Path.cwd(), Path(sys.prefix)):
            assert str(place) not in answer.text


def test_explanations_are_those_of_explain(home: Path, port: int, tmp_path: Path) -> None:
    pd.DataFrame([[0, 0, 9.0, 0]], columns=COLUMNS).to_csv(tmp_path / "new.csv", index=False)
    commands.explain(home / "parts", str(tmp_path / "new.csv"), out=tmp_path / "why.json")
    expected = json.loads((tmp_path / "why.json").read_text())
    sample = ask(port, SCORE + "?explain=true", {"rows": [[0, 0, 9.0, 0]]}).content["samples"][0]
    found = sample["explanation"]["drivers"]["rows"]
    assert found[0]["name"] == "mass"
    told = json.dumps(expected)
    assert all(near["sample"] in told for near in sample["explanation"]["nearest"])


def test_explanations_without_training_data_are_refused(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "parts", tmp_path / "parts")
    shutil.copy(home / "parts.csv", tmp_path / "parts.csv")
    run = ServedRun("parts", tmp_path / "parts")
    body = service.Body(b'{"rows": [[0, 0, 9, 0]]}', JSON, explain=True)
    moved = home / "parts.csv"
    moved.rename(home / "away.csv")
    (tmp_path / "parts.csv").unlink()
    try:
        (answer,) = run.score([body])
    finally:
        (home / "away.csv").rename(moved)
    assert isinstance(answer, InputError)
    assert "training data" in answer.message
    assert str(home) not in str(answer)


def test_counts_are_told_to_prometheus(home: Path) -> None:
    with serving(ServedRuns({"parts": home / "parts"})) as port:
        ask(port, SCORE, {"rows": [[0, 0, 0, 0], [90, 0, 0, 0]]})
        ask(port, SCORE, b"{")
        text = ask(port, "/metrics").text
    assert 'tailwise_requests_total{run="parts",status="200"} 1.0' in text
    assert 'tailwise_requests_total{run="parts",status="422"} 1.0' in text
    assert 'tailwise_flagged_total{cluster="unknown",run="parts"} 1.0' in text
    assert sum(map(float, re.findall(r"^tailwise_samples_total\{.*\} (.*)$", text, re.M))) == 2
    assert 'tailwise_request_seconds_count{run="parts"} 2.0' in text


def test_a_token_is_asked_for(home: Path) -> None:
    with serving(ServedRuns({"parts": home / "parts"}), token="long-and-random") as port:
        assert ask(port, "/health").status == 200
        for path in ("/runs", "/metrics", "/openapi.json", "/version"):
            assert ask(port, path).status == 401
        assert ask(port, SCORE, {"rows": [[0, 0, 0, 0]]}, authorization="Bearer wrong").status == 401
        assert ask(port, SCORE, {"rows": [[0, 0, 0, 0]]}, authorization="Bearer long-and-random").status == 200


class Slow:
    """Answers when told to."""

    names = ("parts",)

    def __init__(self) -> None:
        self.go, self.began = threading.Event(), threading.Event()

    def facts(self, name: str) -> dict[str, Any]:
        return {"name": name}

    def score(self, name: str, bodies: Sequence[service.Body]) -> list[service.Scored | BaseException]:
        self.began.set()
        assert self.go.wait(20)
        return [service.Scored("", [{"flagged": False}]) for _ in bodies]

    def csv(self, scored: service.Scored) -> str:
        return ""

    def renew(self, name: str) -> bool | None:
        return None


def in_threads(count: int, call: Callable[[], Answer]) -> tuple[list[threading.Thread], list[int]]:
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(call().status)) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, statuses


def test_a_full_queue_says_so_and_loses_nothing() -> None:
    runs = Slow()
    with serving(runs, Limits(queue=3)) as port:
        threads, statuses = in_threads(8, lambda: ask(port, SCORE, {"rows": [[1]]}))
        deadline = time.monotonic() + 10
        while len(statuses) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert statuses == [429] * 5
        runs.go.set()
        for thread in threads:
            thread.join(10)
    assert sorted(statuses) == [200] * 3 + [429] * 5


def test_what_takes_too_long_is_given_up() -> None:
    runs = Slow()
    with serving(runs, Limits(seconds=0.2)) as port:
        assert ask(port, SCORE, {"rows": [[1]]}).status == 503
        runs.go.set()
        assert ask(port, SCORE, {"rows": [[1]]}).status == 200


def test_what_was_asked_before_the_end_is_answered() -> None:
    runs = Slow()
    with serving(runs) as port:
        threads, statuses = in_threads(3, lambda: ask(port, SCORE, {"rows": [[1]]}))
        assert runs.began.wait(10)
        time.sleep(0.1)
        threading.Timer(0.3, runs.go.set).start()
    for thread in threads:
        thread.join(10)
    assert statuses == [200] * 3


def test_a_fault_of_ours_is_no_secret_to_the_log_and_one_to_others() -> None:
    class Broken(Slow):
        def score(self, name: str, bodies: Sequence[service.Body]) -> list[service.Scored | BaseException]:
            raise RuntimeError("/etc/secret")

    with serving(Broken()) as port:
        answer = ask(port, SCORE, {"rows": [[1]]})
        assert (answer.status, "secret" in answer.text) == (500, False)
        assert ask(port, "/health").status == 200


def test_a_new_version_takes_over_and_no_answer_is_lost(home: Path, tmp_path: Path) -> None:
    link, row = tmp_path / "parts", [0.5, 0.0, 0.0, 0.0]
    expected = {}
    for name in ("parts", "moved"):
        run = tailwise.open_run(home / name)
        expected[run.settings.seal] = float(run.score([row]).score[0])
    link.symlink_to(home / "parts")
    answers: list[Answer] = []
    done = threading.Event()

    def go_on(port: int) -> None:
        while not done.is_set():
            answers.append(ask(port, SCORE, {"rows": [row]}))

    with serving(ServedRuns({"parts": link}), Limits(look_seconds=0.1)) as port:
        threads = [threading.Thread(target=go_on, args=(port,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for target in ("moved", "parts", "moved"):
            beside = tmp_path / "beside"
            beside.symlink_to(home / target)
            os.replace(beside, link)
            seal = tailwise.open_run(home / target).settings.seal
            deadline = time.monotonic() + 20
            while ask(port, "/runs/parts").content["fingerprint"] != seal and time.monotonic() < deadline:
                time.sleep(0.05)
            assert ask(port, "/runs/parts").content["fingerprint"] == seal
        done.set()
        for thread in threads:
            thread.join(10)
        assert 'tailwise_renewals_total{outcome="taken",run="parts"} 3.0' in ask(port, "/metrics").text
    assert {answer.status for answer in answers} == {200}
    seen = {answer.content["fingerprint"] for answer in answers}
    assert seen == set(expected)
    for answer in answers:
        assert answer.content["samples"][0]["score"] == pytest.approx(expected[answer.content["fingerprint"]], rel=1e-5)


def test_a_version_that_cannot_be_used_is_not(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "parts", tmp_path / "parts")
    runs = ServedRuns({"parts": tmp_path / "parts"})
    before = runs.facts("parts")["fingerprint"]
    shutil.copy(home / "moved" / "settings.json", tmp_path / "parts" / "settings.json")
    assert [runs.renew("parts"), runs.renew("parts")] == [False, None]
    (tmp_path / "parts" / "settings.json").unlink()
    assert runs.renew("parts") is False
    assert runs.facts("parts")["fingerprint"] == before
    (answer,) = runs.score("parts", [service.Body(b'{"rows": [[0, 0, 0, 0]]}', JSON)])
    assert isinstance(answer, service.Scored)
    for name in os.listdir(home / "moved"):
        shutil.copy(home / "moved" / name, tmp_path / "parts" / name)
    assert runs.renew("parts") is True
    assert runs.facts("parts")["fingerprint"] != before


@pytest.mark.parametrize("failure", [MemoryError("4 GB"), OSError(5, "no answer from the disk")])
def test_a_version_that_the_machine_cannot_open_is_tried_again(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    shutil.copytree(home / "parts", tmp_path / "parts")
    runs = ServedRuns({"parts": tmp_path / "parts"})
    shutil.copytree(home / "moved", tmp_path / "parts", dirs_exist_ok=True)

    def fails(*_: Any) -> ServedRun:
        raise failure

    with monkeypatch.context() as patched:
        patched.setattr(serve, "ServedRun", fails)
        assert [runs.renew("parts"), runs.renew("parts")] == [False, None]
    assert [str(failure) in record.getMessage() for record in caplog.records] == [True]
    assert runs.renew("parts") is True


@pytest.mark.parametrize("back", ["parts", "moved"])
def test_the_same_refusal_is_told_again_after_a_success(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, back: str
) -> None:
    """Whether the version before comes back or a new one is taken."""
    shutil.copytree(home / "parts", tmp_path / "parts")
    runs, settings = ServedRuns({"parts": tmp_path / "parts"}), tmp_path / "parts" / "settings.json"
    for said in (1, 2):
        settings.unlink()
        assert [runs.renew("parts"), runs.renew("parts")] == [False, None]
        assert sum("goes on answering" in record.getMessage() for record in caplog.records) == said
        shutil.copytree(home / back, tmp_path / "parts", dirs_exist_ok=True)
        assert runs.renew("parts") is (True if (back, said) == ("moved", 1) else None)


def test_looking_goes_on_after_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(Slow):
        looks = 0

        def renew(self, name: str) -> bool | None:
            self.looks += 1
            if self.looks == 1:
                raise RuntimeError("a fault of ours")
            return True

    runs = Faulty()
    with serving(runs, Limits(look_seconds=0.1)) as port:
        deadline = time.monotonic() + 20
        while runs.looks < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        counted = ask(port, "/metrics").text
    assert runs.looks >= 3
    assert 'tailwise_renewals_total{outcome="refused",run="parts"} 1.0' in counted
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "parts: looking for a new version failed: RuntimeError: a fault of ours"
    ]


def test_a_run_is_only_read(home: Path, tmp_path: Path) -> None:
    """Not even an exchange for its successor that a crash interrupted is finished."""
    shutil.copytree(home / "parts", tmp_path / "parts")
    (tmp_path / "parts" / ".ready").mkdir()

    def state() -> dict[str, tuple[int, int]]:
        return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in [tmp_path, *tmp_path.rglob("*")]}

    before = state()
    run = ServedRun("parts", tmp_path / "parts")
    assert isinstance(run.score([service.Body(b'{"rows": [[0, 0, 0, 0]]}', JSON)])[0], service.Scored)
    assert state() == before


def bomb() -> bytes:
    """A PNG of 1.6 gigapixels in a few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 40_000, 40_000, 1, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(5_001) * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_images_are_scored_and_drawn(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    (tmp_path / "good").mkdir()
    for i in range(40):
        pixels = (100 + 12 * generator.normal(size=(24, 24))).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "good" / f"{i:02}.png")
    source = f"ImageFolder({str(tmp_path / 'good')!r}, read='pixels', size=24, channels=1)"
    commands.fit(source, detector="patches", out=tmp_path / "run", training=tailwise_training(2))
    pixels[5:9, 5:9] = 255
    (tmp_path / "new").mkdir()
    Image.fromarray(pixels).save(tmp_path / "new" / "body.png")
    expected = commands.score(tmp_path / "run", str(tmp_path / "new"), maps=tmp_path / "maps")
    assert isinstance(expected, pd.DataFrame)
    body = (tmp_path / "new" / "body.png").read_bytes()
    with serving(ServedRuns({"tiles": tmp_path / "run"})) as port:
        sample = ask(port, "/runs/tiles/score?map=true", body, "image/png").content["samples"][0]
        sent = ((b"x", "image/png"), (b"1\n", CSV), (bomb(), "image/png"), (body[:60], "image/png"))
        refused = [ask(port, "/runs/tiles/score", *each) for each in sent]
    drawn = sample.pop("map")
    assert_same([sample], expected)
    assert set(drawn) == {".map.tiff", ".overlay.png", ".mask.png"}
    for ending, content in drawn.items():
        found, beside = (np.asarray(Image.open(file)) for file in (
            io.BytesIO(base64.b64decode(content)), tmp_path / "maps" / f"body.png{ending}"))  # fmt: skip
        assert np.allclose(found, beside, rtol=1e-4, atol=1)
    assert [answer.status for answer in refused] == [422] * 4
    assert all(str(tmp_path) not in answer.text for answer in refused)


def tailwise_training(epochs: int) -> Any:
    from tailwise.training.options import Training

    return Training(epochs=epochs)


def test_the_description_is_of_what_answers(home: Path, port: int) -> None:
    description = ask(port, "/openapi.json").content
    assert description["openapi"].startswith("3.1")
    for path, methods in description["paths"].items():
        for method, told in methods.items():
            if method == "parameters":
                continue
            body = {"rows": [[0, 0, 0, 0]]} if method == "post" else None
            answer = ask(port, path.replace("{run}", "parts"), body, method=method.upper())
            assert answer.status == 200, path
            schemas = told["responses"]["200"]["content"]
            kind = answer.headers["Content-Type"].partition(";")[0]
            assert kind in schemas
            if kind == JSON:
                assert set(schemas[kind]["schema"]["required"]) <= set(answer.content)
    score = description["paths"][SCORE.replace("parts", "{run}")]["post"]
    assert {"200", "408", "413", "415", "422", "429"} <= set(score["responses"])
    assert set(score["requestBody"]["content"]) >= {JSON, CSV, "image/png"}


def test_runs_are_called_by_name(tmp_path: Path) -> None:
    assert named(["runs/parts", "new=runs/v2"]) == {"parts": Path("runs/parts"), "new": Path("runs/v2")}
    for given in (["runs/parts", "old/parts"], ["a b"], ["x/y=z w"]):
        with pytest.raises(InputError, match="called"):
            named(given)


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"tailwise\[serve\]"):
        commands.serve(["runs/parts"])


def test_the_command_answers_until_it_is_told_to_stop(home: Path) -> None:
    command = [sys.executable, "-m", "tailwise", "serve", f"cells={home / 'parts'}", "--port", "0", "--queue", "9"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.fullmatch(r"cells at http://127\.0\.0\.1:(\d+)\n", line)
        assert found, line + process.stderr.read()
        assert ask(int(found[1]), "/runs/cells/score", {"rows": [[0, 0, 0, 0]]}).status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) in (0, -signal.SIGTERM)
        assert process.stderr.read() == ""


def test_only_this_machine_is_listened_to_unless_told_otherwise() -> None:
    host = inspect.signature(commands.serve).parameters["host"].default
    assert service.is_loopback(host)
    assert not service.is_loopback("0.0.0.0")
    with service.listening(host, 0) as at:
        assert at.getsockname()[0] == "127.0.0.1"


def test_an_address_that_is_taken_is_an_error(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match="cannot listen"):
        service.listening("127.0.0.1", taken.getsockname()[1])


def test_an_answer_does_not_wait_for_more_to_send(port: int) -> None:
    """Nagle's algorithm held back every answer on a kept connection by 40 ms."""
    connection, seconds = http.client.HTTPConnection("127.0.0.1", port, timeout=20), []
    for _ in range(12):
        before = time.perf_counter()
        connection.request("GET", "/health")
        connection.getresponse().read()
        seconds.append(time.perf_counter() - before)
    connection.close()
    assert min(seconds[1:]) < 0.03
