import itertools
import json
import re

import faiss
import numpy as np
import pytest
from conftest import core, serialized

from faiss_distill import InputError, UnsupportedIndexError, evaluate, operating_points
from faiss_distill.cli import main
from faiss_distill.index.search_parameters import ranges

GRAPH = "IVF32_HNSW16,PQ16x4"
REFINED = "IVF16,PQ16x4,RFlat"


def overlap_at_10(index, data, queries=slice(0, 300)):
    """By a plain loop."""
    q = data.queries[queries]
    exact = faiss.knn(q, data.documents[:2000], 10, metric=faiss.METRIC_INNER_PRODUCT)[1]
    return np.mean([len({*a} & {*b}) / 10 for a, b in zip(index.search(q, 10)[1], exact, strict=True)])


def points_of(index, data, **options):
    return operating_points(index, data.documents[:2000], data.queries[:300], progress=False, **options)


def test_the_smallest_nprobe_against_trying_each(built, data):
    index = built()
    found = []
    for nprobe in range(1, 17):
        index.nprobe = nprobe
        found.append(overlap_at_10(index, data))
    points = points_of(index, data, parameters={"nprobe": range(1, 17)})
    for at_least in (found[0], found[2] + 1e-6, max(found) - 0.01):
        naive = next(i + 1 for i, f in enumerate(found) if f >= at_least - 1e-9)
        assert points.cheapest(at_least - 1e-9).nprobe == naive
        assert points.cheapest(at_least - 1e-9).overlap_at_10 == pytest.approx(found[naive - 1])


@pytest.mark.parametrize(("factory", "names"), [(GRAPH, ["nprobe", "efSearch"]), (REFINED, ["nprobe", "k_factor"])])
def test_the_front_against_trying_all(built, data, factory, names):
    index = built(factory)
    holder = core(index).quantizer if names[1] == "efSearch" else index
    holder = faiss.downcast_index(holder).hnsw if names[1] == "efSearch" else holder
    points = points_of(index, data)
    assert len(points.points) < np.prod([len(v) for v in ranges(index).values()])  # some were ruled out
    (other,) = ranges(index).keys() - {"nprobe"}
    for nprobe, value in itertools.product(ranges(index)["nprobe"], ranges(index)[other]):
        core(index).nprobe = nprobe
        setattr(holder, names[1], value)
        faiss.cvar.indexIVF_stats.reset()
        faiss.cvar.hnsw_stats.reset()
        found = overlap_at_10(index, data)
        stats = faiss.cvar.indexIVF_stats.ndis + faiss.cvar.hnsw_stats.ndis
        cost = stats / 300 + (10 * value if names[1] == "k_factor" else 0)
        values = {"nprobe": nprobe, other: value}
        text = ",".join(f"{name}={values[name]}" for name in ranges(index))
        for point in [p for p in points.points if p.parameters == text]:
            assert point.overlap_at_10 == pytest.approx(found, abs=1e-3)
            assert point.distances == pytest.approx(cost, rel=0.02)
        # nothing beats the front by more than what a larger value may lose
        assert any(p.overlap_at_10 >= found - 0.003 and p.distances <= cost * 1.02 for p in points.front)
    for a, b in itertools.pairwise(points.front):
        assert a.distances < b.distances
        assert a.overlap_at_10 < b.overlap_at_10


def test_distances_are_all_of_them(built, data):
    flat, graph, refined = (points_of(built(f), data).front[0] for f in ("IVF16,PQ16x4", GRAPH, REFINED))
    assert flat.distances == flat.codes_scanned
    index = built(GRAPH)
    faiss.ParameterSpace().set_index_parameters(index, graph.parameters)
    faiss.cvar.hnsw_stats.reset()
    index.search(data.queries[:300], 100)
    assert graph.distances == pytest.approx(graph.codes_scanned + faiss.cvar.hnsw_stats.ndis / 300)
    assert refined.parameters.startswith("k_factor_rf=1,")
    assert refined.distances == refined.codes_scanned + 10


@pytest.mark.parametrize("factory", ["IVF16,PQ16x4", GRAPH, REFINED, "IDMap2,IVF16,PQ16x4", "HNSW16", "Flat", "PQ16x4"])
def test_the_index_is_as_it_was(built, data, factory, monkeypatch):
    index = built(factory)
    before = serialized(index)
    points_of(index, data)
    assert serialized(index) == before
    monkeypatch.setattr("faiss_distill.evaluation.operating_points.measure_point", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        points_of(index, data)
    assert serialized(index) == before


@pytest.mark.parametrize("factory", ["IVF16,PQ16x4", GRAPH, REFINED, "IDMap2,IVF16,PQ16x4", "HNSW16"])
def test_what_is_set_is_what_was_measured_and_lasts(built, data, factory):
    index = built(factory)
    points = points_of(index, data)
    middle = points.front[len(points.front) // 2]
    got = points.set_on(index, middle.overlap_at_10)
    assert got == middle
    reread = faiss.deserialize_index(faiss.serialize_index(index))
    for same in (index, reread):
        assert overlap_at_10(same, data) == pytest.approx(middle.overlap_at_10, abs=0.002)


def test_shards_are_set_in_all_parts(built, data):
    parts = [built(), built()]
    half = np.arange(2000)
    for part, ids in zip(parts, (half[:1000], half[1000:]), strict=True):
        part.reset()
        part.add_with_ids(data.documents[ids], ids)
    shards = faiss.IndexShards(64, False, False)
    for part in parts:
        shards.add_shard(part)
    points = points_of(shards, data)
    assert [p.parameters for p in points.points] == ["nprobe=1", "nprobe=2", "nprobe=4", "nprobe=8"]
    points.set_on(shards, points.front[-1].overlap_at_10)
    assert [p.nprobe for p in parts] == [points.front[-1].nprobe] * 2


def test_labels_may_choose(built, data):
    index = built()
    relevant = faiss.knn(data.queries[:300], data.documents[:2000], 1, metric=faiss.METRIC_INNER_PRODUCT)[1].ravel()
    points = points_of(index, data, relevant=relevant, quality="label_recall_at_10")
    assert [p.label_recall_at_10 for p in points.front] == pytest.approx([p.nearest_in_10 for p in points.front])
    assert "R@10 (labels) against distances" in str(points)


def test_by_latency(built, data):
    points = points_of(built(), data, cost="latency_ms")
    assert all(a.latency_ms < b.latency_ms for a, b in itertools.pairwise(points.front))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": "recall"}, "quality: expected one of overlap_at_10, nearest_in_10, recall_at_k, got 'recall'"),
        ({"quality": "mrr_at_10"}, "got 'mrr_at_10'; those of labels need relevant="),
        ({"cost": "time"}, "cost: expected one of distances, latency_ms, got 'time'"),
        ({"parameters": {"efSearch": [4]}}, "parameters: expected some of nprobe, got 'efSearch'"),
        ({"parameters": {"nprobe": [4, 17]}}, "parameters: expected integers from 1 to 16 for nprobe, got"),
        ({"parameters": {"nprobe": []}}, "parameters: expected integers from 1 to 16 for nprobe, got"),
    ],
)
def test_wrong_options(built, data, options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        points_of(built(), data, **options)


def test_more_than_there_is(built, data):
    index = built()
    before = serialized(index)
    with pytest.raises(
        InputError, match=r"at_least: expected at most the overlap@10 of 0\.\d+ .* nprobe=\d+, got 0.99"
    ):
        points_of(index, data).set_on(index, 0.99)
    assert serialized(index) == before


@pytest.mark.parametrize(
    ("at_least", "got"),
    [
        (45, "45; 45 % is 0.45"),
        (99.5, "99.5; 99.5 % is 0.995"),
        (-0.1, "-0.1"),
        (101, "101"),
        (float("nan"), "nan"),
        (10**400, str(10**400)),
    ],
)
def test_what_is_no_share(built, data, at_least, got):
    with pytest.raises(InputError, match=f"^at_least: expected a number between 0 and 1, got {re.escape(got)}$"):
        points_of(built("Flat"), data).cheapest(at_least)


def test_another_index_that_has_not_all_parameters_is_as_it_was(built, data):
    points, other = points_of(built(GRAPH), data), built()
    before = serialized(other)
    with pytest.raises(InputError, match=r"parameters: expected some of nprobe, .* got 'nprobe="):
        points.set_on(other, points.front[-1].overlap_at_10)
    assert serialized(other) == before


def test_wrong_options_are_found_before_the_exact_search(built, data, monkeypatch):
    monkeypatch.setattr("faiss_distill.api.Teacher", lambda *a, **k: pytest.fail("searched"))
    with pytest.raises(InputError, match="cost: "):
        points_of(built(), data, cost="time")
    with pytest.raises(InputError, match="nprobe: "):
        evaluate(built(), data.documents[:2000], data.queries[:300], nprobe=17, progress=False)


def test_an_exact_index_is_one_point(built, data):
    points = points_of(built("Flat"), data)
    (point,) = points.front
    assert (point.overlap_at_10, point.distances, point.parameters) == (1.0, 2000, "")
    assert points.set_on(built("Flat"), 0.9) == point


@pytest.mark.parametrize("factory", ["Flat", "HNSW16", "SQ8", "PCA32,Flat", "IDMap,HNSW16", "HNSW16_SQ8"])
def test_baselines_that_cannot_be_tuned_are_measured(built, data, factory):
    index = built(factory)
    got = evaluate(index, data.documents[:2000], data.queries[:300], progress=False)
    assert got.own.overlap_at_10 == pytest.approx(overlap_at_10(index, data), abs=0.002)
    assert got.code_size == {"SQ8": 64, "PCA32,Flat": 128, "HNSW16_SQ8": 64}.get(factory, 256)
    assert (got.own.codes_scanned < 2000) == ("HNSW" in factory)
    assert "nprobe" not in str(got)
    with pytest.raises(InputError, match="embeddings: expected the vectors behind the index"):
        evaluate(index, data.documents[1000:3000], data.queries[:300], progress=False)


def test_lists_that_cannot_be_tuned_are_not_measured(data, built):
    index = faiss.index_factory(64, "IVF16,PQ16+8", faiss.METRIC_L2)
    index.train(data.documents)
    index.add(data.documents[:2000])
    with pytest.raises(UnsupportedIndexError, match="IndexIVFPQR"):
        evaluate(index, data.documents[:2000], data.queries[:300], progress=False)


def test_json_and_plot(built, data, tmp_path):
    points = points_of(built(GRAPH), data)
    assert json.loads(points.to_json())["front"][0]["parameters"] == points.front[0].parameters
    for suffix in ("png", "svg", "pdf"):
        points.plot(tmp_path / f"p.{suffix}")
        assert (tmp_path / f"p.{suffix}").stat().st_size > 5000
    with pytest.raises(InputError, match="plot: expected a file"):
        points.plot(tmp_path / "p.txt")


def test_the_plot_shows_each_point(built, data, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    points = points_of(built(REFINED), data)
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: (drawn.append(self), path.touch()))
    points.plot(tmp_path / "p.png")
    for ax, cost in zip(drawn[0].axes, ("distances", "latency_ms"), strict=True):
        every, front = ax.lines
        assert list(every.get_xdata()) == [getattr(p, cost) for p in points.points]
        assert list(front.get_ydata()) == [p.overlap_at_10 for p in points.front]


def test_the_command_sets_and_writes(built, data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    faiss.write_index(built(GRAPH), "i.faiss")
    before = (tmp_path / "i.faiss").read_bytes()
    np.save("x.npy", data.documents[:2000])
    np.save("q.npy", data.queries[:300])
    command = ["points", "i.faiss", "x.npy", "--queries", "q.npy"]
    assert main([*command, "--at-least", "0.2", "-o", "o.faiss", "--plot", "p.png"]) == 0
    said = capsys.readouterr()
    assert "overlap@10 against distances" in said.out
    chosen = re.fullmatch(r"cheapest of .* with nprobe=(\d+),quantizer_efSearch=(\d+)", said.out.splitlines()[-1])
    written = faiss.read_index("o.faiss")
    assert written.nprobe == int(chosen[1])
    assert faiss.downcast_index(written.quantizer).hnsw.efSearch == int(chosen[2])
    assert (tmp_path / "i.faiss").read_bytes() == before
    assert (tmp_path / "p.png").exists()

    assert main([*command, "-o", "p.faiss"]) == 2
    assert "expected it with --at-least" in capsys.readouterr().err
    assert main([*command, "--nprobe", "3", "5", "--json"]) == 0
    assert {p["nprobe"] for p in json.loads(capsys.readouterr().out)["points"]} <= {3, 5}
    assert main([*command, "--at-least", "0.99", "-o", "p.faiss"]) == 2
    assert "expected at most the overlap@10" in capsys.readouterr().err
    assert not (tmp_path / "p.faiss").exists()
