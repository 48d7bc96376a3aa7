"""The script that measures the code, on a package made by hand."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def made_package(folder: Path, files: dict[str, str]) -> Path:
    root = folder / "made"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def test_the_shape_of_a_small_package(tmp_path: Path) -> None:
    ground = "def whole(a, b, *, c):\n    return a\n"
    root = made_package(
        tmp_path,
        {
            "__init__.py": "",
            "ground/__init__.py": "",
            "ground/one.py": ground,
            "wing/two.py": "from ..ground.one import whole\nfrom ..ground import one\n",
            "top.py": "from .wing import two\nfrom made.ground.one import whole\nimport json\n",
        },
    )
    measured = runpy.run_path(str(ROOT / "docs" / "structure.py"))
    assert measured["arrows"](root) == {"ground": set(), "wing": {"ground"}, "top": {"wing", "ground"}}
    lines = measured["report"](root).splitlines()
    assert lines[:3] == ["folders: 3", "floors: 3", "arrows: 3"]


def test_a_circle_has_no_floors(tmp_path: Path) -> None:
    files = {"a/x.py": "from ..b import y\n", "b/y.py": "def f(n):\n    return n\n\n\nfrom ..a import x\n"}
    measured = runpy.run_path(str(ROOT / "docs" / "structure.py"))
    root = made_package(tmp_path, files)
    assert measured["floors"](measured["arrows"](root)) is None
    assert measured["floors"]({"a": set(), "b": {"a"}, "c": {"b"}, "d": {"a"}}) == 3
