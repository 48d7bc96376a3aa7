"""The report laid out: one page, or Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .contents import drawings
from .page import figure, page, text


def to_html(summary: Mapping[str, Any]) -> str:
    """The report as one page that loads nothing; pictures are enlarged on click."""
    drawn = {name: figure(draw, name, alternative) for name, (alternative, draw) in drawings(summary).items()}
    scripts = ["enlarge.js"] if summary["thumbnails"] or summary["gallery"] else []
    return page("report.html", {**summary, "figures": drawn}, *scripts)


def to_markdown(summary: Mapping[str, Any]) -> str:
    """The report as Markdown, without figures and pictures."""
    return text("report.md", summary)
