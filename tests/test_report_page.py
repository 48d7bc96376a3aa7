"""The pages in a real browser: who can read them, on what, and whether anything leaves them.

Chromium is driven by its command line alone. For the accessibility checks axe-core is needed too: `make accessibility`
puts it into build/, and TAILWISE_AXE names another axe.min.js.
"""

import html
import itertools
import json
import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tailwise.core.data import Data
from tailwise.report import report_page as pages_of_reports
from tailwise.report import review_page, selection
from tailwise.report.pictures import data_uri, of_samples
from tailwise.sources.auto import open_source
from tailwise.training.options import Training
from tailwise.workflows import pages, triage
from tailwise.workflows.fit import fit_run
from tailwise.workflows.request import Request

ROOT = Path(__file__).parents[1]
SHARED = runpy.run_path(str(Path(__file__).with_name("test_report.py")))
SETTINGS, Page, judged, summary, training = (
    SHARED[name] for name in ("SETTINGS", "Page", "judged", "summary", "training")
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AXE = Path(os.environ.get("TAILWISE_AXE", ROOT / "build/accessibility/node_modules/axe-core/axe.min.js"))
browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
checker = pytest.mark.skipif(not AXE.is_file(), reason="axe-core is missing: make accessibility, or set TAILWISE_AXE")
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
LIGHT, DARK = "--blink-settings=preferredColorScheme=1", "--blink-settings=preferredColorScheme=0"


def noise(side: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def report_page() -> str:
    """A page with every section: kinds, pictures, maps, warnings, failed checks, test data."""
    train = training(group=["mono"] * 150 + ["poly"] * 50)
    shown = {sample: data_uri(noise(32, i)) for i, sample in enumerate(selection.samples_to_show(train))}
    sample = {"sample": "a.png", "score": 2.0, "rejected": True, "picture": data_uri(noise(40, 0)), "flagged": 0.1}
    gallery = {
        "scale": {"usual": 0.1, "threshold": 0.5, "full": 1.0},
        "colours": ["#808080", "#4060ff", "#ffd000", "#800000"],
        "sections": [{"title": "Worst misses", "said": "The lowest first.", "samples": [sample | {"highest": 1.0}]}],
        "training": {},
    }
    data = [
        {
            "name": "copies",
            "ok": False,
            "count": 1,
            "message": "1 repeats",
            "examples": ["a = b"],
            "command": "tailwise",
        },
        {"name": "near copies", "ok": True, "count": 0, "message": "none", "examples": [], "command": ""},
    ]
    test = judged(group=np.where(np.arange(80) % 2, "mono", "poly"))
    found = summary(train, test, thumbnails=shown, gallery=gallery, data_checks=data, notes=["a note"])
    return pages_of_reports.to_html(found)


def comparison_page(folder: Path) -> str:
    """Two runs of one labelled table."""
    generator = np.random.default_rng(0)
    values = np.vstack([generator.normal(size=(200, 4)), generator.normal(4, 1, (40, 4))])
    frame = pd.DataFrame(values, columns=list("abcd"))
    frame.assign(bad=np.arange(240) >= 200, kind=np.where(np.arange(240) % 3, "x", "y")).to_csv(
        folder / "t.csv", index=False
    )
    source = open_source(str(folder / "t.csv"), labels="bad", groups="kind")
    for detector in ("gaussian", "nearest-neighbours"):
        fit_run(Request(source=source, detector=detector), folder / detector)
    out = folder / "compared.html"
    pages.compare_runs([folder / "gaussian", folder / "nearest-neighbours"], out)
    return out.read_text(encoding="utf-8")


def pictures(folder: Path, count: int) -> Path:
    """Grey tiles, the last of them with a spot."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(count):
        tile = 120 + generator.normal(0, 6, (24, 24, 3))
        tile[6:14, 6:14] += 120 * (number == count - 1)
        Image.fromarray(tile.clip(0, 255).astype(np.uint8)).save(folder / f"{number:02}.png")
    return folder


def by_kind_page(folder: Path) -> str:
    """A run with a threshold for every known group and a gate that it may fail."""
    generator = np.random.default_rng(0)
    kind = np.repeat(["x", "y"], [60, 12])
    frame = pd.DataFrame(generator.normal(size=(72, 4)) + 4 * (kind == "y")[:, None], columns=list("abcd"))
    frame.assign(kind=kind).to_csv(folder / "t.csv", index=False)
    source = open_source(str(folder / "t.csv"), groups="kind")
    asked = Request(source=source, detector="gaussian", per_group=True, cross=2, max_group_fpr=0.2)
    fit_run(asked, folder / "run")
    return (folder / "run" / "report.html").read_text(encoding="utf-8")


def page_of_review(folder: Path) -> str:
    source = open_source(str(pictures(folder / "tiles", 24)), read="pixels", size=24)
    found = triage.triage(Request(source=source, detector="gaussian"), parts=2)
    return review_page.to_html(found, "tailwise triage tiles")


def explanation_page(folder: Path, weights: bool = False) -> str:
    source = open_source(str(pictures(folder / "tiles", 24)), read="pixels", size=24)
    asked = Request(
        source=source, detector="padim" if not weights else "autoencoder", training=Training(epochs=4, warmup=2)
    )
    fit_run(asked, folder / "run")
    out = folder / "explained.html"
    pages.explain(folder / "run", None, [], 2, weights, out)
    return out.read_text(encoding="utf-8")


PAGES = {
    "report": lambda _: report_page(),
    "by kind": by_kind_page,
    "comparison": comparison_page,
    "review": page_of_review,
    "explanation": explanation_page,
    "weights": lambda folder: explanation_page(folder, weights=True),
}


@pytest.fixture(scope="module", params=PAGES)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return PAGES[request.param](tmp_path_factory.mktemp("page"))


def drive(folder: Path, text: str, *options: str) -> str:
    """Open the page, and what is in the document in the end."""
    file = folder / "page.html"
    file.write_text(text, encoding="utf-8")
    return open_file(folder, file, "--dump-dom", *options)


def open_file(folder: Path, file: Path, *options: str) -> str:
    assert CHROMIUM is not None
    fixed = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    fixed += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000"]
    done = subprocess.run(
        [CHROMIUM, *fixed, *options, file.as_uri()], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def told(folder: Path, text: str, script: str, *options: str) -> object:
    """What an added script, an expression or a promise, says of the page, whose own policy allows none."""
    text = POLICY.sub("", text)
    kept = "const e = document.createElement('pre'); e.id = 'said'; e.textContent = JSON.stringify(p)"
    added = (
        f"<script>onload = () => Promise.resolve({script}).then(p => {{ {kept}; document.body.append(e) }})</script>"
    )
    found = re.search(
        r'<pre id="said">(.*?)</pre>', drive(folder, text.replace("</body>", added + "</body>"), *options)
    )
    assert found is not None
    return json.loads(html.unescape(found[1]))


def violations(folder: Path, text: str, *options: str) -> set[str]:
    """Names of what axe finds that is serious or critical."""
    axe = AXE.read_text(encoding="utf-8").replace("</script", "<\\/script")
    text = text.replace("</body>", f"<script>{axe}</script></body>")
    script = "axe.run(document).then(r => r.violations.map(v => [v.id, v.impact]))"
    found = told(folder, text, script, *options)
    assert isinstance(found, list)
    return {name for name, impact in found if impact in ("serious", "critical")}


@browser
@checker
@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_no_serious_issue_of_accessibility(page: str, scheme: str, tmp_path: Path) -> None:
    opened = page.replace("<details>", "<details open>")
    assert violations(tmp_path, opened, scheme) == set()


@browser
@checker
@pytest.mark.parametrize(
    ("before", "after", "name", "scheme"),
    [
        (' aria-label="Density', ' data-label="Density', "role-img-alt", LIGHT),
        ("--quiet: #626a75", "--quiet: #a8aeb6", "color-contrast", LIGHT),
        ("--quiet: #9aa2ad", "--quiet: #4a4f57", "color-contrast", DARK),
        ('<html lang="en">', "<html>", "html-has-lang", LIGHT),
    ],
)
def test_an_issue_of_accessibility_would_be_found(
    before: str, after: str, name: str, scheme: str, tmp_path: Path
) -> None:
    text = report_page()
    assert before in text
    assert name in violations(tmp_path, text.replace(before, after), scheme)


def requests_of(folder: Path, text: str) -> set[str]:
    """Addresses that the page itself asks for; those that the browser asks for of its own have no origin."""
    log = folder / "net.json"
    drive(folder, text, "--host-resolver-rules=MAP * ~NOTFOUND", f"--log-net-log={log}")
    found = json.loads(log.read_text(encoding="utf-8"))
    start = found["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    jobs = [event.get("params", {}) for event in found["events"] if event["type"] == start]
    asked = {job["url"] for job in jobs if "url" in job and job.get("initiator") != "not an origin"}
    return {url for url in asked if not url.startswith("data:")}


@browser
def test_no_request_leaves_the_page(page: str, tmp_path: Path) -> None:
    free = POLICY.sub("", page)
    assert free != page
    assert requests_of(tmp_path, free) == set()
    asking = '<img src="http://elsewhere.invalid/x.png" alt=""></body>'
    assert requests_of(tmp_path, free.replace("</body>", asking)) == {"http://elsewhere.invalid/x.png"}
    # The policy of the page is a second lock.
    assert requests_of(tmp_path, page.replace("</body>", asking)) == set()


@browser
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(page: str, width: int, tmp_path: Path) -> None:
    # A browser's window has a least width, a frame has none.
    (tmp_path / "inner.html").write_text(POLICY.sub("", page), encoding="utf-8")
    frame = f'<body><iframe id="f" src="inner.html" width="{width}" height="800" style="border:0"></iframe></body>'
    script = "[f.contentDocument.documentElement.scrollWidth, f.contentDocument.querySelectorAll('h2').length]"
    wide, parts = told(tmp_path, frame, script, "--allow-file-access-from-files", "--window-size=1400,900")  # type: ignore[misc]
    assert wide <= width
    assert parts >= 2


@browser
def test_the_keyboard_reaches_everything_and_shows_where_it_is(page: str, tmp_path: Path) -> None:
    script = """[...document.querySelectorAll('a[href], summary, [tabindex="0"]')].map(e => {
        e.focus(); const s = getComputedStyle(e);
        return [e === document.activeElement, s.outlineStyle, parseFloat(s.outlineWidth),
                (e.getAttribute('aria-label') || e.textContent).trim()] })"""
    found = told(tmp_path, page, script)
    assert isinstance(found, list)
    assert found[0][3] == "Skip to the content"
    assert all(focused and style == "solid" and width >= 2 and name for focused, style, width, name in found)
    # Whatever scrolls sideways can be reached, and so be scrolled by the arrows.
    script = """[...document.querySelectorAll('*')].filter(e => getComputedStyle(e).overflowX === 'auto'
        && e.scrollWidth > e.clientWidth && e.tabIndex < 0).length"""
    assert told(tmp_path, page, script, "--window-size=500,800") == 0


@browser
def test_the_page_prints(page: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    open_file(tmp_path, tmp_path / "page.html", f"--print-to-pdf={tmp_path / 'page.pdf'}", DARK)
    printed = (tmp_path / "page.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 20
    script = (
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('nav')).display]"
    )
    media = page.replace("@media print", "@media all")
    assert told(tmp_path, media, script, DARK) == ["rgb(255, 255, 255)", "none"]


def test_parts_have_names_and_headings_do_not_skip(page: str) -> None:
    tags = Page(page).tags
    ids = {attributes["id"] for _, attributes in tags if "id" in attributes}
    inside = {attributes["href"] for name, attributes in tags if name == "a"}
    assert {f"#{name}" for name in ids} >= inside
    assert "#content" in inside
    levels = [int(name[1]) for name, _ in tags if re.fullmatch("h[1-6]", name)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert [name for name, _ in tags if name in ("main", "nav")] == ["nav", "main"]
    labelled = [attributes["aria-labelledby"] for name, attributes in tags if name == "section"]
    assert set(labelled) <= ids
    tables, captions = ([name for name, _ in tags].count(tag) for tag in ("table", "caption"))
    assert tables == captions
    assert all(attributes.get("scope") in ("col", "row") for name, attributes in tags if name == "th")


class Noise:
    """2,000 pictures that cannot be compressed, made when they are asked for."""

    shape = (2_000, 3, 100, 100)

    def __getitem__(self, index: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.rand(self.shape[1:], generator=torch.Generator().manual_seed(int(i))) for i in index])


def test_every_page_is_light(page: str) -> None:
    assert len(page.encode()) < 500_000


def test_a_page_of_2000_pictures_is_under_5_megabytes() -> None:
    train = training(2_000, cluster=np.arange(2_000) % 40, group=[f"kind {i % 30}" for i in range(2_000)])
    data = Data(Noise(), train["sample"].tolist())
    pictures, _ = of_samples(None, data, train)  # type: ignore[arg-type]
    drawn = data_uri(np.concatenate([noise(200, 0), noise(200, 1)], 1))
    samples = [
        {"sample": f"{i}", "score": 2.0, "rejected": True, "picture": drawn, "flagged": 0.1, "highest": 1.0}
        for i in range(40)
    ]
    gallery = {
        "scale": {"usual": 0.1, "threshold": 0.5, "full": 1.0}, "colours": ["#808080", "#800000"],
        "sections": [{"title": "Worst misses", "said": "", "samples": samples}],
        "training": dict.fromkeys(train["sample"][:12], drawn),
    }  # fmt: skip
    assert sum(map(len, pictures.values())) > 500_000
    test = judged(2_000, group=[f"kind {i % 30}" for i in range(2_000)])
    text = pages_of_reports.to_html(
        summary(train, test, thumbnails=pictures, gallery=gallery, settings=SETTINGS | {"n_train": 1_600})
    )
    assert 1_000_000 < len(text.encode()) < 5_000_000
