"""Names of strangers are only names in every page and text that a command writes: read back by parsers of the forms."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from tailwise.cli.main import run
from tailwise.errors import printable
from tailwise.report.page import in_markdown

MARKUP = (
    "![x](http://evil.example/p.png)", "<script>alert(1)</script>", "[a](javascript:alert(1))",
    "\"><img src=x onerror=a>",
    "$x^{", "&lt;b&gt;", "`code`", "| cell |", "# head", "- list", "{{ 7*7 }}", "<!-- c", "a\x1b[1m", "_em_ **b**",
    "</style>",
)  # fmt: skip
ACTING = {"onerror", "onload", "onclick", "srcdoc", "formaction"}


OUR_SCRIPTS = {
    path.read_text().strip() for path in (files("tailwise.report") / "templates").iterdir() if path.name.endswith(".js")
}


class Reader(HTMLParser):
    """What a browser would do for a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.odd: list[str] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "script" and ("type", "application/json") not in attrs:
            self.scripts.append("")
        self.odd += [name for name, _ in attrs if name in ACTING]
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href", "action")]

    def handle_data(self, data: str) -> None:
        if self.lasttag == "script" and self.scripts and not data.startswith("{"):
            self.scripts[-1] += data


def assert_only_names(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert all(printable(line) == line for line in text.split("\n")), path
    if path.suffix == ".md":
        text = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
    elif path.suffix != ".html":
        return
    page = Reader(text)
    assert {script.strip() for script in page.scripts} <= OUR_SCRIPTS
    assert not {"iframe", "object", "embed", "form", "base"} & set(page.tags), path
    assert not page.odd
    # A page links to places in itself and holds its pictures; its text holds no link at all.
    assert all(link.startswith(("#", "data:image/")) for link in page.links), (path, page.links)
    if path.suffix == ".md":
        assert not {"a", "img", "em", "code", "b", "h3"} & set(page.tags), path


def write_all(data: Path, fitted: Path, out: Path, *reading: str) -> None:
    """Every page and text of a run of this data."""
    assert run(["fit", str(data), "--detector", "gaussian", "--out", str(fitted), *reading]) in (0, 3)
    other = fitted.with_name("other $y_{")
    shutil.copytree(fitted, other)
    for suffix in (".html", ".md", ".txt", ".json"):
        for place, words in enumerate((["--worst", "9"], ["--weights"])):
            assert run(["explain", str(fitted), *words, "--out", str(out / f"why{place}{suffix}")]) == 0
    for suffix in (".html", ".md", ".json"):
        assert run(["report", str(fitted), "--out", str(out / f"report{suffix}")]) == 0
        assert run(["compare", str(fitted), str(other), "--out", str(out / f"compare{suffix}")]) == 0
    for suffix in (".md", ".json"):
        assert run(["drift", str(fitted), str(data), "--out", str(out / f"drift{suffix}")]) in (0, 4)
    for path in [*out.iterdir(), fitted / "report.html"]:
        assert_only_names(path)


def test_names_of_a_table(tmp_path: Path) -> None:
    """Of columns, groups, the file and the folders; with labels, so that normals are compared."""
    generator = np.random.default_rng(0)
    names = list(MARKUP)
    frame = pd.DataFrame(generator.normal(size=(160, len(names))), columns=names)
    frame["group"] = [names[row % 4] for row in range(160)]
    frame["label"] = [int(row >= 150) for row in range(160)]
    frame.loc[150:, names[0]] += 6
    folder = tmp_path / "<img src=x onerror=b> $z^"
    folder.mkdir()
    frame.to_parquet(folder / "![p](http) <b>.parquet")
    out = tmp_path / "out"
    out.mkdir()
    data = folder / "![p](http) <b>.parquet"
    write_all(data, tmp_path / "run <i> [r](s) $w^{", out, "--groups", "group", "--labels", "label", "--per-group")
    why = (out / "why0.md").read_text(encoding="utf-8")
    assert "alert" in why
    assert "evil.example" in why


def test_names_of_images(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for place in range(40):
        folder = tmp_path / "photos" / MARKUP[place % 2].replace("/", " ")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.normal(120, 5 + 30 * (place == 7), size=(8, 8)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{place}{MARKUP[place % len(MARKUP)].replace('/', ' ')}.png")
    (tmp_path / "out").mkdir()
    reading = ("--read", "pixels", "--size", "8", "--channels", "1", "--groups", "folder")
    write_all(tmp_path / "photos", tmp_path / "run", tmp_path / "out", *reading)
    triage = ["triage", str(tmp_path / "photos"), "--detector", "gaussian", "--out", str(tmp_path / "review"), *reading]
    assert run(triage) == 0
    assert_only_names(tmp_path / "review" / "review.html")


@pytest.mark.parametrize(
    "name",
    ["http://evil.example/x", "see www.evil.example", "- x", "1. x", "2) x", "===", "--", "+ x"],
)
def test_what_begins_a_line_or_is_an_address_is_text(name: str) -> None:
    """By the rules of Markdown and, where they turn bare addresses into links, of GitHub's."""
    written = in_markdown(name)
    html = MarkdownIt("commonmark").render(f"above\n{written}\n\n- {written}\n")
    assert html.count("<li>") == 1
    assert html.count("<p>") == 1
    assert "<h" not in html
    assert not re.search(r"(?<!\\)://|www\.", written)
