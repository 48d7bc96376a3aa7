"""Sources, one kind a file, and `open_source`, which finds the right one for what is there."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..core.problem import ReadByBackbone, Source
from ..core.registry import entries, find, parse
from ..errors import InputError
from .paths import data_directory, find_path, list_files
from .recognition import Match, PathSource

__all__ = ["data_directory", "find_path", "open_source", "spelled"]


def open_source(where: str | Path | Source, *, maps: bool | None = False, **options: Any) -> Source:
    """The source for what is at a path, or that a spelling such as "SolarCells(mono=400, poly=40)" names.

    Args:
        where: a table, a folder of images, a cube or a folder of cubes, IDX files, npz arrays; a source or its
            spelling. Relative paths are also looked for in the data directory (TAILWISE_DATA).
        maps: take the backbone's usual maps where neither layers are named nor pixels asked for; None takes them of
            backbones that have a name, not of a network in a file, whose maps nobody knows.
        options: fields of the source, such as labels and groups of a `Table`, or read and size of an `ImageFolder`;
            one that is None is not asked for.

    Raises:
        InputError: nothing is there, it is of no known kind, or the source has no such option.

    Examples:
        >>> open_source("Digits", normal=(3, 8))
        Digits(normal=(3, 8))
    """
    asked = {name: value for name, value in options.items() if value is not None}
    if isinstance(where, (str, Path)) and not spelled(str(where)):
        source = _recognised(str(where), asked)
    else:
        source = _with(_parsed(where) if isinstance(where, (str, Path)) else where, asked)
    if maps is None:
        maps = isinstance(source, ReadByBackbone) and not source.read.endswith(".onnx")
    return with_maps(source) if maps else source


def with_maps(source: Source, deep: bool = False) -> Source:
    """The source with its backbone's usual maps, or `deep` ones that look at whole images, if it reads images by a
    backbone and names no blocks of it."""
    if not isinstance(source, ReadByBackbone) or source.layers or source.read == "pixels":
        return source
    from .image_samples import backbones

    choose = backbones().deep_layers if deep else backbones().map_layers
    return source.reading_maps(choose(source.read))


def spelled(where: str) -> bool:
    """Whether this is the spelling of a source rather than a path."""
    home = data_directory()
    # os.path, because a long spelling is too long for a file's name, which Path.exists would raise.
    if os.path.exists(where) or (home is not None and os.path.exists(home / where)):
        return False
    return bool(re.fullmatch(r"\s*[A-Za-z]\w*\s*\(.*\)\s*", where, re.DOTALL)) or where in entries("source")


def _parsed(where: str | Path) -> Any:
    sources = parse(str(where), ("source",))
    if len(sources) != 1:
        raise InputError(f"one source is needed: {str(where)!r} spells {len(sources)}")
    return sources[0]


def _with(source: Any, options: Mapping[str, Any]) -> Any:
    """The source with these options."""
    _check_options(type(source), options)
    return replace(source, **options) if options else source


def _check_options(member: type, options: Mapping[str, Any], path: Path | None = None) -> None:
    """Raise an InputError where a source of this class, which `path` was taken for, has no such option."""
    has = sorted({field.name for field in fields(member)} - {"path"})
    for name in options:
        if name not in has:
            kind = member.__name__
            taken = "" if path is None else f", which {path} is read as"
            takes = f"{kind} takes {', '.join(has) or 'none of these'}"
            raise InputError(f"{name} does not apply to {kind}{taken}", takes)


def _recognised(where: str, options: Mapping[str, Any]) -> Source:
    """The source of the class that is surest that what lies at this path is its own."""
    path = find_path(where)
    members = {name: entry.member for name, entry in entries("source").items() if issubclass(entry.member, PathSource)}
    matches = {name: member.recognises(path, options) for name, member in members.items()}
    name = max(matches, key=lambda name: matches[name])
    if matches[name] == Match.NONE:
        raise _of_no_kind(path, [member.reads for member in members.values()])
    member = find("source", name)
    _check_options(member, options, path)
    return member(where, **{**members[name].usual(options), **options})


def _of_no_kind(path: Path, readable: list[str]) -> InputError:
    hint = f"readable are {'; '.join(readable)}"
    if not path.is_dir():
        return InputError(f"{path} is of no kind that can be read", hint)
    names = [name.lower() for name in list_files(path, ("",))]
    suffixes = ", ".join(sorted({Path(name).suffix for name in names if "." in name}))
    return InputError(f"{path} holds nothing that can be read: {len(names)} files of kinds {suffixes or 'none'}", hint)
