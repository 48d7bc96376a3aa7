"""Interrupts commands at drawn moments, and looks at what they leave: the old result or the new one, whole?

    python benchmarks/kill_commands.py > benchmarks/results/kill_commands.jsonl      # all 20 moments each
    python benchmarks/kill_commands.py --moments 2 --commands triage,export --endings killed
    python benchmarks/kill_commands.py --page benchmarks/results/kill_commands.jsonl > benchmarks/kill_commands.md

Each command runs as the command line runs it, in a process of its own that has imported everything, in a folder that
holds an old result and a note of the user's. It is ended in four ways:

    killed       SIGKILL. Half of the moments are drawn over the time that the command takes, half over its steps: just
                 before the n-th time that it opens, moves, links, makes or removes a file there.
    interrupted  SIGINT, as Ctrl-C sends it, at moments of both sorts.
    disk full    the folder lies on a disk (tmpfs) with room for a drawn share of what the command writes. Where no disk
                 can be mounted, files may not grow above a drawn size.
    bad option   an option is wrong, or shows itself to be wrong late.

Then the same command runs again, undisturbed, unless all is as before it or done. One line of JSON for each command and
ending: of `moments`, how many left the result `old` or `new`, or unfinished and to be `resumed` (of these
`from_a_checkpoint`), or `broken`; how many left temporary files, at once (`left_over`) and after the next command
(`left_for_good`); how many ended `equal` to the result of a command that nobody disturbed; how many changed a user's
notes (`notes_lost`) or showed a traceback. A command that ends before its moment is drawn again.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import mmap
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn import ensemble  # noqa: F401 (imported before a command begins)

from tailwise import __version__
from tailwise.benchmark import page as benchmark_page
from tailwise.benchmark import rows as benchmark_rows
from tailwise.benchmark.suites import YARDSTICKS
from tailwise.cli import main as command_line
from tailwise.errors import InputError
from tailwise.integrations import onnx as onnx_files
from tailwise.runs import exchange, files, store

KILLED, INTERRUPTED, FULL, BAD = ENDINGS = ("killed", "interrupted", "disk full", "bad option")
_SIGNALS = {KILLED: signal.SIGKILL, INTERRUPTED: signal.SIGINT}
_COUNTS = (
    "old", "new", "resumed", "broken", "from_a_checkpoint", "left_over", "left_for_good", "equal", "notes_lost",
    "tracebacks",
)  # fmt: skip
_MOST_DRAWS, _MOST_SECONDS, _ROOM = 10, 120, 64 << 20
# What a process does to files in a folder, as Python's audit hooks name it.
_STEPS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link"}
_NOTES = "notes.txt"
# What a run folder holds only while it is not whole.
_OWN_FOLDERS = {exchange.NEXT, exchange.READY, store.CHECKPOINT}
_ABSENT, _UNFINISHED = "no run", "an unfinished run"
# Two methods, and the yardsticks beside them.
_OLD_CELLS, _PAGE = 2 + len(YARDSTICKS), 4096
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Command:
    """What is run, in a folder that holds all that it reads.

    Attributes:
        arguments: make the new result in `result/`, over the old one.
        old: make the old result; none where a command refuses to replace one.
        content: what identifies a result that is there; it raises where that is not whole.
        bad: options that fail, one after another.
        notes_inside: whether files of a user's may lie in the folder of the result.
    """

    arguments: tuple[str, ...]
    old: tuple[str, ...]
    content: Callable[[Path], Any]
    bad: tuple[tuple[str, ...], ...]
    notes_inside: bool = True


def run_content(home: Path) -> Any:
    """The numbers of a run, after every file of it was opened."""
    run = store.open_run(home / "result")
    run.detector(), run.history(), run.clusters()
    page = (run.path / store.REPORT_PAGE).read_bytes()
    if not page.rstrip().endswith(b"</html>"):
        raise InputError("half a page")
    return run.settings.seed, run.report()["settings"]["seed"], run.scores().to_csv()


def file_contents(home: Path) -> Any:
    """Every file of the result by its name, and a digest of each."""
    folder = home / "result"
    names = [path for path in sorted(folder.rglob("*")) if path.is_file() and not is_temporary(path)]
    return tuple((str(p.relative_to(folder)), hashlib.sha256(p.read_bytes()).hexdigest()) for p in names)


def onnx_content(home: Path) -> Any:
    """The graph and the facts of an exported file, but for the batch size, which is timed."""
    import onnx

    model = onnx.load(home / "result" / "model.onnx")
    facts = json.loads(next(entry.value for entry in model.metadata_props if entry.key == onnx_files.KEY))
    weights = sorted((each.name, each.raw_data) for each in model.graph.initializer)
    return len(model.graph.node), weights, {k: v for k, v in facts.items() if k != "batch_size"}["fingerprint_scores"]


def bench_content(home: Path) -> Any:
    """The cells that have a row, with their figures, and whether the page is that of these rows or of the old ones."""
    place = home / "result" / "results" / "tiny.jsonl"
    lines = place.read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    cells = sorted((benchmark_rows.key(row["settings"]), json.dumps(row["metrics"])) for row in rows)
    shown = benchmark_page.page_of(place).read_text()
    if shown == page_of_lines(lines):
        return cells, True
    if shown == page_of_lines(lines[:_OLD_CELLS]):
        return cells, False
    raise InputError("the page is of other rows")


def page_of_lines(lines: Sequence[str]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "tiny.jsonl"
        place.write_text("\n".join([*lines, ""]))
        return benchmark_page.write_page(place).read_text()


# Own scores of equal weight: fits and exports that take a second.
_PLAIN = ("--weighting", "", "--scores", "own")
_NETWORK = ("--detector", "autoencoder", "--cross", "0", "--epochs", "6", "--batch-size", "32")
_FIT = ("fit", "parts.csv", *_PLAIN, *_NETWORK, "--out", "result")
_UPDATE = ("update", "memory", "more", "--out", "result")
_ADAPT = ("adapt", "other", "moved.csv", "--method", "Moments", "--out", "result")
_MAPS = ("score", "photo-run", "photos", "--maps", "result")
_SCORE = ("score", "other", "parts.csv", "--out", "result/scores.csv")
_BENCH = ("bench", "result/suites/tiny.toml", "--processes", "1")
COMMANDS = {
    "fit": Command(
        (*_FIT, "--seed", "1"), (), run_content, (("--lr", "1e30"), ("--balance",), ("--detector", "gausian")),
        notes_inside=False,
    ),
    "fit --overwrite": Command(
        (*_FIT, "--seed", "1", "--overwrite"), _FIT, run_content,
        (("--lr", "1e30"), ("--balance",), ("--detector", "gausian"), ("--batch-size", "0")), notes_inside=False,
    ),
    "update --overwrite": Command(
        (*_UPDATE, "--seed", "1", "--overwrite"), _UPDATE, run_content, (("--seed", "-1"), ("--sed", "1"), ("more",)),
        notes_inside=False,
    ),
    "adapt --overwrite": Command(
        (*_ADAPT, "--seed", "1", "--overwrite"), _ADAPT, run_content,
        (("--seed", "-1"), ("--method", "Update"), ("--method", "momments"), ("--forse",)), notes_inside=False,
    ),
    "export": Command(
        ("export", "other", "--out", "result/model.onnx"), ("export", "plain", "--out", "result/model.onnx"),
        onnx_content, (("--to", "torch"), ("--out", "result/model.bin"), ("--size", "3")),
    ),
    "triage": Command(
        ("triage", "parts.csv", "--parts", "3", "--out", "result"), (), file_contents,
        (("--parts", "1"), ("--weighting", "Rareness()"), ("--detector", "gausian")),
    ),
    "bench": Command(
        (*_BENCH, "--profile", "default"), (*_BENCH, "--profile", "small"), bench_content,
        (("--profile", "ful"), ("--processes", "0"), ("--draws", "all"), ("--rows", "result/notes.txt")),
    ),
    "score --maps": Command(
        (*_MAPS, "--map-threshold", "0"), _MAPS, file_contents,
        (("--map-threshold", "inf"), ("--out", "table.xls"), ("--device", "abacus"), ("--batch-size", "0")),
    ),
    "score --out": Command(
        _SCORE, ("score", "plain", "parts.csv", "--out", "result/scores.csv"), file_contents,
        (("--out", "result/scores.xls"), ("--threshold", "nan"), ("--false-discoveries", "2")),
    ),
}  # fmt: skip

_SUITE = """name = "tiny"
calibration = 0.1
draws = {development = [1, 2], confirmation = [101]}
profiles = {default = {draws = 2}, small = {draws = 1}}
weightings = {}

[training]
epochs = 2

[sources.digits]
source = "Digits()"
normals = 3
largest = 60
test = 30
anomalies = 60

[[grids]]
name = "tiny"
sources = ["digits"]
detectors = ["gaussian", "nearest-neighbours"]
imbalances = [20]
"""


def write_inputs(home: Path) -> None:
    """Tables, images and runs that the commands read, and a user's notes."""
    generator = np.random.default_rng(0)
    pd.DataFrame(generator.normal(size=(150, 4)), columns=list("abcd")).to_csv(home / "parts.csv", index=False)
    moved = 2 * generator.normal(size=(90, 4)) + 5
    pd.DataFrame(moved, columns=list("abcd")).to_csv(home / "moved.csv", index=False)
    for folder, count in (("photos", 12), ("more", 6)):
        (home / folder).mkdir()
        for i in range(count):
            picture = generator.integers(0, 255, (16, 16), dtype=np.uint8)
            Image.fromarray(picture).save(home / folder / f"{i}.png")
    (home / _NOTES).write_text("mine")
    pixels = ("--read", "pixels", "--size", "16")
    for run, arguments in {
        "plain": ("parts.csv", "--detector", "gaussian"),
        "other": ("parts.csv", "--detector", "gaussian", "--seed", "1"),
        "photo-run": ("photos", "--detector", "gaussian", *pixels),
        "memory": ("photos", "--detector", "patch-memory", *pixels),
    }.items():
        undisturbed(("fit", *arguments, *_PLAIN, "--out", run), home)


class Trial:
    """A command, and what its results are when nobody disturbs it.

    Attributes:
        template: the folder before the command.
        old, new: what identifies the results.
        seconds, steps: those of the command.
        pages: what the new result takes on a disk.
    """

    def __init__(self, command: Command, inputs: Path, template: Path) -> None:
        self.command, self.template = command, template
        shutil.copytree(inputs, template)
        if command.notes_inside:
            (template / "result" / "suites").mkdir(parents=True)
            (template / "result" / "suites" / "tiny.toml").write_text(_SUITE)
            (template / "result" / _NOTES).write_text("mine")
        if command.old:
            undisturbed(command.old, template)
        self.old = self._content(template)
        with _copy(template) as home:
            started = time.perf_counter()
            self.steps = undisturbed(command.arguments, home)
            self.seconds = time.perf_counter() - started
            self.new = self._content(home)
            before = _digests(template)
            changed = [home / name for name, digest in _digests(home).items() if before.get(name) != digest]
            self.pages = sum(-(-path.stat().st_size // _PAGE) for path in changed)
        if self.new in (self.old, _ABSENT, _UNFINISHED):
            raise RuntimeError(f"{command.arguments} makes no new result")

    def _content(self, home: Path) -> Any:
        settings = home / "result" / store.SETTINGS
        if self.command.content is run_content:
            if not settings.exists() and not (home / "result" / exchange.READY).exists():
                return _ABSENT
            if settings.exists() and store.read_settings(settings.parent)["status"] != "complete":
                return _UNFINISHED
        return self.command.content(home)

    def state(self, home: Path) -> str:
        """What the result is: "old", "new", "resumed" where the next command goes on with it, or "broken"."""
        try:
            content = self._content(home)
        except Exception as error:
            print(f"broken: {self.command.arguments}: {type(error).__name__}: {error}", file=sys.stderr)
            return "broken"
        if content == self.old or content == self.new:
            return "new" if content == self.new else "old"
        if content == _UNFINISHED:
            return "resumed"
        if self.command.content is bench_content and {*self.old[0]} <= {*content[0]} <= {*self.new[0]}:
            return "resumed"
        print(f"broken: {self.command.arguments}: another result", file=sys.stderr)
        return "broken"

    def end(self, ending: str, number: int, moments: random.Random, counts: dict[str, int]) -> bool:
        """End the command at a drawn moment, and count what is left; False if it was done before."""
        place = _small_disk if ending == FULL else _copy
        share = moments.uniform(0, 1.2)
        with place(self.template, int(share * self.pages) * _PAGE) as home:
            arguments, bad = self.command.arguments, self.command.bad
            if ending == BAD:
                arguments = (*arguments, *bad[number % len(bad)])
            after = moments.uniform(0, self.seconds) if number % 2 else None
            step = moments.randint(1, self.steps) if after is None else None
            signalled = _SIGNALS.get(ending)
            started = time.perf_counter()
            status, _ = run(
                arguments, home, signalled, after if signalled else None, step if signalled else None,
                int(share * _largest(self.template)) if ending == FULL and not _HAS_DISKS else None,
            )  # fmt: skip
            if status == 0:
                if ending == BAD:
                    raise RuntimeError(f"{arguments} was no bad option")
                # On a busy machine the first one took longer than it takes.
                self.seconds = min(self.seconds, time.perf_counter() - started)
                return False
            counts["tracebacks"] += status == 1
            counts["left_over"] += any(map(is_temporary, home.rglob("*")))
            counts["from_a_checkpoint"] += any(path.name == store.CHECKPOINT for path in home.rglob("*"))
            state = self.state(home)
            counts[state] += 1
            notes = [p.read_text() for p in home.rglob(_NOTES) if not any(map(is_temporary, p.parents))]
            counts["notes_lost"] += notes != ["mine"] * (2 if self.command.notes_inside else 1)
            if _left_over(home) or (state != "new" and _digests(home) != _digests(self.template)):
                state = self._again(home, state)
                counts["equal"] += state == "new"
            else:  # all is as before the command, or done: the next one cannot differ
                counts["equal"] += 1
            counts["left_for_good"] += _left_over(home)
            return True

    def _again(self, home: Path, state: str) -> str:
        """Run the command undisturbed; the state of the result afterwards."""
        if home.parent.is_mount():
            subprocess.run(["mount", "-o", f"remount,size={_ROOM}", str(home.parent)], check=True)
        if state == "new" and not self.command.old and self.command.content is file_contents:
            # A finished sheet is not replaced: another one beside it.
            run((*self.command.arguments[:-1], "result-2"), home)
        else:
            run(self.command.arguments, home)
        return self.state(home)


def _left_over(home: Path) -> bool:
    """Whether files lie there that only an unfinished command needs."""
    return any(is_temporary(path) or path.name in _OWN_FOLDERS for path in home.rglob("*"))


def _digests(home: Path) -> dict[str, str]:
    """What each file holds, but for locks, which hold nothing."""
    files_there = [path for path in home.rglob("*") if path.is_file() and path.name != store.LOCK]
    return {str(p.relative_to(home)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files_there}


def is_temporary(path: Path) -> bool:
    return path.name.startswith(files.TEMPORARY) or ".before-" in path.name


def undisturbed(arguments: Sequence[str], home: Path) -> int:
    """Run a command to its end; its steps.

    Raises:
        RuntimeError: it fails.
    """
    status, steps = run(arguments, home)
    if status:
        raise RuntimeError(f"{arguments} ends with status {status}: {_said(home).read_text()}")
    return steps


def run(
    arguments: Sequence[str],
    home: Path,
    ending: int | None = None,
    after: float | None = None,
    step: int | None = None,
    largest: int | None = None,
) -> tuple[int, int]:
    """Run a command in the folder `home` in a process of its own: its status, and how many steps it took.

    It is sent the signal `ending` after so many seconds, or just before the step of this number; no file of it may
    grow above `largest` bytes.
    """
    steps = mmap.mmap(-1, 8)
    child = os.fork()
    if not child:
        _become(arguments, home, ending, step, largest, steps)
    deadline = time.perf_counter() + (_MOST_SECONDS if after is None else after)
    done, status = os.waitpid(child, os.WNOHANG)
    while not done and time.perf_counter() < deadline:
        time.sleep(0.002)
        done, status = os.waitpid(child, os.WNOHANG)
    if not done:
        os.kill(child, signal.SIGKILL if after is None or ending is None else ending)
        status = os.waitpid(child, 0)[1]
        if after is None:
            raise RuntimeError(f"{arguments} takes longer than {_MOST_SECONDS} s")
    return os.waitstatus_to_exitcode(status), int.from_bytes(steps[:8], "little")


def _said(home: Path) -> Path:
    """Where a command says what it says: not on the disk that it fills."""
    return home.parent.with_name("said")


def _become(
    arguments: Sequence[str], home: Path, ending: int | None, step: int | None, largest: int | None, steps: mmap.mmap
) -> None:
    """Be the command, and end with its status."""
    status = 1
    try:
        said = os.open(_said(home), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1), os.dup2(said, 2)
        os.chdir(home)
        # A shell starts what runs in the background with Ctrl-C ignored, and a person's command it does not.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        store.Checkpoint.__init__.__defaults__ = (0.0,)  # type: ignore[misc]  # at every epoch
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        # The processes of a benchmark need not import what is imported here.
        multiprocessing.get_context = lambda _=None: _FORK  # type: ignore[assignment,misc]
        taken, of_interest, first = 0, str(home), os.getpid()

        def count(event: str, given: tuple[Any, ...]) -> None:
            nonlocal taken
            if event not in _STEPS or (event == "open" and not (given[2] or 0) & (os.O_WRONLY | os.O_RDWR)):
                return
            if not os.path.abspath(os.fsdecode(given[0]) if not isinstance(given[0], int) else "").startswith(
                of_interest
            ):
                return
            taken += 1
            steps[:8] = taken.to_bytes(8, "little")
            if taken == step and ending is not None:
                os.kill(first, ending)

        sys.addaudithook(count)
        status = command_line.run(arguments)
    except KeyboardInterrupt:  # before the command had begun
        status = 130
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


@contextmanager
def _copy(template: Path, _: int = 0) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copytree(template, Path(folder) / "disk" / "home"))


@contextmanager
def _small_disk(template: Path, room: int) -> Iterator[Path]:
    """A copy on a disk that takes so many bytes more."""
    with tempfile.TemporaryDirectory() as folder:
        if not _HAS_DISKS:
            yield Path(shutil.copytree(template, Path(folder) / "disk" / "home"))
            return
        disk = Path(folder) / "disk"
        disk.mkdir()
        _mount(disk, _ROOM)
        try:
            home = Path(shutil.copytree(template, disk / "home"))
            size = max(_used(disk), _PAGE) + room
            subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
            yield home
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _mount(place: Path, size: int) -> None:
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
    subprocess.run(command, check=True, capture_output=True)


def _can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            _mount(Path(folder), _ROOM)
        except (OSError, subprocess.CalledProcessError):
            return False
        subprocess.run(["umount", folder], check=True)
        return True


def _used(disk: Path) -> int:
    """Bytes."""
    facts = os.statvfs(disk)
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize


def _largest(folder: Path) -> int:
    return max(path.stat().st_size for path in folder.rglob("*") if path.is_file())


_HAS_DISKS = _can_mount()


def measure(names: Sequence[str], endings: Sequence[str], count: int, seed: int) -> Iterator[dict[str, Any]]:
    """A row for each command and ending."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "start" / "inputs"
        inputs.mkdir(parents=True)
        write_inputs(inputs)
        if "export" in names:
            _warm_up(inputs)
        for name in names:
            trial = Trial(COMMANDS[name], inputs, inputs.with_name(name.replace(" ", "")))
            for ending in endings:
                moments, counts = random.Random(f"{seed} {name} {ending}"), dict.fromkeys(_COUNTS, 0)
                ended = 0
                for number in range(count * _MOST_DRAWS):
                    ended += trial.end(ending, number, moments, counts)
                    if ended == count:
                        break
                yield {"command": name, "ending": ending, "moments": ended, **counts, **_facts(trial, seed)}


def _warm_up(inputs: Path) -> None:
    """Export once in this process: what is imported meanwhile takes longer than the export, and children inherit it."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        command_line.run(["export", str(inputs / "plain"), "--out", str(Path(folder) / "model.onnx")])


def _facts(trial: Trial, seed: int) -> dict[str, Any]:
    facts = {"seconds": round(trial.seconds, 2), "steps": trial.steps, "seed": seed}
    return facts | {"disk": "tmpfs" if _HAS_DISKS else "limit of file sizes", "tailwise": __version__}


def page(rows: Sequence[dict[str, Any]]) -> str:
    """The page as Markdown."""
    head = [
        "command",
        "ended by",
        "moments",
        "old",
        "new",
        "to resume",
        "broken",
        "temporaries",
        "after the next",
        "equal",
    ]
    keys = ("command", "ending", "moments", "old", "new", "resumed", "broken", "left_over", "left_for_good", "equal")
    lines = ["| " + " | ".join(head) + " |", "|---" * 2 + "|---:" * (len(head) - 2) + "|"]
    lines += ["| " + " | ".join(str(row[key]) for key in keys) + " |" for row in rows]
    facts = {key: sum(row[key] for row in rows) for key in ("moments", *_COUNTS)}
    return _HEAD.format(**facts, disk=rows[0]["disk"]) + "\n".join([*lines, ""])


_HEAD = """# What is left of a result when its command is ended

Written from results/kill_commands.jsonl by benchmarks/kill_commands.py, which says how moments are drawn.

Of {moments} commands {broken} left a broken result, {notes_lost} touched a user's notes beside it, and {tracebacks}
showed a traceback. The result is in the end that of an undisturbed command {equal} times: the same command was run
again wherever anything was left or had changed. {from_a_checkpoint} fits left a checkpoint to go on from. Full disks
are of {disk}.

*old*: the result of before, whole (or none, where there was none). *new*: the new one, whole. *to resume*: no result
yet, or rows of a benchmark without its page; the same command goes on. *temporaries*: folders in which a killed command
left unfinished files; *after the next*: where they were left still when the same command had run again.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--endings", default=",".join(ENDINGS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    if options.page:
        print(page(benchmark_rows.read_all(options.page)), end="")
        return
    torch.set_num_threads(1)
    for row in measure(options.commands.split(","), options.endings.split(","), options.moments, options.seed):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
