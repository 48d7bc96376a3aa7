"""Results take their place whole: folders in one step, names that stay in their folder, temporaries that go."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tailwise.calibration.score_maps import Scale
from tailwise.core.data import Data
from tailwise.errors import InputError
from tailwise.report.pictures import Backdrop
from tailwise.runs import files, result_folder
from tailwise.runs.file_names import check_name, path_inside
from tailwise.runs.result_folder import made_whole
from tailwise.workflows import map_files

FORK = multiprocessing.get_context("fork") if sys.platform != "win32" else None
SCALE = Scale(0.0, 1.0)


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def fill(folder: Path, text: str, count: int = 3) -> None:
    for i in range(count):
        (folder / f"sub {i}").mkdir(exist_ok=True)
        files.write_new(folder / f"sub {i}" / "a.txt", text.encode())


def old(place: Path) -> dict[str, str]:
    """A folder with results of before and a file of the user's."""
    place.mkdir()
    fill(place, "old")
    (place / "notes.txt").write_text("mine")
    (place / "sub 0" / "more.txt").write_text("mine")
    return contents(place)


def test_a_new_folder_is_there_when_all_of_it_is(tmp_path: Path) -> None:
    place = tmp_path / "some" / "maps"
    with made_whole(place) as unfinished:
        fill(unfinished, "new")
        assert not place.exists()
    assert set(contents(place).values()) == {"new"}
    assert [path.name for path in place.parent.iterdir()] == ["maps"]


@pytest.mark.parametrize("way", ["one step", "two steps", "inside"])
def test_new_results_take_the_place_of_old_ones_and_other_files_stay(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "maps"
    before = old(place)
    (place / "sub 0" / "link").symlink_to(tmp_path)
    place.chmod(0o750)
    if way == "two steps":
        monkeypatch.setattr(result_folder, "_exchanged", lambda *_: False)
    if way == "inside":
        monkeypatch.chdir(place)
    with made_whole(Path() if way == "inside" else place) as unfinished:
        fill(unfinished, "new")
        assert contents(place).items() >= before.items()
    assert contents(place) == before | {f"sub {i}/a.txt": "new" for i in range(3)}
    assert (place / "sub 0" / "link").is_symlink()
    assert place.stat().st_mode & 0o777 == 0o750
    assert [path.name for path in tmp_path.iterdir()] == ["maps"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("no"), OSError(errno.ENOSPC, "full")])
@pytest.mark.parametrize("exists", [True, False])
def test_an_error_leaves_what_was_there(error: BaseException, exists: bool, tmp_path: Path) -> None:
    place = tmp_path / "home" / "maps"
    if exists:
        place.parent.mkdir()
        old(place)
    before = contents(tmp_path)

    def fails() -> None:
        with made_whole(place) as unfinished:
            fill(unfinished, "new", 2)
            raise error

    with pytest.raises(type(error)):
        fails()
    assert contents(tmp_path) == before
    assert place.parent.exists() == exists


def test_a_place_that_is_a_link_leads_to_the_folder(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "maps").symlink_to(tmp_path / "disk")
    with made_whole(tmp_path / "maps") as unfinished:
        fill(unfinished, "new")
    assert (tmp_path / "maps").is_symlink()
    assert set(contents(tmp_path / "disk").values()) == {"new"}


@pytest.mark.skipif(FORK is None, reason="needs fork")
def test_a_kill_at_any_step_leaves_the_old_folder_or_the_new(tmp_path: Path) -> None:
    """Every call that moves, links, makes or removes something is once the last one."""
    place = tmp_path / "maps"
    before = old(place)
    after = before | {f"sub {i}/a.txt": "new" for i in range(3)}

    def dies(last: int) -> None:
        calls = 0

        def step(_: str, __: object) -> None:
            nonlocal calls
            if _ in (
                "os.rename",
                "os.mkdir",
                "os.link",
                "os.remove",
                "os.rmdir",
                "open",
                "shutil.rmtree",
                "ctypes.dlopen",
            ):
                calls += 1
                if calls == last:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(step)
        with made_whole(place) as unfinished:
            fill(unfinished, "new")

    seen = set()
    for last in range(1, 200):
        child = FORK.Process(target=dies, args=(last,))
        child.start()
        child.join()
        found = contents(place)
        assert found in (before, after)
        seen.add(found == after)
        if child.exitcode == 0:
            break
        with made_whole(place) as unfinished:  # the next command takes the rest away
            fill(unfinished, "old")
        assert [path.name for path in tmp_path.iterdir()] == ["maps"]
    assert seen == {True, False}
    assert last > 20


@pytest.mark.skipif(FORK is None, reason="needs fork")
def test_two_writers_of_one_folder_at_once(tmp_path: Path) -> None:
    place = tmp_path / "maps"

    def again(text: str) -> None:
        for _ in range(15):
            with made_whole(place) as unfinished:
                fill(unfinished, text)

    writers = [FORK.Process(target=again, args=(text,)) for text in ("one", "two")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len(set(contents(place).values())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["maps"]


def test_another_writer_that_is_first_to_make_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "maps"

    theirs = {}

    def exists(path: Path) -> bool:
        monkeypatch.undo()
        theirs.update(old(path))  # by another process, just before the new folder takes its name
        return False

    with made_whole(place) as unfinished:
        fill(unfinished, "new")
        monkeypatch.setattr(Path, "exists", exists)
    assert contents(place) == theirs | {f"sub {i}/a.txt": "new" for i in range(3)}
    assert [path.name for path in tmp_path.iterdir()] == ["maps"]


@pytest.mark.skipif(FORK is None, reason="needs fork")
def test_what_a_living_writer_has_begun_stays_and_what_a_dead_one_left_goes(tmp_path: Path) -> None:
    def begins(name: str) -> None:
        # As in another container: the process of this number is dead here, but the lock is held.
        with open(tmp_path / name, "wb") as file:
            files.lock(file.fileno())
            time.sleep(60)

    dead = int(subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True).stdout)
    living, gone, folder = (f"{files.TEMPORARY}{dead}-{letter * 16}" for letter in "abc")
    child = FORK.Process(target=begins, args=(living,))
    child.start()
    while not (tmp_path / living).exists():
        time.sleep(0.01)
    time.sleep(0.1)
    (tmp_path / gone).symlink_to(tmp_path / "notes.txt")
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "a.txt").touch()
    strange = [
        f"{files.TEMPORARY}notes",
        f"{files.TEMPORARY}{dead}-short",
        f"{files.TEMPORARY}{os.getpid()}-{'d' * 16}",
    ]
    for name in (*strange, "notes.txt"):
        (tmp_path / name).write_text("mine")
    files.write(tmp_path / "out.csv", b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {living, *strange, "notes.txt", "out.csv"}
    child.kill()
    child.join()
    files.write(tmp_path / "out.csv", b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {*strange, "notes.txt", "out.csv"}


def write(folder: Path, *names: str) -> None:
    data = Data(torch.zeros(len(names), 3, 4, 4), list(names))
    maps = [np.zeros((4, 4), np.float32)] * len(names)
    map_files.write_maps(folder, data, maps, SCALE, lambda _place, _beside: Backdrop(np.zeros((4, 4, 3), np.uint8)))


@pytest.mark.parametrize(
    "name",
    ["../outside.png", "a/../../outside.png", "/tmp/outside.png", "..", ".", "", " ", "a//b.png", "a/ /b", "a/",
     "..\\..\\outside.png", "a\x00b", "a\x1b[2Jb.png", "a\nb", "a\u202egnp.b", "x" * 201, "a/./b.png"],
)  # fmt: skip
def test_a_sample_whose_name_cannot_be_a_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    with pytest.raises(InputError, match="cannot name a file"):
        write(tmp_path / "maps", "fine.png", name)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    "name", ["good/000.png", "12", "dent é/0.png", "名前.png", "a b.png", ".hidden.png", "con.png"]
)
def test_names_that_can(name: str, tmp_path: Path) -> None:
    write(tmp_path / "maps", name)
    assert sorted(
        p.relative_to(tmp_path / "maps").as_posix() for p in (tmp_path / "maps").rglob("*") if p.is_file()
    ) == [f"{name}{ending}" for ending in sorted(map_files.ENDINGS)]


def test_two_samples_that_would_have_one_map(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two results would have the name"):
        write(tmp_path / "maps", "a.png", "a.png")
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize("ending", [".mask.png", ".map.tiff", ".overlay.png"])
def test_a_users_file_of_a_maps_name_is_not_replaced(ending: str, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / f"000{ending}").write_text("mine")
    with pytest.raises(InputError, match=f"000{ending} is there already"):
        write(tmp_path / "masks", "000")
    assert contents(tmp_path) == {f"masks/000{ending}": "mine"}


def test_maps_of_other_samples_stay(tmp_path: Path) -> None:
    write(tmp_path / "maps", "january/1", "january/2")
    write(tmp_path / "maps", "february/1")
    write(tmp_path / "maps", "january/1")
    assert len([path for path in (tmp_path / "maps").rglob("*") if path.is_file()]) == 9


@pytest.mark.parametrize("name", [3, None, ["a"], b"a", True])
def test_a_name_that_is_no_text(name: object) -> None:
    with pytest.raises(InputError, match=r"a set cannot be called .* is no text"):
        check_name(name, "a set")


@pytest.mark.parametrize("name", ["COM1", "lpt9.csv", "aux.", "a:b", "a?", " a", "a ", "x" * 201])
def test_names_that_some_system_refuses(name: str) -> None:
    with pytest.raises(InputError, match="a set cannot be called"):
        check_name(name, "a set")
    if os.name != "nt" and len(name) < 200:
        assert str(path_inside(name)) == name


@pytest.mark.parametrize("behind_a_link", [False, True])
def test_no_result_takes_the_place_of_a_pipe_a_device_or_a_file(behind_a_link: bool, tmp_path: Path) -> None:
    """Who may replace /dev/null would lose it; a file where a folder was asked for is somebody's."""
    pipe, file = tmp_path / "pipe", tmp_path / "notes.txt"
    os.mkfifo(pipe)
    file.write_text("mine")
    named = {path: path for path in (pipe, file)}
    if behind_a_link:
        for path in named:
            named[path] = tmp_path / f"to-{path.name}"
            named[path].symlink_to(path)
    with pytest.raises(InputError, match="a device, a pipe or a socket"):
        files.write(named[pipe], b"result")
    for place in named.values():
        with pytest.raises(InputError, match="is no folder"), result_folder.made_whole(place) as folder:
            (folder / "a.png").write_bytes(b"")
    assert pipe.is_fifo()
    assert file.read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == (4 if behind_a_link else 2)
