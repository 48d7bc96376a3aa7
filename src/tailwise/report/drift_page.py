"""Drift laid out for people: Markdown."""

from __future__ import annotations

from ..calibration.drift import Drift
from .page import in_markdown


def to_markdown(found: Drift) -> str:
    """A sentence, and a table with a row for each kind."""
    lines = [str(found).partition("\n")[0], "", "| | samples then | now | share then | now | score then | now |"]
    lines[-1] += " unknown then | now | moved | drifted in (p) | such as |"
    lines.append("|---|" + "---:|" * 9 + "---|---|")
    lines += ["| " + " | ".join(map(in_markdown, cells)) + " |" for cells in found.table()]
    return "\n".join(lines) + "\n"
