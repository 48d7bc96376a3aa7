"""Images that may be masks of the others, though no word in their names says so: they pair up and hold few values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from ..errors import InputError
from . import image_files
from .image_layouts import counts_of

# So many names have to pair up, and so many images of one sort are looked at.
_FEWEST, _LOOKED_AT = 4, 10
# A mask numbers at most so many classes.
_MOST_VALUES = 16


def doubt_of_pairs(root: Path, names: Sequence[str]) -> InputError | None:
    """Why these images should not all train: some hold few values, and are called as others that hold more."""
    for some, others in (*_folders_of_one_naming(names), *_names_with_an_affix(names)):
        if _hold_few_values(root, some) and not _hold_few_values(root, others):
            return InputError(
                f"{root}: {len(some)} of {len(names)} images hold at most {_MOST_VALUES} values each and are called as "
                f"others, so they may be masks: {counts_of(some, str(root))}",
                "move masks to a folder masks/, or add _mask to their names; if these are photographs, --groups folder "
                "trains on all of them",
            )
    return None


def _folders_of_one_naming(names: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    """The images of each folder most of whose names are also those of other folders, and those others."""
    folders: dict[str, dict[str, str]] = defaultdict(dict)
    places: dict[str, list[str]] = defaultdict(list)
    for name in names:
        folder, base = _parted(name)
        folders[folder][base] = name
        places[base].append(name)
    for files in folders.values():
        others = [other for base, name in files.items() for other in places[base] if other != name]
        shared = sum(len(places[base]) > 1 for base in files)
        if shared >= max(_FEWEST, len(files) / 2):
            yield list(files.values()), others


def _names_with_an_affix(names: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    """The images X-affix and affix-X of one folder, by their affix, and their images X."""
    known = {_parted(name): name for name in names}
    pairs: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for (folder, base), name in known.items():
        for cut in range(1, len(base)):
            start, end = base[:cut], base[cut:]
            if (folder, start) in known and _has_letters(end):
                pairs["", end].append((name, known[folder, start]))
            if (folder, end) in known and _has_letters(start):
                pairs[start, ""].append((name, known[folder, end]))
    for paired in pairs.values():
        if len(paired) >= _FEWEST:
            yield [name for name, _ in paired], [name for _, name in paired]


def _has_letters(affix: str) -> bool:
    """Whether it says something, as a further digit does not."""
    return any(letter.isalpha() for letter in affix)


def _parted(name: str) -> tuple[str, str]:
    """The folder, and the file's name without its ending, in small letters."""
    folder, _, last = name.rpartition("/")
    return folder, last.rpartition(".")[0].lower()


def _hold_few_values(root: Path, names: Sequence[str]) -> bool:
    """Whether each of some of these images, from first to last, has few grey values, as masks do."""
    return all(_has_few_values(root / name) for name in names[:: max(1, len(names) // _LOOKED_AT)])


def _has_few_values(path: Path) -> bool:
    try:
        return len(torch.unique(image_files.read_within(path, None, 1))) <= _MOST_VALUES
    except InputError:  # reading them all says what is wrong
        return False
