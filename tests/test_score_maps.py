"""Score maps: their size, their threshold, what is drawn and what is written."""

import base64
import io
import json
import math

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from scipy import ndimage

from tailwise.calibration import score_maps
from tailwise.calibration.score_maps import Scale
from tailwise.cli.commands import fit, report, score
from tailwise.core.data import Data
from tailwise.core.detector import Mapping2d
from tailwise.core.problem import Labelled
from tailwise.detectors.deep_svdd import DeepSVDD
from tailwise.detectors.gaussian import Gaussian
from tailwise.errors import InputError
from tailwise.report import gallery, heat_maps
from tailwise.report import pictures as report_pictures
from tailwise.report.heat_maps import colours, truth
from tailwise.sources.options import SourceOptions
from tailwise.training import fit as training_fit
from tailwise.training import local_scores

SIDE = 16
SCALE = Scale(usual=1.0, threshold=4.0)


def pictures(count, seed=0, defect=None):
    """Noise about a ramp; with a bright square at `defect`, a slice of rows and one of columns."""
    generator = np.random.default_rng(seed)
    samples = np.linspace(60, 140, SIDE)[:, None] + generator.normal(0, 4, (count, SIDE, SIDE))
    if defect:
        samples[(slice(None), *defect)] = 250
    return samples.clip(0, 255).astype(np.uint8)


DEFECT = (slice(3, 7), slice(9, 14))


def read(path):
    with Image.open(path) as image:
        return np.array(image)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "té st"
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[DEFECT] = 255
    for part, samples in (
        ("train/good", pictures(60)),
        ("test/good", pictures(6, 1)),
        ("test/dent é", pictures(4, 2, DEFECT)),
    ):
        (root / part).mkdir(parents=True)
        for number, picture in enumerate(samples):
            Image.fromarray(picture).resize((2 * SIDE, SIDE), Image.Resampling.NEAREST).save(
                root / part / f"{number}.png"
            )
    (root / "ground_truth/dent é").mkdir(parents=True)
    for number in range(4):
        Image.fromarray(mask).resize((2 * SIDE, SIDE), 0).save(root / f"ground_truth/dent é/{number}_mask.png")
    return root


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return fit(str(folder), detector="gaussian", reading=SourceOptions(read="pixels", size=SIDE), out=out)


@pytest.fixture(scope="module")
def fitted():
    samples = torch.from_numpy(pictures(200)).float()[:, None] / 255
    data = Data(samples, [str(i) for i in range(len(samples))])
    detector = Gaussian()
    training_fit.fit(detector, data)
    return detector.eval(), data


def test_local_scores_have_the_map_of_what_it_wraps(fitted):
    detector, data = fitted
    scored = local_scores.AUTO.fit(detector, data)
    assert isinstance(scored, Mapping2d)
    assert scored.has_maps
    batch = next(data.batches(3))
    assert torch.equal(scored.score_map(batch), detector.score_map(batch))
    without = DeepSVDD()
    without.start((1, SIDE, SIDE))
    wrapped = local_scores.LocallyScored(local_scores.AUTO, without)
    assert not wrapped.has_maps
    with pytest.raises(InputError, match="DeepSVDD has no score maps"):
        wrapped.score_map(batch)
    with pytest.raises(InputError, match="no score maps of samples"):
        next(score_maps.of_data(wrapped, data))


def test_maps_do_not_depend_on_the_batch_and_keep_the_order(fitted, monkeypatch):
    detector, data = fitted
    some = data.take([5, 3, 8])
    together = list(score_maps.of_data(detector, some))
    monkeypatch.setattr(score_maps, "_MOST_AT_ONCE", 1)
    np.testing.assert_array_equal(together, list(score_maps.of_data(detector, some)))
    np.testing.assert_array_equal(together[1], next(score_maps.of_data(detector, data.take([3]))))


def test_smoothing_is_a_gaussian_of_a_share_of_the_side():
    impulse = torch.zeros(1, 448, 224)
    impulse[0, 200, 100] = 1
    width = 448 * 0.01
    found = score_maps.smoothed(impulse, 0.01)[0].numpy()
    rows, columns = np.mgrid[:448, :224]
    expected = np.exp(-((rows - 200) ** 2 + (columns - 100) ** 2) / (2 * width**2)) / (2 * math.pi * width**2)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert torch.equal(score_maps.smoothed(impulse, 0), impulse)


def test_a_coarse_map_is_enlarged_within_its_range():
    coarse = torch.rand(2, 7, 5, generator=torch.Generator().manual_seed(0))
    for smoothing in (0, 0.02):
        fine = score_maps.smoothed(coarse, smoothing)
        assert fine.shape == (2, 224, 160)
        assert float(fine.max()) <= float(coarse.max()) + 1e-6
        assert float(fine.min()) >= float(coarse.min()) - 1e-6
        # Places stay: the largest pixel lies in the largest cell.
        row, column = np.unravel_index(int(fine[0].argmax()), (224, 160))
        assert (row // 32, column // 32) == np.unravel_index(int(coarse[0].argmax()), (7, 5))


def test_the_threshold_keeps_its_promise_for_whole_images(fitted):
    """At most 10 % of new normals have any pixel above it: 20 of 200 in expectation, 34 at three deviations."""
    detector, _ = fitted
    normals = torch.from_numpy(pictures(99, 5)).float()[:, None] / 255
    scale = score_maps.learn_scale(detector, Data(normals, [""] * 99), 0.1)
    new = torch.from_numpy(pictures(200, 6)).float()[:, None] / 255
    flagged = [bool((scores > scale.threshold).any()) for scores in score_maps.of_data(detector, Data(new, [""] * 200))]
    assert 4 <= sum(flagged) <= 34
    on_itself = [
        bool((scores > scale.threshold).any()) for scores in score_maps.of_data(detector, Data(normals, [""] * 99))
    ]
    assert sum(on_itself) == 9  # the tenth of 100 in order is the threshold itself
    assert scale.usual < scale.threshold < scale.full


def test_known_pixels_leave_out_anomalies_without_a_mask(fitted):
    detector, _ = fitted
    samples = torch.from_numpy(np.concatenate([pictures(2, 7), pictures(2, 8, DEFECT)])).float()[:, None] / 255
    mask = np.zeros((SIDE * 3, SIDE * 3), dtype=bool)
    mask[9:21, 27:42] = True
    labels = np.array([False, False, True, True])
    test = Labelled(Data(samples, list("abcd")), labels, masks=[None, None, mask, None])
    pixels, clean = score_maps.gather_known(detector, test)
    side = 224
    assert len(clean) == 2
    assert len(pixels.normal) + len(pixels.defect) == 3 * side**2
    assert len(pixels.defect) == 20 * 14**2
    assert np.median(pixels.defect) > pixels.normal[-1] / 2
    assert score_maps.gather_known(detector, Labelled(test.data, labels, masks=[None] * 4)) is None
    assert score_maps.gather_known(detector, Labelled(test.data, labels)) is None


@pytest.mark.parametrize("size", [(2, 3), (5, 7), (12, 8)])
def test_a_mask_is_resized_by_the_nearest_pixel(size):
    mask = np.random.default_rng(0).random((6, 4)) < 0.5
    whole = np.kron(mask, np.ones((size[0], size[1]), dtype=bool))  # each new pixel's middle lies in one old pixel
    middles = whole[3::6, 2::4] if size[0] % 2 == 0 else None
    found = score_maps.nearest(mask, size)
    assert found.shape == size
    if middles is not None:
        np.testing.assert_array_equal(found, middles)
    np.testing.assert_array_equal(score_maps.nearest(mask, (12, 8)), np.kron(mask, np.ones((2, 2), dtype=bool)))


@pytest.mark.parametrize("smoothing", [-0.1, 0.3, float("nan")])
def test_an_unusable_smoothing_is_refused(smoothing):
    with pytest.raises(InputError, match=r"smoothing must be from 0 to 0\.25"):
        score_maps.check_smoothing(smoothing)


def test_colours_are_none_for_normals_and_warm_above_the_threshold():
    usual, just_below, just_above, full, beyond = colours(np.array([1.0, 3.99, 4.01, SCALE.full, 1e9]), SCALE)
    assert usual[3] == 0
    assert just_below[2] > just_below[0]  # blue
    assert just_above[0] > just_above[2]  # yellow
    assert just_above[3] > just_below[3]
    np.testing.assert_array_equal(full, beyond)


def test_an_overlay_leaves_normals_grey_and_lines_what_is_flagged():
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    calm = heat_maps.overlay(picture, np.full((40, 60), 1.0), SCALE)
    assert (calm[..., 0] == calm[..., 1]).all()
    np.testing.assert_allclose(calm[..., 0], np.asarray(Image.fromarray(picture).convert("L")), atol=1)
    scores = np.full((40, 60), 1.0)
    scores[10:20, 30:45] = 9
    drawn = heat_maps.overlay(picture, scores, SCALE)
    changed = (drawn != calm).any(-1)
    # One pixel around the flagged ones is the line.
    assert changed[9:21, 29:46].all()
    assert changed.sum() == 12 * 17
    assert truth(picture, None) is picture
    np.testing.assert_array_equal(truth(picture, scores > 4)[scores > 4], picture[scores > 4])


def test_pictures_keep_their_shape_and_are_smaller_where_there_are_many():
    uri = report_pictures.of_named(None, Data(torch.rand(1, 3, 800, 400), ["a"]), ["a"])[0]["a"]
    assert Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size == (180, 360)
    assert report_pictures.small(np.zeros((300, 150, 3), dtype=np.uint8)).shape == (280, 140, 3)
    assert 360 > report_pictures.side_for(50) > report_pictures.side_for(200) > report_pictures.side_for(10_000) == 96


def test_a_run_has_a_threshold_for_pixels_and_its_report_the_figures(run):
    assert run.settings.map_threshold > run.settings.map_usual > 0
    found = run.report()
    assert set(found["pixels"]["metrics"]) >= {"Pixel AUROC", "Pixel AUPR"}
    assert found["pixels"]["metrics"]["Pixel AUROC"] > 0.95
    assert found["pixels"]["regions"] == found["pixels"]["regions"] | {"count": 4, "of": 4}
    assert found["pixels"]["clean"]["of"] == 6
    titles = [section["title"] for section in found["gallery"]["sections"]]
    assert titles[-1] == "Typical catches"
    assert {sample["sample"].split("/")[1] for sample in found["gallery"]["sections"][-1]["samples"]} == {"dent é"}
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "Where is the defect?" in page
    assert page.count("and its score map: score") >= 12
    assert "Pixel AUROC" in report(run.path, out=run.path.parent / "report.md").read_text(encoding="utf-8")


def test_maps_are_written_beside_nothing_of_the_users(run, folder, tmp_path):
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    out = tmp_path / "m äps"
    table = score(run.path, str(folder / "test"), maps=out)
    assert {path: path.read_bytes() for path in folder.rglob("*.png")} == before
    assert len(list(out.rglob("*"))) == 3 * len(table) + 2  # and two folders
    limit = run.settings.map_threshold
    for sample in table["sample"]:
        scores = tifffile.imread(out / f"{sample}.map.tiff")
        mask = read(out / f"{sample}.mask.png")
        assert scores.dtype == np.float32
        assert scores.shape == mask.shape == (SIDE, 2 * SIDE)
        np.testing.assert_array_equal(mask == 255, scores > limit)
        if "dent" in sample:
            inner = np.zeros((SIDE, 2 * SIDE), dtype=bool)
            inner[4:6, 20:26] = True
            assert mask[inner].all()
            assert not mask[~ndimage.binary_dilation(inner, iterations=6)].any()
        with Image.open(out / f"{sample}.overlay.png") as overlay:
            assert overlay.width > 2 * SIDE  # the bar of colours
    for threshold, share in ((1e9, 0), (-1.0, 1)):
        again = score(run.path, str(folder / "test"), maps=out, map_threshold=threshold)
        assert again.equals(table)
        assert (tifffile.imread(out / "dent é/0.png.map.tiff") > threshold).mean() == share
        assert read(out / "dent é/0.png.mask.png").mean() == 255 * share
    with pytest.raises(InputError, match="map_threshold must be finite"):
        score(run.path, str(folder / "test"), maps=out, map_threshold=math.inf)


@pytest.mark.parametrize(("out", "said"), [("missing/s.csv", "there is no folder"), ("s.txt", "is written as .csv")])
def test_no_map_is_made_for_a_table_that_cannot_be_written(run, folder, tmp_path, out, said):
    with pytest.raises(InputError, match=said):
        score(run.path, str(folder / "test"), maps=tmp_path / "maps", out=tmp_path / out)
    assert not list(tmp_path.iterdir())


def test_maps_among_the_data_are_refused(run, folder, tmp_path):
    for place in (folder, folder / "test/maps"):
        with pytest.raises(InputError, match="lies in the data"):
            score(run.path, str(folder), maps=place)
    with pytest.raises(InputError, match="lies in the data"):
        score(run.path, str(folder / "test/good/0.png"), maps=folder / "test/good")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        score(run.path, str(folder), maps=tmp_path / "file")
    assert not list(folder.rglob("*.tiff"))


def test_runs_without_maps_say_so(folder, tmp_path):
    plain = fit(
        str(folder),
        detector="nearest-neighbours",
        reading=SourceOptions(read="pixels", size=SIDE),
        out=tmp_path / "run",
    )
    assert plain.settings.map_threshold is None
    assert plain.report()["gallery"] is None
    with pytest.raises(
        InputError, match=r"no score maps of its samples: NearestNeighbours\(\).*--detector patch-ensemble"
    ):
        score(plain.path, str(folder), maps=tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


def test_a_folder_of_normals_alone_has_maps_of_the_highest_scored(folder, tmp_path):
    found = fit(
        str(folder / "train/good"),
        detector="gaussian",
        reading=SourceOptions(read="pixels", size=SIDE),
        out=tmp_path / "run",
    )
    drawn = found.report()["gallery"]
    assert drawn["sections"] == []
    assert len(drawn["training"]) == 12
    assert json.dumps(drawn["training"]).count("data:image/jpeg") == 12
    page = (found.path / "report.html").read_text(encoding="utf-8")
    assert page.count("and its score map: score") == 12


def test_what_is_chosen_for_the_gallery():
    import pandas as pd

    table = pd.DataFrame(
        {
            "sample": [f"test/{kind}/{i}" for i, kind in enumerate(["good"] * 4 + ["cut"] * 3 + ["dent"] * 3)],
            "score": [1.0, 6.0, 9.0, np.nan, 2.0, 6.5, 7.0, 3.0, 8.0, 9.0],
            "label": [False] * 4 + [True] * 6,
            "group": ["a", "a", "b", "b"] + [""] * 6,
        }
    )
    found = {title: rows.index.tolist() for title, _, rows in gallery.chosen(table, 5.0)}
    assert found["Worst false alarms"] == [2, 1]
    assert found["Worst misses"] == [4, 7]
    assert {"cut", "dent"} == {table["sample"][i].split("/")[1] for i in found["Typical catches"]}
    assert set(found["Typical catches"]) <= {5, 6, 8, 9}
    assert found["Every kind of normal"] == [2, 1]
    calm = {title: rows.index.tolist() for title, _, rows in gallery.chosen(table, 50.0)}
    assert calm["Nearest to a false alarm"] == [2, 1, 0]
    assert "Typical catches" not in calm
    unknown = gallery.chosen(table.assign(label=None), 5.0)
    assert [(title, rows.index[0]) for title, _, rows in unknown] == [("Highest-scored test samples", 2)]


def test_anomalies_without_masks_and_no_good_test_images_have_no_pixel_results(tmp_path):
    """good/ beside bad/, as most people have it: the fit is whole, and says nothing of pixels."""
    generator = np.random.default_rng(0)
    for kind, count in (("good", 24), ("bad", 5)):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for number in range(count):
            picture = generator.normal(120, 20, (16, 16)) + (80 if kind == "bad" else 0)
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(tmp_path / "photos" / kind / f"{number}.png")
    run = fit(
        str(tmp_path / "photos"), detector="gaussian", out=tmp_path / "run",
        reading=SourceOptions(read="pixels", size=16, channels=1),
    )  # fmt: skip
    found = run.report()
    assert found["test"]["anomalies"] == 5
    assert not found.get("pixels")
