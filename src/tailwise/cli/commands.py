"""The commands: each is a public function, and its options on the command line are its parameters.

Heavy modules are imported inside, so that help answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame

    from .drift import Drift
    from .exporting import Verdict
    from .storage import Run
else:  # the command line resolves annotations at run time, before the real classes are worth their import
    DataFrame = Drift = Run = Verdict = object


def fit(
    data: str,
    *,
    detector: str = "autoencoder",
    weighting: str = "auto",
    scores: str = "auto",
    out: Path | None = None,
    false_alarms: float = 0.05,
    epochs: int | None = None,
    batch_size: int = 256,
    lr: float = 1e-3,
    warmup: int | None = None,
    patience: int | None = None,
    resample: bool = False,
    labels: str | None = None,
    groups: str | None = None,
    columns: str = "",
    balance: bool = False,
    per_cluster: bool = False,
    per_group: bool = False,
    cross: int | None = None,
    max_group_fpr: float | None = None,
    refine: str = "",
    anomalies: str | None = None,
    reviewed: str | None = None,
    read: str | None = None,
    layers: str = "",
    size: int | str | None = None,
    channels: int | None = None,
    smoothing: float = 0.009,
    max_memory: str | None = None,
    skip_bad: bool = False,
    bad_bands: str = "",
    white: str | None = None,
    dark: str | None = None,
    seed: int = 0,
    device: str = "cpu",
    mixed_precision: bool = False,
    threads: int = 1,
    log: str = "",
    overwrite: bool = False,
) -> Run:
    """Learn what is normal, and leave a run: detector, scores, threshold and report.

    An interrupted fit is resumed by the same command.

    Args:
        data: a folder of images (flat, or in MVTec layout: its train part), a table (CSV, parquet, npz), a
            hyperspectral cube (.mat, .hdr, npz, tiff), a folder of IDX files, or a source such as
            "SolarCells(mono=400, poly=40)".
        detector: a name, as `tailwise names` lists them, or a spelling such as "AutoEncoder(hidden=(64,), code=16)".
        weighting: how training is weighed: "auto", "" (uniform), or steps such as "Importance(), Clip(0.1, 10)".
        scores: how scores are read: "auto" compares each with those of the training samples most like it, so that
            rare kinds are not rejected for being rare; "" takes the detector's own scores.
        out: the run folder; by default a new one below runs/.
        false_alarms: share of normals that the threshold may flag.
        epochs: passes over the data; by default about 1,500 steps' worth, 30 to 300.
        batch_size: samples in a step.
        lr: learning rate of Adam.
        warmup: epochs before weighing begins; by default a third.
        patience: stop after this many epochs without a lower loss on held-out normals. They also set the threshold,
            so the share of false alarms is then only approximately what was asked for.
        resample: draw samples by weight instead of weighing their losses.
        labels: the column (table) or map (cube) that marks anomalies; for evaluation only.
        groups: known kinds of normal, for evaluation and reports: a column, a CSV of file and group, or "folder".
        columns: exactly these feature columns of a table, as in "width,height"; by default all but labels and groups.
        per_cluster: let the share of false alarms hold for every found kind of normal, not only in the mean: each has a
            threshold of its own. Rare kinds are rejected less, and less is caught.
        per_group: the same for the known groups (needs groups); new data must name its groups too.
        cross: how many more trainings give every sample a score by a detector that has not learnt it, for the
            thresholds, so that none need be held out; 0 holds some out instead. By default 5 with per_cluster or
            per_group, else 0.
        max_group_fpr: fail (exit status 4, the run is kept) where a known group, or else a found kind, is falsely
            rejected more often than this: among the samples that calibrate, and among test normals of known groups
            where chance does not explain it.
        refine: rounds of training for data with unnoticed anomalies in it: "Purify()" drops what detectors that did not
            see it find anomalous, "Iterate()" weighs it down.
        anomalies: a few known anomalies, for detectors that need some (dev-net, multi-cue): a path with data of that
            kind, for images also a list of names (.txt, or .csv with the column sample), or how many of the labelled
            ones to take out of the test data. Where the data at the path has labels, only what they call anomalies is
            taken; the same samples leave training and test.
        reviewed: the edited review.csv of `tailwise triage`: what it calls anomalies is not trained on, and what it
            calls normal no refinement drops.
        balance: also weigh the known groups equally (needs groups).
        read: how images are read: "pixels" or the name of a backbone.
        layers: blocks of the backbone whose maps make each image a sample [channels, height, width], as in "4,10"; by
            default the usual ones for detectors of maps, such as patch-memory, and otherwise none: features are pooled.
        size: side in pixels that images are resized to, or height and width as in 256x512.
        channels: read images as pixels of so many channels: 1 is grey, 3 colour, others the bands of the files.
        smoothing: how much score maps are smoothed, as a share of their side; 0 is not at all.
        max_memory: what a fit may take, as in 2GB, for detectors that remember samples, such as patch-memory.
        skip_bad: leave unreadable images out instead of refusing.
        bad_bands: bands of a cube to leave out, counted from 0, as in "0-3,107,108".
        white: white reference of a cube.
        dark: dark reference of a cube.
        seed: same seed, same result.
        device: "cpu", "cuda" or "mps".
        mixed_precision: half precision where the device gains from it.
        threads: CPU threads for training; 1 is fastest for small networks.
        log: also log the fit to "mlflow", "mlflow:EXPERIMENT", "tensorboard" or "tensorboard:FOLDER".
        overwrite: replace what is in the run folder.
    """
    from ..sources.auto import open_source
    from ..workflows.fit import fit_run
    from ..workflows.request import Request, make_detector, with_setting
    from . import options

    command = options.command_line(fit, locals())
    if max_memory is not None:
        detector = with_setting(detector, "max_memory", max_memory)
    source = open_source(
        data, labels=labels, groups=groups, columns=options.parse_columns(columns), read=read,
        layers=options.parse_layers(layers), maps=make_detector(detector).wants_maps, size=size,
        channels=channels,
        skip_bad=skip_bad, bad_bands=options.parse_bands(bad_bands), white=white, dark=dark,
    )  # fmt: skip
    request = Request(
        source=source, detector=detector, weighting=weighting, scores=scores, false_alarms=false_alarms,
        epochs=epochs, batch_size=batch_size, lr=lr, warmup=warmup, patience=patience, resample=resample,
        balance=balance, per_cluster=per_cluster, per_group=per_group, cross=cross, max_group_fpr=max_group_fpr,
        refine=refine, anomalies=anomalies or "", reviewed=reviewed or "", smoothing=smoothing, log=log,
        seed=seed, device=device, mixed_precision=mixed_precision, threads=threads, command=command,
    )  # fmt: skip
    return fit_run(request, out, overwrite)


def score(
    run: Path,
    data: str,
    *,
    out: Path | None = None,
    threshold: float | None = None,
    maps: Path | None = None,
    map_threshold: float | None = None,
    false_discoveries: float | None = None,
    skip_bad: bool = False,
    batch_size: int | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> DataFrame | Path:
    """Score every sample of new data with a run: a table of scores, or the map of a cube.

    Columns: sample, score, threshold, flagged, p_value (the chance that a normal scores at least as high), standardised
    (the score on a scale where 3.0 means the same for every model and kind), kind, and, where thresholds are of kinds,
    held_to: the kind whose threshold it is.

    The kind is the number of the found kind of normal that the sample is most like, as in the report; "none" where it
    is most like a sample of no kind, "unknown" where it is unlike every training sample.

    A map is written block by block, whatever the size of the cube; an interrupted one is resumed by the same command.

    Args:
        run: a run folder.
        data: data of the kind that the run was fitted on; it is read in the same way.
        out: a .csv or .parquet file; standard output otherwise. For the scores of one cube as a map: an ENVI .hdr (with
            the map information of the cube's own), .mat, .npy or .tif file.
        threshold: flag above this score instead of the run's own threshold.
        maps: a folder for where in each image the score comes from: SAMPLE.map.tiff (scores as 32-bit floats),
            SAMPLE.overlay.png (for people) and SAMPLE.mask.png (255 where flagged), each in the image's own size.
        map_threshold: flag pixels above this score of the map instead of the run's own threshold.
        false_discoveries: in place of the threshold, flag so that at most this share of all that is flagged is
            normal (Benjamini-Hochberg over their p-values).
        skip_bad: leave unreadable images out instead of refusing.
        batch_size: samples scored at once; scores are the same up to rounding.
        seed: fixes any chance in how the data is read; scoring itself has none.
        device: "cpu", "cuda" or "mps".
    """
    from ..errors import InputError
    from ..workflows import score_cube
    from ..workflows.score import score_data
    from ..workflows.weigh import write_table

    if out is not None and out.suffix in score_cube.SUFFIXES:
        given = {"--maps": maps, "--map-threshold": map_threshold, "--false-discoveries": false_discoveries}
        if odd := [name for name, value in given.items() if value is not None]:
            raise InputError(f"{odd[0]} is not for the map of a cube", f"write scores to a .csv, or leave {odd[0]} out")
        return score_cube.write_map(run, data, out, threshold, batch_size, device)
    table = score_data(run, data, threshold, skip_bad, batch_size, seed, device, maps, map_threshold, false_discoveries)
    if out is not None:
        write_table(table, out)
    return table


def thresholds(run: Path, *, false_alarms: float | None = None, per_day: float = 1_000) -> DataFrame:
    """What the thresholds of a run promise, for all normals or for each kind.

    Columns: kind, normals (how many it was calibrated on), false_alarms (as asked), threshold, promised (in the mean
    over calibrations), low and high (that of one calibration, in 95 % of them), reachable (the smallest share that so
    many normals can promise), guaranteed (whether they reach what was asked), per_day (expected false alarms).

    Args:
        run: a run folder.
        false_alarms: for this share of false alarms; by default that of the run, and .01, .05 and .1.
        per_day: normal samples a day.
    """
    from ..workflows.thresholds import table_of_run

    return table_of_run(run, false_alarms, per_day)


def drift(
    run: Path,
    data: str,
    *,
    out: Path | None = None,
    level: float = 0.05,
    skip_bad: bool = False,
    batch_size: int | None = None,
    device: str = "cpu",
) -> Drift:
    """Has normal changed? Hold new data against a run's training data, kind by kind, and name the kinds that drifted.

    Each found kind of normal is tested for its share of all samples, for its scores, against those of held-out training
    samples where there are any, and for samples that are unlike every training sample. The exit status is 4 where
    anything drifted.

    Args:
        run: a run folder.
        data: a batch of the kind that the run was fitted on, the more the better; it is read in the same way.
        out: a .json or .md file with a row for each kind, changed or not.
        level: the chance that anything is named where nothing has changed, over all kinds and tests together.
        skip_bad: leave unreadable images out instead of refusing.
        batch_size: samples scored at once.
        device: "cpu", "cuda" or "mps".
    """
    from ..workflows.drift import drift_of

    return drift_of(run, data, out, level, skip_bad, batch_size, device)


def update(run: Path, more: str, *, out: Path, seed: int = 0, overwrite: bool = False) -> Run:
    """Add more normals to a run's detector without fitting it again, and leave a new run.

    The detector must be one that can take in samples, such as patch-memory. Some of the new samples are held out for
    the threshold, with those held out before.

    Args:
        run: a run folder; it stays as it is.
        more: normals of the kind that the run was fitted on; they are read in the same way.
        out: the new run folder.
        seed: draws the samples that are held out.
        overwrite: replace what is in the new run folder.
    """
    from ..workflows.update import update_run
    from . import options

    return update_run(run, more, out, seed, overwrite, options.command_line(update, locals()))


def triage(
    data: str,
    *,
    out: Path,
    detector: str | None = None,
    weighting: str = "",
    scores: str = "own",
    parts: int = 6,
    reviewed: Path | None = None,
    epochs: int | None = None,
    groups: str | None = None,
    columns: str = "",
    labels: str | None = None,
    read: str | None = None,
    layers: str = "",
    size: str | None = None,
    skip_bad: bool = False,
    seed: int = 0,
    device: str = "cpu",
) -> Path:
    """Find what does not belong in the training data: a sheet to review, the most suspicious samples first.

    Leaves review.csv and review.html (with pictures) in a folder. Write "anomaly" or "normal" into the column verdict
    of what you have decided, and give the sheet to `tailwise fit --reviewed`.

    Args:
        data: as for `tailwise fit`.
        out: the folder of the sheet.
        detector: whose scores rank the samples; by default padim for images where a backbone is installed, and
            otherwise gaussian. Each sample is judged by detectors that were not trained on it.
        weighting: how their training is weighed.
        scores: how their scores are read.
        parts: how many detectors; each judges one part of the samples and is trained on the others.
        reviewed: a sheet of before: its anomalies are left out, and its normals are settled.
        epochs: passes over the data, for detectors that learn by gradient steps.
        groups: known kinds of normal: a column, a CSV of file and group, or "folder".
        columns: exactly these feature columns of a table.
        labels: the column (table) or map (cube) that is no feature.
        read: how images are read: "pixels" or the name of a backbone.
        layers: blocks of the backbone whose maps are the samples, as in "4,10"; without a detector the last blocks of
            the two coarsest grids.
        size: side in pixels that images are resized to, or height and width as in 256x512.
        skip_bad: leave unreadable images out instead of refusing.
        seed: same seed, same result.
        device: "cpu", "cuda" or "mps".
    """
    from ..sources.auto import open_source
    from ..workflows import triage as triages
    from ..workflows.request import Request, make_detector
    from . import options

    command = options.command_line(triage, locals())
    maps = detector is not None and make_detector(detector).wants_maps
    source = open_source(
        data, labels=labels, groups=groups, columns=options.parse_columns(columns), read=read,
        layers=options.parse_layers(layers), maps=maps, size=size, skip_bad=skip_bad,
    )  # fmt: skip
    source = triages.with_deep_maps(source) if detector is None else source
    request = Request(
        source=source, detector=detector or triages.detector_for(source), weighting=weighting, scores=scores,
        reviewed=str(reviewed or ""), epochs=epochs, seed=seed, device=device,
    )  # fmt: skip
    request.check()
    return triages.write(triages.triage(request, parts), out, command)


def explain(
    run: Path,
    data: str | None = None,
    *,
    sample: list[str] | None = None,
    worst: int = 3,
    weights: bool = False,
    out: Path | None = None,
    seed: int = 0,
) -> Path | str:
    """Say why samples score what they do, or why training samples were weighed up or down.

    For a score: the normals of its kind that are most like it, and the features, bands or patches that drive it. The
    run's training data must still be where it was.

    Args:
        run: a run folder.
        data: what to score, read as the run's own data was; by default the training samples themselves.
        sample: the name of a sample, as `tailwise score` prints it; may be given several times.
        worst: without names, so many of the highest-scored samples; of weights, of those raised and lowered most.
        weights: explain the weights of training samples instead of scores.
        out: a .html page, with pictures where samples are images, .md, .txt or .json; standard output otherwise.
        seed: draws the orders in which the parts of a sample are tried.
    """
    from ..workflows import pages

    return pages.explain(run, data, sample or [], worst, weights, out, seed)


def report(run: Path, *, out: Path | None = None) -> Path:
    """Write a run's report again, as a page (.html), text (.md) or data (.json).

    Args:
        run: a run folder.
        out: the file; by default report.html in the run folder.
    """
    from ..workflows import pages

    return pages.write_report(run, out)


def compare(runs: list[Path], *, out: Path | None = None) -> str | Path:
    """Put runs side by side: settings, thresholds, false alarms of each kind, and test results in pairs.

    Differences are to the first run, with a 95 % interval from resampling the test samples that the runs share.

    Args:
        runs: two or more run folders.
        out: a page (.html), text (.md) or data (.json); standard output, as text, otherwise.
    """
    from ..workflows import pages

    return pages.compare_runs(runs, out)


def export(run: Path, *, out: Path, to: str = "onnx") -> Path:
    """Write a run as one ONNX file: samples in; scores, flags and maps out. Needs tailwise[onnx].

    The scores of the file are compared with the run's before it is written. tailwise-runtime (in runtime/) loads it
    with onnxruntime and numpy alone.

    Args:
        run: a run folder.
        out: the .onnx file.
        to: the format; onnx is the only one.
    """
    from ..integrations import onnx

    return onnx.export(run, to, out)


def verify(run: Path, file: Path | None = None) -> Verdict:
    """Compare the scores of 16 samples with those that the fit gave them; exit status 1 if any differs by over 1e-4.

    A difference is a share of the sample's score, or of the median of the 16 magnitudes where that is larger.

    Args:
        run: a run folder.
        file: an ONNX file that was exported from it; by default the run itself.
    """
    from ..integrations import onnx

    return onnx.verify(run, file)


def weigh(
    scores: Path, *, column: str | None = None, weighting: str = "Importance()", out: Path | None = None
) -> DataFrame:
    """Weights for anyone's anomaly scores: the table with a column `weight` added, of mean 1.

    Args:
        scores: a CSV or parquet file with a column of scores, higher more anomalous.
        column: the name of that column; by default `score`, or the only numeric one.
        weighting: steps that need no embedding, as in "Importance(), Clip(0.1, 10)".
        out: a .csv or .parquet file; standard output otherwise.
    """
    from ..workflows.weigh import weigh_table, write_table

    table = weigh_table(scores, column, weighting)
    if out is not None:
        write_table(table, out)
    return table


def names(kind: str | None = None) -> dict[str, list[str]]:
    """What can be chosen: detectors, sources, weighting steps and densities.

    Args:
        kind: only this kind: detector, source, step or density.
    """
    from . import options

    return options.known_names(kind)


def describe(name: str) -> str:
    """What a detector, source, weighting step or density does, and its options.

    Args:
        name: as `tailwise names` lists it.
    """
    from . import options

    return options.description(name)


def demo(out: Path = Path("demo-run"), *, seed: int = 0, overwrite: bool = False) -> Run:
    """Real solar cells, 400 mono and 40 poly: plain against weighted training, and a run with its report.

    Args:
        out: the run folder of the weighted detector.
        seed: draws the cells and starts the training.
        overwrite: replace what is in the run folder.
    """
    from ..workflows import demo as workflows_demo

    return workflows_demo.run(out, seed, overwrite)


def bench(
    suite: Path,
    *,
    profile: str = "default",
    draws: str = "development",
    rows: Path | None = None,
    data: Path | None = None,
    processes: int = 2,
) -> Path:
    """Compare methods on the draws of a suite: one JSON line a cell, and a page of tables.

    An interrupted run is resumed by the same command; a cell that has its row is not done again.

    Args:
        suite: a TOML file, or the name of one in benchmarks/suites/, such as smoke or long_tail.
        profile: how much of the suite is run; the suite names its profiles.
        draws: development (to choose by) or confirmation (to report).
        rows: the file of rows; by default results/<suite>.jsonl beside the suites, from which the page is written.
        data: the directory of the suite's data sets; by default the environment's TAILWISE_DATA.
        processes: how many cells run at a time, each with one thread.
    """
    from ..benchmark.page import run_suite

    return run_suite(suite, profile, draws, rows, data, processes)


COMMANDS = (
    fit, score, thresholds, explain, drift, triage, update, report, compare, export, verify, weigh, names, describe,
    demo, bench,
)  # fmt: skip
