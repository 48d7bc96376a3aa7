"""Pages, texts and data from a dict: templates, figures, escaping.

A page loads nothing. Its policy lets only the scripts run that are named here, known by their hash, so that no text of
a stranger becomes one.
"""

from __future__ import annotations

import functools
import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any

import jinja2
from markupsafe import Markup, escape

from ..errors import printable
from .numbers import change, counted, fraction, number, percent, whole

# Inlined pictures stop here, so that the page opens at once.
PICTURE_BYTES = 2_500_000


def page(template: str, content: Mapping[str, Any], *scripts: str) -> str:
    """A page of the report's looks from another template, which runs these scripts of the same folder."""
    texts = [Markup(_script(name)) for name in scripts]
    hashes = [f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in texts]
    policy = f"; script-src {' '.join(hashes)}" if hashes else ""
    return _templates().get_template(template).render({**content, "scripts": texts, "policy": Markup(policy)})


@functools.cache
def _script(name: str) -> str:
    templates = _templates()
    assert templates.loader is not None
    return templates.loader.get_source(templates, name)[0]


def inside_script(data: Any) -> Markup:
    """Data as JSON for a `<script type="application/json">`, which no text in it can end."""
    return Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"))


def text(template: str, content: Mapping[str, Any]) -> str:
    """Markdown from another template."""
    return _templates().get_template(template).render(content).strip() + "\n"


def figure(draw: Callable[[Any], Any], name: str, alternative: str) -> dict[str, Any]:
    """A drawing for the macro `figure` of a page: SVG, and what it says in words."""
    from . import plots

    return {"svg": Markup(plots.svg(draw, name)), "alternative": alternative}


@functools.cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tailwise.report"),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {f.__name__: f for f in (number, fraction, percent, counted, whole, change)} | {
        "cell": in_markdown,
        "breakable": in_html,
    }
    return environment


def _shown(value: Any) -> Any:
    """A text without what steers a terminal or turns the direction of writing; our own markup and all else as it is."""
    return (
        value
        if isinstance(value, Markup) or not isinstance(value, str)
        else "\n".join(map(printable, value.split("\n")))
    )


def in_html(name: str) -> Markup:
    """A name for a page: nothing in it is markup; where it is too wide it is cut after a folder, not anywhere."""
    return escape(_shown(name)).replace("/", Markup("/<wbr>"))


def in_markdown(text: Any) -> str:
    """Text for Markdown: nothing in it is markup or becomes a link, ends a table cell or starts a line."""
    # Readers make links of bare addresses: of what stands before :// and after www.
    line = re.sub(r"([\\`*_\[\]<>|#&!~$]|:(?=//)|(?<=www)\.)", r"\\\1", printable(" ".join(str(text).split())))
    # What begins a list, or makes the line above a heading.
    line = re.sub(r"^(?=[-+](?: |$)|[-=]+$)", r"\\", line)
    return re.sub(r"^(\d+)(?=[.)](?: |$))", r"\1\\", line)


def in_text(text: Any) -> str:
    """Text for a terminal: nothing in it steers the terminal, ends a table cell or starts a line."""
    return printable(" ".join(str(text).split())).replace("|", "\\|")


def within_budget(thumbnails: Mapping[str, str], used: Iterable[str], room: int = PICTURE_BYTES) -> dict[str, str]:
    """The pictures of these samples that fit into a page which opens at once; only such as are inside it."""
    kept, size = {}, 0
    for name in used:
        picture = thumbnails.get(name, "")
        # Anything but inline data would make the page ask the network.
        if picture.startswith("data:image/") and size + len(picture) <= room:
            kept[name] = picture
            size += len(picture)
    return kept
