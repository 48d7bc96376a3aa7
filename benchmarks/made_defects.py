"""Do defects made on good pictures choose the blocks that tell real ones better?

    python benchmarks/made_defects.py run [SET ...] [--seeds SEED ...]
    python benchmarks/made_defects.py page

A draw is 200 good pictures of a set (of solar cells 200 of one kind and 10 of the other; 60 generated plates of discs,
whose defects are a disc too many and scratches). Judged as `tailwise fit` judges without options: what the usual blocks
and fine ones tell of rectangles pasted into good pictures. Then both are fitted, and real defects tell which was right.
Rows go to benchmarks/results/images/made_defects.jsonl, one that is there is not computed again, and `page` writes
benchmarks/made-defects.md. Labels are read by the image AUROC alone. One thread.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import peers_anomalib as peers  # before torch, whose threads it sets

# isort: split
import image_limits
import numpy as np
from PIL import Image

from tailwise.benchmark import rows
from tailwise.benchmark.tables import table
from tailwise.numerics import metrics
from tailwise.runs.files import write as write_file
from tailwise.sources.auto import open_source
from tailwise.workflows import blocks

RESULTS = Path(__file__).parent / "results" / "images" / "made_defects.jsonl"
PAGE = Path(__file__).parent / "made-defects.md"
PLATES, PLATES_TRAINED, PLATES_TESTED = "plates", 60, 40
SETS = ("boards", "magnetic-tile", "tire", "solar-cells 200:10", PLATES)
SEEDS = (0, 1)
HEAD = f"""# Do defects made on good pictures choose the right blocks?

Written by `benchmarks/made_defects.py` from results/images/made_defects.jsonl. `made, usual` and `made, fine` are what
the usual blocks (4 and 10) and fine ones (2) tell of rectangles pasted into good pictures: the mean AUROC of three
sorts. Fine blocks are taken where the usual ones tell less than {blocks.GUESSING} and fine ones {blocks.MARGIN} more.
`real` is the image AUROC of real defects, of the default by the usual blocks and of a memory of patches by fine ones.
Both limits were chosen on draws of seeds 0 to 4 of these sets (LOG.md); other seeds are fresh.

"""
HEADINGS = ["set", "seed", "made, usual", "made, fine", "taken", "real, usual", "real, fine", "right"]


def draw_of(of: str, seed: int, place: Path) -> peers.Draw:
    if of != PLATES:
        return peers.draw_of(of, seed, peers.TRAIN)
    generator = np.random.default_rng(seed)
    folder = place / PLATES

    def write(where: str, count: int, discs: int, scratches: int = 0) -> None:
        (folder / where).mkdir(parents=True)
        for number in range(count):
            places = image_limits.free_places(generator, discs)
            Image.fromarray(image_limits.drawn(generator, places, scratches)).save(folder / where / f"{number:03}.png")

    write("train/good", PLATES_TRAINED, 6)
    write("test/good", PLATES_TESTED, 6)
    write("test/one too many", PLATES_TESTED // 2, 7)
    write("test/scratched", PLATES_TESTED // 2, 6, 1)
    source: Any = open_source(folder, maps=None)
    problem = source.load()
    assert problem.test is not None
    train, test = (source.decoded(list(map(str, data.names))) for data in (problem.train, problem.test.data))
    return peers.Draw(source, problem, train, test, source.layers)


def measure(of: str, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        draw = draw_of(of, seed, Path(place))
        fine = blocks.finer(draw.source)
        made = blocks.MadeDefects.of(draw.source, draw.problem.train, seed)
        assert fine is not None
        assert made is not None
        reread = blocks.read_again(fine, draw.problem)
        told = made.told(draw.source, draw.problem.train, blocks.TOP), made.told(fine, reread.train, blocks.FINE_TOP)
        readers = (
            peers.ours(draw, peers.AUTO, seed, chooses=False),
            peers.ours(replace(draw, source=fine, problem=reread), blocks.FINE_DETECTOR, seed, chooses=False),
        )
        assert draw.problem.test is not None
        labels = np.asarray(draw.problem.test.labels).astype(bool)
        real = [
            metrics.auroc(labels, np.concatenate([reader(part)[0] for part in draw.test.split(peers.BATCH)]))
            for reader in readers
        ]
    return {
        "status": "ok", "made_usual": told[0], "made_fine": told[1], "fine": blocks.prefers_fine(*told),
        "real_usual": real[0], "real_fine": real[1],
    }  # fmt: skip


def page() -> str:
    found = [row for row in rows.read_rows(RESULTS) if row["status"] == "ok"]
    found.sort(key=lambda row: (SETS.index(row["settings"]["set"]), row["settings"]["seed"]))
    lines = [
        [
            row["settings"]["set"], str(row["settings"]["seed"]),
            *(f"{row[name]:.3f}" for name in ("made_usual", "made_fine")), "fine" if row["fine"] else "usual",
            *(f"{row[name]:.3f}" for name in ("real_usual", "real_fine")), "yes" if is_right(row) else "no",
        ]
        for row in found
    ]  # fmt: skip
    return f"{HEAD}{table(HEADINGS, lines)}\n\n{summary(found)}\n"


def is_right(row: dict[str, Any]) -> bool:
    return bool(row["fine"]) == (row["real_fine"] > row["real_usual"])


def summary(found: list[dict[str, Any]]) -> str:
    """How often each choice is right, and what it gives."""
    taken = np.mean([row["real_fine"] if row["fine"] else row["real_usual"] for row in found])
    usual, fine = (np.mean([row[name] for row in found]) for name in ("real_usual", "real_fine"))
    right = sum(is_right(row) for row in found)
    finer = sum(row["real_fine"] > row["real_usual"] for row in found)
    return (
        f"Right in {right} of {len(found)} draws; the usual blocks always would be in {len(found) - finer}, fine ones "
        f"in {finer}. Mean AUROC: {taken:.3f} as chosen, {usual:.3f} by the usual blocks, {fine:.3f} by fine ones."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "page"))
    parser.add_argument("sets", nargs="*", default=SETS, metavar="SET")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    asked = parser.parse_args()
    if asked.what == "page":
        write_file(PAGE, page().encode())
        return
    done = {rows.key(row["settings"]) for row in rows.read_rows(RESULTS) if rows.is_done(row)}
    for of, seed in itertools.product(asked.sets, asked.seeds):
        settings = {"set": of, "seed": seed}
        if rows.key(settings) not in done:
            row = {"settings": settings, **measure(of, seed), "commit": rows.commit(), "versions": rows.versions()}
            rows.append(RESULTS, row)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
