"""The words of the command line: registered names and their descriptions, a call as a command."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from ..core import registry
from ..core.bounds import requirements
from ..core.peer_names import hint_for
from ..errors import InputError, did_you_mean
from ..report.numbers import quoted

# Where and how a result is told is no part of what makes it.
_TOLD = ("out", "json")


def known_names(kind: str | None) -> dict[str, list[str]]:
    """Registered names by kind; see `commands.names`."""
    kinds = registry.kinds()
    if kind is not None and kind not in kinds:
        raise InputError(f"there is no kind {kind!r}", did_you_mean(kind, kinds))
    return {each: list(registry.entries(each)) for each in ([kind] if kind else kinds)}


def description(name: str) -> str:
    """Signature and docstring; see `commands.describe`."""
    members = [e.member for kind in registry.kinds() for e in registry.entries(kind).values() if name in e.spellings()]
    if not members:
        raise InputError(
            f"nothing is called {name!r}",
            hint_for(name, {n for k in registry.kinds() for n in registry.entries(k)}),
        )
    return "\n\n\n".join(map(_page, members))


def command_line(function: Callable[..., Any], values: Mapping[str, Any]) -> str:
    """The command that calls `function` with these values, leaving out what has its default, and `_TOLD`."""
    words = ["tailwise", function.__name__]
    for name, parameter in inspect.signature(function).parameters.items():
        value = values[name]
        if parameter.kind is not parameter.KEYWORD_ONLY:
            words.append(quoted(str(value)))
        elif is_dataclass(value):
            # Its fields are options of their own.
            pairs = [(field.name, getattr(value, field.name), field.default) for field in fields(value)]
            words += [_option(each, chosen) for each, chosen, default in pairs if chosen != default]
        elif value != parameter.default and name not in _TOLD:
            words.append(_option(name, value))
    return " ".join(words)


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """The parameters of `function` that have a default, with it."""
    parameters = inspect.signature(function).parameters
    return {name: each.default for name, each in parameters.items() if each.default is not each.empty}


def _option(name: str, value: Any) -> str:
    option = f"--{name.replace('_', '-')}"
    return option if value is True else f"{option} {quoted(str(value))}"


def _page(member: type) -> str:
    """The call, what each option must be, and the docstring."""
    settings = requirements(member)
    wide = max(map(len, settings), default=0)
    lines = [f"{member.__name__}{_options(member)}", *(f"  {name:{wide}}  {text}" for name, text in settings.items())]
    return "\n".join(lines) + f"\n\n{inspect.getdoc(member) or ''}"


def _options(member: Callable[..., Any]) -> str:
    parameters = [p.replace(annotation=p.empty) for p in inspect.signature(member).parameters.values()]
    return str(inspect.Signature(parameters))
