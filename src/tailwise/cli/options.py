"""The words of the command line: registered names and their descriptions, lists as options, a call as a command."""

from __future__ import annotations

import csv
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ..core import registry
from ..errors import InputError, did_you_mean
from ..report.numbers import quoted


def known_names(kind: str | None) -> dict[str, list[str]]:
    """Registered names by kind; see `commands.names`."""
    kinds = registry.kinds()
    if kind is not None and kind not in kinds:
        raise InputError(f"there is no kind {kind!r}", did_you_mean(kind, kinds))
    return {each: list(registry.entries(each)) for each in ([kind] if kind else kinds)}


def description(name: str) -> str:
    """Signature and docstring; see `commands.describe`."""
    found = [e.member for kind in registry.kinds() for e in registry.entries(kind).values() if name in e.spellings()]
    if not found:
        raise InputError(
            f"nothing is called {name!r}",
            did_you_mean(name, {n for k in registry.kinds() for n in registry.entries(k)}),
        )
    pages = [f"{c.__name__}{_options(c)}\n\n{inspect.getdoc(c) or ''}" for c in found]
    return "\n\n\n".join(pages)


def parse_bands(text: str) -> tuple[int | tuple[int, int], ...]:
    """Bands spelled as "0-3,107,108" -> ((0, 3), 107, 108)."""
    bands: list[int | tuple[int, int]] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        ends = part.split("-")
        if not all(end.strip().isdecimal() for end in ends) or len(ends) > 2:
            raise InputError(f"cannot read the bands {part!r}", 'write them as in "0-3,107,108"')
        numbers = [int(end) for end in ends]
        bands.append((numbers[0], numbers[1]) if len(numbers) == 2 else numbers[0])
    return tuple(bands)


def parse_layers(text: str) -> tuple[int, ...]:
    """Blocks spelled as "4,10" -> (4, 10)."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"cannot read the layers {text!r}", 'write them as in "4,10"')
    return tuple(map(int, parts))


def parse_columns(text: str) -> tuple[str, ...]:
    """Columns spelled as 'width,height,"weight, net"' -> ("width", "height", "weight, net")."""
    if not text.strip():
        return ()
    names = tuple(name.strip() for name in next(csv.reader([text], skipinitialspace=True)))
    if "" in names:
        raise InputError(f"a column has no name in {text!r}", 'write them as in "width,height"')
    return names


def command_line(function: Callable[..., Any], values: Mapping[str, Any]) -> str:
    """The command that calls `function` with these values, leaving out what has its default."""
    words = ["tailwise", function.__name__]
    for name, parameter in inspect.signature(function).parameters.items():
        value = values[name]
        if parameter.kind is not parameter.KEYWORD_ONLY:
            words.append(quoted(str(value)))
        elif value != parameter.default and name != "out":
            option = f"--{name.replace('_', '-')}"
            words.append(option if value is True else f"{option} {quoted(str(value))}")
    return " ".join(words)


def _options(member: Callable[..., Any]) -> str:
    parameters = [p.replace(annotation=p.empty) for p in inspect.signature(member).parameters.values()]
    return str(inspect.Signature(parameters))
