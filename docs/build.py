"""Write what is generated: docs/api.md from the docstrings, docs/architecture.svg from the imports, tables of
the README and of docs/theory.md from rows of benchmarks and the demo.

A public class or function without a docstring is an error.

python docs/build.py            write them
python docs/build.py --check    only say whether they are current
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import is_typeddict

import architecture
import first_screen

import tailwise
from tailwise.workflows import demo

ROOT = Path(__file__).parents[1]
PAGE, README, THEORY = ROOT / "docs" / "api.md", ROOT / "README.md", ROOT / "docs" / "theory.md"
# Copied from a run of `tailwise demo`, together with its picture, docs/demo.svg.
DEMO = ROOT / "benchmarks" / "results" / "demo.json"
PICTURE = "![Scores of frequent good, rare good and defective pictures: plain, and by tailwise fit](docs/demo.svg)"
HEAD = "# Names\n\nWritten by `make docs` from the docstrings; edit those.\n"


def modules() -> Iterator[ModuleType]:
    """Every module of the package, by name."""
    for info in sorted(pkgutil.walk_packages(tailwise.__path__, "tailwise."), key=lambda info: info.name):
        if not info.name.rpartition(".")[2].startswith("_"):
            yield importlib.import_module(info.name)


def public(module: ModuleType) -> Iterator[tuple[str, type]]:
    """The classes and functions that the module itself defines, in the order of its text."""
    members = [
        (name, member)
        for name, member in vars(module).items()
        if (inspect.isclass(member) or inspect.isfunction(member))
        and member.__module__ == module.__name__
        and not name.startswith("_")
    ]
    yield from sorted(members, key=lambda item: inspect.getsourcelines(item[1])[1])


def docstring(name: str, member: type) -> str:
    """The member's own docstring; "" for one that is missing or that dataclass made up."""
    text = inspect.cleandoc(member.__doc__ or "")
    return "" if text.startswith(f"{name}(") else text


def section(name: str, member: type) -> str:
    has_no_call = getattr(member, "_is_protocol", False) or is_typeddict(member)
    call = "" if has_no_call else str(inspect.signature(member))
    return f"### {name}\n\n```python\n{name}{call}\n```\n\n{docstring(name, member)}\n"


def page() -> str:
    """The whole page. Leaves with a list of the names that nobody described."""
    parts, undocumented = [HEAD], []
    for module in modules():
        members = list(public(module))
        undocumented += [f"{module.__name__}.{name}" for name, member in members if not docstring(name, member)]
        if members:
            parts.append(f"## {module.__name__}\n\n{inspect.cleandoc(module.__doc__ or '')}\n")
            parts += [section(name, member) for name, member in members]
    if undocumented:
        sys.exit("public names without a docstring: " + ", ".join(undocumented))
    return "\n".join(parts)


def readme() -> str:
    """The README, with the defaults beside their peers, and the demo."""
    rows = json.loads(DEMO.read_text(encoding="utf-8"))["rows"]
    return marked(README, {"defaults": first_screen.table(), "demo": f"{PICTURE}\n\n{demo.markdown(rows)}"})


def marked(path: Path, blocks: dict[str, str]) -> str:
    """The text of a page with these blocks between the marks of their names."""
    text = path.read_text(encoding="utf-8")
    for name, block in blocks.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        before, _, after = text.partition(begin)
        text = f"{before}{begin}\n{block}\n{end}{after.partition(end)[2]}"
    return text


def main(arguments: list[str]) -> None:
    """Write the pages, or with --check leave with the names of those that are not current."""
    pages = {PAGE: page(), README: readme(), THEORY: marked(THEORY, {"apart": first_screen.apart()})}
    pages |= {architecture.PICTURE: architecture.svg()}
    old = [path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" not in arguments:
        for path in old:
            path.write_text(pages[path], encoding="utf-8")
    elif old:
        names = ", ".join(path.relative_to(ROOT).as_posix() for path in old)
        sys.exit(f"not current: {names}; run `make docs`")


if __name__ == "__main__":
    main(sys.argv[1:])
