"""Damages files of every kind that tailwise reads, runs commands on them, and counts what comes of it.

python benchmarks/fuzz_files.py [--files 2000] [--seed 0] [--kinds png csv ...] [--keep fuzz-failures]
python benchmarks/fuzz_files.py --options [--files 2000] [--seed 0]     absurd options instead of damaged files
python benchmarks/fuzz_files.py --rerun fuzz-failures                   the failures that an earlier one kept

A good outcome is `read`, or `refused`: exit status 2 with an error that names the file, and a hint. Everything else is
a failure: a `traceback`, a `hang` over 10 s, a `crash` of the process, `memory` beyond 2 GB, files written `outside`
the folder given (or left in it by a refused command), a refusal that is `unnamed`, and lines of libraries on stderr
(`noise`). The exit status is 1 if there is any; the files of failures are kept and can be run again.

Each case has its own seed, made of --seed, its kind and its number: the same are damaged in the same way.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzz_damage import damaged
from fuzz_kinds import KINDS, Kind, make_good, sealed_again
from fuzz_options import OptionCase, option_cases
from fuzz_workers import Outcome, Pool, run_command

GOOD_OUTCOMES = ("read", "refused")
FAILURES = ("traceback", "hang", "crash", "memory", "outside", "unnamed", "noise")
_COMMANDS_WITHOUT_HINTS = ("runtime",)
_KEPT_COMMAND = "case.json"


@dataclass(frozen=True)
class Case:
    """One damaged file and the command that reads it; without `damages` the file is good."""

    kind: str
    number: int
    seed: int
    damages: bool = True

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.seed}-{self.number}"


@dataclass(frozen=True)
class Rerun:
    """A case that was kept."""

    folder: str

    @property
    def kind(self) -> str:
        return Path(self.folder).name.rsplit("-", 2)[0]

    @property
    def name(self) -> str:
        return Path(self.folder).name


@dataclass(frozen=True)
class Verdict:
    """The outcome's name, and the command, file, damage and output for whoever looks into it."""

    outcome: str
    command: list[str]
    file: str
    damage: str
    text: str
    seconds: float = 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2_000, help="how many cases, shared evenly by the kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=sorted(KINDS), default=sorted(KINDS), metavar="KIND")
    parser.add_argument("--options", action="store_true", help="absurd options instead of damaged files")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="a folder for what fails")
    parser.add_argument("--rerun", type=Path, help="a folder of kept failures")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        home = Path(folder)
        _shared(home, [] if options.options else list(KINDS) if options.rerun else options.kinds)
        cases = _cases(options, home)
        counts: dict[str, Counter[str]] = {}
        slowest: dict[str, float] = {}
        pool = Pool(_work, _start, home, options.processes)
        for case, result in pool.run(cases):
            verdict = result if isinstance(result, Verdict) else _of_lost(case, result, home)
            counts.setdefault(case.kind, Counter())[verdict.outcome] += 1
            slowest[case.kind] = max(slowest.get(case.kind, 0.0), verdict.seconds)
            if verdict.outcome in FAILURES:
                _keep(options.keep, case, verdict, home)
    of_files = not (options.options or options.rerun)
    print(_table(counts, slowest, [name for name in options.kinds if of_files and KINDS[name].missing]))
    return int(any(outcomes[name] for outcomes in counts.values() for name in FAILURES))


def _cases(options: argparse.Namespace, home: Path) -> Sequence[Case | Rerun | OptionCase]:
    if options.rerun:
        return [Rerun(str(place.parent.resolve())) for place in sorted(options.rerun.glob(f"*/{_KEPT_COMMAND}"))]
    if options.options:
        return option_cases(options.files, options.seed)
    kinds = [name for name in options.kinds if not KINDS[name].missing]
    good = [Case(name, -1 - place, options.seed, False) for name in kinds for place in range(len(KINDS[name].commands))]
    bad = [Case(kinds[place % len(kinds)], place // len(kinds), options.seed) for place in range(options.files)]
    # A short run leaves it to a long one to show that each command reads the good file.
    return (good if options.files >= 10 * len(kinds) else []) + bad


def _shared(home: Path, kinds: list[str]) -> None:
    """Good data, runs and the good files of these kinds."""
    good = home / "good"
    good.mkdir()
    _environment(home)
    make_good(good, _run_good, exports=any("onnxruntime" in KINDS[name].needs for name in kinds))
    for name in kinds:
        kind = KINDS[name]
        if not kind.missing:
            folder = home / "kinds" / name
            folder.mkdir(parents=True)
            _make(kind, name, folder, good)


def _make(kind: Kind, name: str, folder: Path, good: Path) -> None:
    kind.make(folder)
    if name.startswith(("run-", "forged-")):
        shutil.copytree(good / "table-run", folder / "run")
    if name == "onnx":
        shutil.copy(good / "model.onnx", folder)


def _run_good(argv: list[str]) -> int:
    outcome = run_command(argv)
    if outcome.status != 0:
        print(outcome.output, outcome.raised, file=sys.stderr)
    return 1 if outcome.status is None else outcome.status


def _environment(home: Path) -> None:
    """Folders of the user that a command might write to, all below `home`."""
    for variable, name in (("HOME", "user"), ("TMPDIR", "tmp"), ("TAILWISE_CACHE", "cache"), ("MPLCONFIGDIR", "mpl")):
        (home / name).mkdir(exist_ok=True)
        os.environ[variable] = str(home / name)
    os.environ.pop("TAILWISE_DATA", None)


def _start(home: Path) -> None:
    _environment(home)
    tempfile.tempdir = str(home / "tmp")
    global _home
    _home = home


_home = Path()


def _work(case: Case | Rerun | OptionCase) -> Verdict:
    """Prepare one case, run its command, and judge."""
    place = _home / "cases" / case.name
    shutil.rmtree(place, ignore_errors=True)
    (place / "cwd").mkdir(parents=True)
    command, file, damage = _prepared(case, place)
    argv = _words(command, place)
    os.chdir(place / "cwd")
    before = _tree(place)
    started = time.monotonic()
    outcome = run_command(argv)
    seconds = time.monotonic() - started
    # An absurd option may name the folder it is in.
    allowed = ("out",) if file else ("out", "cwd")
    outside = _changes(before, _tree(place), () if outcome.status == 2 else allowed)
    name = _judged(outcome, outside, argv, file, isinstance(case, Case) and not case.damages)
    text = "\n".join(filter(None, (outcome.raised, outcome.output, outcome.noise, *outside)))
    if name in GOOD_OUTCOMES:
        shutil.rmtree(place)
    return Verdict(name, command, file, damage, text[-20_000:], seconds)


def _prepared(case: Case | Rerun | OptionCase, place: Path) -> tuple[list[str], str, str]:
    """The command's words, the damaged file below IN and its damage; the files lie in `place`/in."""
    if isinstance(case, OptionCase):
        (place / "in").mkdir()
        _note(place, case.command, "", "")
        return case.command, "", ""
    if isinstance(case, Rerun):
        shutil.copytree(Path(case.folder) / "in", place / "in")
        kept = json.loads((Path(case.folder) / _KEPT_COMMAND).read_text())
        return kept["command"], kept["file"], kept["damage"]
    kind = KINDS[case.kind]
    shutil.copytree(_home / "kinds" / case.kind, place / "in")
    chance = random.Random(f"{case.seed} {case.kind} {case.number}")
    if not case.damages:
        return shlex.split(kind.commands[-1 - case.number]), "", "none"
    command = shlex.split(kind.commands[case.number % len(kind.commands)])
    files = sorted(path for path in (place / "in").glob(kind.damaged) if path.is_file())
    chosen, other = chance.choice(files), chance.choice(files)
    damage, content = damaged(chosen.read_bytes(), chance, other.read_bytes())
    chosen.write_bytes(content)
    if kind.seals:
        sealed_again(place / "in" / "run")
    file = chosen.relative_to(place / "in").as_posix()
    _note(place, command, file, damage)
    return command, file, damage


def _note(place: Path, command: list[str], file: str, damage: str) -> None:
    """Write down a case before it is run, for one that does not come back."""
    (place / _KEPT_COMMAND).write_text(json.dumps({"command": command, "file": file, "damage": damage}))


def _words(command: list[str], place: Path) -> list[str]:
    folders = {"IN": place / "in", "OUT": place / "out", "GOOD": _home / "good"}
    words = []
    for word in command:
        first, slash, rest = word.partition("/")
        words.append(f"{folders[first]}{slash}{rest}" if first in folders else word)
    (place / "out").mkdir(exist_ok=True)
    return words


def _tree(place: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file that a command may not touch, and of what is in OUT."""
    folders = (place, _home / "good", _home / "user", _home / "tmp")
    return {
        str(path): (0, 0) if path.is_dir() else (path.lstat().st_size, path.lstat().st_mtime_ns)
        for folder in folders
        for path in folder.rglob("*")
        # onnxruntime keeps its own device's number there, whoever imports it.
        if ".onnxruntime" not in str(path)
    }


def _changes(
    before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]], allowed: tuple[str, ...]
) -> list[str]:
    """Files that were made, changed or taken away outside the allowed folders; after a refusal none is allowed."""
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    parts = [f"{os.sep}{folder}{os.sep}" for folder in allowed]
    return [name for name in changed if not any(part in name for part in parts) and not _is_rows(name)]


def _is_rows(name: str) -> bool:
    """The one file that is both read and written: the rows of a suite."""
    return name.endswith(f"{os.sep}in{os.sep}rows.jsonl")


def _judged(outcome: Outcome, outside: list[str], argv: list[str], file: str, good: bool) -> str:
    if outcome.status is None:
        return "traceback"
    if good and outcome.status == 2:
        return "unnamed"  # a good file was refused
    if outside:
        return "outside"
    if outcome.noise.strip():
        return "noise"
    if outcome.status != 2:
        return "read"
    said = "error: " in outcome.output and (argv[0] in _COMMANDS_WITHOUT_HINTS or "hint: " in outcome.output)
    return "refused" if said and (not file or _names_file(outcome.output, file)) else "unnamed"


def _names_file(output: str, file: str) -> bool:
    """Whether the error names the damaged file, the store it belongs to, or the file beside it of the same name."""
    path = Path(file)
    # A run's file stands for the run, and what an archive holds for the archive.
    store = next((f"/{part}" for part in path.parts if part.endswith((".zarr", "run"))), path.stem)
    return store in "".join(line for line in output.splitlines() if line.startswith("error: "))


def _of_lost(case: Case | Rerun | OptionCase, result: str, home: Path) -> Verdict:
    """The verdict on a case whose process did not come back."""
    place = home / "cases" / case.name / _KEPT_COMMAND
    if not place.is_file():
        return Verdict(result, [], "", "", result)
    kept = json.loads(place.read_text())
    return Verdict(result, kept["command"], kept["file"], kept["damage"], result)


def _keep(folder: Path, case: Case | Rerun | OptionCase, verdict: Verdict, home: Path) -> None:
    """Copy a failing case, and say what failed."""
    print(f"{verdict.outcome}: {case.name} ({verdict.damage} {verdict.file}): {shlex.join(verdict.command)}"[:300])
    for line in verdict.text.strip().splitlines()[-4:]:
        print(f"    {line[:300]}")
    sys.stdout.flush()
    if isinstance(case, Rerun):
        return
    place = folder / case.name
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(home / "cases" / case.name / "in", place / "in")
    facts = {"command": verdict.command, "file": verdict.file, "damage": verdict.damage, "outcome": verdict.outcome}
    (place / _KEPT_COMMAND).write_text(json.dumps(facts))
    (place / "output.txt").write_text(verdict.text, "utf-8", "backslashreplace")


def _table(counts: dict[str, Counter[str]], slowest: dict[str, float], missing: list[str]) -> str:
    names = (*GOOD_OUTCOMES, *FAILURES)
    rows = [[kind, *(str(counts[kind][name]) for name in names), f"{slowest[kind]:.1f}"] for kind in sorted(counts)]
    sums = [str(sum(each[name] for each in counts.values())) for name in names]
    rows.append(["all", *sums, f"{max(slowest.values(), default=0):.1f}"])
    lines = ["| kind | " + " | ".join(names) + " | slowest, s |", "| --- |" + " ---: |" * (len(names) + 1)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += [f"left out, as {KINDS[name].missing} is not installed: {name}" for name in missing]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
