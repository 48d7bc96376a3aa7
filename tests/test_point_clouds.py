"""Point clouds: every format gives the same points, layouts mean what they say, and commands work end to end."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from plyfile import PlyData

from tailwise.calibration import score_maps
from tailwise.cli.main import run as cli
from tailwise.core import inference
from tailwise.core.modality import POINT_CLOUD
from tailwise.core.registry import parse_one
from tailwise.errors import InputError
from tailwise.numerics import surfaces
from tailwise.numerics.pixel_metrics import pixel_auroc
from tailwise.sources import cloud_files
from tailwise.sources.auto import open_source
from tailwise.sources.point_clouds import PointClouds, in_order
from tailwise.training.fit import fit

POINTS = np.random.default_rng(0).normal(size=(50, 3)).round(4) + np.array([500_000.25, 4_000_000.5, 100])


def ball(seed: int, dent: float = 0.0, points: int = 700) -> tuple[np.ndarray, np.ndarray]:
    """A cloud like an egg, and which of its points a dent moves."""
    generator = np.random.default_rng(seed)
    u = generator.normal(size=(points, 3))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    near = u[:, 0] > 0.85
    depth = dent * np.where(near, (u[:, 0] - 0.85) / 0.15, 0)
    return u * [1, 0.8, 0.7] * (1 - depth)[:, None] + generator.normal(0, 0.003, u.shape), near & (dent > 0)


def write_pcd(path: Path, points: np.ndarray, sort: str) -> None:
    head = (
        "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z _ rgb\nSIZE 8 8 8 1 4\nTYPE F F F U F\nCOUNT 1 1 1 3 1\n"
        f"WIDTH {len(points)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(points)}\nDATA {sort}\n"
    )
    if sort == "ascii":
        rows = "\n".join(" ".join(map(repr, [*map(float, point), 1, 2, 3, 0.5])) for point in points)
        path.write_text(head + rows + "\n")
        return
    kind = np.dtype([("x", "<f8"), ("y", "<f8"), ("z", "<f8"), ("pad", "u1", 3), ("rgb", "<f4")])
    rows = np.zeros(len(points), kind)
    rows["x"], rows["y"], rows["z"] = points.T
    path.write_bytes(head.encode() + rows.tobytes())


def written(folder: Path, form: str) -> Path:
    """The points in a file of this form."""
    path = folder / f"cloud{form.rpartition(' ')[2]}"
    text = [" ".join(map(repr, map(float, point))) for point in POINTS]
    if form == ".ply":
        path.write_bytes(cloud_files.write_ply(POINTS))
    elif form in ("ascii .pcd", "binary .pcd"):
        write_pcd(path, POINTS, form.split()[0])
    elif form == ".xyz":
        path.write_text("\n".join(text))
    elif form == "labelled .txt":
        path.write_text("\n".join(f"{line} 1.0" for line in text))
    elif form == ".pts":
        path.write_text("\n".join(["50", *text]))
    elif form == "named .csv":
        path.write_text(
            "\n".join(["i,z,y,x", *(f"{i},{z!r},{y!r},{x!r}" for i, (x, y, z) in enumerate(POINTS.tolist()))])
        )
    elif form == ".npz":
        np.savez(path, points=POINTS, labels=np.zeros(50))
    elif form == ".npy":
        np.save(path, POINTS)
    else:
        import laspy

        header = laspy.LasHeader(point_format=0, version="1.2")
        header.offsets, header.scales = POINTS.min(0).round(), np.full(3, 1e-4)
        las = laspy.LasData(header)
        las.x, las.y, las.z = POINTS.T
        las.write(str(path))
    return path


FORMS = (
    ".ply", "ascii .pcd", "binary .pcd", ".xyz", "labelled .txt", ".pts", "named .csv", ".npz", ".npy", ".las", ".laz",
)  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_format_gives_the_points_in_double_precision(tmp_path: Path, form: str) -> None:
    found = cloud_files.read_columns(written(tmp_path, form))[:, :3]
    assert found.dtype == np.float64
    assert np.abs(found - POINTS).max() < 1e-7  # single precision would be .03 off


@pytest.mark.parametrize("suffix", cloud_files.MESHES)
def test_points_lie_on_the_surface_of_a_mesh(tmp_path: Path, suffix: str) -> None:
    import trimesh

    trimesh.creation.box((2, 2, 2)).export(tmp_path / f"box{suffix}")
    found = cloud_files.read_columns(tmp_path / f"box{suffix}")
    assert np.allclose(np.abs(found).max(1), 1, atol=1e-6)
    assert np.allclose(found.mean(0), 0, atol=0.05)
    assert (found == cloud_files.read_columns(tmp_path / f"box{suffix}")).all()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.pcd", b"FIELDS x y z\nPOINTS 3\nDATA binary_compressed\n", r"a\.pcd is packed"),
        ("a.pcd", b"VERSION 0.7\n" * 9, r"a\.pcd has no head"),
        ("a.pcd", b"FIELDS x y\nSIZE 4 4\nTYPE F F\nPOINTS 1\nDATA ascii\n1 2\n", "x, y and z were needed"),
        ("a.ply", b"nothing", r"cannot read .*a\.ply"),
        ("a.las", b"nothing", r"cannot read .*a\.las"),
        ("a.stl", b"nothing", r"a\.stl"),
        ("a.xyz", b"1 2\n3 4\n", "no row of three numbers"),
        ("a.npy", b"nothing", r"cannot read .*a\.npy"),
        ("a.step", b"nothing", "no point cloud that can be read"),
    ],
)
def test_broken_files_are_refused_by_name(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        cloud_files.read_columns(tmp_path / name)


def test_points_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("nan 1 2\n1 2 3\n")
    with pytest.raises(InputError, match=r"a\.xyz holds 1 points: at least 3 are needed"):
        PointClouds(str(tmp_path)).load()


def test_a_ply_file_holds_points_and_scores(tmp_path: Path) -> None:
    scores = np.arange(50, dtype=np.float32)
    (tmp_path / "a.ply").write_bytes(cloud_files.write_ply(POINTS, scores))
    held = PlyData.read(str(tmp_path / "a.ply"))["vertex"]
    assert (np.asarray(held["score"]) == scores).all()
    assert (np.asarray(held["y"]) == POINTS[:, 1]).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real3D-AD's layout: the anomalous cloud is in gt/, and the file in test/ has another order of its points."""
    root = tmp_path_factory.mktemp("egg")
    for sub in ("train", "test", "gt"):
        (root / sub).mkdir()
    for number in range(8):
        write_pcd(root / f"train/{number}_template.pcd", ball(number)[0], "binary")
    for number in range(3):
        write_pcd(root / f"test/{number}_good.pcd", ball(50 + number)[0], "binary")
        points, dented = ball(80 + number, 0.3)
        write_pcd(root / f"test/{number}_dent.pcd", points[::-1], "binary")
        rows = np.concatenate([points, dented[:, None]], 1)
        np.savetxt(root / f"gt/{number}_dent.txt", rows)
    return root


def test_the_layout_of_real3d_ad_is_read_with_the_labels_of_points(folder: Path) -> None:
    source = open_source(folder, points=300)
    assert isinstance(source, PointClouds)
    problem = source.load()
    assert problem.train.modality is POINT_CLOUD
    assert problem.train.sample_shape == (33, 300, 1)
    assert torch.allclose(problem.train.read(torch.arange(8)).sum(1), torch.ones(()), atol=1e-4)
    assert problem.test is not None
    assert dict(zip(problem.test.data.names, np.asarray(problem.test.labels).tolist(), strict=True)) == {
        f"test/{number}_{kind}.pcd": kind == "dent" for number in range(3) for kind in ("dent", "good")
    }
    assert problem.test.masks is not None
    marked = source.cloud("test/1_dent.pcd")[np.asarray(problem.test.masks[2])[:, 0]]
    assert len(marked) > 5
    assert (marked[:, 0] > 0.4).all()  # the dented end


def test_capital_folders_of_anomaly_shapenet_mean_the_same(folder: Path, tmp_path: Path) -> None:
    for kind, to in (("train", "train"), ("test", "test"), ("gt", "GT")):
        (tmp_path / "egg1" / to).mkdir(parents=True)
        for path in (folder / kind).iterdir():
            name = path.name.replace("good", "positive")
            (tmp_path / "egg1" / to / name).write_bytes(path.read_bytes())
    problem = open_source(tmp_path / "egg1", points=100).load()
    assert problem.test is not None
    assert np.asarray(problem.test.labels).sum() == 3
    assert len(problem.test.data) == 6


def test_units_cancel_and_another_unit_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number, unit in enumerate((1, 1, 1, 1000)):
        (tmp_path / f"{number}.ply").write_bytes(cloud_files.write_ply(ball(0)[0] * unit))
    data = open_source(tmp_path, points=200).load_all().data
    assert "1 of 4 point clouds have another extent than most, such as 3.ply" in caplog.text
    values = data.read(torch.arange(4))
    assert torch.allclose(values[0], values[3], atol=1e-3)


def test_offsets_of_surveys_lose_nothing(tmp_path: Path) -> None:
    near, far = ball(0)[0], ball(0)[0] + [500_000, 4_000_000, 0]
    for name, points in (("a", near), ("b", far)):
        (tmp_path / f"{name}.ply").write_bytes(cloud_files.write_ply(points))
    values = open_source(tmp_path, points=200).load_all().data.read(torch.arange(2))
    assert torch.allclose(values[0], values[1], atol=2e-3)


def test_points_that_follow_each_other_are_near() -> None:
    points = ball(0)[0]
    steps = np.linalg.norm(np.diff(points[in_order(points)], axis=0), axis=1)
    assert np.median(steps) < 0.2 * np.median(np.linalg.norm(np.diff(points, axis=0), axis=1))


def test_a_dent_is_found_and_placed(folder: Path) -> None:
    problem = open_source(folder, points=300).load()
    assert problem.test is not None
    for name in ("patch-memory", "Patches(NearestNeighbours())", "Patches(Gaussian())"):
        detector = parse_one(name, "detector")
        fit(detector, problem.train)
        scores = inference.score(detector, problem.test.data)[torch.tensor([0, 2, 4, 1, 3, 5])]
        assert float(scores[:3].min()) > float(scores[3:].max()), name
        known = score_maps.gather_known(detector, problem.test)
        assert known is not None
        assert pixel_auroc(known[0]) > 0.8, name
        assert known[0].region.max() == 2  # a region a cloud


def test_commands_work_end_to_end(folder: Path, tmp_path: Path) -> None:
    out, maps = tmp_path / "run", tmp_path / "maps"
    assert cli(["fit", str(folder), "--out", str(out)]) == 0
    assert json.loads((out / "settings.json").read_text())["detector"] == "PatchMemory()"
    scored = ["score", str(out), str(folder / "test"), "--out", str(tmp_path / "scores.csv"), "--maps", str(maps)]
    assert cli(scored) == 0
    assert "0_dent.pcd" in (tmp_path / "scores.csv").read_text()
    held = PlyData.read(str(maps / "0_dent.pcd.map.ply"))["vertex"]
    highest = np.asarray(held["score"]).argsort()[-20:]
    assert np.asarray(held["x"])[highest].mean() > 0.4  # the dented end
    assert cli(["explain", str(out), str(folder / "test/0_dent.pcd"), "--out", str(tmp_path / "page.html")]) == 0
    assert " points" in (tmp_path / "page.html").read_text()


def test_the_picture_of_a_thin_noisy_sheet_is_evenly_lit_and_its_dent_is_not() -> None:
    """A sheet's normals point to either side; views of a long cloud stand above each other."""
    generator = np.random.default_rng(0)
    x, y = generator.random((2, 3_000)) * np.array([[2.0], [1.0]])
    flat = np.stack([x, y, generator.normal(0, 0.002, 3_000)], 1)
    dented = flat - np.array([0, 0, 0.15]) * np.exp(-((x - 1) ** 2 + (y - 0.5) ** 2) / 0.02)[:, None]
    spread = []
    for cloud in (flat, dented):
        surface = surfaces.of_cloud(cloud)
        height, width = surface.picture.shape[:2]
        assert 0.8 < height / width < 1.3
        spread.append(float(surface.picture[..., 0][surface.place >= 0].std()))
    assert spread[0] < 12
    assert spread[1] > 2 * spread[0]


def test_pointnet_reads_each_point_by_a_file_of_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as torch's own layers; without the file, or with another one, it says what is needed."""
    generator = torch.Generator().manual_seed(0)
    layers, before = [], 3
    for after in (64, 64, 64, 128):
        convolution, norm = torch.nn.Conv1d(before, after, 1), torch.nn.BatchNorm1d(after)
        norm.running_mean.normal_(generator=generator)
        norm.running_var.uniform_(0.5, 2, generator=generator)
        layers += [convolution, norm, torch.nn.ReLU()]
        before = after
    network = torch.nn.Sequential(*layers).eval()
    names = {0: "conv", 1: "bn"}
    state = {
        f"feature_model.{names[place % 3]}{place // 3 + 1}.{name}": value.detach().clone()
        for place, layer in enumerate(network)
        for name, value in layer.state_dict().items()
    }
    safetensors.torch.save_file(state, tmp_path / "net.safetensors")
    points = np.random.default_rng(0).normal(size=(40, 3)) * 5 + 2
    (tmp_path / "clouds").mkdir()
    np.savetxt(tmp_path / "clouds/a.xyz", points)
    source = PointClouds(str(tmp_path / "clouds"), points=40, use="pointnet")
    monkeypatch.delenv("TAILWISE_POINTNET", raising=False)
    with pytest.raises(InputError, match="PointNet needs a file of its weights"):
        source.load_all()
    monkeypatch.setenv("TAILWISE_POINTNET", str(tmp_path / "clouds/a.xyz"))
    with pytest.raises(InputError, match="cannot read"):
        source.load_all()
    monkeypatch.setenv("TAILWISE_POINTNET", str(tmp_path / "net.safetensors"))
    data = source.load_all().data
    chosen = source.cloud("a.xyz")
    centred = chosen - chosen.mean(0)
    turned = torch.from_numpy((centred / np.linalg.norm(centred, axis=1).max())[:, [0, 2, 1]] * [1, 1, -1]).float()
    with torch.no_grad():
        expected = network(turned.T[None])[0]
    assert data.features[-1] == "xyz:pointnet 127"
    assert torch.allclose(data.read(torch.zeros(1, dtype=torch.long))[0, :, :, 0], expected, atol=1e-4)
