"""Nearest neighbours and the embedding they are looked up in.

Distances are Euclidean. Sets of at most 100,000 are searched exactly, in blocks. Where there is space between parts of
such a set, a query is compared with the part that it lies in, and with the others only if the triangle inequality does
not rule them out. A larger set is parted into cells around centres by k-means, and a sample's neighbours are searched
in the cells that are nearest to it (an inverted file, as in Sivic & Zisserman 2003), which costs O(n^1.5): some are
missed, and the next nearest stand in for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TypeAlias, TypeVar

import numpy as np
import scipy
import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from . import export_ops

# Above this many samples the search within one set goes through cells: exact search is quadratic.
_EXACT_SAMPLES = 8_000
# Above this many a search in another set does. Below it they save at most .3 ms a sample of 32 numbers, and where
# samples have no kinds a third of the true neighbours is lost (benchmarks/neighbour_search.py).
EXACT_REFERENCE = 100_000
_BLOCK_ENTRIES, _DISTANCES, _SMALL_BLOCK = 4_000_000, 2_000_000, 1_000_000
# What fits into a processor's cache is neither written to memory nor read from it again.
_CACHED_BYTES = 1_600_000
# Distances are compared in groups of at most so many, in so many groups a neighbour or more: then hardly ever more than
# so many beside those that are asked for are as small.
_GROUP, _GROUPS_A_NEIGHBOUR, _ROOM = 16, 6, 8
# Of rows at least so long, and of at most so many, all products are formed at once: to gather the nearest ones of each
# query takes longer, a number about so many times as long as one of a product. Products of double precision tell
# distances to a hundred-millionth of a row's length.
_LONG, _FEW_LONG, _GATHERING = 2_048, 1_000, 32
# Share of the neighbours' own spread added to each of their directions: a flat through them must not follow noise.
_RIDGE = 0.01
# Along few axes the flat nearly fills the space, and what is left of a distance are the last digits of a number.
_FEW_AXES = 128
_CELL = 100
# Each sample is compared with about this many, or with more of very large sets. On three draws of 20,000 clustered
# samples half as many found all true neighbours of most, but fewer of those within kinds of 20; a quarter found three
# in four.
_CANDIDATES, _CANDIDATES_BY_ROOT = 3_200, 16
_ROUNDS, _QUERIES = 4, 4_096
_PART = 5_000
# Sets of at least so many samples and of at most so many numbers are looked at for regions, once they were asked for
# so many queries. Neighbours of a part of the samples tell them: where more than a share of all may have some in
# another cell than their own, both are one region. They are used where a query is compared with less than a share of
# all.
_LEAST_SET, _ENTRIES_IN_REGIONS, _QUERIES_BEFORE = 2_000, 16_000_000, 8_000
_ASKED, _BRIDGED, _REACHED, _PAYS, _FAR_APART = 1_000, 0.005, 50, 0.8, 32
# Of squares, what single precision may lose in a sum.
_SAFE = 1e-5
# So many more than are asked for are compared exactly: rounding must not decide who is among them.
_SPARE = 4
# Samples are tied to so many of their neighbours (chosen with the clusters, see there).
_TIED = 12
# A neighbour much farther away than the fourth is of another kind: in a tiny kind there are not enough near ones.
_NEAR = 3
_REACH = 1.5
# A walk is followed from each of at most so many samples; the others are counted as the nearest of these.
_WALKERS = 2_500
_STAY = 0.05
# As a share of a point's distance from the centre, and of the distance to a neighbour.
_ROUNDING, _ROUNDING_OF_NETWORKS = 1e-5, 1e-4


def nearest(query: Tensor, reference: Tensor, k: int, centred: bool = False) -> tuple[Tensor, Tensor]:
    """Distances [q, k] and indices [q, k] of the k nearest reference rows, nearest first, the first of equals.

    `query` is [q, d], `reference` [m, d] with m >= k; `centred` says that its mean is about zero already. Distances are
    exact, and in double precision where there is one. Among more than 100,000 rows some of the nearest are missed, the
    same ones whatever else is asked; `exactly` misses none.
    """
    given = reference
    if not centred:
        # Far from the origin the product form of the distance loses the digits that tell rows apart.
        centre = reference.mean(0)
        query, reference = query - centre, reference - centre
    wide = min(k + _SPARE, len(reference))
    exact = export_ops.tracing() or _exact.get() or len(reference) <= EXACT_REFERENCE or wide > _CELL
    if _are_few_long(reference):
        return export_ops.smallest(_distances_by_products(query, reference), k)
    candidates = _exact_candidates(given, query, reference) if exact else _cells_of(given, reference).candidates
    distances, indices = [], []
    for block, near in candidates(query, reference, wide):
        # Recomputed from the differences: the product form loses digits for close rows. Few rows at a time, because
        # those of feature maps are long.
        step = max(1, _SMALL_BLOCK // max(1, wide * query.shape[1]))
        parts = zip(export_ops.blocks(block, step), export_ops.blocks(near.clamp_min(0), step), strict=True)
        apart = torch.cat([_apart(part, _rows(reference, at)) for part, at in parts])
        # Not a number comes last, after distances that are none themselves.
        smallest, order = export_ops.smallest(apart.masked_fill(near < 0, torch.nan), k)
        distances.append(smallest)
        indices.append(near.gather(1, order))
    if not distances:
        return query.new_empty(0, k, dtype=export_ops.precise(query.device)), query.new_empty(0, k, dtype=torch.long)
    return torch.cat(distances), torch.cat(indices)


def _rows(points: Tensor, at: Tensor) -> Tensor:
    """Rows [q, k, d] at places [q, k]; index_select takes half of the time of indexing."""
    return points[at] if export_ops.tracing() else points.index_select(0, at.flatten()).unflatten(0, at.shape)


def _in_order(places: Tensor) -> Tensor:
    """Places [n, k] with each row in order; numpy sorts whole numbers in a tenth of the time that torch takes."""
    if export_ops.tracing() or places.device.type != "cpu":
        return places.sort(1).values
    return torch.from_numpy(np.sort(places.numpy(), axis=1))


def _apart(points: Tensor, others: Tensor) -> Tensor:
    """Distances [b, k] of points [b, d] to others [b, k, d], each to its own; what is in these is lost."""
    if export_ops.tracing():
        return (points[:, None] - others).square().sum(2, dtype=export_ops.precise(points.device)).sqrt()
    return torch.linalg.vector_norm(others.sub_(points[:, None]), dim=2, dtype=export_ops.precise(points.device))


def _are_few_long(reference: Tensor) -> bool:
    double = export_ops.precise(reference.device) == torch.float64
    return double and not export_ops.tracing() and reference.shape[1] >= _LONG and len(reference) <= _FEW_LONG


def products(points: Tensor, others: Tensor) -> Tensor:
    """Products [n, m] of rows [n, d] and [m, d] in double precision, of a part of their numbers at a time."""
    product = torch.zeros(len(points), len(others), dtype=torch.float64, device=points.device)
    for a, b in zip(points.split(_LONG, 1), others.split(_LONG, 1), strict=True):
        product += a.double() @ b.double().T
    return product


def _squares_of(rows: Tensor) -> Tensor:
    """Squared lengths [n] of rows [n, d] in double precision, in which they are squared too."""
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).square()


def _distances_by_products(points: Tensor, others: Tensor) -> Tensor:
    """Distances [n, m] between rows [n, d] and [m, d]."""
    squares = _squares_of(points)[:, None] + _squares_of(others)
    return (squares - 2 * products(points, others)).clamp_min(0).sqrt()


_Candidates: TypeAlias = Callable[[Tensor, Tensor, int], Iterator[tuple[Tensor, Tensor]]]


def _all_candidates(query: Tensor, reference: Tensor, wide: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of the queries [b, d], and which reference rows [b, wide or more] are nearest, but for rounding, in order;
    -1 follows where a query has fewer."""
    return ((block, near) for block, near, _ in _compared_with_all(query, reference, wide))


def _compared_with_all(query: Tensor, reference: Tensor, wide: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """What `_all_candidates` gives, and the squared distance [b] to the farthest of them, up to a constant per row."""
    norms = reference.square().sum(1)
    step = max(1, _DISTANCES // len(reference))
    # The same memory for each block: new memory costs as much as a third of the product.
    memory = None if export_ops.tracing() else query.new_empty(min(step, len(query)), len(reference))
    for block in export_ops.blocks(query, step):
        into = None if memory is None else memory[: len(block)]
        squared = torch.addmm(norms, block.detach(), reference.T, alpha=-2, out=into)
        yield block, *_smallest_columns(squared, wide)


def _exact_candidates(given: Tensor, query: Tensor, reference: Tensor) -> _Candidates:
    """What finds candidates among all: by regions, where the set has some and the search is worth it."""
    if export_ops.tracing() or reference.device.type != "cpu":
        return _all_candidates
    asked = _queries.get(given, 0) + len(query)
    _queries[given] = asked
    if len(reference) < _LEAST_SET or asked < _QUERIES_BEFORE or reference.numel() > _ENTRIES_IN_REGIONS:
        return _all_candidates
    regions = _regions_of(given, reference)
    return regions.candidates if regions.share < _PAYS else _all_candidates


# How many queries a set was searched for.
_queries = WeakIdKeyDictionary()


class _Regions:
    """Points [m, d] in regions with space between them.

    A query is compared with the points of its region, and with all where others may be as near: no distance to a point
    of a cell is below that to the cell's centre less the cell's radius.
    """

    def __init__(self, points: Tensor) -> None:
        generator = torch.Generator(points.device).manual_seed(0)
        cells, self._centres = _cells(points, generator, _FAR_APART)
        of_cells = zip(cells, self._centres, strict=True)
        self._radii = torch.stack([(points[cell] - centre).norm(dim=1).max() for cell, centre in of_cells])
        self._largest = points.square().sum(1).max()
        self._region_of_cell = self._joined(points, generator)
        region_of = torch.empty(len(points), dtype=torch.long)
        for cell, region in zip(cells, self._region_of_cell, strict=True):
            region_of[cell] = region
        # In order, so that the first of equals stays the first.
        self._members = [(region_of == each).nonzero().flatten() for each in range(int(region_of.max()) + 1)]
        # Of the set, how much a query is compared with.
        self.share = sum((len(each) / len(points)) ** 2 for each in self._members)
        self._points = [points[each] for each in self._members] if self.share < _PAYS else []

    def _joined(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """The region [c] of each cell: two are of one where a share of all points lies in one and has neighbours that
        may lie in the other."""
        asked = points[torch.randperm(len(points), generator=generator)[:_ASKED]]
        # A smaller kind has neighbours in all others, and joins none.
        wide = math.ceil(_BRIDGED * len(points))
        compared = _compared_with_all(asked, points, min(wide, _REACHED))
        reach = torch.cat([self._reach(block, farthest) for block, _, farthest in compared])
        cell, lower = self._cells_of(asked)
        may = torch.zeros(2 * [len(self._centres)]).index_add_(0, cell, (lower <= reach[:, None]).float())
        tied = (may > _BRIDGED * len(asked)).numpy()
        return torch.from_numpy(scipy.sparse.csgraph.connected_components(tied, directed=False)[1]).long()

    def _cells_of(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest cell [q] of each query, and below what no distance to the points of a cell lies: [q, c]."""
        apart = (_distances(query, self._centres) + query.square().sum(1, keepdim=True)).clamp_min(0).sqrt()
        return apart.argmin(1), apart - self._radii

    def _reach(self, query: Tensor, squared: Tensor) -> Tensor:
        """A distance [q] that is squared up to a constant per query, and a little more than rounding may make of it."""
        size = query.square().sum(1)
        return (squared + size).clamp_min(0).sqrt() + (_SAFE * (size + self._largest)).sqrt()

    def candidates(self, query: Tensor, reference: Tensor, wide: int) -> Iterator[tuple[Tensor, Tensor]]:
        """What `_all_candidates` gives."""
        for block in query.split(_QUERIES):
            yield block, self._nearest(block, reference, wide)

    def _nearest(self, query: Tensor, reference: Tensor, wide: int) -> Tensor:
        cell, lower = self._cells_of(query)
        region = self._region_of_cell[cell]
        found = torch.zeros(len(query), wide + _ROOM, dtype=torch.long)
        reach = torch.full((len(query),), torch.inf)
        for each, (members, points) in enumerate(zip(self._members, self._points, strict=True)):
            inside = (region == each).nonzero().flatten()
            if len(members) < wide or not len(inside):
                continue
            compared = _compared_with_all(query[inside], points, wide)
            blocks = [(near, self._reach(block, farthest)) for block, near, farthest in compared]
            near = torch.cat([near for near, _ in blocks])
            found[inside] = torch.where(near < 0, near, members[near.clamp_min(0)])
            reach[inside] = torch.cat([farthest for _, farthest in blocks])
        elsewhere = self._region_of_cell != region[:, None]
        rest = (elsewhere & ~(lower > reach[:, None])).any(1).nonzero().flatten()
        if len(rest):
            found[rest] = torch.cat([near for _, near in _all_candidates(query[rest], reference, wide)])
        return found


def _smallest_columns(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Columns [n, k or more], in order, of the k smallest values of each row [n, m] and of at most a few more, -1 where
    a row has fewer; and a value [n] that none of these exceeds.

    The k-th smallest of the smallest values of groups is such a one, and hardly any other value lies below it.
    """
    if export_ops.tracing() or values.device.type != "cpu":
        smallest = values.topk(k, largest=False, sorted=False)
        return smallest.indices.sort(1).values, smallest.values.amax(1)
    numbers = values.numpy()
    # Torch forms minima faster, and numpy finds the k-th smallest in a fraction of the time.
    size = min(_GROUP, numbers.shape[1] // (_GROUPS_A_NEIGHBOUR * k))
    groups = numbers.shape[1] // max(1, size)
    few = values[:, : groups * size].unflatten(1, (size, groups)).amin(1).numpy() if size > 1 else numbers
    highest = np.partition(few, k - 1, axis=1)[:, k - 1 : k]
    row, column = np.divmod(np.flatnonzero(numbers <= highest), numbers.shape[1])
    counts = np.bincount(row, minlength=len(numbers))
    # Where many are equal, or numbers are missing, the columns are looked for themselves.
    odd = (counts < k) | (counts > k + _ROOM)
    columns = np.full((len(numbers), k + _ROOM), -1)
    columns[np.arange(k + _ROOM) < np.where(odd, 0, counts)[:, None]] = column[~odd[row]]
    columns[odd, :k] = np.sort(np.argpartition(numbers[odd], k - 1, axis=1)[:, :k], axis=1)
    return torch.from_numpy(columns), torch.from_numpy(highest[:, 0])


_exact: ContextVar[bool] = ContextVar("exact", default=False)


@contextmanager
def exactly() -> Iterator[None]:
    """Searches inside look at every row, as those of an exported graph do."""
    before = _exact.set(True)
    try:
        yield
    finally:
        _exact.reset(before)


class _Cells:
    """Points [m, d] in cells around centres."""

    def __init__(self, points: Tensor) -> None:
        self._seen = max(_CANDIDATES, int(_CANDIDATES_BY_ROOT * math.sqrt(len(points))))
        members, self._centres = _cells(points, torch.Generator(points.device).manual_seed(0))
        # A crowded cell, as of many copies, is seen through an even part of its members.
        members = [cell[:: math.ceil(len(cell) / self._seen)] for cell in members]
        self._order = torch.cat(members)
        self._sizes = torch.tensor([len(cell) for cell in members], device=points.device)
        self._points = points[self._order]
        self._norms = self._points.square().sum(1)

    def candidates(self, query: Tensor, reference: Tensor, wide: int) -> Iterator[tuple[Tensor, Tensor]]:
        """What `_all_candidates` gives, but for those that lie in cells farther away."""
        for block in query.split(_QUERIES):
            yield block, _in_order(self._order[self._nearest(block, wide)])

    def _nearest(self, query: Tensor, k: int) -> Tensor:
        """Places [q, k] of near points."""
        near = self._near(query, k)
        limit = torch.empty(len(query), device=query.device)
        found = []
        for rows, first, squares in self._squares(query, near[:, :1]):
            smallest = squares.topk(k, largest=False, sorted=True)
            limit[rows] = smallest.values[:, -1]
            found.append((rows.repeat_interleave(k), (first + smallest.indices).flatten(), smallest.values.flatten()))
        # Of the other cells only what is nearer than the farthest of these.
        for rows, first, squares in self._squares(query, near[:, 1:]):
            row, place = (squares <= limit[rows][:, None]).nonzero(as_tuple=True)
            found.append((rows[row], first + place, squares[row, place]))
        rows, places, squares = (torch.cat(each) for each in zip(*found, strict=True))
        return _smallest_of_each(rows, places, squares, len(query), k)

    def _near(self, query: Tensor, k: int) -> Tensor:
        """The nearest cells [q, p], one with k members first, and as many as hold what is to be seen."""
        distances = _distances(query, self._centres)
        first = distances.masked_fill(self._sizes < k, torch.inf).argmin(1, keepdim=True)
        enough = math.ceil(self._seen * len(self._sizes) / len(self._order))
        return distances.scatter(1, first, -torch.inf).topk(min(enough, len(self._sizes)), largest=False).indices

    def _squares(self, query: Tensor, cells: Tensor) -> Iterator[tuple[Tensor, int, Tensor]]:
        """For each cell that queries look into [q, p]: which [b], where its points begin, and the distances [b, size]
        to them, squared, up to a constant per row."""
        cell, order = cells.flatten().sort(stable=True)
        asking = (order // max(1, cells.shape[1])).split(torch.bincount(cell, minlength=len(self._sizes)).tolist())
        first = 0
        for rows, size in zip(asking, self._sizes.tolist(), strict=True):
            members = slice(first, first + size)
            if len(rows):
                yield rows, first, torch.addmm(self._norms[members], query[rows], self._points[members].T, alpha=-2)
            first += size


def _smallest_of_each(rows: Tensor, places: Tensor, values: Tensor, count: int, k: int) -> Tensor:
    """Places [count, k] of the k smallest values [n] of each row, where `rows` [n] says whose a value is."""
    order = values.argsort()
    order = order[rows[order].argsort(stable=True)]
    of_each = torch.bincount(rows, minlength=count)
    first = of_each.cumsum(0) - of_each
    return places[order[first[:, None] + torch.arange(k, device=rows.device)]]


_T = TypeVar("_T")


def _once_a_set(make: Callable[[Tensor], _T]) -> Callable[[Tensor, Tensor], _T]:
    """What `make` gives of a set whose centred points are given too, kept for as long as the set is there."""
    kept = WeakIdKeyDictionary()

    def of(reference: Tensor, centred: Tensor) -> _T:
        if reference.is_inference():  # nothing tells whether such a tensor was changed
            return make(centred)
        state = reference is centred, reference._version
        known: tuple[tuple[bool, int], _T] | None = kept.get(reference)
        if known is None or known[0] != state:
            known = state, make(centred)
            kept[reference] = known
        return known[1]

    return of


_cells_of, _regions_of = _once_a_set(_Cells), _once_a_set(_Regions)


def coinciding(distances: Tensor, points: Tensor) -> Tensor:
    """Which [n, k] of the distances of points [n, d], nearest first, are of the points themselves, but for rounding.

    Rounding is told by the size of a point, and by its farthest neighbour here: a network that another runtime computes
    gives features that differ more than one sum does, and yet a thousand times less than two pictures.
    """
    size = _ROUNDING * points.norm(dim=1, keepdim=True).to(distances)
    return distances <= torch.maximum(size, _ROUNDING_OF_NETWORKS * distances[:, -1:])


def without_self(distances: Tensor, indices: Tensor, itself: Tensor) -> tuple[Tensor, Tensor]:
    """Distances [q, k] and indices [q, k] of what `nearest` found for k + 1, without `itself` [q]; -1 is none of them.

    A row that does not hold itself loses its last, the farthest.
    """
    found = indices == itself[:, None]
    if export_ops.tracing():
        order = export_ops.smallest(found.float(), indices.shape[1] - 1)[1]
    else:
        kept = torch.arange(indices.shape[1] - 1, device=indices.device)
        order = kept + (found.cumsum(1)[:, :-1] > 0)
    return distances.gather(1, order), indices.gather(1, order)


def beyond(points: Tensor, samples: Tensor, near: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Distance [n] of points [n, d] to the flat through their neighbours [n, k] among `samples` [m, d].

    `dtype` is what it is reckoned in, by default double precision where there are few axes. In single precision
    rounding may change a distance by a ten-thousandth.
    """
    if _are_few_long(samples) and len(samples) ** 2 <= _GATHERING * near.numel():
        return _beyond_by_products(points, samples, near)
    precise = export_ops.precise(points.device)
    if dtype is None:
        dtype = precise if samples.shape[1] <= _FEW_AXES else points.dtype
    along_axes = near.shape[1] > samples.shape[1] and not export_ops.tracing()
    beyond_flat = _beyond_along_axes if along_axes else _beyond_among_neighbours
    step = max(1, _CACHED_BYTES // (dtype.itemsize * near.shape[1] * samples.shape[1]))
    distances = []
    for block, indices in zip(export_ops.blocks(points, step), export_ops.blocks(near, step), strict=True):
        flat = _rows(samples, indices).to(dtype)  # [b, k, d]
        middle = flat.mean(1, keepdim=True)
        flat = flat - middle if export_ops.tracing() else flat.sub_(middle)
        distances.append(beyond_flat(flat, block[:, None] - middle))
    return torch.cat(distances).to(precise) if distances else points.new_empty(0, dtype=precise)


def _beyond_among_neighbours(flat: Tensor, off: Tensor) -> Tensor:
    """Distance [b] to the flats through samples [b, k, d] around their middle, from points [b, 1, d] off it."""
    gram = flat @ flat.transpose(1, 2)
    shares = export_ops.solve(_ridged(gram, flat.shape[1]), (flat @ off.transpose(1, 2))[:, :, 0])  # [b, k]
    return (off - shares[:, None] @ flat).norm(dim=2)[:, 0]


def _beyond_along_axes(flat: Tensor, off: Tensor) -> Tensor:
    """The same where there are fewer axes than samples: what is left over of a point is the ridge times the solution of
    the system of the axes, without a difference."""
    system = flat.transpose(1, 2) @ flat
    ridge = _RIDGE * _mean_square(system, flat.shape[1])
    left = export_ops.solve(_ridged(system, flat.shape[1]), off[:, 0])
    return ridge * left.norm(dim=1)


def _mean_square(products: Tensor, samples: int) -> Tensor:
    """The mean squared length [b] of so many samples with these products, among them or among their axes."""
    return (products.diagonal(dim1=1, dim2=2).sum(1) / samples).clamp_min(1e-12)


def _ridged(products: Tensor, samples: int) -> Tensor:
    """Products [b, m, m] with the ridge on their diagonal."""
    eye = torch.eye(products.shape[1], device=products.device, dtype=products.dtype)
    return products + (_RIDGE * _mean_square(products, samples))[:, None, None] * eye


def _beyond_by_products(points: Tensor, samples: Tensor, near: Tensor) -> Tensor:
    """`beyond` of long rows, from products of all samples."""
    centre = samples.mean(0)
    points, samples = points - centre, samples - centre
    of_samples, of_points = products(samples, samples), products(points, samples)
    around = of_samples[near[:, :, None], near[:, None, :]]  # [n, k, k]
    to_mean = around.mean(2)
    middle = to_mean.mean(1, keepdim=True)
    gram = around - to_mean[:, :, None] - to_mean[:, None, :] + middle[:, :, None]
    own = of_points.gather(1, near)
    off = own - to_mean - own.mean(1, keepdim=True) + middle  # products with the point, about the middle of its samples
    square = _squares_of(points) - 2 * own.mean(1) + middle[:, 0]
    ridge = _RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
    eye = torch.eye(near.shape[1], dtype=gram.dtype, device=gram.device)
    shares = torch.linalg.solve(gram + ridge[:, None, None] * eye, off)
    along = (shares[:, None] @ gram @ shares[:, :, None])[:, 0, 0]
    return (square - 2 * (shares * off).sum(1) + along).clamp_min(0).sqrt()


def nearest_within(points: Tensor, k: int, seed: int = 0) -> Tensor:
    """Indices [n, k] of each point's k nearest other points; k is cut to n - 1."""
    k = min(k, len(points) - 1)
    points = points - points.mean(0)
    if len(points) <= _EXACT_SAMPLES:
        everyone = torch.arange(len(points), device=points.device)
        return _nearest_among(points, everyone, everyone, k)
    members, centres = _cells(points, torch.Generator(points.device).manual_seed(seed))
    wanted = max(_CANDIDATES, 4 * k)
    # A crowded cell, as of many copies, is seen through an even part of its members.
    seen = [cell[:: math.ceil(len(cell) / wanted)] for cell in members]
    seen_count = torch.tensor([len(cell) for cell in seen])
    indices = torch.empty(len(points), k, dtype=torch.long, device=points.device)
    for cell, asking in enumerate(members):
        near = _distances(centres[cell : cell + 1], centres)[0].argsort().cpu()
        enough = int((seen_count[near].cumsum(0) < wanted).sum()) + 1
        indices[asking] = _nearest_among(points, asking, torch.cat([seen[i] for i in near[:enough].tolist()]), k)
    return indices


def principal_components(
    samples: Tensor, dims: int = 32, seed: int = 0, of: Tensor | None = None, *, standardise: bool = True
) -> Tensor:
    """Coordinates [n, min(dims, ...)] of samples [n, ...] along the leading principal components of a part of them.

    With `of` [m, ...] the components are those of other samples of the same shape.

    `standardise` features whose units of measure differ; pixels and bands have one unit.
    """
    centre, scale, axes = principal_axes(samples if of is None else of, dims, seed, standardise=standardise)
    return (samples.flatten(1).float() - centre) / scale @ axes


def principal_axes(
    samples: Tensor, dims: int = 32, seed: int = 0, *, standardise: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Centre [d], scale [d] and axes [d, min(dims, ...)] of `principal_components`, to place other samples by."""
    flat = samples.flatten(1).float()
    generator = torch.Generator(flat.device).manual_seed(seed)
    part = flat[torch.randperm(len(flat), generator=generator, device=flat.device)[:_PART]]
    centre = part.mean(0)
    scale = part.std(0, correction=0) if standardise else torch.ones_like(centre)
    # What hardly varies in the part has no scale of its own; dividing by it would blow up the few that differ.
    scale = torch.where(scale > 1e-6 * centre.abs().clamp_min(1e-30), scale, 1.0)
    return centre, scale, leading_axes((part - centre) / scale, min(dims, *part.shape))


def leading_axes(centred: Tensor, dims: int) -> Tensor:
    """Leading principal components [d, dims] of samples [n, d] whose mean is 0."""
    if centred.shape[1] <= max(1_024, len(centred)):
        return _eigenvectors(centred.T @ centred)[:, :dims]
    # Of fewer wide samples the small Gram matrix has the same spectrum.
    axes = centred.T @ _eigenvectors(centred @ centred.T)[:, :dims]
    return axes / axes.norm(dim=0).clamp_min(1e-12)


def _eigenvectors(matrix: Tensor) -> Tensor:
    """Of a symmetric matrix [d, d], as columns by falling eigenvalue."""
    # With many eigenvalues of 0, as of pixels that are always dark, float32 fails on some processors, or answers NaN.
    with suppress(torch.linalg.LinAlgError):
        vectors = torch.linalg.eigh(matrix).eigenvectors
        if bool(vectors.isfinite().all()):
            return vectors.flip(1)
    return torch.linalg.eigh(matrix.cpu().double()).eigenvectors.to(matrix).flip(1)


def ties(points: Tensor, seed: int = 0) -> scipy.sparse.csr_matrix:
    """Ties [n, n] between neighbours: the squared share of their neighbourhoods that they have in common."""
    n = len(points)
    near = nearest_within(points, _TIED, seed)  # [n, k]
    distances = (points[:, None] - points[near]).norm(dim=2)
    limit = _REACH * distances[:, min(_NEAR, near.shape[1] - 1), None]
    row, column = (distances <= limit).nonzero(as_tuple=True)
    links = scipy.sparse.csr_matrix((np.ones(len(row)), (row.numpy(), near[row, column].numpy())), (n, n))
    around = links + scipy.sparse.identity(n, format="csr")
    size = np.asarray(around.sum(1)).ravel()
    common = (around @ around.T).multiply((links + links.T) > 0).tocoo()
    share = common.data / (size[common.row] + size[common.col] - common.data)
    return scipy.sparse.csr_matrix((share**2, (common.row, common.col)), (n, n))


def walk_spread(points: Tensor, doublings: int = 5, seed: int = 0) -> Tensor:
    """How many samples [n] a random walk along ties spreads over in 2^doublings steps, as a share of all.

    It is the inverse of the sum of squared chances of being at each sample in the end. Ties within a kind are many and
    those between kinds few, so a walk that starts in a rare kind stays in it and reaches few samples.
    """
    chosen = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:_WALKERS]
    walkers = (points[chosen] if len(points) > _WALKERS else points).float().cpu()
    # Equal samples have no kinds, whatever the order in which their neighbours are listed.
    if len(walkers) < 3 or bool((walkers == walkers[0]).all()):
        return torch.ones(len(points), device=points.device)
    tied = ties(walkers - walkers.mean(0), seed)
    # No walk leaves what is tied together: the products of each such group take a fraction of those of all.
    groups, group_of = scipy.sparse.csgraph.connected_components(tied, directed=False)
    reached = np.ones(len(walkers))
    for group in range(groups):
        members = np.flatnonzero(group_of == group)
        if len(members) > 1:
            reached[members] = _reached(tied[members][:, members], doublings)
    spread = torch.from_numpy((reached / len(walkers)).astype(np.float32))
    if len(points) > len(walkers):
        spread = spread[nearest(points.float().cpu(), walkers, 1)[1][:, 0]]
    return spread.to(points.device)


def _reached(tied: scipy.sparse.csr_matrix, doublings: int) -> np.ndarray:
    """Over how many of the samples with these ties [n, n] a walk from each [n] spreads in 2^doublings steps."""
    tied = tied.astype(np.float32) + _STAY * scipy.sparse.identity(tied.shape[0], np.float32, format="csr")
    degree = np.asarray(tied.sum(1)).ravel()
    # Chances are not symmetric, but they are for roots of degrees: numpy forms half of such a product.
    root = scipy.sparse.diags(1 / np.sqrt(degree), format="csr", dtype=np.float32)
    step = root @ tied @ root
    # In two steps few samples are reached.
    step = (step @ step.T if doublings else step).toarray()
    for _ in range(doublings - 1):
        step = step @ step.T
    reached: np.ndarray = degree / (np.square(step) @ degree)
    return reached


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances [a, b] up to a constant per row: enough to rank."""
    return b.square().sum(1) - 2 * a @ b.T


def _nearest_among(points: Tensor, asking: Tensor, candidates: Tensor, k: int) -> Tensor:
    """Indices [a, k] of the k nearest candidates, other than itself, of each asking point; both are indices."""
    nearest_of_block = []
    others = points[candidates]
    for block in asking.split(max(1, _BLOCK_ENTRIES // len(candidates))):
        squared = _distances(points[block], others)
        squared[block[:, None] == candidates] = torch.inf
        nearest_of_block.append(candidates[squared.topk(k, largest=False).indices])
    return torch.cat(nearest_of_block)


def _cells(points: Tensor, generator: torch.Generator, apart: int = 0) -> tuple[list[Tensor], Tensor]:
    """Indices of the points in each cell, none empty, and the cells' centres [c, d]; so many start far `apart`, for a
    kind that no centre starts in shares a cell with another."""
    count = len(points) // max(_CELL, int(math.sqrt(len(points)) / 2))
    part = points[torch.randperm(len(points), generator=generator, device=points.device)[: 16 * count]]
    centres = torch.cat([part[:count], part[_far_apart(part, apart)]])
    count = len(centres)
    for _ in range(_ROUNDS):
        cell_of = _nearest_centre(part, centres)
        size = torch.bincount(cell_of, minlength=count)[:, None]
        total = torch.zeros_like(centres).index_add_(0, cell_of, part)
        centres = torch.where(size > 0, total / size.clamp_min(1), centres)
    cell_of = _nearest_centre(points, centres)
    size = torch.bincount(cell_of, minlength=count)
    members = cell_of.argsort(stable=True).split(size[size > 0].tolist())
    return list(members), centres[size > 0]


def _far_apart(points: Tensor, count: int) -> list[int]:
    """Indices of so many points, each farthest from those before it (Gonzalez 1985)."""
    chosen: list[int] = []
    farthest = points.square().sum(1)
    for _ in range(min(count, len(points))):
        chosen.append(int(farthest.argmax()))
        farthest = torch.minimum(farthest, (points - points[chosen[-1]]).square().sum(1))
    return chosen


def _nearest_centre(points: Tensor, centres: Tensor) -> Tensor:
    return torch.cat([_distances(b, centres).argmin(1) for b in points.split(_BLOCK_ENTRIES // len(centres))])
