"""Names for what users choose: detectors, sources, densities and weighting steps.

A class declares its name once, `@register("detector", "deep-svdd")`, and is then found by that name in Python, on
the command line, in TOML and in tables. A configuration is a value that prints as itself: `Value` gives frozen
dataclasses that spelling, `parse` reads it back (names and literals only; nothing is executed).
"""

from __future__ import annotations

import ast
import importlib.util
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar

from ..errors import InputError
from .bounds import annotations_of, checked, shown
from .peer_names import hint_for

C = TypeVar("C", bound=type)
# Where the members of each kind live; importing the module or package registers them.
_HOMES = {
    "detector": "detectors",
    "source": "sources",
    "step": "weights.steps",
    "density": "weights.densities",
    "scores": "training.local_scores",
    "refinement": "training.cleaning",
    "adaptation": "training.adaptations",
}
# What the options of a kind may be made of.
_WITHIN = {"refinement": ("step", "density")}
# The deepest that is of use is some ten: a refinement, its step, a density, an option's tuple.
_DEEPEST = 40
_entries: dict[str, dict[str, Entry]] = {kind: {} for kind in _HOMES}


@dataclass(frozen=True)
class Entry:
    """A registered class, and the optional packages it needs: {import name: the extra that installs it}."""

    name: str
    member: type
    needs: tuple[tuple[str, str], ...] = ()

    def spellings(self) -> tuple[str, ...]:
        """The declared name, and the class's own in which it prints."""
        return self.name, self.member.__name__

    def missing(self) -> tuple[str, str] | None:
        """(package, extra) of the first optional package that is not installed, or None."""
        return next((need for need in self.needs if importlib.util.find_spec(need[0]) is None), None)


class Value:
    """A frozen dataclass that prints as the call that makes it, leaving out what has its default."""

    def __post_init__(self) -> None:
        """Hold every field to its annotation, and numbers to their `bounds.Bounds`.

        Raises:
            InputError: a field is not what its annotation asks for.
        """
        cls: Any = type(self)
        hints = annotations_of(cls)
        for field in fields(self):  # type: ignore[arg-type]
            given = getattr(self, field.name)
            value = checked(given, hints[field.name], f"{cls.__name__} {field.name}")
            if value is not given:
                object.__setattr__(self, field.name, value)

    def __repr__(self) -> str:
        shown = []
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            default = field.default_factory() if field.default_factory is not MISSING else field.default
            if value != default:
                shown.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


def register(kind: str, name: str, needs: dict[str, str] | None = None) -> Callable[[C], C]:
    """Class decorator: make the class findable as `name` among the members of `kind`."""

    def keep(member: C) -> C:
        present = _entries[kind].get(name)
        if present and present.member.__qualname__ != member.__qualname__:
            raise ValueError(f"two {kind}s are called {name!r}: {present.member!r} and {member!r}")
        _entries[kind][name] = Entry(name, member, tuple((needs or {}).items()))
        return member

    return keep


def kinds() -> list[str]:
    """Everything that has registered members."""
    return sorted(_HOMES)


def entries(kind: str) -> dict[str, Entry]:
    """Every registered member of `kind`, by name, sorted."""
    home = importlib.import_module(f"..{_HOMES[kind]}", __package__)
    for module in pkgutil.iter_modules(getattr(home, "__path__", [])):
        importlib.import_module(f"{home.__name__}.{module.name}")
    return dict(sorted(_entries[kind].items()))


def find(kind: str, name: str) -> type:
    """The class registered as `name`.

    Raises:
        InputError: no such name (with the closest one), or an optional package is missing (with its extra).
    """
    members = entries(kind)
    if name not in members:
        raise InputError(f"no {kind} is called {name!r}", hint_for(name, members, (kind,)))
    missing = members[name].missing()
    if missing:
        raise InputError(f"{name!r} needs {missing[0]}", f"pip install 'tailwise[{missing[1]}]'")
    return members[name].member


def kind_of(value: object) -> str | None:
    """The kind that the value's class is registered under, if any."""
    return next((kind for kind, members in _entries.items() for e in members.values() if e.member is type(value)), None)


def parse(text: str, kinds: Iterable[str]) -> tuple[Any, ...]:
    """Read the spelling of one or more values, as in `Importance(alpha=0.2), Clip(0.1, 10)`.

    Only registered names of `kinds`, called or bare, and literals are understood.

    Raises:
        InputError: the text is not such a spelling, a name is unknown or an argument does not fit.
    """
    kinds = tuple(kinds)
    if text.strip().replace("-", "_").isidentifier():  # a declared name such as deep-svdd, which Python would not read
        return (_make(text.strip(), [], {}, kinds),)
    try:
        tree = ast.parse(f"[{text.strip()}]", mode="eval").body
        if not isinstance(tree, ast.List):
            raise SyntaxError("a loop")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise InputError(f"cannot read {shown(text)}", "write it as in Python: Name(option=value), Name()") from error
    if _is_deep(tree):
        raise InputError(f"{shown(text)} is nested more than {_DEEPEST} deep", "write it with fewer parentheses")
    return tuple(_value(node, kinds, text) for node in tree.elts)


def _is_deep(tree: ast.expr) -> bool:
    """Whether more than so many parts of a spelling are inside each other: whoever reads it calls itself for each."""
    level: list[ast.AST] = [tree]
    for _ in range(_DEEPEST):
        level = [part for node in level for part in ast.iter_child_nodes(node)]
    return bool(level)


def parse_one(text: str, kind: str) -> Any:
    """The one value of `kind` that `text` spells."""
    made = parse(text, (kind, *_WITHIN.get(kind, ())))
    if len(made) != 1 or kind_of(made[0]) != kind:
        raise InputError(f"one {kind} is needed: got {shown(text)}", "choose one; tailwise names lists them")
    return made[0]


def _value(node: ast.expr, kinds: tuple[str, ...], text: str) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        arguments = [_value(argument, kinds, text) for argument in node.args]
        options = {keyword.arg or "**": _value(keyword.value, kinds, text) for keyword in node.keywords}
        return _make(node.func.id, arguments, options, kinds)
    if isinstance(node, ast.Name):
        return _make(node.id, [], {}, kinds)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, MemoryError, RecursionError) as error:
        raise InputError(
            f"cannot read {shown(ast.unparse(node))} in {shown(text)}",
            "only names, numbers, strings and tuples go here",
        ) from error


def _make(name: str, arguments: list[Any], options: dict[str, Any], kinds: tuple[str, ...]) -> Any:
    spelled = {n: (kind, entry.name) for kind in kinds for entry in entries(kind).values() for n in entry.spellings()}
    if name not in spelled:
        raise InputError(f"no {' or '.join(kinds)} is called {name!r}", hint_for(name, spelled, kinds))
    try:
        return find(*spelled[name])(*arguments, **options)
    except InputError as error:
        raise InputError(error.message, error.hint or f"tailwise describe {name}") from error
    except TypeError as error:
        raise InputError(f"{name} does not take these options: {error}", f"tailwise describe {name}") from error
