"""What a setting may be, declared where it is declared: `alpha: Annotated[float, Bounds(at_least=0, at_most=1)] = 0.1`.

`registry.Value` holds its fields to their annotations and `detector.Detector` its constructor's parameters, so that
one place refuses, in one wording, what is out of bounds: `Importance alpha must be a number from 0 to 1: got 7`. What
two settings must be to each other stays with the class.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, TypeVar

from ..errors import InputError

F = TypeVar("F", bound=Callable[..., Any])
_NOTHING = type(None)
# Whole numbers beyond this do not fit the machine's; sizes and counts are far below.
_LARGEST_WHOLE = 2**63 - 1
_LONGEST_SHOWN = 100


@dataclass(frozen=True)
class Bounds:
    """From where to where a number may lie; an end that is not given is open. `odd` leaves only odd numbers."""

    at_least: float = -math.inf
    at_most: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    odd: bool = False

    def hold(self, value: float) -> bool:
        """Whether the number lies within."""
        inside = self.at_least <= value <= self.at_most and self.above < value < self.below
        return inside and not (self.odd and value % 2 == 0)

    def __str__(self) -> str:
        """As it continues "a number": " from 0 to 1", " above 0 and at most 1", or "" without bounds."""
        if math.isfinite(self.at_least) and math.isfinite(self.at_most):
            return f" from {self.at_least} to {self.at_most}"
        ends = [
            f"{word} {end}"
            for word, end in (
                ("of at least", self.at_least),
                ("above", self.above),
                ("at most" if math.isfinite(self.above) else "of at most", self.at_most),
                ("below", self.below),
            )
            if math.isfinite(end)
        ]
        return f" {' and '.join(ends)}" if ends else ""


Share = Annotated[float, Bounds(at_least=0, at_most=1)]
Chance = Annotated[float, Bounds(above=0, below=1)]
NotNegative = Annotated[float, Bounds(at_least=0)]
Positive = Annotated[float, Bounds(above=0)]
Count = Annotated[int, Bounds(at_least=1)]
CountFromZero = Annotated[int, Bounds(at_least=0)]
OddSide = Annotated[int, Bounds(at_least=1, at_most=9_999, odd=True)]
Widths = tuple[Count, ...]


def checked(value: Any, annotation: Any, name: str) -> Any:
    """The value as the annotation asks for it, with numpy's and torch's numbers as Python's own.

    Numbers must be finite, whole where the annotation says int, and within its Bounds. Annotations other than int,
    float, bool, text, literals, plain classes, tuples of them and their unions are not looked at.

    Raises:
        InputError: the value, called `name`, is not what was asked for.

    >>> checked(0.5, Share, "alpha")
    0.5
    >>> checked(7, Share, "alpha")
    Traceback (most recent call last):
    tailwise.errors.InputError: alpha must be a number from 0 to 1: got 7
    """
    value = _plain(value)
    if type(value) in (tuple, list) and any(_plain(part) is not part for part in value):
        value = type(value)(map(_plain, value))
    if not _fits(value, annotation):
        wanted = requirement(annotation)
        if isinstance(value, float) and not math.isfinite(value):
            wanted = wanted.replace("a number", "a finite number", 1)
        raise InputError(f"{name} must be {wanted}: got {shown(value)}")
    return value


def requirement(annotation: Any) -> str:
    """What the annotation asks for, in words: "a whole number above 0, or None"; "" where nothing is checked."""
    kind, bounds = _parts(annotation)
    if kind is bool:
        return "True or False"
    if kind in (int, float):
        return f"{'an odd' if bounds.odd else 'a'} {'whole ' if kind is int else ''}number{bounds}"
    if kind is _NOTHING:
        return "None"
    if kind is str:
        return "text"
    members = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        parts = [requirement(member) for member in members if member is not Ellipsis]
        return f"a tuple, each {parts[0]}" if members[-1:] == (Ellipsis,) and parts[0] else ""
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(map(repr, members))
    if _is_union(kind):
        parts = [requirement(member) for member in members]
        return ", or ".join(parts) if all(parts) else ""
    return f"of the kind {kind.__name__}" if _is_class(kind) else ""


def requirements(member: Callable[..., Any]) -> dict[str, str]:
    """What each parameter of a class's constructor, or of a function, must be, where something is checked."""
    hints = annotations_of(member)
    shown = {name: requirement(hints[name]) for name in inspect.signature(member).parameters if name in hints}
    return {name: text for name, text in shown.items() if text and text != "text"}


@functools.cache
def annotations_of(member: Any) -> Mapping[str, Any]:
    """The annotations of a dataclass's fields, of a class's constructor or of a function, read where they stand."""
    is_plain_class = isinstance(member, type) and not hasattr(member, "__dataclass_fields__")
    return typing.get_type_hints(member.__init__ if is_plain_class else member, include_extras=True)


def checked_constructor(function: F) -> F:
    """An `__init__` that is given only what its annotations ask for."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(self: object, *positional: Any, **named: Any) -> None:
        bound = signature.bind(self, *positional, **named)
        hints = annotations_of(function)
        for name, value in bound.arguments.items():
            if name in hints:
                bound.arguments[name] = checked(value, hints[name], f"{type(self).__name__} {name}")
        function(*bound.args, **bound.kwargs)

    return typing.cast(F, call)


def shown(value: Any) -> str:
    """The start of the value as Python writes it, which refuses to write numbers of thousands of digits."""
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _plain(value: Any) -> Any:
    """Numbers of numpy and torch print as calls that could not be read back; arithmetic takes no whole numbers beyond
    the machine's."""
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value
    if type(value) is int and _LARGEST_WHOLE < abs(value) < sys.float_info.max:
        return float(value)
    return value


def _parts(annotation: Any) -> tuple[Any, Bounds]:
    if typing.get_origin(annotation) is typing.Annotated:
        kind, *extras = typing.get_args(annotation)
        return kind, next((extra for extra in extras if isinstance(extra, Bounds)), Bounds())
    return annotation, Bounds()


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def _fits(value: Any, annotation: Any) -> bool:
    kind, bounds = _parts(annotation)
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        if isinstance(value, bool) or not isinstance(value, Integral):
            return False
        return abs(int(value)) <= _LARGEST_WHOLE and bounds.hold(int(value))
    if kind is float:
        return _is_finite(value) and bounds.hold(value)
    if kind is str:
        return isinstance(value, str) or hasattr(value, "__fspath__")
    if kind is _NOTHING:
        return value is None
    members = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return value in members
    if _is_union(kind):
        return any(_fits(value, member) for member in members)
    if typing.get_origin(kind) is tuple and requirement(kind):
        return isinstance(value, (tuple, list)) and all(_fits(part, members[0]) for part in value)
    return isinstance(value, kind) if _is_class(kind) else True


def _is_class(kind: Any) -> bool:
    """Whether the annotation is a class, of which a value is or is not; a protocol may be met by any."""
    return type(kind) is type


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False
