"""The page of a review in a real browser: 200 pictures decided by keys, saved, and given back to the command.

Chromium is driven through a pipe by its DevTools protocol, so nothing besides it is needed.
"""

import json
import os
import re
import runpy
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tailwise.cli import main
from tailwise.runs import store

SHARED = runpy.run_path(str(Path(__file__).with_name("test_report_page.py")))
AXE, CHROMIUM, browser, checker = (SHARED[name] for name in ("AXE", "CHROMIUM", "browser", "checker"))
COUNT, DEFECTS = 200, (0, 1, 2, 3, 150)
STRANGE = ["=1+1.png", 'a,b "c".png', "<script>.png", "'quoted.png", "über 1.png"]


class Browser:
    """A page in Chromium, whose downloads land in the folder."""

    def __init__(self, folder: Path, size: str = "1280,900", dark: bool = False) -> None:
        assert CHROMIUM is not None
        to_it, self.out = os.pipe()
        self.inp, from_it = os.pipe()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]
        options += [f"--user-data-dir={folder / 'profile'}", f"--window-size={size}"]
        options += [f"--blink-settings=preferredColorScheme={int(not dark)}"]
        piped = f'exec "$@" 3<&{to_it} 4>&{from_it}'
        command = ["bash", "-c", piped, "bash", CHROMIUM, *options]
        self.process = subprocess.Popen(command, pass_fds=(to_it, from_it), stderr=subprocess.DEVNULL)
        os.close(to_it)
        os.close(from_it)
        self.left, self.number, self.session = b"", 0, None
        self.events: list[dict] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.ask("Page.enable")
        self.ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder), eventsEnabled=True)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.out)
        os.close(self.inp)

    def message(self) -> dict:
        while b"\0" not in self.left:
            read = os.read(self.inp, 1 << 16)
            assert read, "the browser has ended"
            self.left += read
        text, _, self.left = self.left.partition(b"\0")
        return json.loads(text)

    def until(self, method: str, state: str | None = None) -> None:
        while not any(said["method"] == method and said["params"].get("state") == state for said in self.events):
            self.events.append(self.message())
        self.events.clear()

    def ask(self, method: str, **params: object) -> dict:
        self.number += 1
        asked = {"id": self.number, "method": method, "params": params}
        asked |= {"sessionId": self.session} if self.session else {}
        os.write(self.out, json.dumps(asked).encode() + b"\0")
        while (said := self.message()).get("id") != self.number:
            self.events.append(said)
        assert "error" not in said, said
        return said["result"]

    def open(self, page: Path) -> None:
        self.events.clear()
        self.ask("Page.navigate", url=page.as_uri())
        self.until("Page.loadEventFired")

    def press(self, key: str) -> None:
        text = {"text": key} if len(key) == 1 else {}
        self.ask("Input.dispatchKeyEvent", type="keyDown", key=key, **text)

    def told(self, script: str) -> object:
        found = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def text(self, name: str) -> str:
        return str(self.told(f"document.getElementById({name!r}).textContent"))

    def saved(self) -> None:
        self.until("Browser.downloadProgress", "completed")


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 200 pictures of one kind, wider than high, and its review."""
    folder = tmp_path_factory.mktemp("review")
    (folder / "photos").mkdir()
    generator = np.random.default_rng(0)
    for number in range(COUNT):
        tile = 120 + generator.normal(0, 6, (24, 48, 3))
        tile[6:14, 6:14] += 100 * (number in DEFECTS)
        name = STRANGE[number] if number < len(STRANGE) else f"part {number:03}.png"
        Image.fromarray(tile.clip(0, 255).astype(np.uint8)).save(folder / "photos" / name)
    asked = ["--read", "pixels", "--size", "24x48", "--detector", "gaussian", "--parts", "2"]
    assert main.run(["triage", str(folder / "photos"), *asked, "--out", str(folder / "sheet")]) == 0
    return folder


def test_its_policy_lets_no_script_in_but_its_own(reviewed: Path) -> None:
    page = (reviewed / "sheet" / "review.html").read_text(encoding="utf-8")
    assert len(re.findall("<script", page)) == 2
    assert "<script src" not in page
    assert re.search(r"default-src 'none'; [^\"]*script-src 'sha256-[^' ]+'\"", page)


@browser
def test_200_pictures_are_decided_by_keys_and_the_sheet_goes_back(reviewed: Path, tmp_path: Path) -> None:
    sheet = reviewed / "sheet" / "review.csv"
    page = sheet.with_name("review.html")
    names = pd.read_csv(sheet)["sample"].tolist()
    with Browser(tmp_path) as seen:
        seen.open(page)
        seen.press("s")
        seen.saved()
        # Nothing is decided, so what is saved is the sheet, byte for byte.
        assert (tmp_path / "review.csv").read_bytes() == sheet.read_bytes()
        (tmp_path / "review.csv").unlink()
        order = seen.told("[...document.querySelectorAll('.cards b')].map(e => e.textContent)")
        assert isinstance(order, list)
        assert len(order) == COUNT
        measured = """['suspect', 'nearest'].map(id => document.querySelector(`#${id} img`).getBoundingClientRect())
            .map(box => [box.width, box.height, box.top])"""
        suspect, nearest = seen.told(measured)  # type: ignore[misc]
        assert suspect == pytest.approx(nearest, abs=0.1)
        assert suspect[0] == pytest.approx(2 * suspect[1], rel=0.02)
        for name in order[:37]:
            assert seen.text("suspect-name") == name
            seen.press("d" if name in {*STRANGE[:4], "part 150.png"} else "g")
        assert seen.text("count") == f"37 of {COUNT}"
        seen.open(page)
        assert seen.text("count") == f"37 of {COUNT}"
        assert seen.text("suspect-name") == order[37]
        seen.press("d")
        seen.press("Backspace")
        assert seen.text("count") == f"37 of {COUNT}"
        for _ in order[37:-1]:
            seen.press("g")
        seen.press("d")
        seen.press("u")  # the last one is left open
        assert seen.text("count") == f"{COUNT - 1} of {COUNT}"
        seen.press("s")
        seen.saved()
    decided = pd.read_csv(tmp_path / "review.csv")
    before = pd.read_csv(sheet)
    pd.testing.assert_frame_equal(decided.drop(columns="verdict"), before.drop(columns="verdict"))
    assert decided["verdict"].value_counts()["anomaly"] == len(DEFECTS)
    assert decided["verdict"].value_counts()["normal"] == COUNT - 1 - len(DEFECTS)
    assert names == decided["sample"].tolist()
    fit = ["fit", str(reviewed / "photos"), "--read", "pixels", "--size", "24x48", "--detector", "gaussian"]
    assert main.run([*fit, "--reviewed", str(tmp_path / "review.csv"), "--out", str(tmp_path / "run")]) == 0
    left = set(store.open_run(tmp_path / "run").scores()["sample"])
    assert len(left) == COUNT - len(DEFECTS)
    assert not left & {*STRANGE[:4], "part 150.png"}


@browser
@checker
@pytest.mark.parametrize(("size", "dark"), [("1280,900", False), ("500,800", True)])
def test_nothing_serious_for_axe_while_deciding(reviewed: Path, tmp_path: Path, size: str, dark: bool) -> None:
    with Browser(tmp_path, size, dark) as seen:
        seen.open(reviewed / "sheet" / "review.html")
        for key in "dgbe":
            seen.press(key)
        seen.told(AXE.read_text(encoding="utf-8"))
        found = seen.told("axe.run(document).then(r => r.violations.map(v => [v.id, v.impact]))")
        assert isinstance(found, list)
        assert {name for name, impact in found if impact in ("serious", "critical")} == set()
        assert seen.told("document.documentElement.scrollWidth <= innerWidth")
