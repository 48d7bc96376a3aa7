"""The pictures of a report, as many as a page has room for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..contents import Tables, section
from ..page import within_budget
from ..selection import samples_to_show


@section
def pictures(tables: Tables) -> dict[str, Any]:
    """Pictures or lines of text of training samples by name, and the gallery of score maps."""
    shown = samples_to_show(tables.train)
    return {
        "gallery": None if tables.gallery is None else _hung(tables.gallery),
        "thumbnails": within_budget(tables.thumbnails, shown),
        "examples": {name: tables.examples[name] for name in shown if name in tables.examples},
    }


def _hung(gallery: Mapping[str, Any]) -> dict[str, Any]:
    """The gallery with as many pictures as the page has room for."""
    listed = [sample for section in gallery["sections"] for sample in section["samples"]]
    pictures = {str(i): sample["picture"] for i, sample in enumerate(listed)}
    pictures |= {f"training {name}": picture for name, picture in gallery["training"].items()}
    kept = within_budget(pictures, pictures)
    number = iter(range(len(listed)))
    sections = [
        {**section, "samples": [sample for sample in section["samples"] if str(next(number)) in kept]}
        for section in gallery["sections"]
    ]
    training = {name: picture for name, picture in gallery["training"].items() if f"training {name}" in kept}
    return {**gallery, "sections": [section for section in sections if section["samples"]], "training": training}
