"""Routers: what lists are found by, apart from the centroids that scores and residuals are of."""

from dataclasses import replace

import faiss
import numpy as np
import pytest
from conftest import QUICK, N, core, serialized
from factories import LISTED, small

from faiss_distill import (
    DistillConfig,
    DistillTrainer,
    InputError,
    TunedParameters,
    UnsupportedIndexError,
    describe,
    distill,
)
from faiss_distill.exports.cuvs import to_cuvs
from faiss_distill.index.registry import FAMILIES, open_index
from faiss_distill.tuning.gate import Gate, Verdict

ROUTED = [factory for factory in LISTED if not factory.endswith(("Flat", "PQ16x4fs"))]
"""With lists of residuals: one of each family."""
QUICKER = QUICK | {"max_queries": 400, "fill_to": 0}


class KeepsAll(Gate):
    def judge(self, *_):
        return Verdict(True, "", 0.0, (0.0, 0.0))


def tuned(index, data, **options):
    """A tuning with a router that is kept whatever comes of it."""
    config = DistillConfig(**QUICKER | {"router": True} | options)
    gate = KeepsAll(start_counts=False)
    return DistillTrainer(index, data.documents[:N], data.queries[:400], config=config, gate=gate).train()


def metric_of(factory):
    return ("ip", "l2")[len(factory) % 2]


def moved(index):
    """A state of an index with a router that is not its centroids."""
    state = open_index(index).extract()
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(state.centroids.shape) * state.centroids.std()
    return replace(state, router=(state.centroids + noise).astype(np.float32))


def write(index, state):
    adapter = open_index(index)
    return adapter.write(state, adapter.quantizer_with(state.centroids, state.router)[0])


@pytest.mark.parametrize("factory", ROUTED)
def test_lists_are_found_by_the_router_and_scores_stay(built, data, factory):
    """A search of one list finds the same distances as one of all lists, of what the router's list holds."""
    index, queries = built(factory, metric_of(factory)), data.queries[:50]
    ivf, state = core(index), moved(index)
    ivf.nprobe = ivf.nlist
    everywhere, ids = index.search(queries, N)
    with write(index, state) as change:
        change.commit()
    ivf.nprobe = 1
    inside = open_index(index).transforms(queries)
    best = faiss.knn(inside, state.router, 1, ivf.quantizer.metric_type)[1]
    assert (best != faiss.knn(inside, state.centroids, 1, ivf.quantizer.metric_type)[1]).any()
    for found, distances, all_ids, wanted, known in zip(
        *index.search(queries, N)[::-1], ids, best, everywhere, strict=True
    ):
        n = (found >= 0).sum()
        assert set(found[:n]) == set(np.flatnonzero(state.assignment == wanted))
        by_id = dict(zip(all_ids, known, strict=True))
        # FastScan rounds.
        np.testing.assert_allclose(distances[:n], [by_id[i] for i in found[:n]], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("factory", ROUTED)
def test_undone_it_is_bitwise_what_it_was(built, factory):
    index = built(factory, metric_of(factory))
    before, quantizer = serialized(index), int(core(index).quantizer.this)
    with write(index, moved(index)):
        assert serialized(index) != before
    assert serialized(index) == before
    assert int(core(index).quantizer.this) == quantizer
    with pytest.raises(RuntimeError, match="amid"), write(index, moved(index)):
        raise RuntimeError("amid it")
    assert serialized(index) == before


@pytest.mark.parametrize("factory", [small(FAMILIES[faiss.IndexIVFPQ].example), "IVF16,PQ16x4fsr", "IVF16,RQ4x4"])
def test_tuned_it_is_an_index_like_any_other(built, data, factory):
    index = built(factory, metric_of(factory))
    bytes_before = describe(index).total_bytes
    report = tuned(index, data)
    state, adapter = open_index(index).extract(), open_index(index)
    assert not np.array_equal(state.router, state.centroids)
    np.testing.assert_array_equal(report.parameters.router, state.router)
    own = core(index)
    for again in (faiss.deserialize_index(faiss.serialize_index(index)), faiss.clone_index(index)):
        read = open_index(again).extract()
        np.testing.assert_array_equal(read.router, state.router)
        np.testing.assert_array_equal(read.centroids, state.centroids)
        core(again).nprobe = own.nprobe = 4
        np.testing.assert_array_equal(again.search(data.queries[:50], 5)[1], index.search(data.queries[:50], 5)[1])
    # faiss adds by the router.
    index.add(data.documents[N : N + 50])
    added = open_index(index).extract().assignment[N:]
    inside = adapter.transforms(data.documents[N : N + 50])
    np.testing.assert_array_equal(added, faiss.knn(inside, state.router, 1, own.metric_type)[1][:, 0])
    # Its bytes are counted.
    size = state.router.nbytes
    described = describe(index)
    assert report.router_bytes == size == described.shared_bytes["router"]
    assert f"{size} bytes more for a router" in str(report)
    assert described.total_bytes == bytes_before + size + 50 * (described.total_bytes - bytes_before - size) // 50
    assert "router" in described.what_changes


def test_the_bytes_of_a_file_are_those_described(built):
    index = built("IVF16,PQ16x4")
    before, described = faiss.serialize_index(index).nbytes, describe(index)
    with write(index, moved(index)) as change:
        change.commit()
    router = 4 * 16 * 64
    assert describe(index).total_bytes == described.total_bytes + router
    assert describe(index).shared_bytes["coarse quantizer"] == described.shared_bytes["coarse quantizer"]
    assert router <= faiss.serialize_index(index).nbytes - before < router + 200  # headers


def test_tuned_again_it_keeps_a_router_of_its_own(built, data):
    index = built("IVF16,PQ16x4")
    tuned(index, data)
    quantizer, first = int(core(index).quantizer.this), open_index(index).extract()
    report = tuned(index, data, router=False, seed=1)
    second = open_index(index).extract()
    assert int(core(index).quantizer.this) == quantizer
    assert report.router_bytes == 0
    assert not np.array_equal(second.router, first.router)
    assert not np.array_equal(second.router, second.centroids)


def test_who_holds_the_flat_quantizer_holds_the_router(built, data):
    """It is not freed: neither one that the index owned nor a user's own."""
    index = built("IVF16,PQ16x4")
    held = faiss.downcast_index(index.quantizer)
    tuned(index, data)
    np.testing.assert_array_equal(held.reconstruct_n(0, 16), open_index(index).extract().router)
    flat = faiss.IndexFlatIP(64)
    own = faiss.IndexIVFPQ(flat, 64, 16, 16, 4, faiss.METRIC_INNER_PRODUCT)
    own.train(data.documents[:N])
    own.add(data.documents[:N])
    tuned(own, data)
    state = open_index(own).extract()
    del own
    np.testing.assert_array_equal(flat.reconstruct_n(0, 16), state.router)


def test_it_is_not_kept_where_it_is_no_better(built, data):
    index = built("IVF16,PQ16x4")
    before = serialized(index)
    gate = type("KeepsNone", (Gate,), {"judge": lambda *_: Verdict(False, "", 0.0, (0.0, 0.0))})()
    config = DistillConfig(**QUICKER, router=True)
    report = DistillTrainer(index, data.documents[:N], data.queries[:400], config=config, gate=gate).train()
    assert not report.kept
    assert serialized(index) == before


@pytest.mark.parametrize("options", [{"epochs": 0}, {"learn": "centroids", "learning_rate": 1e-30}])
def test_one_that_learned_nothing_takes_no_bytes(built, data, options):
    index = built("IVF16,PQ16x4")
    report = tuned(index, data, **options)
    assert report.kept
    assert report.router_bytes == 0
    assert report.parameters.router is None
    assert type(faiss.downcast_index(index.quantizer)) is faiss.IndexFlatIP


def test_a_copy_is_given_one_and_the_index_stays(built, data):
    index = built("OPQ8,IVF16,PQ8x4np,RFlat")
    before = serialized(index)
    config = DistillConfig(**QUICKER, router=True)
    gate = KeepsAll(start_counts=False)
    trainer = DistillTrainer(index, data.documents[:N], data.queries[:400], config=config, gate=gate, inplace=False)
    report = trainer.train()
    assert serialized(index) == before
    assert open_index(index).extract().router is None
    assert open_index(report.index).extract().router is not None


def test_each_part_of_shards_has_one(built, data):
    parts = [built("IVF16,PQ16x4", n=N) for _ in range(2)]
    for i, part in enumerate(parts):
        part.remove_ids(np.arange(i, N, 2))
    whole = faiss.IndexShards(64, False, False)
    for part in parts:
        whole.add_shard(part)
    report = tuned(whole, data)
    routers = [open_index(part).extract().router for part in parts]
    np.testing.assert_array_equal(*routers)
    assert report.router_bytes == 2 * routers[0].nbytes
    assert {type(faiss.downcast_index(part.quantizer)) for part in parts} == {faiss.IndexRefineFlat}
    assert int(parts[0].quantizer.this) != int(parts[1].quantizer.this)


def test_parameters_bring_it_along(built, data, tmp_path):
    sample, other = built("IVF16,PQ16x4"), built("IVF16,PQ16x4")
    plain = tuned(built("IVF16,PQ16x4"), data, router=False).parameters
    tuned(sample, data).parameters.save(tmp_path / "learned")
    parameters = TunedParameters.load(tmp_path / "learned")
    parameters.apply(other, data.documents[:N], keep=True)
    np.testing.assert_array_equal(open_index(other).extract().router, parameters.router)
    report = parameters.add(other, data.documents[N : N + 200])
    assert report.index is other
    assert other.ntotal == N + 200
    np.testing.assert_array_equal(open_index(other).extract().router, parameters.router)
    before = serialized(other)
    with pytest.raises(InputError, match="parameters: expected those with a router, as the index has one"):
        plain.apply(other, data.documents[: N + 200])
    with pytest.raises(InputError, match="index: expected one that holds these parameters"):
        plain.add(other, data.documents[N : N + 200])
    assert serialized(other) == before
    graph = built("IVF16_HNSW16,PQ16x4")
    with pytest.raises(InputError, match=r"router: expected False.*IndexHNSWFlat"):
        parameters.apply(graph, data.documents[:N])
    parameters = replace(parameters, config=replace(parameters.config, router=False))  # as of an index that had one
    with pytest.raises(InputError, match=r"parameters: expected those without a router.*IndexHNSWFlat"):
        parameters.apply(graph, data.documents[:N])


@pytest.mark.parametrize(
    ("factory", "why"),
    [
        ("IVF16_HNSW16,PQ16x4", "its coarse quantizer is an IndexHNSWFlat, not a flat one"),
        ("IVF64(RQ2x4),PQ16x4", r"its coarse quantizer is an \w*Residual\w*, not a flat one"),
        ("IVF16(SQ8),PQ16x4", "its coarse quantizer is an IndexScalarQuantizer, not a flat one"),
        ("IVF16,PQ16x4fs", "its codes are not of residuals"),
        ("IVF16,Flat", "its codes are not of residuals"),
        ("PQ16x4", "it has no lists"),
    ],
)
def test_where_there_can_be_none_it_is_refused(built, data, factory, why):
    index = built(factory, "l2")
    before = serialized(index)
    with pytest.raises(InputError, match=f"router: expected False for an .*, got True; .*{why}"):
        distill(index, data.documents[:N], data.queries[:400], **QUICKER | {"nprobe": None}, router=True)
    assert serialized(index) == before


@pytest.mark.parametrize("options", [{"learn": "codebooks"}, {"loss": "reconstruction"}])
def test_what_teaches_no_router_is_refused(options):
    with pytest.raises(InputError, match=r"router: expected False with .*nothing would teach it"):
        DistillConfig(router=True, **options)


def test_cuvs_has_none(built):
    index = built("IVF16,PQ16x4")
    with write(index, moved(index)) as change:
        change.commit()
    with pytest.raises(UnsupportedIndexError, match="found by a router"):
        to_cuvs(index)
