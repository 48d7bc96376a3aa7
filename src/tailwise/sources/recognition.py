"""What a source of files declares, so that `open_source` finds it by what lies at a path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any, ClassVar, Self

from ..core.registry import Value


class Match(IntEnum):
    """How sure a class of sources is that data is its own: the surest is taken."""

    NONE = 0
    # Files of a sort that other sources read too.
    POSSIBLE = 1
    # The same, after a look at how many there are, or inside.
    LIKELY = 2
    # No other source reads these files.
    CERTAIN = 3
    # An option asks for this source whatever else the files may be.
    ASKED = 4


@dataclass(frozen=True, repr=False)
class PathSource(Value):
    """Base of the sources of what lies at a path: a frozen dataclass whose further fields are its options.

    A class that is registered as a source and says by `recognises` what is its own is opened by `open_source`; nothing
    else has to name it.

    Attributes:
        path: a file or folder; relative ones are also looked for in the data directory.
        reads: what it reads, in words for people whose path no source recognises.
        file_options: the fields that name files or folders.
    """

    reads: ClassVar[str]
    file_options: ClassVar[tuple[str, ...]] = ("path",)

    path: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", str(self.path))
        super().__post_init__()

    @classmethod
    def recognises(cls, path: Path, options: Mapping[str, Any]) -> Match:
        """How sure it is that the existing file or folder `path` is its own, where `options` are asked for."""
        raise NotImplementedError

    @classmethod
    def usual(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options for a path that was recognised, in place of the defaults, where `options` do not say otherwise."""
        return {}

    def at(self, path: str) -> Self:
        """The same reading of the data at another path."""
        return replace(self, path=path)
