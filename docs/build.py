"""Write docs/api.md from the docstrings; a public class or function without one is an error.

python docs/build.py            write the page
python docs/build.py --check    only say whether it is current
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import tailwise

PAGE = Path(__file__).with_name("api.md")
HEAD = "# Names\n\nWritten by `make docs` from the docstrings; edit those.\n"


def modules() -> Iterator[ModuleType]:
    """Every module of the package, by name."""
    for found in sorted(pkgutil.walk_packages(tailwise.__path__, "tailwise."), key=lambda found: found.name):
        if not found.name.rpartition(".")[2].startswith("_"):
            yield importlib.import_module(found.name)


def public(module: ModuleType) -> Iterator[tuple[str, type]]:
    """The classes and functions that the module itself defines, in the order of its text."""
    own = [
        (name, member)
        for name, member in vars(module).items()
        if (inspect.isclass(member) or inspect.isfunction(member))
        and member.__module__ == module.__name__
        and not name.startswith("_")
    ]
    yield from sorted(own, key=lambda item: inspect.getsourcelines(item[1])[1])


def docstring(name: str, member: type) -> str:
    """The member's own docstring; "" for one that is missing or that dataclass made up."""
    text = inspect.cleandoc(member.__doc__ or "")
    return "" if text.startswith(f"{name}(") else text


def section(name: str, member: type) -> str:
    is_protocol = getattr(member, "_is_protocol", False)
    call = "" if is_protocol else str(inspect.signature(member))
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


if __name__ == "__main__":
    text = page()
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit("docs/api.md is not current: run `make docs`")
