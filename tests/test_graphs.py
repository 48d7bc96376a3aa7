"""Graphs: every form of file gives the same one, what does not train stays a neighbour, and runs work end to end."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse
import torch

import tailwise
from tailwise.cli.main import run as cli
from tailwise.core import identity, inference
from tailwise.core.context import Graph
from tailwise.core.data import Batch, Data
from tailwise.core.modality import ROW
from tailwise.core.problem import Labelled, fixed_to
from tailwise.core.registry import parse_one
from tailwise.detectors.components.graph_nets import BetaWavelet, laplacian
from tailwise.detectors.dominant import edges_error
from tailwise.errors import InputError
from tailwise.numerics import graphs
from tailwise.report.explanation import links
from tailwise.sources.auto import open_source
from tailwise.sources.graph import Nodes
from tailwise.training.fit import fit
from tailwise.training.options import Training

N, D = 60, 4


@pytest.fixture(scope="module")
def made() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Attributes, edges one way with a loop and a copy, and labels: two blocks, and three nodes that fit in neither."""
    generator = np.random.default_rng(0)
    block = np.arange(N) % 2
    x = (4 * block[:, None] + generator.normal(size=(N, D))).astype(np.float32)
    y = np.zeros(N, np.int64)
    y[:3], x[:3] = 1, 2 - 3 * x[:3]
    pairs = [(i, j) for i in range(N) for j in range(i + 1, N) if block[i] == block[j] and generator.random() < 0.15]
    return x, np.array([*pairs, pairs[0], (5, 5)]).T, y


FORMS = ("npz", "sparse.npz", "mat", "pt", "folder", "parquet", "tables")


def written(form: str, folder: Path, made: tuple[np.ndarray, np.ndarray, np.ndarray]) -> tuple[str, dict[str, str]]:
    """A path that holds the graph in a form, and the options that it needs."""
    x, edges, y = made
    path = folder / f"graph.{form}"
    if form == "npz":
        np.savez(path, x=x, edge_index=edges, y=y)
    elif form == "sparse.npz":
        s = scipy.sparse.csr_array(x)
        np.savez(
            path,
            x_data=s.data,
            x_indices=s.indices,
            x_indptr=s.indptr,
            x_shape=np.array(s.shape),
            edge_index=edges,
            y=y,
        )
    elif form == "mat":
        a = scipy.sparse.csc_matrix((np.ones(edges.shape[1]), edges), shape=(N, N))
        scipy.io.savemat(path, {"Network": a, "Attributes": scipy.sparse.csc_matrix(x), "Label": y[:, None]})
    elif form == "pt":
        torch.save({"x": torch.from_numpy(x), "edge_index": torch.from_numpy(edges), "y": torch.from_numpy(y)}, path)
    else:
        nodes = pd.DataFrame(x, columns=list("abcd")).assign(quality=y)
        nodes.insert(0, "id", [f"part {i}" for i in range(N)])
        ends = pd.DataFrame({"src": nodes["id"].to_numpy()[edges[0]], "dst": nodes["id"].to_numpy()[edges[1]]})
        path = folder / "graph"
        path.mkdir()
        if form == "parquet":
            nodes.to_parquet(path / "nodes.parquet")
            ends.to_parquet(path / "edges.parquet")
        else:
            nodes.to_csv(path / "nodes.csv", index=False)
            ends.to_csv(path / "edges.csv", index=False)
        if form == "tables":
            return str(path / "nodes.csv"), {"edges": str(path / "edges.csv"), "labels": "quality"}
        return str(path), {"labels": "quality"}
    return str(path), {}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_graph(form: str, tmp_path: Path, made: tuple[np.ndarray, ...]) -> None:
    path, options = written(form, tmp_path, made)  # type: ignore[arg-type]
    source = open_source(path, hops=0, **options)
    assert isinstance(source, Nodes)
    found = source.load_all()
    graph = found.data.context
    assert isinstance(graph, Graph)
    x, edges, y = made
    assert np.allclose(found.data.read(torch.arange(N)).numpy(), x, rtol=1e-6)
    assert found.labels is not None
    assert found.labels.tolist() == (y == 1).tolist()
    pairs = {tuple(pair) for pair in edges.T.tolist() if pair[0] != pair[1]}
    assert {tuple(pair) for pair in graph.edges.T.tolist()} == pairs | {(j, i) for i, j in pairs}
    assert eval(repr(source), {"Nodes": Nodes}) == source
    notes = source.load().facts.notes[0]
    if form != "mat":  # a matrix cannot say an edge twice
        assert "1 loops dropped, 1 copies dropped" in notes


def test_a_pickle_is_refused_in_one_sentence_that_says_how_to_convert(tmp_path: Path) -> None:
    (tmp_path / "data.pkl").write_bytes(pickle.dumps({"x": np.eye(3)}))
    torch.save({"x": Path("an object")}, tmp_path / "data.pt")
    for name in ("data.pkl", "data.pt"):
        with pytest.raises(InputError, match="could run code") as refused:
            open_source(tmp_path / name).load()
        assert "np.savez" in refused.value.hint


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"edge_index": np.array([[0, 99], [1, 2]])}, "edges lead to nodes from 0 to 99, and there are 60"),
        ({"edge_index": np.zeros((5, 2), int)}, "whole numbers"),
        ({"edge_index": np.zeros((2, 3))}, "whole numbers"),
        ({"edge_index": np.array([[1, 60], [2, 1]])}, "edges lead to nodes from 1 to 60"),
        ({"x": np.full((N, D), np.nan)}, "node 0 has NaN"),
        ({"x": np.zeros((2, 3, 4))}, "attributes \\[nodes, features\\] were needed"),
        ({"y": np.arange(5)}, None),
    ],
)
def test_what_does_not_fit_is_said(change: dict, said: str | None, tmp_path: Path, made: tuple) -> None:
    x, edges, y = made
    np.savez(tmp_path / "graph.npz", **{"x": x, "edge_index": edges, "y": y} | change)
    if said is None:  # labels of other things are none of these nodes
        assert Nodes(str(tmp_path / "graph.npz")).load_all().labels is None
        return
    with pytest.raises(InputError, match=said):
        Nodes(str(tmp_path / "graph.npz")).load()


def test_classes_are_kinds_and_no_anomalies(tmp_path: Path, made: tuple[np.ndarray, ...]) -> None:
    x, edges, _ = made
    classes, path = np.arange(N) % 4, tmp_path / "graph.npz"
    np.savez(path, x=x, edge_index=edges, y=classes)
    problem = Nodes(str(path)).load()
    assert len(problem.train) == N
    assert problem.test is None
    assert problem.train_groups is not None
    assert problem.train_groups.tolist() == [str(each) for each in classes]
    assert any("4 classes" in note for note in problem.facts.notes)
    asked = Nodes(str(path), labels="y", normal=(0, 1, 2)).load_all()
    assert asked.labels is not None
    assert asked.labels.tolist() == (classes == 3).tolist()
    # Kinds of anomalies beside many normals stay labels.
    np.savez(path, x=x, edge_index=edges, y=np.where(np.arange(N) < 6, np.arange(N) % 3 + 1, 0))
    labelled = Nodes(str(path)).load_all()
    assert labelled.groups is None
    assert labelled.labels is not None
    assert labelled.labels.sum() == 6


def test_an_edge_of_an_unknown_node_is_named(tmp_path: Path) -> None:
    (tmp_path / "nodes.csv").write_text("id,width\na,1\nb,2\n")
    (tmp_path / "edges.csv").write_text("src,dst\na,b\na,c\n")
    with pytest.raises(InputError, match="row 1 names the node 'c'"):
        open_source(tmp_path).load()


def tables(folder: Path, nodes: str, edges: str = "src,dst\na,b\n") -> str:
    """A folder with these nodes and edges."""
    folder.mkdir(exist_ok=True)
    (folder / "nodes.csv").write_text(nodes)
    (folder / "edges.csv").write_text(edges)
    return str(folder)


def test_no_column_of_a_graph_is_left_out_or_misread_in_silence(tmp_path: Path) -> None:
    words = "id,width,state\na,1,good\nb,2,bad\n"
    with pytest.raises(InputError, match="'state' of its nodes is no number \\(such as 'good'\\)") as refused:
        Nodes(tables(tmp_path, words)).load()
    assert "--labels" in refused.value.hint
    assert Nodes(tables(tmp_path, words), labels="state").load_all().labels is not None
    with pytest.warns(UserWarning, match="looks like labels"):
        Nodes(tables(tmp_path, "id,width,label\na,1,0\nb,2,1\n")).load()
    with pytest.warns(UserWarning, match="'since' is not read"):
        Nodes(tables(tmp_path, "id,width\na,1\nb,2\n", "src,dst,since\na,b,0.5\n")).load()
    with pytest.warns(UserWarning, match="no edge between two nodes"):
        Nodes(tables(tmp_path, "id,width\na,1\nb,2\n", "src,dst\na,a\n")).load()


def test_attributes_of_another_graph_are_read_by_their_names(tmp_path: Path) -> None:
    first = Nodes(tables(tmp_path / "first", "id,width,mass\na,1,10\nb,2,20\n"), hops=1)
    fixed = fixed_to(first, first.load_all().data)
    assert isinstance(fixed, Nodes)
    turned = fixed.at(tables(tmp_path / "turned", "id,mass,width\na,10,1\nb,20,2\n"))
    both = [each.load_all().data.read(torch.arange(2)) for each in (first, turned)]
    assert torch.equal(*both)
    assert not torch.equal(both[0], first.at(str(tmp_path / "turned")).load_all().data.read(torch.arange(2)))


def test_attributes_and_a_matrix_of_edges_are_a_graph(tmp_path: Path) -> None:
    np.savez(tmp_path / "graph.npz", x=np.eye(3), adj=np.ones((3, 3)))
    assert isinstance(open_source(str(tmp_path / "graph.npz")), Nodes)
    np.savez(tmp_path / "rows.npz", x=np.eye(3), A=np.ones((3, 2)))
    assert not isinstance(open_source(str(tmp_path / "rows.npz")), Nodes)


def test_a_directed_graph_stays_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "graph.npz", x=np.eye(3), edge_index=np.array([[0, 1], [1, 2]]))
    context = Nodes(str(tmp_path / "graph.npz"), directed=True).load().train.context
    assert isinstance(context, Graph)
    assert context.edges.tolist() == [[0, 1], [1, 2]]


def test_means_of_neighbours_by_hand() -> None:
    """A chain of three and a node alone, which keeps its own."""
    x, edges = np.array([[1.0], [3.0], [5.0], [7.0]]), np.array([[0, 1, 1, 2], [1, 0, 2, 1]])
    assert graphs.with_neighbours(x, edges, 2).tolist() == [[1, 3, 3], [3, 3, 3], [5, 3, 3], [7, 7, 7]]


def context_of(path: Path | str) -> Graph:
    context = Nodes(str(path), hops=0).load().train.context
    assert isinstance(context, Graph)
    return context


def test_weights_of_edges_are_read_from_every_form(tmp_path: Path) -> None:
    """Both ways count the larger one, 0 is no edge, and the mean of all is 1."""
    x, edges, weights = np.eye(4, 2), np.array([[0, 1, 1, 2, 3], [1, 0, 2, 3, 0]]), np.array([1.0, 2.0, 6.0, 4.0, 0.0])
    network = scipy.sparse.coo_array((weights, tuple(edges)), shape=(4, 4))
    np.savez(tmp_path / "a.npz", x=x, edge_index=edges, edge_weight=weights)
    np.savez(tmp_path / "b.npz", x=x, edge_index=edges, edge_attr=weights[:, None])
    scipy.io.savemat(tmp_path / "c.mat", {"Attributes": x, "Network": network})
    lines = "".join(f"{a},{b},{w}\n" for a, b, w in zip(*edges, weights, strict=True))
    table = tables(tmp_path / "d", "id,one,other\n0,1,0\n1,0,1\n2,0,0\n3,0,0\n", f"src,dst,weight\n{lines}")
    for path in (tmp_path / "a.npz", tmp_path / "b.npz", tmp_path / "c.mat", table):
        graph = context_of(path)
        assert graph.edges.tolist() == [[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]]
        assert graph.weights is not None
        assert graph.weights.tolist() == [0.5, 0.5, 1.5, 1.5, 1.0, 1.0]
    samples = Nodes(str(tmp_path / "a.npz"), hops=1).load().train.read(torch.tensor([1]))
    assert torch.allclose(samples, torch.tensor([[0.0, 1.0, 0.25, 0.0]]))


@pytest.mark.parametrize("weights", [[2.0, 2.0], [1, 1]])
def test_weights_that_are_all_the_same_are_none(weights: list[float], tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.eye(3), edge_index=np.array([[0, 1], [1, 2]]), edge_weight=np.array(weights))
    assert context_of(tmp_path / "a.npz").weights is None


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_a_weight_that_is_no_weight_is_refused(weight: float, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.eye(3), edge_index=np.array([[0, 1], [1, 2]]), edge_weight=np.array([1, weight]))
    with pytest.raises(InputError, match="edge 1 has the weight"):
        Nodes(str(tmp_path / "a.npz")).load()


def test_several_numbers_an_edge_are_not_read_and_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.eye(3), edge_index=np.array([[0, 1], [1, 2]]), edge_attr=np.ones((2, 3)))
    with pytest.warns(UserWarning, match=r"\[2, 3\].* is not read"):
        assert context_of(tmp_path / "a.npz").weights is None


@pytest.mark.parametrize(("spelling", "weighs"), [
    ("dominant", True), ("cola", True), ("graph-classifier", True), ("GraphClassifier(conv='bwgnn')", True),
    ("GraphClassifier(conv='sage')", False), ("GraphClassifier(conv='gin')", False),
])  # fmt: skip
def test_weights_of_edges_count(spelling: str, weighs: bool) -> None:
    """A weight that is next to nothing is as no edge, in what knows weights."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 4, generator=generator)
    ring = torch.stack([torch.arange(20), (torch.arange(20) + 1) % 20])
    edges = torch.cat([ring, ring.flip(0)], 1)
    faint = torch.where(edges.sum(0) == 1, 1e-9, 1.0)  # from 0 to 1 and back
    detector = parse_one(spelling, "detector")
    names = [str(i) for i in range(20)]
    data = Data(x, names, (), Graph(x, edges), ROW)
    known = Labelled(data.take([9])) if detector.needs_labels else None
    fit(detector, data, training=Training(epochs=2), anomalies=known)
    scores = [
        inference.score(detector, Data(x, names, (), graph, ROW))
        for graph in (Graph(x, edges), Graph(x, edges, weights=faint), Graph(x, edges[:, faint == 1]))
    ]
    assert torch.allclose(scores[0], scores[1]) != weighs
    assert torch.allclose(scores[1], scores[2], atol=1e-4) == weighs


def test_nodes_are_masked_and_the_graph_is_not_cut(made: tuple[np.ndarray, ...], tmp_path: Path) -> None:
    path, _ = written("npz", tmp_path, made)  # type: ignore[arg-type]
    problem = Nodes(path, hops=0).load()
    context = problem.train.context
    assert isinstance(context, Graph)
    assert len(context) == len(problem.train) < len(context.nodes) == N
    assert torch.equal(context.nodes[context.asked], problem.train.read(torch.arange(len(problem.train))))


def test_the_error_of_edges_is_that_of_the_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    z, edges = torch.randn(9, 3, generator=generator), torch.tensor([[0, 1, 4, 5], [1, 0, 5, 4]])
    for weights in (None, torch.tensor([0.5, 0.5, 3.0, 3.0])):
        matrix = torch.zeros(9, 9).index_put((edges[1], edges[0]), torch.ones(4) if weights is None else weights)
        found = edges_error(z, Graph(z, edges, weights=weights))
        assert torch.allclose(found, (matrix - z @ z.T).square().sum(1), atol=1e-4)


def test_the_laplacian_and_its_bands() -> None:
    """L of a pair of nodes has the eigenvalues 0 and 2; the three bands add up to a polynomial that is 3 at 0."""
    edges = torch.tensor([[0, 1], [1, 0]])
    assert laplacian(torch.tensor([[1.0], [1.0]]), edges).abs().max() < 1e-6
    assert torch.allclose(laplacian(torch.tensor([[1.0], [-1.0]]), edges), torch.tensor([[2.0], [-2.0]]))
    weighted = laplacian(torch.tensor([[1.0], [-1.0]]), edges, torch.tensor([7.0, 7.0]))
    assert torch.allclose(weighted, torch.tensor([[2.0], [-2.0]]))
    assert [sum(band) for band in zip(*BetaWavelet.BANDS, strict=True)] == [3.0, 0.0, 0.0]


@pytest.mark.parametrize("name", ["graph-classifier", "dominant", "cola"])
def test_a_node_of_weight_0_still_speaks_to_its_neighbours(name: str, made: tuple, tmp_path: Path) -> None:
    """Leaving a node out of training changes nothing but its say; taking its edges away changes its neighbours."""
    if name != "cola":
        pytest.importorskip("torch_geometric")
    path, _ = written("npz", tmp_path, made)
    everything = Nodes(path, hops=0).load_all()
    known = everything.take(np.array([0, 1])) if name == "graph-classifier" else None
    detector = parse_one(name, "detector")
    w = torch.ones(N)
    w[7] = 0
    fit(detector, everything.data, training=Training(epochs=3), base_weights=w, anomalies=known)
    graph = everything.data.context
    assert isinstance(graph, Graph)
    kept = graph.edges[:, (graph.edges != 7).all(0)]
    whole: Batch = next(everything.data.batches(N))
    cut = next(Data(graph.nodes, everything.data.names, context=Graph(graph.nodes, kept)).batches(N))
    near = graph.edges[1][graph.edges[0] == 7]
    with torch.no_grad():
        moved = (detector.score(whole) - detector.score(cut)).abs()
    assert float(moved[near].min()) > 0


@pytest.mark.parametrize("detector", ["auto", "dominant", "cola", "graph-classifier"])
def test_a_run_end_to_end(detector: str, made: tuple, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if detector in ("dominant", "graph-classifier"):
        pytest.importorskip("torch_geometric")
    path, _ = written("npz", tmp_path, made)
    options = {"anomalies": "1"} if detector == "graph-classifier" else {}
    run = tailwise.fit(path, detector=detector, out=tmp_path / "run", **options)
    scores = run.score(path)
    assert scores["sample"].tolist() == [str(i) for i in range(N)]
    assert len(run.scores()) == (N - 3 + 1) // 2
    if detector == "auto":
        assert (scores["score"].rank(ascending=False)[:3] <= 3).sum() >= 2
    assert (tmp_path / "run" / "report.html").is_file()
    assert cli(["explain", str(run.path), path, "--sample", "1"]) == 0
    said = capsys.readouterr().out
    assert ("adds to the score" in said) == (detector == "auto")
    assert ("depends on the samples around" in said) == (detector != "auto")
    assert "neighbour in the graph" in said


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_means_around_one_node_are_those_of_all(hops: int, made: tuple[np.ndarray, ...]) -> None:
    x, edges = made[0], graphs.tidied(made[1], N).edges
    everyone = graphs.with_neighbours(x, edges, hops)
    for node in range(0, N, 7):
        np.testing.assert_allclose(graphs.with_neighbours_at(x, edges, hops, node), everyone[node], rtol=1e-5)


@pytest.mark.parametrize("looks_around", [False, True])
def test_the_neighbour_that_makes_a_node_odd_is_named(looks_around: bool) -> None:
    """Node 0 lies beside nodes 1 to 5, which are like it, and beside 6, which is not."""
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    x[6] = 30
    edges = graphs.tidied(np.array([[0] * 6 + list(range(7, 39)), list(range(1, 7)) + list(range(8, 40))]), 40).edges
    hops = 0 if looks_around else 1
    samples = graphs.with_neighbours(x, edges, hops) if hops else x
    data = Data(torch.from_numpy(samples), list(range(40)), (), Graph(torch.from_numpy(x), torch.from_numpy(edges)))
    detector = parse_one("cola" if looks_around else "gaussian", "detector")
    fit(detector, data.take(np.arange(7, 40)) if hops else data, training=Training(epochs=2))
    found = links(detector, data, 0)
    assert found is not None
    assert found["of"] == 6
    assert {row["sample"] for row in found["rows"]} == {"1", "2", "3", "4", "5", "6"}
    if looks_around:
        assert all(np.isfinite(row["contribution"]) for row in found["rows"])
    else:
        assert found["rows"][0]["sample"] == "6"
    alone = Data(torch.from_numpy(x), list(range(40)), (), data.context)
    assert links(parse_one("gaussian", "detector"), alone, 0) is None


def test_the_page_is_that_of_the_rows(module_of: Callable[[Path], ModuleType]) -> None:
    script = module_of(Path(__file__).parents[1] / "benchmarks" / "graphs.py")
    assert script.PAGE.read_text() == script.page()
    documented = script.DOCS.read_text()
    assert documented == script.documented(documented)


def test_samples_of_no_graph_are_refused_by_name() -> None:
    data = Data(torch.eye(4), list("abcd"))
    with pytest.raises(InputError, match="cola looks at a graph"):
        fit(parse_one("cola", "detector"), data)


def test_a_node_is_a_copy_of_another_where_its_neighbours_are_equal_too() -> None:
    x = torch.tensor([[1.0], [1.0], [1.0], [2.0], [2.0], [3.0]])
    # Both of the first two have a 2 and a 3 around them, the third a 2 alone.
    edges = torch.tensor([[0, 3], [0, 5], [5, 1], [4, 1], [2, 3]]).T
    graph = Graph(x, torch.cat([edges, edges.flip(0)], 1))
    names = [str(i) for i in range(6)]
    found = identity.digests(Data(x, names, context=graph))
    assert found[0] == found[1]
    assert len({*found}) == 5
    part = torch.tensor([2, 1])
    assert identity.digests(Data(x, names, context=graph).take(part)) == [found[2], found[1]]


def test_an_anomaly_with_the_attributes_of_a_training_node_is_tested(
    tmp_path: Path, made: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    x, edges, y = made
    path = tmp_path / "graph.npz"
    np.savez(path, x=np.concatenate([x[3:6], x[3:]]), edge_index=edges, y=y)
    assert cli(["fit", str(path), "--detector", "dominant", "--epochs", "1", "--out", str(tmp_path / "run")]) in (0, 3)
    checks = json.loads((tmp_path / "run" / "report.json").read_text())["data_checks"]
    assert [check["count"] for check in checks if check["name"] == "training samples in the test data"] == [0]
