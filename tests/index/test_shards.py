"""Shards and replicas: one training, all of them committed or none."""

import faiss
import numpy as np
import pytest
from conftest import QUICK, N, core, serialized, untrained
from faiss.contrib.ivf_tools import replace_ivf_quantizer

from faiss_distill import InputError, UnsupportedIndexError, distill, evaluate
from faiss_distill.index.parts.transaction import Transaction
from faiss_distill.index.registry import open_index
from faiss_distill.tuning.gate import Gate

FACTORIES = [
    "IVF16,PQ16x4",
    "OPQ8,IVF16_HNSW16,PQ8x4np",
    "IVF16,SQ8",
    "PRQ2x2x4",
    "PCA32,IVF16,PQ16x4fsr",
    "IVF16,RQ8x4fsr",
]


@pytest.fixture
def always_kept(monkeypatch):
    monkeypatch.setattr(Gate, "judge", lambda *_: (True, "", 0.0, (0.0, 0.0)))


@pytest.fixture
def sharded(data):
    """Three shards of unequal size, with the documents in turn or in a row, or two replicas."""

    def sharded(factory="IVF16,PQ16x4", metric="ip", kind="in turn", id_map=False, threaded=False):
        trained = untrained(factory, metric)
        trained.train(data.documents[:N])
        shares = {
            "in turn": [np.arange(i, N, 3) for i in range(3)],
            "in a row": np.split(np.arange(N), [300, 1100]),
            "replicas": [np.arange(N)] * 2,
        }[kind]
        whole = (
            faiss.IndexReplicas(64, threaded)
            if kind == "replicas"
            else faiss.IndexShards(64, threaded, kind == "in a row")
        )
        parts = []
        for rows in shares:
            part = faiss.clone_index(trained)
            if id_map:
                part = faiss.IndexIDMap2(part)
            if kind == "in turn" or (id_map and kind == "replicas"):
                part.add_with_ids(data.documents[rows], rows)
            elif id_map:
                part.add_with_ids(data.documents[rows], np.arange(len(rows)))
            else:
                part.add(data.documents[rows])
            (whole.addIndex if kind == "replicas" else whole.add_shard)(part)
            parts.append(part)
        for part in parts:
            if "IVF" in factory:
                faiss.extract_index_ivf(part).nprobe = 4
        return whole, parts

    return sharded


@pytest.mark.parametrize(("factory", "metric"), [*zip(FACTORIES, ["ip", "l2"] * 3, strict=False), (FACTORIES[0], "l2")])
@pytest.mark.parametrize("kind", ["in turn", "in a row", "replicas"])
def test_it_is_the_tuning_of_one_index(data, built, sharded, always_kept, factory, metric, kind):
    """Shards find what one index over all documents finds, before and after."""
    id_map = kind == "in turn" and "IVF" not in factory
    whole, parts = sharded(factory, metric, kind, id_map)
    single = untrained(factory, metric)
    single.train(data.documents[:N])
    single.add(data.documents[:N])
    options = QUICK if "IVF" in factory else QUICK | {"nprobe": None}
    reports = [distill(index, data.documents[:N], data.queries, **options) for index in (whole, single)]
    one, other = ([r.after.own, r.before.own] for r in reports)
    for a, b in zip(one, other, strict=True):
        assert a.codes_scanned == pytest.approx(b.codes_scanned, rel=1e-3)
        assert a.overlap_at_10 == pytest.approx(b.overlap_at_10, abs=0.005)  # equal scores may swap
    if "IVF" in factory:
        faiss.extract_index_ivf(single).nprobe = 4
    distances, ids = whole.search(data.queries[:100], 10)
    expected, same = single.search(data.queries[:100], 10)
    if "fs" not in factory:  # which rounds by shard
        np.testing.assert_allclose(distances, expected, rtol=1e-4, atol=1e-5)
        gaps = np.abs(np.diff(expected, axis=1)) > 1e-4  # documents with the same short code may swap
        apart = np.pad(gaps, ((0, 0), (1, 0)), constant_values=True) & np.pad(gaps, ((0, 0), (0, 1)))
        assert (ids == same)[apart].mean() > 0.99
    assert sum(part.ntotal for part in parts) == (2 * N if kind == "replicas" else N)


@pytest.mark.parametrize("kind", ["in turn", "replicas"])
@pytest.mark.parametrize("failing", range(2))
@pytest.mark.parametrize("step", ["_write_lists", "_write_centroids", "_write_codebooks", "prepare", "judge"])
def test_a_failure_in_any_part_undoes_all(data, sharded, always_kept, monkeypatch, kind, failing, step):
    whole, parts = sharded(kind=kind)
    before = [serialized(part) for part in parts]
    found = whole.search(data.queries[:50], 10)

    class InjectedError(Exception):
        pass

    def fail(*_):
        raise InjectedError

    real = Transaction.join

    def join(self, other):
        if step != "judge":
            monkeypatch.setattr(other.changes[failing], step, fail)
        real(self, other)

    monkeypatch.setattr(Transaction, "join", join)
    if step == "judge":
        monkeypatch.setattr(Gate, "judge", fail)
    with pytest.raises(InjectedError):
        distill(whole, data.documents[:N], data.queries, **QUICK)
    assert [serialized(part) for part in parts] == before
    np.testing.assert_array_equal(whole.search(data.queries[:50], 10)[1], found[1])


def test_all_parts_keep_the_same_norms(data, sharded, always_kept):
    """So that they can still be merged."""
    whole, parts = sharded("IVF16,RQ4x4_Nqint8", "l2")
    distill(whole, data.documents[:N], data.queries, **QUICK)
    found = whole.search(data.queries[:50], 10)[0]
    assert len({(part.rq.norm_min, part.rq.norm_max) for part in parts}) == 1
    parts[0].merge_from(parts[1], 0)
    parts[0].merge_from(parts[2], 0)
    np.testing.assert_allclose(parts[0].search(data.queries[:50], 10)[0], found, rtol=1e-5)


def test_a_refinement_outside_of_shards_compares_vectors_as_they_came(data):
    whole = faiss.IndexShards(64, False, True)
    for _ in range(2):
        part = untrained("L2norm,IVF16,PQ16x4")
        part.train(data.documents[:N])
        whole.add_shard(part)
    refined = faiss.IndexRefineFlat(whole)
    refined.add(data.documents[:N])
    assert open_index(whole).normalizes
    assert not open_index(refined).normalizes


def test_a_map_around_shards_and_threads(data, built):
    whole = faiss.IndexShards(64, True, True)
    trained = built(n=1500)
    trained.reset()
    for _ in range(3):
        whole.add_shard(faiss.clone_index(trained))
    outer = faiss.IndexIDMap2(whole)
    ids = np.random.default_rng(0).permutation(N) + 10**6
    outer.add_with_ids(data.documents[:N], ids)
    report = distill(outer, data.documents[:N], data.queries, ids=ids, **QUICK)
    assert report.description == "IndexIDMap2 > IndexShards of 3 > IndexIVFPQ"
    again = evaluate(outer, data.documents[:N], data.queries[:200], ids=ids, nprobe=4, progress=False)
    assert again.own.overlap_at_10 > 0.3


def test_a_sample_of_the_embeddings_of_shards(data, sharded, always_kept):
    whole, parts = sharded(kind="in turn")
    codes = [open_index(part).extract().codes for part in parts]
    rows = np.arange(0, N, 2)
    report = distill(whole, data.documents[rows], data.queries, ids=rows, encoding="frozen", **QUICK)
    assert report.n_embeddings == len(rows)
    for part, old in zip(parts, codes, strict=True):
        np.testing.assert_array_equal(open_index(part).extract().codes, old)
    books = [open_index(part).extract().codebooks for part in parts]
    np.testing.assert_array_equal(books[0], books[2])


class TestRefusals:
    def test_parts_that_were_not_trained_as_one(self, data, sharded, built):
        whole, parts = sharded()
        other = built("IVF16,PQ16x4", n=1500)
        other.nprobe = 4
        whole.add_shard(other)
        before = [serialized(part) for part in parts]
        with pytest.raises(
            InputError, match=r"copies of one trained index, got other (codebooks|coarse quantizer) in part 3"
        ):
            distill(whole, data.documents[:N], data.queries, **QUICK)
        assert [serialized(part) for part in parts] == before

    def test_replicas_that_differ(self, data, sharded):
        whole, parts = sharded(kind="replicas")
        parts[1].remove_ids(np.arange(5))
        with pytest.raises(InputError, match="got other ids in part 1"):
            open_index(whole)

    def test_ranges_that_differ(self, data, sharded):
        """Codes of one part are encoded by its own ranges."""
        whole, parts = sharded("IVF16,SQ8")
        ranges = faiss.vector_to_array(parts[2].sq.trained)
        faiss.copy_array_to_vector(2 * ranges, parts[2].sq.trained)
        with pytest.raises(InputError, match="got other ranges in part 2"):
            open_index(whole)

    @pytest.mark.parametrize("kind", ["replicas", "in turn"])
    def test_the_same_index_twice(self, built, kind):
        """Both would free its lists."""
        inner = built()
        whole = faiss.IndexReplicas(64) if kind == "replicas" else faiss.IndexShards(64)
        for _ in range(2):
            (whole.addIndex if kind == "replicas" else whole.add_shard)(faiss.IndexPreTransform(inner))
        with pytest.raises(InputError, match="of different indexes, got one in several of its parts"):
            open_index(whole)

    def test_parts_filled_behind_its_back(self, data, sharded):
        whole, parts = sharded(kind="in a row")
        parts[0].add(data.documents[:5])
        with pytest.raises(InputError, match=r"expected ntotal=2005 .* got 2000; call its syncWithSubIndexes"):
            open_index(whole)
        whole.syncWithSubIndexes()
        assert open_index(whole).extract().n == 2005
        with pytest.raises(InputError, match="with parts, got none"):
            open_index(faiss.IndexShards(64))

    def test_ids_of_their_own_with_successive_ids(self, data, sharded):
        _, parts = sharded(kind="in turn")
        whole = faiss.IndexShards(64, False, True)
        for start in (0, 0):  # 600 and on are those of the second, too
            part = faiss.clone_index(parts[0])
            part.reset()
            part.add_with_ids(data.documents[:600], np.arange(600) * 2 + start)
            whole.add_shard(part)
        with pytest.raises(InputError, match="set successive_ids = False if they have ids of their own"):
            open_index(whole).extract()

    def test_another_coarse_quantizer(self, built, sharded):
        whole, parts = sharded()
        other = faiss.clone_index(parts[0])
        graph = faiss.IndexHNSWFlat(64, 8, faiss.METRIC_INNER_PRODUCT)
        graph.add(parts[0].quantizer.reconstruct_n(0, 16))
        replace_ivf_quantizer(other, graph)
        whole.add_shard(other)
        with pytest.raises(InputError, match="got other coarse quantizer in part 3"):
            open_index(whole)

    def test_other_nprobe(self, sharded):
        whole, parts = sharded()
        parts[1].nprobe = 2
        with pytest.raises(InputError, match="the same nprobe in all parts of an IndexShards, got 4 in part 0 and 2"):
            open_index(whole)

    def test_ids_that_two_shards_share(self, data, sharded):
        whole, _ = sharded(kind="in a row", id_map=True)
        whole.successive_ids = False
        with pytest.raises(InputError, match="expected distinct ids"):
            distill(whole, data.documents[:N], data.queries, **QUICK)

    def test_a_part_that_cannot_be_tuned(self, sharded, data):
        whole, _ = sharded()
        flat = faiss.IndexFlatIP(64)
        flat.add(data.documents[:5])
        whole.add_shard(flat)
        with pytest.raises(UnsupportedIndexError, match=r"in part 3 of the IndexShards one .* got an IndexFlatIP"):
            open_index(whole)

    def test_shards_on_disk(self, sharded, tmp_path):
        whole, parts = sharded()
        inner = core(parts[1])
        lists = faiss.OnDiskInvertedLists(inner.nlist, inner.code_size, str(tmp_path / "lists"))
        lists.merge_from_1(inner.invlists)
        inner.replace_invlists(lists, True)
        lists.this.disown()
        with pytest.raises(UnsupportedIndexError, match="got part 1 with its lists on disk"):
            open_index(whole)
