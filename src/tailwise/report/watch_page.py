"""What a watch has seen, as a page."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from . import plots
from .page import figure, page

_LINES = 4


def to_html(found: Mapping[str, Any]) -> str:
    """The page: whether anything was called, counts by kind, and how the evidence grew."""
    figures = {}
    if len(found["looks"]) > 1:
        names = [test["name"] for test in found["tests"]][:_LINES]
        lines = {name: found["evidence"][name] for name in names}
        draw = functools.partial(plots.evidence, found["looks"], lines)
        figures["evidence"] = figure(draw, "evidence", "The evidence of the tests that have most of it")
    return page("watch.html", {**found, "figures": figures})
