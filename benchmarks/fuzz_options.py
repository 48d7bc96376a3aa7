"""Absurd options: every option of every command, and every option of every name, with values that nobody means.

The options are those of the command line itself, and the names those that are registered, so that a new one is tried
without being written down here.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_NUMBERS = (
    "0", "-1", "1", "2", "0.5", "99999999999", "1" + "0" * 20, "-1" + "0" * 20, "9" * 400, "9" * 5_000, "nan", "inf",
    "-inf", "1e308", "-1e308", "1e-308", "1e400", "2147483648", "9223372036854775807", "9223372036854775808", "1e3",
)  # fmt: skip
_TEXTS = (
    "", " ", "x", "x" * 1_000_000, "\0", "a\0b", "\ud800", "a\udc80b", "\u202e", "\x1b[31m", "\n", "-", "--", "=",
    "~", "None", "True", "1,2", "x=1", "%s", "🙂", "/dev/zero", "/dev/null/x", "https://localhost/x", "0-99999999999",
    "(" * 2_000 + ")" * 2_000, "[" * 2_000, "-" * 2_000 + "1", "Clip(" * 2_000 + ")" * 2_000, "not " * 2_000 + "x",
    "Importance(target=" * 2_000, "Clip(1e-300, 1e300)", "Iterate(judge=1)", "LongTail(" * 500 + "'x'" + ")" * 500,
    "Patches(" * 300 + ")" * 300, "Patches(Patches(Patches()))", "Clip()" + ", Clip()" * 2_000, "10x10", "0x0",
    "99999999999x99999999999", "1" + "0" * 20 + "x1", "Gaussian(**{})", "Gaussian(*())", "lambda: 0", "f'{x}'", "\\",
)  # fmt: skip
_LITERALS = (
    "0", "-1", "1", "2", "3", "0.5", "True", "None", "1e999", "-1e999", "1e999-1e999", "1e308", "-1e308", "1e-300",
    "-1e-300", "1e10", "10**20", "99999999999", "1" + "0" * 20, "9223372036854775807", "9" * 5_000, "''", "'x'",
    "'\\x00'", "'\\ud800'", "()", "(0,)", "(1,)", "(99999999999,)", f"(1{'0' * 20},)", "(1, 99999999999)", "[]", "{}",
    "{1: 2}", "1j", "b'x'", "...", "Gaussian()", "KDE()", "Clip()", "Digits()", "((((1,),),),)", f"'{'x' * 100_000}'",
)  # fmt: skip
# Real images by a backbone: fits of a minute or more.
_LEFT_OUT = ("demo", "SolarCells")
_SEVERAL = 3


@dataclass(frozen=True)
class OptionCase:
    """A command with absurd options; `kind` is the command, or the kind of name that is spelled."""

    kind: str
    number: int
    words: tuple[str, ...]

    @property
    def command(self) -> list[str]:
        return list(self.words)

    @property
    def name(self) -> str:
        return f"{self.kind}-0-{self.number}"


def option_cases(count: int, seed: int) -> list[OptionCase]:
    """Of all cases, so many, drawn by the seed."""
    chance = random.Random(seed)
    cases = [*_of_commands(chance), *_of_names(chance)]
    drawn = [cases[place] for place in sorted(chance.sample(range(len(cases)), min(count, len(cases))))]
    return [OptionCase(kind, place, tuple(words)) for place, (kind, words) in enumerate(drawn)]


_ROWS = ["fit", "GOOD/parts.csv", "--labels", "label", "--groups", "line", "--detector", "gaussian", "--out", "OUT/run"]
_PIXELS = ["--read", "pixels", "--size", "8", "--channels", "1"]
_BASES: dict[str, list[list[str]]] = {
    "fit": [
        _ROWS,
        [*_ROWS[:-4], "--detector", "autoencoder", "--epochs", "2", "--out", "OUT/run"],
        ["fit", "GOOD/photos", *_PIXELS, "--detector", "gaussian", "--out", "OUT/run"],
        ["fit", "GOOD/cube.npy", "--detector", "rx", "--out", "OUT/run"],
    ],
    "score": [
        ["score", "GOOD/table-run", "GOOD/parts.csv"],
        ["score", "GOOD/photo-run", "GOOD/photos", "--maps", "OUT/maps"],
        ["score", "GOOD/cube-run", "GOOD/cube.npy", "--out", "OUT/map.hdr"],
    ],
    "thresholds": [["thresholds", "GOOD/table-run"]],
    "explain": [["explain", "GOOD/table-run", "--worst", "1"], ["explain", "GOOD/photo-run", "GOOD/photos"]],
    "drift": [["drift", "GOOD/table-run", "GOOD/parts.csv"], ["drift", "GOOD/photo-run", "GOOD/photos"]],
    "triage": [
        ["triage", "GOOD/parts.csv", "--columns", "width,mass", "--parts", "2", "--out", "OUT/triage"],
        ["triage", "GOOD/photos", *_PIXELS, "--detector", "gaussian", "--parts", "2", "--out", "OUT/triage"],
    ],
    "adapt": [["adapt", "GOOD/neighbours-run", "GOOD/parts.csv", "--force", "--out", "OUT/run"]],
    "update": [["update", "GOOD/neighbours-run", "GOOD/parts.csv", "--out", "OUT/run"]],
    "report": [["report", "GOOD/table-run", "--out", "OUT/report.md"]],
    "compare": [["compare", "GOOD/table-run", "GOOD/plain-run"]],
    "export": [["export", "GOOD/plain-run", "--out", "OUT/model.onnx"]],
    "verify": [["verify", "GOOD/plain-run"]],
    "weigh": [["weigh", "GOOD/parts.csv", "--column", "mass", "--out", "OUT/weights.csv"]],
    "names": [["names"]],
    "describe": [["describe", "gaussian"]],
    "bench": [["bench", "GOOD/mine.toml", "--rows", "OUT/rows.jsonl", "--processes", "1"]],
}


def _of_commands(chance: random.Random) -> Iterator[tuple[str, list[str]]]:
    """Each option of each command with each value, each argument without a name too, and several at once."""
    from tailwise.cli.main import app

    for command in (name for name in app if not name.startswith("-") and name not in _LEFT_OUT):
        options = [argument.names[0] for argument in app[command].assemble_argument_collection() if argument.parse]
        options = [name for name in options if name.startswith("--")]
        bases = _BASES.get(command, [[command]])
        for option in options:
            for value in (*_NUMBERS, *_TEXTS):
                yield command, _with(chance.choice(bases), option, value)
        for place in range(1, len(bases[0])):
            for value in _TEXTS:
                words = list(chance.choice(bases))
                words[min(place, len(words) - 1)] = value
                yield command, words
        for _ in range(_SEVERAL * len(options)):
            words = chance.choice(bases)
            for option in chance.sample(options, min(_SEVERAL, len(options))):
                words = _with(words, option, chance.choice(_NUMBERS + _TEXTS))
            yield command, words


def _with(words: list[str], option: str, value: str) -> list[str]:
    """The command with this option, in place of its own if it has it."""
    words = list(words)
    if option in words:
        place = words.index(option)
        del words[place : place + 2]
    return [*words, f"{option}={value}"]


def _of_names(chance: random.Random) -> Iterator[tuple[str, list[str]]]:
    """Each option of each name with each literal, and several at once."""
    from tailwise.core import registry

    for kind in registry.kinds():
        for entry in (each for name, each in registry.entries(kind).items() if name not in _LEFT_OUT):
            names = list(inspect.signature(entry.member).parameters)
            spelled = [{name: value} for name in names for value in _LITERALS]
            spelled += [{name: chance.choice(_LITERALS) for name in names} for _ in range(_SEVERAL * len(names))]
            for options in spelled:
                given = ", ".join(f"{name}={value}" for name, value in _needed(entry.member, options).items())
                yield kind, _command(kind, entry.member, f"{entry.member.__name__}({given})")


def _needed(member: type, options: dict[str, str]) -> dict[str, str]:
    """With something for each option that the class needs."""
    parameters = inspect.signature(member).parameters.values()
    lacking = {each.name for each in parameters if each.default is each.empty} - options.keys()
    return {**dict.fromkeys(sorted(lacking), "'Digits'"), **options}


def _command(kind: str, member: Any, text: str) -> list[str]:
    """A command that takes this spelling."""
    if kind == "source":
        return ["fit", text, "--detector", "gaussian", "--out", "OUT/run"]
    if kind == "step":
        return ["weigh", "GOOD/parts.csv", "--column", "mass", "--weighting", text]
    if kind == "density":
        return ["weigh", "GOOD/parts.csv", "--column", "mass", "--weighting", f"Importance(target={text})"]
    if kind == "scores":
        return _with(_ROWS, "--scores", text)
    if kind == "refinement":
        return _with(_ROWS, "--refine", text)
    if kind == "adaptation":
        return ["adapt", "GOOD/neighbours-run", "GOOD/parts.csv", "--force", "--method", text, "--out", "OUT/run"]
    modalities = {each.name for each in member.modalities}
    base = _ROWS if "row" in modalities else _BASES["fit"][3] if "spectrum" in modalities else _BASES["fit"][2]
    return [*_with(base, "--detector", text), "--epochs=1"]
