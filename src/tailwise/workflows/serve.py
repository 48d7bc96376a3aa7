"""Runs that answer: what `tailwise serve` does."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..core import messages
from ..core.inference import check_device
from ..errors import InputError
from ..integrations import http
from ..integrations.http import Body, Scored
from ..integrations.limits import Limits
from ..runs.sheets import to_csv
from ..sources.paths import regular_file
from .served_run import ServedRun, version_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def serve(
    given: Sequence[str], host: str, port: int, token_file: Path | None, limits: Limits, device: str = "cpu"
) -> None:
    """Answer with these runs until told to stop; see `commands.serve`."""
    check_device(device)
    token = "" if token_file is None else _token(token_file)
    runs = ServedRuns(named(given), device)
    if not (token or http.is_loopback(host)):
        messages.warning(
            f"whoever reaches {host} may ask, and no token is needed; --token-file FILE asks for one, and a proxy in "
            "front of the service has to encrypt it"
        )
    http.run(runs, http.listening(host, port), limits, token)


class ServedRuns:
    """The runs of a service by name, each in its newest version that could be opened.

    Args:
        places: their folders by name.
        device: "cpu", "cuda" or "mps".
    """

    def __init__(self, places: Mapping[str, Path], device: str = "cpu") -> None:
        self._places, self._device = dict(places), device
        self._runs = {name: ServedRun(name, path, device) for name, path in places.items()}
        self._refused: dict[str, str] = {}

    @property
    def names(self) -> Sequence[str]:
        """The runs, in the order in which they were given."""
        return tuple(self._places)

    def facts(self, name: str) -> Mapping[str, Any]:
        """What there is to know of a run."""
        return self._runs[name].facts

    def score(self, name: str, bodies: Sequence[Body]) -> Sequence[Scored | BaseException]:
        """Answers to bodies, all by one version of the run."""
        return self._runs[name].score(bodies)

    def csv(self, scored: Scored) -> str:
        """The table of an answer, as `tailwise score` writes it."""
        return to_csv(pd.DataFrame(scored.samples))

    def renew(self, name: str) -> bool | None:
        """Take the run that lies in its folder now, if it is another: whether that worked. What is being answered is
        answered by the version before; so is everything where the new one cannot be opened."""
        path = self._places[name]
        try:
            known = version_of(path) == self._runs[name].version
            if not known:
                self._runs[name] = ServedRun(name, path, self._device)
        except InputError as error:
            return self._kept(name, str(error))
        except (MemoryError, OSError) as error:
            return self._kept(name, f"{type(error).__name__}: {error}")
        self._refused.pop(name, None)
        if known:
            return None
        messages.note(f"{name}: a new version is answering")
        return True

    def _kept(self, name: str, reason: str) -> bool | None:
        """Say why a new version is not taken, once until one is; the next look tries again, because it may be just
        being written."""
        if self._refused.get(name) == reason:
            return None
        self._refused[name] = reason
        messages.warning(f"{name}: the version before goes on answering, because the new one cannot be used: {reason}")
        return False


def named(given: Sequence[str]) -> dict[str, Path]:
    """Folders of runs by name: FOLDER has its own name, NAME=FOLDER another.

    Raises:
        InputError: a name is not one that an address can hold, or two runs have the same.
    """
    places: dict[str, Path] = {}
    for text in given:
        name, separator, path = text.partition("=")
        if not separator or Path(text).exists():
            path = text
            name = Path(path).absolute().name
        if not _NAME.fullmatch(name):
            raise InputError(f"a run cannot be called {name!r} in an address", f"name it: NAME={path}")
        if name in places:
            raise InputError(f"two runs are called {name!r}", f"name one of them: NAME={path}")
        places[name] = Path(path)
    return places


def _token(file: Path) -> str:
    text = regular_file(file).read_text(encoding="utf-8", errors="replace").strip()
    if not (text.isascii() and text.isprintable() and text):
        raise InputError(f"{file} holds no token: one line of printable ASCII was needed", "write a long random one")
    return text
