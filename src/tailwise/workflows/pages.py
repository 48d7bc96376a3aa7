"""Pages of a run: its report, explanations, comparisons."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ..core.validation import check_samples, check_seed
from ..errors import InputError, reading
from ..report import comparison, explanation, explanation_page, report_page
from ..runs import files
from ..runs.files import REPORT_DATA, REPORT_PAGE, write
from ..runs.outputs import check_file
from ..runs.plain_json import to_json
from ..runs.scorer import open_run
from ..runs.sheets import original


def compare_runs(paths: Sequence[Path], out: Path | None) -> str | Path:
    """Compare runs, the others against the first; see `commands.compare`."""
    if len(paths) < 2:
        raise InputError(f"at least 2 runs are needed to compare: got {len(paths)}", "tailwise compare RUN RUN")
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError("a run cannot be compared with itself", "name different run folders")
    writers = {".html": comparison.to_html, ".md": comparison.to_markdown, ".json": to_json}
    if out is not None and out.suffix not in writers:
        raise InputError(f"a comparison is .html, .md or .json: got {out.name}")
    if out is not None:
        check_file(out)
    runs = [open_run(path) for path in paths]
    with reading(f"one of the runs {', '.join(map(str, paths))}", files.RESTORE):
        compared = comparison.compare(runs)
        if out is None:
            return comparison.to_markdown(compared).rstrip()
        content = writers[out.suffix](compared).encode("utf-8", "backslashreplace")
    write(out, content)
    return out


def explain(
    run: Path,
    data: str | None,
    names: Sequence[str],
    worst: int,
    weights: bool,
    out: Path | None,
    seed: int = 0,
    training_data: str | None = None,
) -> Path | str:
    """Explain scores of `data`, or weights of the training samples; see `commands.explain`."""
    check_seed(seed)
    if worst < 1:
        raise InputError(f"worst must be 1 or more: got {worst}")
    writers: dict[str, Callable[[dict[str, Any]], str]] = {
        ".html": explanation_page.to_html,
        ".md": explanation_page.to_markdown,
        ".txt": explanation_page.to_text,
        ".json": to_json,
    }
    if out is not None and out.suffix not in writers:
        raise InputError(f"an explanation is .html, .md, .txt or .json: got {out.name}")
    if weights and data is not None:
        raise InputError("weights are of the training samples, which the run names itself", "leave DATA out")
    opened = open_run(run)
    if out is not None:
        training = opened.source() if training_data is None else opened.source_like(training_data)
        check_file(out, training, *([] if data is None else [opened.source_like(data)]))
    known = explanation.reopen(opened, training_data)
    if weights:
        names = _as_in_data(names, known.table["sample"])
        found = explanation_page.of_weights(known, names or explanation.extreme_weights(known, worst))
    else:
        source, samples = known.source, known.samples
        if data is not None:
            source = known.run.source_like(data)
            samples = known.run.samples(source)
            check_samples(samples.data, least=1, where=data)
        names = _as_in_data(names, samples.data.names) or explanation.worst_samples(known, samples.data, worst)
        found = explanation_page.of_scores(
            known, source, samples, names, seed, pictured=out is not None and out.suffix == ".html"
        )
    if out is None:
        return explanation_page.to_text(found).rstrip("\n")
    files.write(out, writers[out.suffix](found).encode("utf-8", "backslashreplace"))
    return out


def _as_in_data(given: Sequence[str], names: Iterable[Any]) -> list[str]:
    """Names as the data has them, where they were copied from a table of scores."""
    known = set(map(str, names))
    return [name if name in known else original(name) for name in given]


def write_report(run: Path, out: Path | None) -> Path:
    """Render a run's report; see `commands.report`."""
    opened = open_run(run)
    out = opened.path / REPORT_PAGE if out is None else out
    writers: dict[str, Callable[[dict[str, Any]], str]] = {
        ".html": report_page.to_html,
        ".md": report_page.to_markdown,
        ".json": to_json,
    }
    if out.suffix not in writers:
        raise InputError(f"a report is .html, .md or .json: got {out.name}")
    if os.path.realpath(out) != os.path.realpath(opened.path / REPORT_PAGE):
        check_file(out)
    content = opened.report()
    opened.scores()  # what has lost its scores is no run, whatever its report says
    # The fit has rendered what it stored. What cannot be rendered now is not what a fit has stored, at any depth.
    with reading(opened.path / REPORT_DATA, files.RESTORE):
        page = writers[out.suffix](content)
    files.write(out, page.encode("utf-8", "backslashreplace"))
    return out
