import base64
import hashlib
import html
import html.parser
import json
import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from scipy import stats
from sklearn import metrics as sklearn_metrics

from tailwise.core.data import Data
from tailwise.core.problem import Facts, Problem
from tailwise.numerics import intervals
from tailwise.report import contents, data_checks, decision, numbers, plots, selection
from tailwise.report.contents import Tables
from tailwise.report.page import in_html, in_markdown, in_text
from tailwise.report.report_page import to_html, to_markdown
from tailwise.report.summary import summarise
from tailwise.runs.plain_json import to_json
from tailwise.runs.table import high_scores

PICTURE = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
HOSTILE = "a<script>alert(1)</script>|\"'&`.png"
SETTINGS = {
    "tailwise": "0.1.0",
    "created": "2025-01-01",
    "command": "tailwise fit parts --seed 0",
    "source": "Images('parts')",
    "detector": "Autoencoder()",
    "weighting": "Importance(target=Gaussian(shift=1.0))",
    "seed": 0,
    "samples": "images",
    "n_train": 200,
    "n_held_out": 40,
    "seconds": 3.2,
    "versions": {"torch": "2.9"},
    "fingerprint": "abc",
    "licence": "MIT",
    "citation": "doi:10.1109/IJCNN64981.2025.11229283",
}


def training(n=200, seed=0, **columns):
    generator = np.random.default_rng(seed)
    cluster = np.sort(generator.choice(3, n, p=[0.7, 0.22, 0.08]))
    table = pd.DataFrame(
        {
            "sample": [f"good/{i:05d}.png" for i in range(n)],
            "score": np.exp(generator.normal(size=n) * 0.4 + 0.8 * (cluster == 2)),
            "first_score": np.exp(generator.normal(size=n) * 0.4 + 1.5 * (cluster == 2) + 1),
            "weight": generator.random(n) + 0.5,
            "held_out": np.arange(n) % 5 == 0,
            "cluster": cluster,
        }
    )
    return table.assign(**columns).assign(trained_score=lambda table: columns.get("trained_score", table["score"]))


def judged(n=80, seed=1, **columns):
    generator = np.random.default_rng(seed)
    labels = generator.random(n) < 0.4
    scores = np.exp(generator.normal(size=n) * 0.4 + labels)
    return pd.DataFrame({"sample": range(n), "score": scores, "label": labels}).assign(**columns)


def summary(train=None, test=None, **other):
    rows = [
        {"epoch": i, "loss": 1 / (i + 1), "score_mean": 1.0, "effective_sample_share": 0.9, "seconds": 0.1}
        for i in (0, 1)
    ]
    given = {
        "settings": SETTINGS,
        "history": rows,
        "checks": [
            {"name": "the loss fell", "ok": True, "value": 0.5, "message": "half"},
            {"name": "scores are finite", "ok": False, "value": None, "message": "3 are not"},
        ],
        "train": training() if train is None else train,
        "test": test,
        "thumbnails": {},
        "threshold": 1.9,
        "false_alarms": 0.05,
    }
    return summarise(Tables(**given | other))


class Page(html.parser.HTMLParser):
    """Tags with their attributes, in order, and whether every one that opens also closes."""

    VOID = frozenset({"meta", "img", "br", "wbr", "link", "use", "path", "circle", "line", "rect", "stop"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.mark.parametrize(("count", "of"), [(0, 10), (1, 7), (5, 44), (44, 44)])
def test_the_ends_of_a_shares_interval_are_just_not_rejected(count, of):
    """Wilson's ends solve (share - p)^2 = z^2 p (1 - p) / n, the score test at 5 % (Wilson 1927)."""
    known = intervals.share_of(np.arange(of) < count)
    for end in (known["low"], known["high"]):
        distance = (count / of - end) ** 2
        assert distance == pytest.approx(stats.norm.ppf(0.975) ** 2 * end * (1 - end) / of, abs=1e-12)
    assert known["low"] <= count / of <= known["high"]
    assert known["low"] < known["high"]


def test_numbers_are_those_of_other_libraries():
    train, test = training(), judged()
    found = summary(train, test)
    fitted = train[~train["held_out"]]
    assert found["scores"]["log"]
    assert found["scores"]["skewness_before"] == pytest.approx(stats.skew(np.log(fitted["first_score"])))
    assert found["scores"]["skewness_after"] == pytest.approx(stats.skew(np.log(fitted["score"])))
    assert found["weights"]["effective"] == pytest.approx(fitted["weight"].sum() ** 2 / (fitted["weight"] ** 2).sum())
    for row in found["clusters"]:
        part = train[train["cluster"] == int(row["name"])]
        assert row["size"] == len(part)
        assert row["mean_score"] == pytest.approx(part["score"].mean())
        assert row["rejected"]["count"] == (part["score"] > 1.9).sum()
        assert row["held_out"]["of"] == part["held_out"].sum()
    value = found["test"]["metrics"]["AUROC"]
    assert value["value"] == pytest.approx(sklearn_metrics.roc_auc_score(test["label"], test["score"]))
    assert value["low"] < value["value"] < value["high"]
    assert found["test"]["caught"]["share"] == pytest.approx((test["score"] > 1.9)[test["label"]].mean())
    assert [row["score"] for row in found["top"]] == sorted(train["score"], reverse=True)[:12]


def test_whole_weights_give_the_skewness_of_copies():
    copies = np.arange(200) % 4
    train = training(weight=copies.astype(float), held_out=False)
    expected = stats.skew(np.log(np.repeat(train["score"], copies)))
    assert summary(train)["scores"]["skewness_weighted"] == pytest.approx(expected)


@pytest.mark.parametrize("which", ["scores", "weighted", "target"])
def test_drawn_densities_hold_all_their_mass(which):
    scores = summary(training(2_000))["scores"]
    x = np.log(scores["after"]["x"])
    assert np.trapezoid(scores["after"][which], x) == pytest.approx(1, abs=0.03)


def test_weighted_density_follows_the_target_for_exact_weights():
    logs = np.random.default_rng(0).normal(size=5_000)
    weight = stats.norm(logs.mean() + logs.std(), logs.std()).pdf(logs) / stats.norm(logs.mean(), logs.std()).pdf(logs)
    train = training(5_000, score=np.exp(logs), first_score=np.exp(logs), weight=weight / weight.mean(), held_out=False)
    after = summary(train, settings=SETTINGS | {"weighting": "Importance(target=Gaussian(shift=1.0))"})["scores"][
        "after"
    ]
    assert np.abs(np.subtract(after["weighted"], after["target"])).max() < 0.12
    assert np.abs(np.subtract(after["scores"], after["target"])).max() > 0.2


def test_the_sentence_says_the_decision_and_who_pays():
    train = training(score=1.0, cluster=[0] * 180 + [1] * 20)
    train.loc[[*range(9), *range(180, 190)], "score"] = 2.0
    text = summary(train, threshold=1.5)["sentence"].replace("\N{NO-BREAK SPACE}", " ")
    assert text == (
        "Set for 5 % false alarms, this detector rejects 10 % (4 of 40) of the held-out normals, which also set its "
        "threshold. Kind 1 is rejected 10 times as often as the other kinds: 50 % against 5 %. It makes up 10 % of "
        "your normals. No labelled anomalies were given, so we cannot say what share it finds."
    )
    labelled = judged(
        group=np.where(np.arange(80) < 40, "mono", "poly"), score=np.arange(80.0), label=np.arange(80) % 8 == 0
    )
    text = summary(train, labelled, threshold=39.5)["sentence"].replace("\N{NO-BREAK SPACE}", " ")
    assert text == (
        "Set for 5 % false alarms, this detector finds 50 % (5 of 10) of the labelled anomalies and rejects 50 % (35 "
        "of 70) of the good test images, more than asked for. Kind 'poly' is rejected in 100 % (35 of 35; from 90 % "
        "at 95 % confidence), the other kinds never. It makes up 50 % of the test normals."
    )
    known = train.assign(group=["mono"] * 180 + ["poly"] * 20)
    text = summary(known, labelled, threshold=39.5)["sentence"].replace("\N{NO-BREAK SPACE}", " ")
    assert text.endswith("It makes up 50 % of the test normals and 10 % of the training data.")


def test_groups_of_the_test_data_are_the_only_basis_if_there_are_any():
    """A cluster that is rejected often in training says nothing about new data whose groups are given."""
    train = training(score=1.0, cluster=[0] * 180 + [1] * 20)
    train.loc[range(180, 200), "score"] = 2.0
    even = judged(group=np.where(np.arange(80) % 2, "mono", "poly"), score=1.0, label=np.arange(80) < 10)
    text = summary(train, even, threshold=1.5)["sentence"]
    assert "No kind of the test normals is rejected clearly more often than the others" in text
    assert "Kind 1" not in text
    one = even.assign(group="mono")
    assert "Kind 1 is rejected" in summary(train, one, threshold=1.5)["sentence"]


def test_page_loads_nothing_and_runs_one_script_of_its_own():
    train = training(group=["mono"] * 150 + ["poly"] * 50)
    pictures = dict.fromkeys(selection.samples_to_show(train), PICTURE)
    text = to_html(summary(train, judged(), thumbnails=pictures))
    page = Page(text)
    assert page.open == []
    assert page.all("script") == [{}]
    (script,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\"" in text
    assert "<script" not in to_html(summary(train, judged()))  # without pictures nothing is enlarged
    assert not page.all("link")
    assert not re.search(r"https?://|url\((?!#)|@import", text)
    assert {image["src"] for image in page.all("img")} == {PICTURE}
    assert all(image["alt"] for image in page.all("img"))
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    figures = [attributes for _, attributes in page.tags if attributes.get("role") == "img"]
    assert len(figures) == 6
    assert all(figure["aria-label"] for figure in figures)


def test_hostile_names_stay_text():
    train = training()
    train.loc[train["score"].idxmax(), "sample"] = HOSTILE
    train["group"] = ["<b>|x"] * 100 + ["y"] * 100
    pictures = {HOSTILE: "https://example.org/x.png", train["sample"][0]: "javascript:alert(1)"}
    found = summary(train, thumbnails=pictures, examples={HOSTILE: "<i>1</i>"}, notes=["<u>"])
    assert found["thumbnails"] == {}
    page = Page(to_html(found))
    assert not {"script", "i", "u", "img"} & {tag for tag, _ in page.tags}
    markdown = to_markdown(found)
    assert "<script" not in markdown.replace("\\<", "")
    row = next(line for line in markdown.splitlines() if "alert" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == 5


def test_failed_checks_are_shown_and_passed_ones_collapsed():
    text = to_html(summary())
    assert (
        text.index("Failed: scores are finite")
        < text.index("<details><summary>1 of 2 checks")
        < text.index("the loss fell")
    )


EDGES = {
    "two samples": {"train": training(2, held_out=False, cluster=-1)},
    "no sample held out": {"train": training(held_out=False)},
    "constant scores": {"train": training(score=1.0, first_score=1.0)},
    "constant zero": {"train": training(score=0.0, first_score=0.0)},
    "negative scores": {"train": training(score=np.linspace(-3, 3, 200))},
    "a scale far off": {"train": training(score=np.logspace(-30, 30, 200))},
    "no weights for held-out": {"train": training(weight=np.where(np.arange(200) % 5 == 0, np.nan, 1.0))},
    "no first scores": {"train": training(first_score=np.nan)},
    "a score missing": {"train": training(score=[np.nan, np.inf, *range(198)])},
    "uniform": {"settings": SETTINGS | {"weighting": ""}, "train": training(weight=1.0)},
    "one hundred kinds": {"train": training(cluster=np.arange(200) // 2)},
    "groups partly known": {"train": training(group=["a", None] * 100)},
    "numbered groups": {"train": training(group=np.arange(200) % 3)},
    "unlabelled test": {"test": judged(label=None)},
    "partly labelled test": {"test": judged(label=[True, False, None, None] * 20)},
    "only normals in the test": {"test": judged(label=False)},
    "only anomalies in the test": {"test": judged(label=True, group="x")},
    "empty test": {"test": judged(0)},
    "no history": {"history": []},
    "one solved round": {"history": [{"epoch": 0, "loss": None, "score_mean": float("nan"), "seconds": 0.1}]},
    "bare settings": {"settings": {}},
    "rows as text": {"examples": {"good/00000.png": "width 3"}},
}


@pytest.mark.parametrize("name", EDGES)
def test_edges(name):
    found = summary(**EDGES[name])
    assert json.loads(to_json(found)) == found
    text = to_html(found)
    assert Page(text).open == []
    assert not re.search(r"\bnan\b|\binf\b|\bNone\b", text)
    assert to_markdown(found).startswith("# ")


def test_a_page_is_the_same_every_time():
    found = summary()
    assert to_html(json.loads(to_json(found))) == to_html(found)


def test_a_picture_is_the_same_every_time_and_draws_all_that_it_refers_to():
    scores, kinds = np.geomspace(1, 9, 60), np.repeat(["a", "b", "c"], 20)
    both = [
        plots.picture({"one": lambda axes: plots.kinds_histogram(scores, kinds, axes, threshold=3.0)}) for _ in range(2)
    ]
    assert both[0] == both[1]
    text = both[0].decode()
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(re.findall(r' id="([^"]+)"', text))


def test_many_samples_stay_a_small_page():
    train = training(100_000)
    pictures = dict.fromkeys(selection.samples_to_show(train), PICTURE + "A" * 200000)
    text = to_html(summary(train, judged(2_000), thumbnails=pictures))
    assert len(text.encode()) < 5_000_000


def of_kinds():
    """A cross-fitted run of two kinds with thresholds 1 and 5, and test samples held to them."""
    calibration = np.r_[np.linspace(0, 1.2, 160), np.linspace(2, 4.9, 8)]
    kind = np.repeat(["a", "b"], [160, 8])
    train = training(168, score=calibration - 0.1, calibration=calibration, held_out=False, held_to=kind, group=kind)
    train["cluster"], train["threshold"] = -1, np.where(kind == "a", 1.0, 5.0)
    test = judged(40, held_to=["a", "b"] * 20, group=["a", "b"] * 20)
    return train, test.assign(score=3.0, threshold=[1.0, 5.0] * 20, label=[False] * 20 + [True] * 20)


def test_thresholds_of_kinds_are_told_by_kind_and_used_for_every_sample():
    train, test = of_kinds()
    found = summary(train, test, threshold=1.1)
    rows = {row["false_alarms"]: row for row in found["thresholds"]}
    run = rows[0.05]
    assert (run["threshold"], run["lowest"], run["highest"], run["promised"]) == (None, 1.0, 5.0, False)
    over = int((train["calibration"] > train["threshold"]).sum())
    assert run["held_out"]["count"] == found["held_out"]["count"] == over > 20
    small = run["kinds"][1]
    assert (small["name"], small["size"], small["threshold"] > 4.9, small["promised"]) == ("b", 8, True, False)
    assert small["smallest"] == pytest.approx(1 / 9)
    assert small["expected"]["low"] == 0
    # Of every kind's test samples the score is 3: above 1 and below 5.
    assert [row["normals"]["share"] for row in run["kinds"]] == [1, 0]
    assert found["test"]["caught"]["share"] == 0.5
    assert "kinds" not in rows[0.1]
    assert rows[0.1]["lowest"] < rows[0.01]["lowest"]
    top = {row["sample"]: row for row in found["top"]}
    highest = train.loc[train["calibration"].nlargest(12).index]
    assert [row["score"] for row in found["top"]] == highest["calibration"].tolist()[:12]
    assert [row["rejected"] for row in top.values()] == [kind == "a" for kind in highest["held_to"]]
    assert found["decision"]["own"]
    assert [group["above"]["share"] for group in found["decision"]["groups"]] == [0.5, 0.5]
    for text in (to_html(found), to_markdown(found)):
        assert "at best 11\N{NO-BREAK SPACE}%" in text
        assert "by a detector that was trained without it" in text or text.startswith("#")
        assert "held-out" not in text.split("How to repeat")[0].replace("held-out rejected", "")


@pytest.mark.parametrize("broken", [[], ["b"]])
def test_the_gate_of_false_alarms_is_a_sentence(broken):
    kinds = [
        {"name": name, "count": count, "of": of, "share": count / of, "low": 0.0, "high": 1.0}
        for name, count, of in (("a", 1, 100), ("b", 3, 20), ("tiny", 0, 2))
    ]
    said = {"limit": 0.1 if broken else 0.2, "kinds": kinds, "broken": broken, "too_few": ["tiny"]}
    found = summary(settings=SETTINGS | {"group_fpr": said})
    text = found["gate"]["text"].replace("\N{NO-BREAK SPACE}", " ")
    assert found["gate"]["ok"] == (not broken)
    assert (
        "More than the 10 % of false alarms allowed (--max-group-fpr): kind 'b' with 15 % (3 of 20)" in text
    ) == bool(broken)
    assert text.endswith("Too few samples to judge kind tiny")
    failed = to_html(found).split('<ul class="failed">')[1].split("</ul>")[0]
    assert ("false alarms allowed" in failed) == bool(broken)
    assert ("**Failed: More than" in to_markdown(found)) == bool(broken)
    assert summary()["gate"] is None


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (0.05, "5 %"),
        (0.0449, "4.5 %"),
        (0.0001, "<0.1 %"),
        (0.5049, "50 %"),
        (0.9999, ">99.9 %"),
        (1, "100 %"),
    ],
)
def test_percentages_do_not_round_to_certainty(share, text):
    assert numbers.percent(share).replace("\N{NO-BREAK SPACE}", " ") == text


def test_drawing_leaves_matplotlib_alone():
    settings, backend = dict(matplotlib.rcParams), matplotlib.get_backend()
    axes = Figure().add_subplot()
    assert plots.weight_curve([1.0, 2.0, 3.0], [0.5, 1.0, 1.5], axes, log=False) is axes
    curves = {"x": [1.0, 2.0, 3.0], "scores": [0.0, 1.0, 0.0]}
    assert plots.score_density(curves, axes, log=True, threshold=2.5) is axes
    to_html(summary())
    assert dict(matplotlib.rcParams) == settings
    assert matplotlib.get_backend() == backend


def test_small_kinds_are_told_of_and_what_cannot_be_known():
    said = selection.rare_or_hidden(training(cluster=[0] * 150 + [1] * 40 + [2] * 10))
    assert "2 (10 samples)" in said
    assert "1 (" not in said
    assert selection.rare_or_hidden(training(cluster=[0] * 100 + [1] * 100)) == ""
    assert selection.rare_or_hidden(training(cluster=-1)) == ""


def shares(*counts):
    return [
        {"name": str(i), "rejected": intervals.share_of(np.arange(of) < count)} for i, (count, of) in enumerate(counts)
    ]


def test_one_rejected_sample_of_a_tiny_kind_is_chance():
    assert decision.worst_kind(shares((1, 1), *[(0, 1)] * 60, *[(1, 58)])) is None
    assert decision.worst_kind(shares((1, 2), (4, 100))) is None
    row, others = decision.worst_kind(shares((5, 10), (5, 100)))
    assert row["name"] == "0"
    assert (others["count"], others["of"]) == (5, 100)


def test_samples_are_suspect_among_their_like_only():
    """Held-out samples that all score above the fitted ones are not suspects; one of each sort that stands out is."""
    generator = np.random.default_rng(0)
    scores = np.concatenate([generator.normal(size=80), 30 + generator.normal(size=20)])
    held = np.arange(100) >= 80
    table = pd.DataFrame({"sample": [f"u{i}" for i in range(100)], "score": scores, "held_out": held, "cluster": 0})
    assert len(high_scores(table)) <= 1
    table.loc[[3, 90], "score"] = [12.0, 60.0]
    assert set(high_scores(table)["sample"][:2]) == {"u3", "u90"}


@pytest.mark.parametrize(("shift", "ok"), [(0.0, True), (30.0, False), (-30.0, False)])
def test_a_detector_that_has_memorised_its_training_samples_is_reported(shift, ok):
    generator = np.random.default_rng(0)
    samples = torch.from_numpy(generator.normal(size=(100, 3))).float()
    held = np.arange(100) >= 80
    table = pd.DataFrame({"score": generator.normal(size=100) + shift * held, "held_out": held, "cluster": 0})
    table["sample"] = [str(i) for i in range(100)]
    problem = Problem(Data(samples, range(100)), Facts("made"))
    (check,) = [each for each in data_checks.of_problem(problem, table) if each["name"] == data_checks.HEART]
    assert check["ok"] == ok
    assert ("memorised" in check["message"]) != ok


def test_a_section_that_is_declared_is_in_the_summary_and_its_figure_on_the_page(monkeypatch):
    before = summary()
    monkeypatch.setattr(contents, "_sections", dict(contents._sections))
    monkeypatch.setattr(contents, "_figures", dict(contents._figures))

    @contents.section
    def spread(tables):
        return {"spread": float(tables.train["score"].max() - tables.train["score"].min())}

    @contents.figures
    def drawn(summary):
        return {"spread": (f"from end to end {summary['spread']:.3g}", lambda axes: axes)}

    found = summary(training(score=[np.nan, *np.linspace(1, 3, 199)]))
    assert found["spread"] == 2.0  # sections see finite scores only
    assert found.keys() - before.keys() == {"spread"}
    assert contents.drawings(found)["spread"][0] == "from end to end 2"

    @contents.section
    def again(tables):
        return {"spread": 0.0}

    with pytest.raises(ValueError, match="two sections of the report say 'spread'"):
        summary()


@pytest.mark.parametrize(
    "name", [HOSTILE, "a/b_c*.png", "# head", "two\nlines | cells", "\x1b[31mred", "[a](b)", "~~1~~"]
)
def test_a_name_is_only_a_name_wherever_it_is_written(name):
    """What a reader of the form would make of it is the name again, on one line."""
    line = " ".join(name.split())
    assert html.unescape(re.sub("<wbr>", "", str(in_html(name)))) == name.replace("\x1b", r"\x1b")
    assert not re.search(r"<(?!wbr>)", str(in_html(name)))
    markdown = in_markdown(name)
    assert re.sub(r"\\(.)", r"\1", markdown.replace("\\x1b", "\x1b")) == line
    assert not re.search(r"(?<!\\)[|*_<`#\[]", markdown)
    text = in_text(name)
    assert text.isprintable()
    assert text.replace("\\|", "|").replace("\\x1b", "\x1b") == line


@pytest.mark.parametrize(
    ("hits", "of", "said"),
    [
        (0, 21, "0 % (0 of 21; up to 15 % at 95 % confidence)"),
        (0, 3, "0 % (0 of 3; up to 56 % at 95 % confidence)"),
        (8, 8, "100 % (8 of 8; from 68 % at 95 % confidence)"),
        (1, 21, "4.8 % (1 of 21)"),
    ],
)
def test_none_and_all_of_few_are_told_with_what_they_prove(hits: int, of: int, said: str) -> None:
    """Wilson's interval of 0 of n ends at z^2 / (n + z^2), z being 1.96."""
    from tailwise.numerics.intervals import share_of
    from tailwise.report.numbers import counted

    assert counted(share_of(np.arange(of) < hits)).replace("\N{NO-BREAK SPACE}", " ") == said
    if hits == 0:
        assert f"{100 * 3.8416 / (of + 3.8416):.0f}" in said


@pytest.mark.parametrize("counts", [(0, 5, 0, 9), (5, 5, 0, 9), (3, 40, 100, 4_000), (12, 20, 90, 100), (1, 1, 1, 1)])
def test_the_chance_of_a_larger_share_is_scipys(counts: tuple[int, int, int, int]) -> None:
    from scipy.stats import fisher_exact

    hits, of, other_hits, other_of = counts
    table = [[hits, of - hits], [other_hits, other_of - other_hits]]
    expected = fisher_exact(table, alternative="greater").pvalue
    assert intervals.chance_of_more(*counts) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("count", "of"), [(0, 5), (5, 5), (1, 7), (130, 4_000)])
def test_intervals_of_shares_are_scipys(count: int, of: int) -> None:
    from scipy.stats import binomtest

    share = intervals.share_of(np.arange(of) < count)
    assert (share["low"], share["high"]) == pytest.approx(
        binomtest(count, of).proportion_ci(method="wilson"), abs=1e-12
    )
