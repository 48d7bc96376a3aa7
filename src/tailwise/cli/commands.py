"""The commands: each is a public function, and its options on the command line are its parameters.

Heavy modules are imported inside, so that help answers at once.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..integrations.engines import Options as Work
from ..integrations.limits import Limits
from ..sources.options import SourceOptions
from ..training.options import Training

if TYPE_CHECKING:
    from pandas import DataFrame

    from ..benchmark.page import Finished
    from ..calibration.drift import Drift
    from ..integrations.onnx import Verdict
    from ..runs.scorer import Run
    from ..workflows.watch import Watched

    # A program may also give an array, a DataFrame or a source; the command line has words only.
    Given = Any
else:  # the command line resolves annotations at run time, before the real classes are worth their import
    DataFrame = Drift = Finished = Run = Verdict = Watched = object
    Given = str


def fit(
    data: Given,
    *,
    detector: str = "auto",
    weighting: str = "auto",
    scores: str = "auto",
    out: Path | None = None,
    false_alarms: float = 0.05,
    training: Annotated[Training, Parameter(name="*")] = Training(),  # noqa: B008 (a frozen value)
    balance: bool = False,
    per_cluster: bool = False,
    per_group: bool = False,
    whole_groups: bool = False,
    cross: int | None = None,
    max_group_fpr: float | None = None,
    refine: str = "",
    keep_suspects: bool = False,
    anomalies: str | None = None,
    reviewed: str | None = None,
    smoothing: float = 0.009,
    max_memory: str | None = None,
    no_report: bool = False,
    no_clusters: bool = False,
    reading: Annotated[SourceOptions, Parameter(name="*")] = SourceOptions(),
    seed: int = 0,
    log: str = "",
    overwrite: bool = False,
    json: bool = False,
) -> Run:
    """Learn what is normal from data that you declare normal: a run with detector, scores, thresholds and report.

    A few anomalies may have slipped in. For data that nobody vouches for use `tailwise triage`, which finds the odd
    ones and protects no rare kind.

    Repeat the command to resume an interrupted fit. `tailwise.fit` is the same in Python; there the data may also be an
    array [n, *sample], a DataFrame or a source, and the run is returned.

    Args:
        data: a folder of images (flat, or in MVTec layout, of which the train part is read), a table (CSV, parquet,
            npz), a hyperspectral cube (.mat, .hdr, npz, tiff), a graph (npz, .mat, .pt, or a folder with nodes.csv and
            edges.csv), photographs with scans (KIND/rgb and KIND/xyz), a folder of point clouds (.ply, .pcd, .las,
            .stl), a folder of IDX files, or a source such as "SolarCells(mono=400, poly=40)".
        detector: a name that `tailwise names` lists, or a spelling such as "AutoEncoder(hidden=(64,), code=16)";
            "auto" is nearest-neighbours for rows, patch-ensemble for images that a backbone reads, and autoencoder for
            pixels and spectra. Of 30 images or more, fine maps and patch-memory are taken instead where these tell
            defects made on your images better.
        weighting: how training samples are weighed: "" (all alike), or steps such as "Importance(), Clip(0.1, 10)";
            "auto" weighs only where weights are known to help: some detectors' own scores, and spectra.
        scores: "auto" compares each score with those of the most similar training samples (local scores), so that rare
            kinds are not rejected for being rare; "own" uses the detector's scores as they are.
        out: the run folder; by default a new one in runs/.
        false_alarms: the share of normals that the threshold may flag.
        training: how to train the detector. Each of these is an option.
        per_cluster: set a threshold for each cluster that the fit finds. Fewer rare normals are rejected, and fewer
            anomalies are caught.
        per_group: set a threshold for each group (needs groups). New data must name its groups too.
        whole_groups: hold out each group as a whole, because its samples show one thing, as several photos of one part
            do (needs groups). Pictures that are nearly the same are found and held out together without it.
        cross: set the threshold by k-fold cross-fitting, with this many folds; 0 sets it on held-out samples. By
            default 5 where fewer than 200 samples could be held out, and with per_cluster or per_group; else 0. Where
            they are at most 500, nearest-neighbours leaves each out alone instead, without a further training.
        max_group_fpr: fail (exit status 4, the run stays) if a group, or a cluster where there are no groups, has more
            false alarms than this among the calibration samples, or clearly more among the test normals.
        refine: train in rounds, for data with hidden anomalies: "Purify()" drops suspicious samples, "Iterate()" lowers
            their weights.
        keep_suspects: train on suspects too: samples that lie far from all others and close to each other. With refine
            they always train, and the rounds decide.
        anomalies: a few labelled anomalies, for detectors that need some (dev-net, multi-cue): a path to data of the
            same sort, for images also a list of names (.txt, or .csv with the column sample), or how many to take from
            the labelled test anomalies. If the data at the path has labels, only its anomalies are used. These samples
            leave the training and the test data.
        reviewed: the edited review.csv of `tailwise triage`. Its anomalies do not train; refinement drops none of its
            normals.
        balance: give all groups the same total weight as well (needs groups).
        smoothing: how much to smooth score maps, as a share of their side; 0 is not at all.
        max_memory: the most memory a fit may use, as in 2GB, for detectors that store samples, such as patch-memory.
        no_report: draw no page of the report; `tailwise report` draws it later.
        no_clusters: look for no clusters: scores name none, and neither drift nor unlabelled data is noticed.
        reading: how to read the data. Each of these is an option.
        seed: the same seed gives the same result.
        log: also log the fit to "mlflow", "mlflow:EXPERIMENT", "tensorboard" or "tensorboard:FOLDER".
        overwrite: replace what is in the run folder.
        json: print what the fit came to as JSON, instead of the run's path.

    Examples:
        >>> import numpy as np, tailwise, tempfile
        >>> normals = np.random.default_rng(0).normal(size=(200, 3))
        >>> run = tailwise.fit(normals, detector="gaussian", out=tempfile.mkdtemp())
        >>> run.score([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]]).flagged.tolist()
        [False, True]
    """
    from ..sources.auto import open_source
    from ..workflows.fit import fit_run
    from ..workflows.request import Request, named_for, read_for, wants_maps, with_setting
    from . import options

    written = isinstance(data, (str, Path))
    command = options.command_line(fit, locals()) if written else ""
    problem = None
    if written or hasattr(data, "load"):
        source = read_for(detector, open_source(data, maps=wants_maps(detector), **reading.asked()))
        if reading.layers is not None:
            detector = named_for(detector, source)  # blocks that are named are read
    else:
        from ..sources.memory import in_memory

        source, problem = in_memory(data, reading.asked())
    if max_memory is not None:
        detector = with_setting(named_for(detector, source), "max_memory", max_memory)
    request = Request(
        source=source, detector=detector, weighting=weighting, scores=scores, false_alarms=false_alarms,
        training=training, balance=balance, per_cluster=per_cluster, per_group=per_group,
        whole_groups=whole_groups, cross=cross,
        max_group_fpr=max_group_fpr, refine=refine, keep_suspects=keep_suspects, anomalies=anomalies or "",
        reviewed=reviewed or "", smoothing=smoothing,
        no_report=no_report, no_clusters=no_clusters, log=log, seed=seed, command=command,
    )  # fmt: skip
    return fit_run(request, None if out is None else Path(out), overwrite, problem)


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
    work: Annotated[Work, Parameter(name="*")] = Work(),  # noqa: B008 (a frozen value)
    seed: int = 0,
    device: str = "cpu",
) -> DataFrame | Path:
    """Score every sample of new data with a run: a table of scores, a folder of them, or the map of a cube.

    Columns: sample, score, threshold, flagged, p_value (the chance that a normal scores at least as high), standardised
    (the score on a scale where 3.0 means the same for every detector and kind), cluster, and held_to (the kind whose
    threshold applies) if the run has a threshold for each kind.

    The cluster is the number of the one that the sample is most like, as in the report. It is "none" if the most
    similar training sample is in no cluster, and "unknown" if the sample is unlike every training sample.

    The map of a cube is written block by block, and a folder of parquet files part by part, so the data may be of any
    size. Repeat the command to resume an interrupted one. Read together, the files of the folder are the table. Folders
    of images, parquet (a file, or a folder of files) and cubes can be written so, also by the workers of Dask or Ray.

    Args:
        run: a run folder.
        data: data of the same sort as the run's; it is read in the same way.
        out: a .csv or .parquet file, not in a folder of the data; by default standard output. A name without an ending
            is a folder of .parquet files. For the map of one cube: an ENVI .hdr (with the cube's map information),
            .mat, .npy, .tif or .zarr.
        threshold: flag above this score instead of the run's threshold.
        maps: a folder for score maps of images: SAMPLE.map.tiff (scores as 32-bit floats), SAMPLE.overlay.png (for
            people) and SAMPLE.mask.png (255 where flagged), each in the size of its image. All maps appear at once,
            when the last one is made.
        map_threshold: flag pixels above this score of the map instead of the run's map threshold.
        false_discoveries: instead of using the threshold, flag so that at most this share of the flagged samples is
            normal (Benjamini-Hochberg on the p-values).
        skip_bad: skip unreadable images instead of refusing them.
        batch_size: samples scored at once; scores change by rounding only.
        work: who scores. Each of these is an option.
        seed: fixes any chance in how the data is read; scoring has none.
        device: "cpu", "cuda" or "mps".
    """
    from ..errors import InputError
    from ..workflows import score_cube

    is_map, is_folder = out is not None and out.suffix in score_cube.SUFFIXES, out is not None and not out.suffix
    if out is not None and (is_map or is_folder):
        given = {"--maps": maps, "--map-threshold": map_threshold, "--false-discoveries": false_discoveries}
        if odd := [name for name, value in given.items() if value is not None]:
            what = "the map of a cube" if is_map else "scores in parts"
            raise InputError(f"{odd[0]} is not for {what}", f"write scores to a .csv, or leave {odd[0]} out")
        if is_map:
            return score_cube.write_map(run, data, out, threshold, batch_size, device, work)
        from ..workflows import score_parts
        from ..workflows.parts import Asked

        asked = Asked(str(run), data, threshold, skip_bad, batch_size, seed, device)
        return score_parts.write_parts(asked, out, work)
    if work != Work():
        work.check()
        raise InputError(
            f"{work.engine} writes scores in parts, and one table was asked for",
            "name a folder by --out NAME, or the map of a cube by --out NAME.zarr",
        )
    from ..workflows.score import score_data

    return score_data(
        run, data, threshold, skip_bad, batch_size, seed, device, maps, map_threshold, false_discoveries, out
    )


def serve(
    runs: list[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8008,
    token_file: Path | None = None,
    limits: Annotated[Limits, Parameter(name="*")] = Limits(),  # noqa: B008 (a frozen value)
    device: str = "cpu",
) -> None:
    """Answer over HTTP with one or more runs until SIGTERM or Ctrl-C. Needs tailwise[serve].

    POST rows as JSON or CSV, or an image, to /runs/NAME/score: the answer is what `tailwise score` writes, with
    explanations (?explain=true) and maps (?map=true) if asked for. GET /openapi.json describes everything; GET /metrics
    is for Prometheus. Only this machine can ask, unless --host names another address.

    Runs are only read. When a run's folder holds a new version, as after another fit into it or when a link
    leads to another folder, it is opened beside the old one, which answers until then.

    Args:
        runs: run folders; each is called by its folder's name, or by another with NAME=FOLDER.
        host: the address to listen at; the default is reached from this machine only.
        port: the port; 0 takes a free one, which the first line on stderr names.
        token_file: a file that holds the token that an "Authorization: Bearer" header must have. /health needs none.
        limits: how much is taken in. Each of these is an option.
        device: "cpu", "cuda" or "mps".
    """
    from ..integrations.extras import need

    need("serve", ("starlette", "uvicorn", "prometheus_client"), "serve")
    from ..workflows import serve as workflows_serve

    workflows_serve.serve(runs, host, port, token_file, limits, device)


def thresholds(run: Path, *, false_alarms: float | None = None, per_day: float = 1_000) -> DataFrame:
    """Say what the thresholds of a run promise, for all normals or for each kind.

    Columns: kind, normals (how many calibrate it), false_alarms (the share asked for), threshold, promised (the mean
    share over calibration sets), low and high (the share for your calibration set lies between them with a chance of 95
    %), reachable (the smallest share that so many normals can promise), guaranteed (whether that is small enough),
    per_day (false alarms to expect each day).

    Args:
        run: a run folder.
        false_alarms: the share of false alarms; by default the run's, and .01, .05 and .1.
        per_day: how many normal samples come each day.
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
    """Has normal changed? Compare new data with a run's training data, and name the kinds that changed.

    Each cluster is tested for its share of all samples, for its scores (against held-out training samples, if there are
    any), and for samples that are unlike every training sample. The exit status is 4 if anything changed.

    Args:
        run: a run folder.
        data: a batch of the same sort as the run's data, the more the better; it is read in the same way.
        out: a .json or .md file with a row for each kind, changed or not.
        level: the chance of a false alarm when nothing has changed, over all kinds and tests together.
        skip_bad: skip unreadable images instead of refusing them.
        batch_size: samples scored at once.
        device: "cpu", "cuda" or "mps".
    """
    from ..workflows.drift import drift_of

    return drift_of(run, data, out, level, skip_bad, batch_size, device)


def watch(
    run: Path,
    place: str,
    *,
    out: Path,
    level: float = 0.05,
    once: bool = False,
    every: float = 2.0,
    settle: float = 1.0,
    webhook: str | None = None,
    keep: int = 500,
    batch_size: int | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> Watched:
    """Score what arrives, count it by kind, and say when normal has changed or something new comes.

    Looking often costs nothing: if nothing changes, the chance that anything is ever called is at most the level,
    however often one looks. Tested are the scores and the number of samples that are unlike every training sample, of
    all and of each kind, and how often each kind comes and where it lies. What calls is named.

    The exit status is 4 as soon as something is called; with a webhook the watch goes on instead. Everything is counted
    in one transaction for each arrival, so the same command goes on after a crash, and counts nothing twice.

    The folder holds watch.html, watch.sqlite and review.csv: the samples that are flagged or unlike all. Write
    "anomaly" or "normal" into its column verdict, and give it to `tailwise fit` or `tailwise update` as reviewed, with
    the watched folder as the data if samples are images, and with kept.csv beside the sheet if they are rows.

    Args:
        run: a run folder.
        place: a folder in which files appear (images, or tables), or a file that grows by lines (.csv, .jsonl).
        out: the folder of the watch, outside of what is watched; each place needs its own.
        level: the chance that anything is ever called if nothing changes.
        once: stop when everything that is there is counted.
        every: seconds between looks when nothing new is there.
        settle: a file has come when it has not changed for so many seconds.
        webhook: an address to which each call is posted as JSON; until it answers, it is called again.
        keep: the most samples in the sheet.
        batch_size: samples scored at once.
        seed: draws where a score stands among equal ones.
        device: "cpu", "cuda" or "mps".
    """
    from ..workflows import watch as workflows_watch

    return workflows_watch.watch(run, place, out, level, once, every, settle, webhook, keep, batch_size, seed, device)


def update(
    run: Path, more: str, *, out: Path, reviewed: Path | None = None, seed: int = 0, overwrite: bool = False
) -> Run:
    """Add normals to a run's detector without fitting it again, and write a new run.

    Only detectors that store samples, such as patch-memory, can do this. Some of the new samples are held out. They and
    the samples that were held out before set the new threshold.

    Args:
        run: a run folder; it does not change.
        more: normals of the same sort as the run's data; they are read in the same way.
        out: the new run folder.
        reviewed: the edited review.csv of `tailwise watch`; its anomalies are left out.
        seed: draws the samples to hold out.
        overwrite: replace what is in the new run folder.
    """
    from ..workflows.update import update_run
    from . import options

    return update_run(run, more, out, seed, overwrite, options.command_line(update, locals()), reviewed)


def adapt(
    run: Path,
    target: Given,
    *,
    out: Path,
    method: str = "auto",
    force: bool = False,
    seed: int = 0,
    overwrite: bool = False,
) -> Run:
    """Adapt a run's detector to data whose normals have changed, without labels, and write a new run.

    `tailwise drift` is asked first; where it sees nothing, there is nothing to adapt to. Each method then checks, still
    without labels, whether it gains anything; if not, scores stay as they are, and the run says so. The old threshold
    is void: some of the target's samples are held out and set the new one. Clusters and report are those of the target.
    `tailwise.adapt` is the same in Python; there the target may also be an array [n, *sample], a DataFrame or a source.

    Args:
        run: a run folder; it does not change.
        target: new data of the same sort, read as the run's own data was. Anomalies may be among it; labels are not
            read.
        out: the new run folder.
        method: an adaptation that `tailwise names adaptation` lists, or a spelling such as
            "RADA(assignment='mutual')"; "auto" is TUNE for graph-classifier and RADA for anything else.
        force: adapt although no drift was seen.
        seed: draws the samples to hold out, and whatever the method draws.
        overwrite: replace what is in the new run folder.

    Raises:
        InputError: no drift was seen, the detector cannot be adapted by this method, or the samples are of another
            shape.

    Examples:
        >>> import numpy as np, tailwise, tempfile
        >>> folder, random = tempfile.mkdtemp(), np.random.default_rng(0)
        >>> run = tailwise.fit(random.normal(size=(200, 3)), detector="nearest-neighbours", out=folder + "/run")
        >>> moved = random.normal(size=(200, 3)) * 1.5 + 4.0
        >>> adapted = tailwise.adapt(folder + "/run", moved, method="Moments", out=folder + "/adapted")
        >>> adapted.settings.adaptations[0]["adapted"]
        True
    """
    from ..workflows.adapt import adapt_run
    from . import options

    command = options.command_line(adapt, locals()) if isinstance(target, (str, Path)) else ""
    return adapt_run(Path(run), target, Path(out), method, force, seed, overwrite, command)


def triage(
    data: Given,
    *,
    out: Path | None = None,
    detector: str | None = None,
    weighting: str = "",
    scores: str = "own",
    parts: int = 6,
    reviewed: Path | None = None,
    training: Annotated[Training, Parameter(name="*")] = Training(),  # noqa: B008 (a frozen value)
    reading: Annotated[SourceOptions, Parameter(name="*")] = SourceOptions(),
    seed: int = 0,
    json: bool = False,
) -> DataFrame:
    """Find the odd samples of data that nobody vouches for: a score for each, and a sheet to review.

    It protects no rare kind. For data that you declare normal use `tailwise fit`, which protects them.

    Columns of the scores: sample, score (higher is odder; about 0 is usual), rank (1 is the oddest), verdict (a guess:
    probably an anomaly, probably a rare kind of normal, probably normal; or what a review said) and cluster (-1 is
    none). There is no threshold and no p_value: both need known normals.

    With --out a folder gets scores.csv, review.csv (the most suspicious first) and review.html (with pictures); it may
    hold none of them yet. Decide on the page, which saves review.csv anew, or write "anomaly" or "normal" in the
    column verdict, and give the sheet to
    `tailwise fit --reviewed`. `tailwise.triage` is the same in Python; there the data may also be an array
    [n, *sample], a DataFrame or a source, and the scores are returned, with what the command says in `attrs`.

    Args:
        data: as for `tailwise fit`.
        out: the folder; without it the scores go to standard output.
        detector: the detector that ranks the samples; no sample is judged by one that trained on it. By default padim
            for images if a backbone is installed, and gaussian for other images and for cubes. Rows are ranked by what
            looks at all of them at once: an isolation forest, the Mahalanobis distance and the distance to the 20th
            neighbour; nothing is trained then, and the options of training have no say.
        weighting: how training samples are weighed.
        scores: "own", "auto" or a spelling, as for `tailwise fit`.
        parts: how many detectors to train. Each judges one part of the samples and trains on the others.
        reviewed: an earlier sheet: its anomalies are left out, and its normals stay normal.
        training: how to train the detectors. Each of these is an option.
        reading: how to read the data. Each of these is an option. Without a detector images are read as maps of the
            last blocks of the two coarsest grids.
        seed: the same seed gives the same result.
        json: print what the triage came to as JSON, instead of paths or scores.

    Raises:
        InputError: the data cannot be read or holds fewer than 3 samples, or the folder holds results already.

    Examples:
        >>> import numpy as np, tailwise
        >>> rows = np.random.default_rng(0).normal(size=(200, 3))
        >>> rows[17] = 9.0
        >>> table = tailwise.triage(rows)
        >>> table.sort_values("rank")["sample"].iloc[0], table.attrs["looked_at"]
        ('17', 200)
    """
    from ..sources.auto import open_source, with_maps
    from ..workflows import triage as triages
    from ..workflows.request import Request, make_detector, read_for
    from . import options

    written = isinstance(data, (str, Path))
    command = options.command_line(triage, locals()) if written else ""
    problem = None
    if written or hasattr(data, "load"):
        maps = detector is not None and make_detector(detector).wants_maps
        source = open_source(data, maps=maps, **reading.asked())
        source = with_maps(source, deep=True) if detector is None else source
        source = read_for(detector or "auto", source)
    else:
        from ..sources.memory import in_memory

        source, problem = in_memory(data, reading.asked())
    if out is not None:
        triages.check_place(Path(out), source)
    request = Request(
        source=source, detector=detector or triages.detector_for(source), weighting=weighting, scores=scores,
        reviewed=str(reviewed or ""), training=training, seed=seed,
    )  # fmt: skip
    request.check()
    found = triages.triage(request, parts, problem)
    folder = None if out is None else Path(out)
    learn = options.command_line(fit, options.defaults(fit) | {"data": data, "reading": reading}) if written else ""
    if folder is not None:
        triages.write(found, folder, command, learn)
    return triages.scores_of(found, folder, command, learn)


def explain(
    run: Path,
    data: str | None = None,
    *,
    sample: list[str] | None = None,
    worst: int = 3,
    weights: bool = False,
    training_data: str | None = None,
    out: Path | None = None,
    seed: int = 0,
) -> Path | str:
    """Say why samples have their scores, or why training samples were weighed up or down.

    For each score: the most similar normals of its kind, and the features, bands or patches that raise it. The run's
    training data must still be there. A run of somebody else can name any file: outside the current folder nothing is
    shown but what the fit saw.

    Args:
        run: a run folder.
        data: the data to score, read in the same way as the run's; by default the training samples.
        sample: the name of a sample, as `tailwise score` prints it; you may give several.
        worst: without names, explain this many of the highest scores, or of the largest and the smallest weights.
        weights: explain the weights of training samples instead of scores.
        training_data: where the run's training data lies now, if it moved or changed; it is shown wherever it lies.
        out: a .html page, with pictures if samples are images, .md, .txt or .json; by default standard output.
        seed: draws the orders in which the parts of a sample are tried.
    """
    from ..workflows import pages

    return pages.explain(run, data, sample or [], worst, weights, out, seed, training_data)


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

    Each run is compared with the first. The 95 % interval of a difference comes from resampling the test samples that
    the runs share.

    Args:
        runs: two or more run folders.
        out: a page (.html), text (.md) or data (.json); by default text on standard output.
    """
    from ..workflows import pages

    return pages.compare_runs(runs, out)


def export(run: Path, *, out: Path, to: str = "onnx") -> Path:
    """Write a run as one ONNX file: samples in; scores, flags and maps out. Needs tailwise[onnx].

    The file of a run of pictures takes pictures: the network that reads them is in the file. It also holds up to 16
    training pictures, in the size that the run reads, with their scores. The scores of the file are compared with the
    run's first; if they differ, nothing is written. tailwise-runtime (in runtime/) scores tables, arrays and folders of
    pictures with the file; it needs onnxruntime and numpy, and Pillow for pictures.

    Args:
        run: a run folder.
        out: the .onnx file.
        to: the format; onnx is the only one.
    """
    from ..integrations import onnx

    return onnx.export(run, to, out)


def verify(run: Path, file: Path | None = None) -> Verdict:
    """Score 16 training samples again and compare with the fit; exit status 1 if a score differs by more than 1e-4.

    A difference is a share of the sample's score, or of the median size of the 16 scores if that is larger. A file that
    takes pictures is asked for the scores of the run's pictures, which may differ by 1e-3.

    Args:
        run: a run folder.
        file: an ONNX file exported from the run; by default the run itself.
    """
    from ..integrations import onnx

    return onnx.verify(run, file)


def weigh(
    scores: Path, *, column: str | None = None, weighting: str = "Importance()", out: Path | None = None
) -> DataFrame:
    """Compute weights from anomaly scores: the table, with a column `weight` of mean 1.

    Args:
        scores: a CSV or parquet file with a column of scores, higher for more anomalous.
        column: the name of that column; by default `score`, or the only numeric one.
        weighting: steps that need no embedding, as in "Importance(), Clip(0.1, 10)".
        out: a .csv or .parquet file; by default standard output.
    """
    from ..workflows.weigh import check_table, weigh_table, write_table

    if out is not None:
        check_table(out)
    table = weigh_table(scores, column, weighting)
    if out is not None:
        write_table(table, out)
    return table


def names(kind: str | None = None) -> dict[str, list[str]]:
    """List what you can choose: detectors, sources, weighting steps, densities, scores, refinements and adaptations.

    Args:
        kind: only this kind: detector, source, step, density, scores, refinement or adaptation.
    """
    from . import options

    return options.known_names(kind)


def describe(name: str) -> str:
    """Say what a detector, a source, a weighting step or anything else that `tailwise names` lists does, and list its
    options.

    Args:
        name: a name that `tailwise names` lists.
    """
    from . import options

    return options.description(name)


def demo(out: Path = Path("demo-run"), *, seed: int = 10, overwrite: bool = False) -> Run:
    """Compare a fit without options with a plain one, kNN, LOF and an isolation forest on pictures of digits, of which
    some good kinds are rare, and write a run with its report.

    Args:
        out: the run folder of a fit without options.
        seed: the first of five draws of pictures; each also starts the training. The case was chosen on 0 to 4.
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
    engine: str = "local",
) -> Finished:
    """Compare methods on the draws of a suite: one JSON line for each cell, and a page of tables.

    Repeat the command to resume an interrupted run; cells that have a row are not computed again. The exit status is 5
    if a cell failed. The page and its picture lie beside the rows; the command prints the paths of rows and page.

    Args:
        suite: a TOML file, or the name of one in benchmarks/suites/, such as smoke or long_tail.
        profile: how much of the suite to run; the suite names its profiles.
        draws: development (to choose by) or confirmation (to report).
        rows: the file of rows, a .jsonl; by default results/<suite>.jsonl beside the suites. The page and its picture
            have its name with .md and .svg; files of these names that bench did not write are refused.
        data: the folder of the suite's data sets; by default the environment variable TAILWISE_DATA.
        processes: how many cells run at the same time, each with one thread.
        engine: "dask" or "ray" have so many workers do the cells, and repeat those of one that dies; "local" has
            processes of its own, and those that die leave a failed row. Needs tailwise[engines].
    """
    from ..benchmark.page import run_suite
    from ..integrations import engines

    workers = None
    if engine != "local":
        engines.Options(engine, processes).check()
        workers = functools.partial(engines.started, engines.Options(engine, processes))
    return run_suite(suite, profile, draws, rows, data, processes, workers)


COMMANDS = (
    fit, score, serve, thresholds, explain, drift, watch, adapt, triage, update, report, compare, export, verify, weigh,
    names, describe, demo, bench,
)  # fmt: skip
