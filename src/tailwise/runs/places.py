"""Where the data of a run lies: it is found again from any folder, and where the run and its data moved together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..sources.paths import find_path, is_inside
from ..sources.recognition import PathSource


def of_source(source: Any) -> dict[str, str]:
    """The absolute paths of the files and folders that a source reads, by what it calls them."""
    if not isinstance(source, PathSource):
        inner = getattr(source, "source", None)  # of a source that chooses among another's samples
        return {} if inner is None else of_source(inner)
    found = paths_of(source)
    root = found.get(source.path)
    # What lies in the data's own folder under that name is meant, not what lies beside it.
    return {
        text: os.path.abspath(place)
        for text, place in found.items()
        if text == source.path or (place.is_file() and not (root and (root / text).exists()))
    }


def paths_of(source: Any) -> dict[str, Path]:
    """What lies where a source's options name files or folders, by what it calls them."""
    if not isinstance(source, PathSource):
        inner = getattr(source, "source", None)
        return {} if inner is None else paths_of(inner)
    given = {name: getattr(source, name) for name in source.file_options}
    found = {text: _found(text) for text in given.values() if isinstance(text, str)}
    return {text: place for text, place in found.items() if place is not None}


def now(places: Mapping[str, str], home: str, run: Path) -> dict[str, str]:
    """Where that lies now: beside the run as it was, or in its old place; without what is in neither.

    Args:
        places: as `of_source` gave them when the run was made.
        home: where the run lay then, an absolute path.
        run: where it lies now.
    """
    found = {}
    for text, place in places.items():
        beside = os.path.normpath(os.path.join(os.path.abspath(run), os.path.relpath(place, home))) if home else place
        there = next((path for path in (beside, place) if os.path.exists(path)), None)
        if there is not None:
            found[text] = there
    return found


def at_places(source: Any, places: Mapping[str, str]) -> Any:
    """The source with these paths in place of what it calls them."""
    if not isinstance(source, PathSource):
        inner: Any = getattr(source, "source", None)
        return source if inner is None else replace(source, source=at_places(inner, places))
    given = {name: getattr(source, name) for name in source.file_options}
    moved = {name: places[text] for name, text in given.items() if text in places and _elsewhere(text, places[text])}
    return replace(source, **moved)


def in_working_folder(source: Any) -> bool:
    """Whether all that a source reads lies below the current folder, without links that lead out of it."""
    if not isinstance(source, PathSource):
        inner = getattr(source, "source", None)
        return inner is None or in_working_folder(inner)
    here = os.path.realpath(os.curdir)
    below = all(is_inside(os.path.realpath(place), here) for place in of_source(source).values())
    return below and not getattr(source, "follow_links", False)


def _elsewhere(text: str, place: str) -> bool:
    """Whether a path leads from here to something else, or nowhere."""
    found = _found(text)
    return found is None or not os.path.samefile(found, place)


def _found(text: str) -> Path | None:
    try:
        return find_path(text)
    except InputError:
        return None
