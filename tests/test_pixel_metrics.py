"""Pixel figures against scikit-learn's, and AUPRO against a loop over every threshold and against closed forms."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from tailwise.errors import InputError
from tailwise.numerics.pixel_metrics import aupro, best_f1, gather, pixel_aupr, pixel_auroc, regions_found

LIMITS = [0.05, 0.3, 1.0]


def pictures(seed, levels, count=4, side=9):
    """Maps with ties (`levels` distinct scores) and masks of a few regions; the last has none."""
    generator = np.random.default_rng(seed)
    maps = generator.integers(0, levels, (count, side, side)).astype(np.float32)
    masks = generator.random((count, side, side)) < 0.15
    masks[-1] = False
    maps[masks] += generator.integers(0, 3)
    return maps, masks


def slow_aupro(maps, masks, limit):
    """Every threshold in turn, every region in turn, straight lines between the points, cut at the limit."""
    labelled = [ndimage.label(mask, np.ones((3, 3))) for mask in masks]
    xs, ys = [0.0], [0.0]
    for threshold in sorted(set(maps.ravel()), reverse=True):
        xs.append((maps[~masks] >= threshold).mean())
        shares = [
            (scores[numbers == k] >= threshold).mean()
            for scores, (numbers, count) in zip(maps, labelled, strict=True)
            for k in range(1, count + 1)
        ]
        ys.append(np.mean(shares))
    area = 0.0
    for x0, x1, y0, y1 in zip(xs[:-1], xs[1:], ys[:-1], ys[1:], strict=True):
        if x0 < limit and x1 > x0:
            end = min(x1, limit)
            area += (end - x0) * (y0 + (y0 + (y1 - y0) * (end - x0) / (x1 - x0))) / 2
    return area / limit


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 5, 1_000]))
def test_figures_are_those_of_other_roads(seed, levels):
    maps, masks = pictures(seed, levels)
    assume(masks.any())
    pixels = gather(zip(maps, masks, strict=True))
    assert pixel_auroc(pixels) == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()))
    assert pixel_aupr(pixels) == pytest.approx(average_precision_score(masks.ravel(), maps.ravel()))
    precision, recall, _ = precision_recall_curve(masks.ravel(), maps.ravel())
    value, threshold = best_f1(pixels)
    assert value == pytest.approx(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)))
    flagged = maps >= threshold
    assert value == pytest.approx(2 * (flagged & masks).sum() / (flagged.sum() + masks.sum()))
    for limit in LIMITS:
        assert aupro(pixels, limit) == pytest.approx(slow_aupro(maps, masks, limit))


@pytest.mark.parametrize("limit", LIMITS)
def test_perfect_constant_and_inverted_maps(limit):
    mask = np.zeros((20, 20), dtype=bool)
    mask[2:5, 2:5] = mask[10, 10] = True
    perfect = gather([(mask.astype(float), mask)])
    assert (pixel_auroc(perfect), pixel_aupr(perfect), aupro(perfect, limit)) == (1, 1, 1)
    assert best_f1(perfect) == (1, 1)
    constant = gather([(np.full((20, 20), 3.0), mask)])
    assert pixel_auroc(constant) == 0.5
    assert pixel_aupr(constant) == pytest.approx(mask.mean())
    assert aupro(constant, limit) == pytest.approx(limit / 2)  # the diagonal
    inverted = gather([(1 - mask.astype(float), mask)])
    assert pixel_auroc(inverted) == 0
    # Nothing is found before every normal pixel is flagged.
    assert aupro(inverted, limit) == pytest.approx(0)


def test_chance_is_half_the_limit():
    generator = np.random.default_rng(0)
    mask = np.zeros((200, 200), dtype=bool)
    mask[::2, ::2] = generator.random((100, 100)) < 0.5  # thousands of regions of one pixel
    pixels = gather([(generator.random((200, 200)), mask)])
    assert pixel_auroc(pixels) == pytest.approx(0.5, abs=0.01)
    assert aupro(pixels, 0.3) == pytest.approx(0.15, abs=0.01)


def test_a_small_region_counts_as_much_as_a_large_one():
    mask = np.zeros((10, 30), dtype=bool)
    mask[1:9, 1:9] = mask[5, 20] = True
    scores = np.zeros((10, 30))
    scores[1:9, 1:9] = 2  # the large one is found at once, the small one with everything else
    pixels = gather([(scores, mask)])
    # Half of the regions at once, the other half along the diagonal up to a share of 1.
    assert aupro(pixels, 0.3) == pytest.approx(0.5 + 0.5 * 0.15)
    assert pixel_auroc(pixels) == pytest.approx((64 * 1 + 1 * 0.5) / 65)
    assert regions_found(pixels, 1.0).tolist() == [True, False]


def test_pixels_that_touch_at_a_corner_are_one_region():
    assert gather([(np.zeros((2, 3)), np.array([[1, 0, 0], [0, 1, 0]]))]).region.tolist() == [0, 0]
    assert gather([(np.zeros((1, 3)), np.array([[1, 0, 1]]))] * 2).region.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([], "no maps were given"),
        ([(np.zeros((2, 2)), None)], "both normal and defect pixels are needed: got 4 and 0"),
        ([(np.zeros((2, 2)), np.ones((2, 2)))], "got 0 and 4"),
        ([(np.zeros((2, 2)), np.ones((3, 2)))], r"got \[3, 2\] for a map \[2, 2\]"),
        ([(np.array([[np.nan, 0]]), np.array([[0, 1]]))], "1 of 2 pixels are not"),
    ],
)
def test_bad_input_is_named(pairs, said):
    with pytest.raises(InputError, match=said):
        gather(pairs)


def test_a_limit_outside_0_to_1_is_refused():
    pixels = gather([(np.zeros((1, 2)), np.array([[0, 1]]))])
    for limit in (0, 1.5):
        with pytest.raises(InputError, match="limit must lie above 0"):
            aupro(pixels, limit)
