"""Scores made part by part are those of one table, whoever makes them, and whatever dies meanwhile."""

import importlib.util
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import tailwise
from tailwise.benchmark import rows, runner
from tailwise.benchmark.suites import Conditions, Method, read_suite
from tailwise.cli import commands
from tailwise.core import readers
from tailwise.errors import InputError
from tailwise.integrations import engines
from tailwise.sources import parquet_files, table
from tailwise.sources.table import Table
from tailwise.workflows import score_cube, score_parts
from tailwise.workflows.parts import Parts, digest_of

RNG = np.random.default_rng(0)
COLUMNS = list("abcde")
ROWS = 6 * 700 + 15
HEIGHT, WIDTH, BANDS = 26, 17, 6
KINDS = ("rows", "images", "cube", "map")
WORKERS = ("dask", "ray")
ALONE = engines.Options()
SMOKE = read_suite(Path(__file__).parents[1] / "benchmarks" / "suites" / "smoke.toml")


def is_installed(name: str) -> bool:
    return importlib.util.find_spec({"dask": "distributed"}.get(name, name)) is not None


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and new data of each kind: rows in a folder of parquet files, images, and a cube of which some pixels hold
    no data."""
    home = tmp_path_factory.mktemp("home")
    normal = RNG.normal(size=(400, 5)) * (1, 2, 3, 4, 5)
    pd.DataFrame(normal, columns=COLUMNS).to_parquet(home / "train.parquet")
    (home / "rows").mkdir()
    for number in range(6):
        part = pd.DataFrame(RNG.normal(size=(700 + number, 5)) * 3, columns=COLUMNS)
        part.assign(note="x").to_parquet(home / "rows" / f"part-{number}.parquet", row_group_size=300)
    (home / "images").mkdir()
    for number in range(30):
        Image.fromarray(RNG.integers(0, 255, (12, 12, 3), dtype=np.uint8)).save(home / "images" / f"{number}.png")
    cube = RNG.normal(size=(HEIGHT, WIDTH, BANDS)).astype(np.float32) + 5
    np.save(home / "train.npy", cube)
    cube[3:5, 2:9] = cube[-1, -4:] = np.nan
    np.save(home / "cube.npy", cube)
    own = {"detector": "gaussian", "no_report": True}
    tailwise.fit(str(home / "train.parquet"), out=home / "run-rows", **own)
    tailwise.fit(str(home / "images"), out=home / "run-images", reading=pixels(), scores="own", **own)
    tailwise.fit(str(home / "train.npy"), out=home / "run-cube", scores="own", no_clusters=True, **own)
    return home


def pixels() -> commands.SourceOptions:
    return commands.SourceOptions(read="pixels", size=8)


def data_of(home: Path, kind: str) -> tuple[Path, str]:
    """The run and the data of a kind."""
    kind = "cube" if kind == "map" else kind
    return home / f"run-{kind}", str(home / (f"{kind}.npy" if kind == "cube" else kind))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_parts, "_PART_SAMPLES", 300)
    monkeypatch.setattr(score_cube, "_BLOCK_ENTRIES", 2 * WIDTH * BANDS)
    monkeypatch.setattr(score_cube, "_BLOCKS", 3)


def scored(home: Path, kind: str, out: Path, work: engines.Options = ALONE) -> np.ndarray | pd.DataFrame:
    """What `score` writes: the table of a folder, or the map."""
    run, data = data_of(home, kind)
    commands.score(run, data, out=out.with_suffix(".npy") if kind == "map" else out, batch_size=100, work=work)
    return np.load(out.with_suffix(".npy")) if kind == "map" else pd.read_parquet(out)


def check_same(home: Path, kind: str, found: np.ndarray | pd.DataFrame, out: Path) -> None:
    """Bit for bit what one process makes."""
    if isinstance(found, pd.DataFrame):
        run, data = data_of(home, kind)
        plain = out.with_suffix(".parquet")
        commands.score(run, data, out=plain, batch_size=100)
        pd.testing.assert_frame_equal(found, pd.read_parquet(plain), check_exact=True)
        return
    score_cube.write_map(*data_of(home, kind), out.with_name("plain.npy"), batch_size=100)
    assert np.isnan(found).sum() == 18
    assert np.array_equal(found, np.load(out.with_name("plain.npy")), equal_nan=True)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_parts_together_are_the_table(home: Path, tmp_path: Path, kind: str) -> None:
    found = scored(home, kind, tmp_path / "scores")
    files = sorted(path.name for path in (tmp_path / "scores").iterdir())
    assert files[0] == "part-00000.parquet"
    assert len(files) == {"rows": 15, "images": 1, "cube": 2}[kind]
    assert not list(tmp_path.glob(".writing*"))
    check_same(home, kind, found, tmp_path / "scores")


@pytest.mark.parametrize("name", WORKERS)
def test_workers_give_the_same_and_a_killed_one_costs_nothing(
    home: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One cluster for all kinds: workers take seconds to start."""
    if not is_installed(name):
        pytest.skip(f"{name} is not installed")
    work, real = engines.Options(name, 2), engines.started
    with engines.started(work) as engine:
        killing = Killing(engine)
        monkeypatch.setattr(engines, "started", lambda _: nullcontext(killing))
        for kind in KINDS:
            (tmp_path / kind).mkdir()
            found = scored(home, kind, tmp_path / kind / "scores", work)
            check_same(home, kind, found, tmp_path / kind / "scores")
            assert not list((tmp_path / kind).glob(".writing*"))
        killing.kills = 0
        broken = pd.read_parquet(home / "rows" / "part-3.parquet")
        broken.loc[5, "b"] = np.inf
        broken.to_parquet(tmp_path / "broken.parquet")
        with pytest.raises(InputError, match=r"broken.parquet: row 5, column 'b': inf is not a finite number"):
            commands.score(home / "run-rows", str(tmp_path / "broken.parquet"), out=tmp_path / "none", work=work)
        assert not list(tmp_path.glob(".writing*"))
        check_benchmark(tmp_path, name)
        if name == "dask":
            address = engine.client.cluster.scheduler_address
            with real(engines.Options(name, scheduler=address)) as joined:
                assert [done.result() for _, done in joined.each(abs, [-3])] == [3]
    assert killing.killed == 1


class Killing:
    """An engine, one of whose workers is killed as soon as a task is done."""

    def __init__(self, engine: engines.Engine) -> None:
        self.engine, self.killed, self.kills = engine, 0, 1

    def each(self, task: Callable, items: list) -> Iterator:
        for number, done in self.engine.each(task, items):
            if self.killed < self.kills:
                self.killed += 1
                os.kill(workers()[0], signal.SIGKILL)
            yield number, done


def workers() -> list[int]:
    import psutil

    children = psutil.Process().children(recursive=True)
    commands = {child.pid: " ".join(child.cmdline()) for child in children}
    return [pid for pid, said in commands.items() if "spawn_main" in said or "ray::attempted" in said]


def check_benchmark(tmp_path: Path, name: str) -> None:
    """The same rows in the same order as this process makes them, and nothing left to do."""
    smoke = (Path(__file__).parents[1] / "benchmarks" / "suites" / "smoke.toml").read_text()
    for old, new in (
        ('["autoencoder", "deep-svdd", "gaussian", "nearest-neighbours"]', '["gaussian"]'),
        ('["uniform", "auto", "oracle"]', '["uniform"]'),
        ('["own", "auto"]', '["own"]'),
        ("largest = 120", "largest = 60"),
    ):
        assert old in smoke
        smoke = smoke.replace(old, new)
    (tmp_path / "small.toml").write_text(smoke.replace('"smoke"', '"small"'))
    places = {each: tmp_path / f"{each}.jsonl" for each in ("local", name)}
    for job in runner.jobs(read_suite(tmp_path / "small.toml"), "default", "development", places["local"]):
        runner.run_job(job)
    assert commands.bench(tmp_path / "small.toml", rows=places[name], engine=name).failed == 0
    made = {each: [comparable(row) for row in rows.read_all(place)] for each, place in places.items()}
    assert len(made["local"]) > 4
    assert made[name] == made["local"]
    commands.bench(tmp_path / "small.toml", rows=places[name], engine=name)
    assert len(rows.read_all(places[name])) == len(made[name])


def comparable(row: dict) -> dict:
    """What a row says of its cell, not of the machine."""
    return {key: value for key, value in row.items() if not key.startswith(("seconds", "peak"))}


def test_rows_wait_for_those_of_earlier_jobs_and_none_is_lost(tmp_path: Path) -> None:
    jobs = [
        runner.Job(SMOKE, Conditions("digits", "development", draw, 20, 0.0), (Method("gaussian", ""),), tmp_path / "r")
        for draw in range(4)
    ]

    class Shuffled:
        def each(self, task: Callable, items: list) -> Iterator:
            for number in (1, 0, 3):
                yield number, engines.Done([{"draw": number}])
            raise Interrupted

    with pytest.raises(Interrupted):
        list(runner._by_workers(jobs, lambda: nullcontext(Shuffled())))
    assert [row["draw"] for row in rows.read_all(tmp_path / "r")] == [0, 1, 3]
    lost = engines.Done(None, (engines.WorkersLost, "a worker died", ""))
    dead = type("Dead", (), {"each": lambda self, task, items: iter([(0, lost)])})
    list(runner._by_workers(jobs[:1], lambda: nullcontext(dead())))
    last = rows.read_all(tmp_path / "r")[-1]
    assert (last["status"], last["error"]) == ("failed", "a worker died")


class Interrupted(BaseException):
    pass


@contextmanager
def made(monkeypatch: pytest.MonkeyPatch, most: int) -> Iterator[list[int]]:
    """The starts of the parts that are made meanwhile; a further one than `most` is an interruption."""
    starts, real = list[int](), score_parts.score_part

    def scoring(part: score_parts.TablePart) -> int:
        if len(starts) == most:
            raise Interrupted
        starts.append(part.start)
        return real(part)

    with monkeypatch.context() as patch:
        patch.setattr(score_parts, "score_part", scoring)
        yield starts


def test_an_interrupted_folder_is_resumed(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with made(monkeypatch, 4) as first, pytest.raises(Interrupted):
        scored(home, "rows", tmp_path / "scores")
    assert not (tmp_path / "scores").exists()
    (torn,) = tmp_path.glob(".writing-scores-*.parts/part-00001.parquet")
    torn.write_bytes(torn.read_bytes()[:-20])
    with made(monkeypatch, 99) as then:
        found = scored(home, "rows", tmp_path / "scores")
    assert first == [0, 300, 600, 900]
    assert then == [300, *range(1200, ROWS, 300)]
    check_same(home, "rows", found, tmp_path / "scores")


@pytest.mark.parametrize(("out", "another"), [("scores", "scores-2026"), ("scores[1]", "scores1"), ("[", "[-[")])
def test_parts_of_a_result_of_another_name_stay(tmp_path: Path, out: str, another: str) -> None:
    def parts(name: str, of: str) -> Parts:
        return Parts(tmp_path / name, digest_of(of), ".parquet")

    with suppress(Interrupted), parts(another, "this").held():
        parts(another, "this").path(0).touch()
        raise Interrupted
    with suppress(Interrupted), parts(out, "this").held():
        parts(out, "this").path(0).touch()
        raise Interrupted
    with parts(out, "that").held():
        assert parts(another, "this").path(0).exists()
        assert not parts(out, "this").folder.exists()


def test_parts_of_other_data_or_options_are_not_resumed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "rows.parquet"
    pd.read_parquet(home / "rows").to_parquet(data)
    asked = {"out": tmp_path / "scores", "batch_size": 100}
    with made(monkeypatch, 4), pytest.raises(Interrupted):
        commands.score(home / "run-rows", str(data), **asked)
    with made(monkeypatch, 2) as again, pytest.raises(Interrupted):
        commands.score(home / "run-rows", str(data), threshold=1.0, **asked)
    assert again == [0, 300]
    pd.read_parquet(home / "rows").assign(a=0.5).to_parquet(data)
    with made(monkeypatch, 99) as changed:
        commands.score(home / "run-rows", str(data), threshold=1.0, **asked)
    assert len(changed) == 15
    assert not list(tmp_path.glob(".writing*"))


def test_data_that_changes_meanwhile_is_told(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "rows.parquet"
    pd.read_parquet(home / "rows").to_parquet(data)
    real = score_parts.score_part
    monkeypatch.setattr(score_parts, "score_part", lambda part: (real(part), os.utime(data, (1, 1)))[0])
    with pytest.raises(InputError, match="was changed while it was scored"):
        commands.score(home / "run-rows", str(data), out=tmp_path / "scores")
    assert not (tmp_path / "scores").exists()


def test_a_large_set_is_fitted_and_scored_in_pieces(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same run and scores as in memory, of pieces of one row group; every pass decodes each row once."""
    asked = {"detector": "gaussian", "scores": "own", "no_report": True, "no_clusters": True}
    asked["reading"] = commands.SourceOptions(columns=",".join(COLUMNS))
    whole = tailwise.fit(str(home / "rows"), out=tmp_path / "whole", **asked)
    monkeypatch.setattr(table, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(readers, "_AT_ONCE", 0)
    monkeypatch.setattr(parquet_files, "_PIECE_ENTRIES", 100 * 5)
    decoded, real = list[int](), parquet_files.ParquetFiles.pieces

    def counted(self: parquet_files.ParquetFiles, *rest: object) -> Iterator[parquet_files.Piece]:
        for piece in real(self, *rest):
            decoded.append(len(piece))
            yield piece

    monkeypatch.setattr(parquet_files.ParquetFiles, "pieces", counted)
    assert not Table(str(home / "rows"), columns=tuple(COLUMNS)).load().train.in_memory
    streamed = tailwise.fit(str(home / "rows"), out=tmp_path / "streamed", **asked)
    assert max(decoded) <= 100
    assert sum(decoded) <= 40 * ROWS
    assert streamed.settings.threshold == pytest.approx(whole.settings.threshold, rel=1e-6)
    decoded.clear()
    found = streamed.score(str(home / "rows"))
    assert sum(decoded) == 3 * ROWS  # the first rows, here all, tell the centre; then all are checked, and scored
    np.testing.assert_allclose(found.score, whole.score(str(home / "rows")).score, rtol=1e-5)


def test_rows_are_read_in_any_order(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_files, "_PIECE_ENTRIES", 64 * 5)
    source = Table(str(home / "rows"), columns=("d", "a"))
    data, whole = source.load_on_demand().data, source.load_all().data
    assert not data.in_memory
    assert whole.in_memory
    assert data.names[:3] == ["0", "1", "2"]
    assert data.names[ROWS - 1] == whole.names[-1] == str(ROWS - 1)
    for index in (np.arange(ROWS)[::-1].copy(), RNG.permutation(ROWS)[:200], [7, 7, 3], np.arange(290, 310)):
        some = data.take(index)
        assert list(some.names) == [whole.names[i] for i in index]
        assert np.array_equal(some.read(np_range(len(index))), whole.take(index).samples)


def test_few_rows_from_anywhere_are_read_at_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Table(str(home / "rows"), columns=tuple(COLUMNS)).load_on_demand().data
    index = RNG.permutation(ROWS)[:500]
    some = data.take(index)
    assert some.in_memory
    monkeypatch.setattr(readers, "_AT_ONCE", 100)
    assert not data.take(index).in_memory
    assert np.array_equal(some.samples, data.take(index).read(np_range(500)))


def np_range(count: int):  # type: ignore[no-untyped-def]
    import torch

    return torch.arange(count)


def test_the_index_of_a_single_file_names_its_rows(tmp_path: Path) -> None:
    frame = pd.DataFrame(RNG.normal(size=(9, 2)), columns=["a", "b"], index=[f"part {i}" for i in range(9)])
    frame.to_parquet(tmp_path / "named.parquet")
    source = Table(str(tmp_path / "named.parquet"))
    assert list(source.load_on_demand().data.names) == list(source.load_all().data.names) == list(frame.index)
    assert source.load_on_demand().data.features == ("a", "b")


def test_numbers_of_every_type_are_read_as_one_file_is(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "small": np.arange(8, dtype=np.int8),
            "large": np.arange(8, dtype=np.uint64) + 2**63,
            "half": np.linspace(0, 1, 8).astype(np.float16),
            "true": np.arange(8) % 3 == 0,
            "label": list("ggggbbbb"),
            "board": list("uuvvuuvv"),
        }
    )
    frame.to_parquet(tmp_path / "one.parquet")
    columns = ("true", "half", "large", "small")
    source = Table(str(tmp_path / "one.parquet"), labels="label", normal=("g",), groups="board", columns=columns)
    one, stored = source.load_all(), source.load_on_demand()
    assert np.array_equal(stored.data.read(np_range(8)), one.data.about(None).samples)
    assert stored.labels.tolist() == one.labels.tolist() == [False] * 4 + [True] * 4
    assert stored.groups.tolist() == one.groups.tolist()
    assert source.at(str(tmp_path / "one.parquet")) == source


def test_a_centre_is_taken_off_what_stays_on_disk(tmp_path: Path) -> None:
    values = 1e7 + RNG.normal(size=(50, 2))
    pd.DataFrame(values, columns=["a", "b"]).to_parquet(tmp_path / "far.parquet")
    data = Table(str(tmp_path / "far.parquet")).load_on_demand().data
    whole = Table(str(tmp_path / "far.parquet")).load().train
    assert np.array_equal(data.centre, whole.centre)
    assert np.array_equal(data.read(np_range(50)), whole.samples)
    other = data.about(None)
    assert not other.in_memory
    assert np.array_equal(other.read(np_range(50)), whole.about(None).samples)


def written(folder: Path, **frames: pd.DataFrame) -> str:
    folder.mkdir()
    for name, frame in frames.items():
        frame.to_parquet(folder / f"{name}.parquet")
    return str(folder)


def test_folders_that_are_no_table_are_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [1.0, 3.0]})
    for data, said in (
        (written(tmp_path / "1", x=frame, y=frame[["a"]]), r"y.parquet: it lacks column 'b', unlike .*x.parquet"),
        (written(tmp_path / "2", x=frame, y=frame.assign(c=1)), r"y.parquet: it has column 'c'"),
        (written(tmp_path / "3", x=frame, y=frame.assign(a="t")), r"y.parquet: column 'a' holds .*string, not double"),
        (written(tmp_path / "4", x=frame, y=frame[:0]), r"y.parquet has no rows"),
        (written(tmp_path / "5", x=frame[["a"]].assign(a="t")), "no numeric columns"),
    ):
        with pytest.raises(InputError, match=said):
            tailwise.open_source(data).load()
    (tmp_path / "1" / "y.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"y\.parquet is empty"):
        tailwise.open_source(str(tmp_path / "1")).load()
    (tmp_path / "1" / "y.parquet").write_bytes((tmp_path / "1" / "x.parquet").read_bytes()[:-30])
    with pytest.raises(InputError, match=r"cannot read .*y\.parquet"):
        tailwise.open_source(str(tmp_path / "1")).load()


def test_files_of_a_folder_are_in_natural_order(tmp_path: Path) -> None:
    frames = {f"part-{number}": pd.DataFrame({"a": [float(number)] * 3}) for number in (10, 2, 1)}
    data = written(tmp_path / "set", **frames)
    (tmp_path / "set" / "_SUCCESS").touch()
    (tmp_path / "set" / "README.md").touch()
    source = tailwise.open_source(data)
    assert source == Table(data)
    assert source.load_all().data.samples[:, 0].tolist() == [1, 1, 1, 2, 2, 2, 10, 10, 10]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"false_discoveries": 0.1}, "--false-discoveries is not for scores in parts"),
        ({"maps": Path("maps")}, "--maps is not for scores in parts"),
        ({"batch_size": 0}, "batch_size must be above 0"),
        ({"threshold": float("nan")}, "threshold must be a number"),
        ({"work": engines.Options("spark")}, "there is no engine 'spark'"),
        ({"work": engines.Options("dask", 0)}, "workers must be from 1 to"),
        ({"work": engines.Options(scheduler="tcp://nowhere:1")}, "a scheduler is that of dask or ray"),
        ({"work": engines.Options("dask", scheduler="127.0.0.1:1")}, "nobody answers at 127.0.0.1:1"),
        ({"work": engines.Options("ray", scheduler="here")}, "a scheduler's address is HOST:PORT"),
        ({"out": Path("{home}/rows/scores")}, "lies in the data"),
        ({"out": Path("{home}/nowhere/scores")}, "there is no folder"),
        ({"out": Path("{home}/rows")}, "is there already, and is not written over"),
    ],
)
def test_what_cannot_be_done_is_refused(home: Path, tmp_path: Path, change: dict, said: str) -> None:
    asked = {"out": tmp_path / "scores"} | change
    asked["out"] = Path(str(asked["out"]).format(home=home))
    with pytest.raises(InputError, match=said):
        commands.score(home / "run-rows", str(home / "rows"), **asked)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", [None, "scores.csv"])
def test_workers_write_no_single_table(home: Path, tmp_path: Path, out: str | None) -> None:
    if not is_installed("ray"):
        pytest.skip("ray is not installed")
    place = None if out is None else tmp_path / out
    with pytest.raises(InputError, match="ray writes scores in parts"):
        commands.score(home / "run-rows", str(home / "rows"), out=place, work=engines.Options("ray"))


def test_a_table_of_text_has_no_parts(home: Path, tmp_path: Path) -> None:
    pd.read_parquet(home / "train.parquet").to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(InputError, match=r"rows.csv cannot be read in parts"):
        commands.score(home / "run-rows", str(tmp_path / "rows.csv"), out=tmp_path / "scores")


@pytest.mark.parametrize("source", ["Digits", "LongTail(source=Digits())"])
def test_what_lies_at_no_path_has_no_parts(home: Path, tmp_path: Path, source: str) -> None:
    with pytest.raises(InputError, match=r"\w+ cannot be read in parts"):
        commands.score(home / "run-rows", source, out=tmp_path / "scores")


@pytest.mark.parametrize("name", WORKERS)
def test_an_engine_that_is_not_installed_names_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with (
        pytest.raises(InputError, match=r"needs .*pip install 'tailwise\[engines\]'"),
        engines.started(engines.Options(name)),
    ):
        pass


def test_workers_import_what_the_user_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILWISE_IMPORT", "math, no_such_module_of_mine")
    with engines.started() as engine:
        ((_, done),) = engine.each(abs, [-1])
    with pytest.raises(InputError, match="TAILWISE_IMPORT names 'no_such_module_of_mine'"):
        done.result()


def test_what_many_parts_say_is_said_once(home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frame = pd.read_parquet(home / "train.parquet")
    frame.assign(g=["u", "v"] * 200).to_parquet(tmp_path / "groups.parquet")
    run = tailwise.fit(
        str(tmp_path / "groups.parquet"), out=tmp_path / "run", detector="gaussian", per_group=True, no_report=True,
        reading=commands.SourceOptions(groups="g"),
    )  # fmt: skip
    caplog.clear()
    with caplog.at_level("WARNING", logger="tailwise"):
        commands.score(run.path, str(home / "rows"), out=tmp_path / "scores", batch_size=100)
    assert [record.getMessage() for record in caplog.records] == [
        "the run has a threshold for each group, but this data names no groups: one threshold is used for all"
    ]
