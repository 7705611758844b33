"""What a search computes: as faiss counts it in a process that does nothing else, and without its counters."""

import threading

import faiss
import numpy as np
import pytest
from conftest import METRICS, QUICK, N, core
from factories import ALONE, CONTAINED, LISTED

from faiss_distill import InputError, distill, evaluate, operating_points
from faiss_distill.index.registry import open_index, open_to_measure
from faiss_distill.index.search_parameters import searching

GRAPHS = ["HNSW8", "HNSW16_SQ8", "IDMap,HNSW8", "PCA32,HNSW8", "HNSW8,RFlat"]


def counted_by_faiss(index, queries, k, values):
    lists, graph = faiss.cvar.indexIVF_stats, faiss.cvar.hnsw_stats
    lists.reset()
    graph.reset()
    with searching(index, values) as params:
        index.search(queries, k, params=params)
    return lists.ndis, graph.ndis


def assert_cost_is_faisss(index, queries, values, k=10):
    cost = open_to_measure(index).cost(queries, values)
    assert tuple(cost) == counted_by_faiss(index, queries, k, values)
    assert cost.codes > 0
    return cost


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("factory", LISTED + CONTAINED)
def test_codes_scanned_are_those_that_faiss_counts(built, data, factory, metric):
    index, queries = built(factory, metric), data.queries[:150]
    core(index).nprobe = 3
    costs = [assert_cost_is_faisss(index, queries, values) for values in ({}, {"nprobe": 8}, {"nprobe": 32})]
    assert costs[0].codes < costs[1].codes < costs[2].codes <= 150 * N


@pytest.mark.parametrize("factory", ALONE)
def test_without_lists_all_codes_are_compared(built, data, factory):
    assert open_index(built(factory)).cost(data.queries[:150], {}) == (150 * N, 0)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("factory", GRAPHS)
@pytest.mark.parametrize(("k", "ef"), [(1, 16), (10, 64), (100, 16)])
def test_distances_in_a_graph_are_those_that_faiss_counts(built, data, factory, metric, k, ef):
    index, queries = built(factory, metric), data.queries[:300]
    codes, in_graph = open_to_measure(index).cost(queries, {"efSearch": ef})
    lists, graph = counted_by_faiss(index, queries, k, {"efSearch": ef})
    assert (in_graph, lists) == (0, 0)
    assert codes == (graph if k <= ef else pytest.approx(graph, rel=5e-4))  # equal distances, see graph_distances
    assert 0 < codes < 300 * N


def test_efsearch_of_a_coarse_quantizer_costs_distances(built, data):
    index = built("RR32,IVF32_HNSW8,PQ16x4")
    few, many = (assert_cost_is_faisss(index, data.queries, {"nprobe": 4, "quantizer_efSearch": n}) for n in (4, 32))
    assert few.in_graph < many.in_graph


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_however_a_search_is_spread_over_threads(built, data, mode):
    index = built()
    index.nprobe, index.parallel_mode = 5, mode
    assert_cost_is_faisss(index, data.queries[:150], {})


def test_a_limit_on_the_codes_of_a_query(built, data):
    index = built()
    index.nprobe, index.max_codes = 8, 300
    cost = assert_cost_is_faisss(index, data.queries[:150], {})
    index.max_codes = 0
    assert cost.codes < assert_cost_is_faisss(index, data.queries[:150], {}).codes


def test_an_nprobe_beyond_the_lists(built, data):
    index = built()
    index.nprobe = 100
    assert assert_cost_is_faisss(index, data.queries[:150], {}).codes == 150 * N


@pytest.mark.parametrize("factory", ["IVF16,PQ16x4", "RR32,IVF16_HNSW8,PQ16x4", "IVF16,PQ16x4fs"])
@pytest.mark.parametrize("kind", [faiss.IndexShards, faiss.IndexReplicas])
def test_shards_and_replicas(built, data, factory, kind):
    parts = [built(factory), built(factory)]
    whole = kind(64, True)
    for part in parts:
        (whole.add_shard if kind is faiss.IndexShards else whole.addIndex)(part)
    if kind is faiss.IndexShards:
        whole.successive_ids = True
    assert_cost_is_faisss(whole, data.queries[:150], {"nprobe": 4})
    assert [core(part).nprobe for part in parts] == [1, 1]


def test_what_shards_would_take_from_the_first(built):
    parts = [built("IVF16,PQ16x4,RFlat"), built("IVF16,PQ16x4,RFlat")]
    whole = faiss.IndexShards(64)
    for part in parts:
        whole.add_shard(part)
    parts[1].k_factor = 2
    with pytest.raises(InputError, match="the same k_factor in all parts of an IndexShards, got 1 in part 0 and 2 in"):
        open_index(whole)


@pytest.fixture
def busy(built, data):
    """Another thread that searches other indexes all the while."""
    others = built("IVF16_HNSW8,SQ8"), built("HNSW8")
    stop, searched = threading.Event(), []

    def search():
        while not stop.is_set():
            for other in others:
                other.search(data.queries[:50], 10)
            searched.append(1)

    thread = threading.Thread(target=search)
    yield lambda: (thread.start(), searched)[1]
    stop.set()
    thread.join()


@pytest.mark.parametrize("factory", ["IVF16,PQ16x4", "IVF16_HNSW8,PQ16x4", "HNSW8"])
def test_other_searches_do_not_count(built, data, busy, factory):
    index, asked = built(factory), data.queries[:200]

    def measured():
        points = evaluate(index, data.documents[:N], asked, progress=False).points
        points += operating_points(index, data.documents[:N], asked, progress=False).points
        return [(p.codes_scanned, p.distances) for p in points]

    quiet = measured()
    searched = busy()
    assert [measured() for _ in range(2)] == [quiet] * 2
    assert searched


def test_a_good_result_is_kept_while_others_search(built, data, busy):
    def tuned():
        report = distill(built(), data.documents[:N], data.queries, **QUICK)
        return report.kept, [(p.codes_scanned, p.distances) for e in (report.before, report.after) for p in e.points]

    quiet = tuned()
    assert quiet[0]
    busy()
    assert tuned() == quiet


def test_faisss_counters_are_left_to_others(built, data):
    """What a user counts with them goes on: they are not set back."""
    index, stats = built("IVF16_HNSW8,PQ16x4"), (faiss.cvar.indexIVF_stats, faiss.cvar.hnsw_stats)
    for counter in stats:
        counter.ndis = 10**9
    evaluate(index, data.documents[:N], data.queries[:100], progress=False)
    operating_points(index, data.documents[:N], data.queries[:100], progress=False)
    assert all(counter.ndis >= 10**9 for counter in stats)


@pytest.mark.parametrize("factory", [*LISTED, *CONTAINED, "HNSW8"])
def test_measuring_sets_nothing(built, data, factory, monkeypatch):
    """Another thread that searches meanwhile does so at the settings of the index."""
    index = built(factory)
    adapter, settings = open_to_measure(index), set()
    inner = faiss.downcast_index(getattr(adapter.core, "quantizer", adapter.core))
    graph = getattr(inner, "hnsw", None)
    real = type(adapter).cost

    def seen(self, *arguments):
        settings.add((getattr(adapter.core, "nprobe", 1), graph and graph.efSearch, getattr(index, "k_factor", 1)))
        return real(self, *arguments)

    monkeypatch.setattr(type(adapter), "cost", seen)
    points = operating_points(index, data.documents[:N], data.queries[:50], progress=False).points
    assert len(points) > 1
    assert len(settings) == 1


@pytest.mark.parametrize("factory", [*LISTED, *CONTAINED])
def test_a_search_at_given_parameters_is_that_of_an_index_set_to_them(built, data, factory):
    index = built(factory)
    values = {"nprobe": 7}
    if "HNSW8,PQ" in factory:
        values["quantizer_efSearch"] = 9
    if factory.endswith(("RFlat", "Refine(SQ8)")):
        values["k_factor_rf"] = 3
    with searching(index, values) as params:
        found = index.search(data.queries[:200], 10, params=params)
    for name, value in values.items():
        faiss.ParameterSpace().set_index_parameter(index, name, value)
    for one, other in zip(found, index.search(data.queries[:200], 10), strict=True):
        np.testing.assert_array_equal(one, other)
