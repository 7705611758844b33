import gc
import inspect
import signal
import subprocess
import sys
from dataclasses import replace

import faiss
import numpy as np
import pytest
import torch
from conftest import FAISS, METRICS, core, of_metric, serialized, settle_norms, untrained, write_back
from factories import COARSE, CONTAINERS, ENCODED, FACTORIES, FINE, REFINED
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from faiss_distill import InputError, UnsupportedIndexError
from faiss_distill.config import DistillConfig, Learn
from faiss_distill.evaluation.measure import probing
from faiss_distill.index.families.codes import CodesAdapter
from faiss_distill.index.parts.packing import pack, unpack
from faiss_distill.index.parts.write_back import CodesWriteBack, IVFWriteBack
from faiss_distill.index.registry import REFUSED, open_index
from faiss_distill.index.search_parameters import searching
from faiss_distill.learning.students import CodebookStudent
from faiss_distill.state import Metric
from faiss_distill.tuning.settle import settle

STEPS = ["_write_lists", "_write_centroids", "_write_codebooks", "_refresh_tables", "_rebuild_direct_map"]
CODES_STEPS = ["_write_codes", "_write_codebooks"]


def moved(adapter, seed=0):
    """A state that differs from the index's in everything that may change, and the quantizer for it."""
    rng = np.random.default_rng(seed)
    state = adapter.extract()
    jitter = lambda x: (x + 0.1 * x.std() * rng.standard_normal(x.shape)).astype(np.float32)  # noqa: E731
    free = adapter.traits.fixed is None or not adapter.traits.lists  # some coarse quantizers are fixed
    quantizer, centroids = adapter.quantizer_with(jitter(state.centroids) if free else state.centroids)
    ksub = state.codebooks.shape[-2]
    codes = rng.integers(0, ksub, state.codes.shape).astype(state.codes.dtype)
    assignment = rng.integers(0, len(centroids), state.n)
    new = replace(state, centroids=centroids, codebooks=jitter(state.codebooks), codes=codes, assignment=assignment)
    return new, quantizer


def oracle(state, queries, nprobe_lists):
    """Scores of ``queries`` on all stored vectors, -inf outside the probed lists, by the definition."""
    decoded = state.reconstruct(np.arange(state.n)).astype(np.float64)
    q = queries.astype(np.float64)
    if state.metric is Metric.INNER_PRODUCT:
        scores = q @ decoded.T
    else:
        scores = -((q[:, None] - decoded[None]) ** 2).sum(2)
    probed = (nprobe_lists[:, :, None] == state.assignment[None, None]).any(1)
    return np.where(probed, scores, -np.inf)


def assert_search_is_the_oracles(adapter, state, queries, nprobe=4, k=10):
    index = adapter.index
    while isinstance(index, faiss.IndexIDMap | faiss.IndexRefineFlat):
        index = faiss.downcast_index(index.index if isinstance(index, faiss.IndexIDMap) else index.base_index)
    with searching(index, probing(adapter, nprobe)) as params:
        distances, ids = index.search(queries, k, params=params)
    inside = adapter.transforms(queries)
    flat = np.zeros((len(inside), 1), dtype=np.int64)
    lists = flat if adapter.nlist == 1 else adapter.core.quantizer.search(inside, nprobe)[1]
    scores = oracle(state, inside, lists)
    sign = 1 if state.metric is Metric.INNER_PRODUCT else -1
    best = -np.sort(-scores, axis=1)[:, :k]
    additive = isinstance(adapter.core, faiss.IndexIVFAdditiveQuantizerFastScan | faiss.IndexAdditiveQuantizerFastScan)
    if additive and state.metric is Metric.L2:  # whose distances leave out the query's norm
        distances = distances + np.square(inside).sum(1, keepdims=True)
    found = np.where(ids >= 0, sign * distances, -np.inf)
    # FastScan rounds its look-up tables to 8 bits, and additive quantizers may round norms.
    rounded = isinstance(adapter.core, faiss.IndexIVFFastScan | faiss.IndexFastScan)
    rounded |= adapter.codebooks.stores_norms and state.metric is Metric.L2
    tolerance = 0.02 * float(np.ptp(scores[np.isfinite(scores)])) if rounded else 1e-4
    np.testing.assert_allclose(found, best, atol=tolerance)
    rows = np.searchsorted(state.ids, ids.clip(min=0))
    own = np.take_along_axis(scores, rows, 1)
    np.testing.assert_allclose(found, np.where(ids >= 0, own, -np.inf), atol=tolerance)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("factory", FACTORIES)
class TestRoundTrip:
    def test_what_is_extracted_decodes_as_faiss_decodes(self, built, data, factory, metric):
        index = built(factory, metric)
        if "fs" in factory and "IVF" in factory:  # faiss itself crashes in reconstructing from one that was read
            index = untrained(factory, metric)
            index.train(data.documents[:2000])
            index.add_with_ids(data.documents[:2000], np.arange(2000))
        adapter = open_index(index)
        state = adapter.extract()
        if adapter.nlist > 1:
            adapter.core.make_direct_map()
        np.testing.assert_allclose(state.reconstruct(np.arange(50)), adapter.core.reconstruct_n(0, 50), atol=1e-5)

    def test_unchanged_parameters_leave_search_as_it_was(self, built, data, factory, metric):
        index = built(factory, metric)
        if not isinstance(open_index(index), CodesAdapter):
            core(index).nprobe = 4
        adapter = open_index(index)
        settle_norms(adapter)
        state = adapter.extract()
        distances, ids = index.search(data.queries[:100], 10)
        write_back(adapter, state)
        distances_after, ids_after = index.search(data.queries[:100], 10)
        np.testing.assert_array_equal(distances, distances_after)
        assert (ids == ids_after).mean() > (0.95 if adapter.codebooks.n_codes < 3 else 0.999)  # equal scores may swap
        for name, value in vars(state).items():
            np.testing.assert_array_equal(getattr(adapter.extract(), name), value, err_msg=name)

    def test_search_after_a_change_is_the_oracles_also_from_a_file(self, built, data, tmp_path, factory, metric):
        index = built(factory, metric)
        adapter = open_index(index)
        state, quantizer = moved(adapter)
        with adapter.write(state, quantizer) as change:
            change.commit()
        assert_search_is_the_oracles(adapter, state, data.queries[:40])
        faiss.write_index(index, str(tmp_path / "i.faiss"))
        again = open_index(faiss.read_index(str(tmp_path / "i.faiss")))
        assert_search_is_the_oracles(again, state, data.queries[:40])
        # and once more through the reloaded one: OPQ comes back as a LinearTransform
        state, quantizer = moved(again, seed=1)
        with again.write(state, quantizer) as change:
            change.commit()
        assert_search_is_the_oracles(again, state, data.queries[:40])

    def test_undone_is_bitwise_as_before(self, built, factory, metric):
        index = built(factory, metric)
        before = serialized(index)
        adapter = open_index(index)
        with adapter.write(*moved(adapter)):
            assert serialized(index) != before
        assert serialized(index) == before

    def test_a_permuted_codebook_with_permuted_codes_searches_the_same(self, built, data, factory, metric):
        index = built(factory, metric)
        adapter = open_index(index)
        settle_norms(adapter)
        state = adapter.extract()
        distances, _ = index.search(data.queries[:50], 10)
        order = np.random.default_rng(0).permutation(state.codebooks.shape[-2])
        inverse = np.argsort(order).astype(state.codes.dtype)
        permuted = replace(
            state, codebooks=np.ascontiguousarray(state.codebooks[..., order, :]), codes=inverse[state.codes]
        )
        write_back(adapter, permuted)
        np.testing.assert_allclose(index.search(data.queries[:50], 10)[0], distances, atol=1e-5)


@pytest.mark.parametrize("nbits", [4, 6, 8, 10, 12])
def test_every_code_width(data, nbits):
    index = faiss.index_factory(64, f"IVF16,PQ4x{nbits}np", faiss.METRIC_L2)
    index.pq.cp.niter = 2
    index.train(data.documents)
    index.add(data.documents[:1000])
    adapter = open_index(index)
    state, quantizer = moved(adapter)
    assert state.codes.dtype == (np.uint8 if nbits <= 8 else np.uint16)
    with adapter.write(state, quantizer) as change:
        change.commit()
    assert_search_is_the_oracles(adapter, state, data.queries[:20])
    np.testing.assert_array_equal(adapter.extract().codes, state.codes)


@given(st.integers(1, 16), st.integers(1, 9), st.integers(0, 1000))
@settings(deadline=None)
def test_packing_round_trips(nbits, n_segments, seed):
    codes = np.random.default_rng(seed).integers(0, 2**nbits, (5, n_segments))
    np.testing.assert_array_equal(unpack(pack(codes, nbits), n_segments, nbits), codes)


@pytest.mark.parametrize("metric", METRICS)
def test_without_residuals(data, metric):
    index = untrained("IVF16,PQ16x4", metric)
    index.by_residual = False
    index.train(data.documents[:2000])
    index.add(data.documents[:2000])
    adapter = open_index(index)
    state, quantizer = moved(adapter)
    with adapter.write(state, quantizer) as change:
        change.commit()
    assert not state.by_residual
    assert_search_is_the_oracles(adapter, state, data.queries[:40])


@pytest.mark.parametrize("metric", METRICS)
def test_centering(data, tmp_path, metric):
    inner = untrained("IVF16,PQ16x4", metric)
    index = faiss.IndexPreTransform(faiss.CenteringTransform(64), inner)
    index.train(data.documents[:2000])
    index.add(data.documents[:2000])
    faiss.write_index(index, str(tmp_path / "i.faiss"))
    for each in (index, faiss.read_index(str(tmp_path / "i.faiss"))):
        adapter = open_index(each)
        state, quantizer = moved(adapter)
        with adapter.write(state, quantizer) as change:
            change.commit()
        assert_search_is_the_oracles(adapter, state, data.queries[:40])


MAPS = {"none": 0, "array": 1, "hashtable": 2}


@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("commit", [True, False])
def test_direct_maps(built, kind, commit):
    index = built("IVF16,PQ8np")
    index.set_direct_map_type(MAPS[kind])
    if kind == "hashtable":  # after removals its layout is not that of a fresh one
        index.remove_ids(np.arange(0, 900, 7))
        index.add_with_ids(np.eye(64, dtype=np.float32), np.arange(5000, 5064))
    before = serialized(index)
    adapter = open_index(index)
    state, quantizer = moved(adapter)
    with adapter.write(state, quantizer) as change:
        if commit:
            change.commit()
    assert index.direct_map.type == MAPS[kind]
    if not commit:
        assert serialized(index) == before
    if kind != "none":
        expected = state if commit else adapter.extract()
        for row in (0, 77, state.n - 1):
            decoded = expected.reconstruct(np.array([row]))[0]
            np.testing.assert_allclose(index.reconstruct(int(state.ids[row])), decoded, atol=1e-5)


def test_stale_caches_are_refreshed(built, data):
    index = built("IVF16,PQ8np", "l2")
    index.pq.sync_transposed_centroids()
    index.pq.compute_sdc_table()
    quantizer = faiss.downcast_index(index.quantizer)
    quantizer.sync_l2norms()
    adapter = open_index(index)
    state, new = moved(adapter)
    with adapter.write(state, new) as change:
        change.commit()
    assert_search_is_the_oracles(adapter, state, data.queries[:40])
    # encoding uses the new codebook
    x = data.documents[2000:2050]
    lists = index.quantizer.search(x, 1)[1].ravel()
    codes = CodebookStudent(state).encode(torch.from_numpy(x), torch.from_numpy(lists)).numpy()
    stored = np.empty((50, index.code_size), dtype=np.uint8)
    index.encode_vectors(50, faiss.swig_ptr(x), faiss.swig_ptr(lists), faiss.swig_ptr(stored))
    assert (codes == stored).mean() > 0.999
    table = faiss.vector_to_array(index.pq.sdc_table).reshape(8, 256, 256)
    expected = ((state.codebooks[3, 0, 5] - state.codebooks[3, 0, 9]) ** 2).sum()
    assert table[3, 5, 9] == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(faiss.vector_to_array(quantizer.cached_l2norms), (state.centroids**2).sum(1), rtol=1e-5)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    "factory", ["IVF16,PQ8np", "IVF16_HNSW16,PQ8np", "IDMap2,OPQ8,IVF16(SQfp16),PQ8x4np,RFlat", "IVF16,RQ4x4_Nqint8"]
)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_at_any_step_leaves_the_index_bitwise_as_it_was(built, data, fail_once, factory, step, when, error):
    index = built(factory, "l2")
    core(index).set_direct_map_type(2)
    before, found = serialized(index), index.search(data.queries[:50], 10)
    adapter = open_index(index)
    change = adapter.write(*moved(adapter))
    calls = fail_once(change, step, error, after=when == "after")
    with pytest.raises(error, match="injected"), change:
        pytest.fail("entered")
    assert calls
    assert serialized(index) == before
    np.testing.assert_array_equal(index.search(data.queries[:50], 10)[0], found[0])
    with adapter.write(*moved(adapter)) as again:  # and it can still be tuned
        again.commit()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", CODES_STEPS)
@pytest.mark.parametrize("factory", ["OPQ16,PQ8np", "IDMap2,PQ16x4fs,RFlat", "PRQ2x2x4_Ncqint8"])
def test_a_failure_at_any_step_without_lists(built, fail_once, factory, step, when):
    index = built(factory, "l2")
    inner = open_index(index).core
    if factory == "OPQ16,PQ8np":
        inner.pq.compute_sdc_table()
    before = serialized(index)
    adapter = open_index(index)
    change = adapter.write(*moved(adapter))
    calls = fail_once(change, step, KeyboardInterrupt, after=when == "after")
    with pytest.raises(KeyboardInterrupt, match="injected"), change:
        pytest.fail("entered")
    assert calls
    assert serialized(index) == before


@pytest.mark.parametrize(("kind", "steps"), [(IVFWriteBack, STEPS), (CodesWriteBack, CODES_STEPS)])
def test_every_step_is_covered(kind, steps):
    source = inspect.getsource(kind.apply)
    assert [s for s in steps if f"self.{s}()" in source] == steps
    assert source.count("self._") == len(steps)


@pytest.mark.parametrize("committed", [True, False])
def test_an_error_while_the_change_is_judged_undoes_it(built, committed):
    index = built()
    before = serialized(index)
    adapter = open_index(index)
    with pytest.raises(ValueError, match="judge"), adapter.write(*moved(adapter)) as change:
        if committed:
            change.commit()
        raise ValueError("judge")
    assert serialized(index) == before


def test_the_object_and_its_quantizer_stay_the_same(built):
    index = built("IVF16_HNSW16,PQ8np")
    addresses = int(index.this), int(index.quantizer.this)
    adapter = open_index(index)
    with adapter.write(*moved(adapter)) as change:
        change.commit()
    assert (int(index.this), int(index.quantizer.this)) == addresses


def test_memory_is_not_freed_twice_or_kept(built):
    """Commits and undoes many times, with lists owned by C++ and by the caller, then uses the index."""
    for factory, owned in (("IVF16,PQ8np", True), ("IVF16,PQ8np", False), ("IVF16,PQ16x4fsr", True)):
        index = built(factory)
        if not owned:
            lists = faiss.ArrayInvertedLists(16, 8)
            lists.merge_from(index.invlists, 0)
            index.replace_invlists(lists, False)
        for round_ in range(8):
            adapter = open_index(index)
            with adapter.write(*moved(adapter, round_)) as change:
                if round_ % 2:
                    change.commit()
            del adapter, change
            gc.collect()
        assert index.own_invlists
        assert index.invlists.compute_ntotal() == index.ntotal == 2000
        copy = faiss.deserialize_index(faiss.serialize_index(index))
        assert serialized(copy) == serialized(index)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    factory=st.sampled_from(FACTORIES[:9]),
    metric=st.sampled_from(list(METRICS)),
    seed=st.integers(0, 1000),
    n=st.integers(1, 300),
)
def test_any_ids_survive(built, data, factory, metric, seed, n):
    index = built(factory, metric)
    index.reset()
    rng = np.random.default_rng(seed)
    ids = rng.choice(10**12, n, replace=False).astype(np.int64)
    if seed % 2:
        ids -= 5 * 10**11
    index.add_with_ids(data.documents[:n], ids)
    adapter = open_index(index)
    state, quantizer = moved(adapter, seed)
    with adapter.write(state, quantizer) as change:
        change.commit()
    after = open_index(index).extract()
    np.testing.assert_array_equal(np.sort(ids), after.ids)
    np.testing.assert_array_equal(after.codes, state.codes)
    np.testing.assert_array_equal(after.assignment, state.assignment)
    assert index.ntotal == n


@pytest.mark.parametrize("phase", ["undo", "keep"])
def test_an_interrupt_at_the_end_waits(built, data, monkeypatch, phase):
    """A signal that comes while ownership changes hands is raised afterwards; the index is one or the other."""
    index = built()
    adapter = open_index(index)
    transaction = adapter.write(*moved(adapter))
    (change,) = transaction.changes
    real, before = getattr(change, phase), serialized(index)

    def interrupted():
        signal.raise_signal(signal.SIGINT)
        real()

    monkeypatch.setattr(change, phase, interrupted)
    own = signal.signal(signal.SIGINT, signal.default_int_handler)  # a worker of xdist ignores it
    try:
        with pytest.raises(KeyboardInterrupt), transaction:
            if phase == "keep":
                transaction.commit()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, own)
    monkeypatch.undo()
    del change, transaction, adapter
    gc.collect()
    assert (serialized(index) == before) == (phase == "undo")
    assert index.own_invlists
    assert index.search(data.queries[:10], 3)[1].min() >= 0


class TestRefusals:
    """Each names what is wrong and what to do, and leaves the index as it was."""

    def refused(self, index, kind, match):
        before = serialized(index) if isinstance(index, faiss.Index) else None
        with pytest.raises(kind, match=match):
            adapter = open_index(index)
            adapter.outer_ids(adapter.extract().ids)
        if before is not None:
            assert serialized(index) == before

    @pytest.mark.parametrize("factory", ["SQ8", "LSH", "HNSW8_SQ8"])
    def test_other_classes(self, data, factory):
        index = faiss.index_factory(64, factory)
        index.train(data.documents)
        index.add(data.documents[:100])
        self.refused(index, UnsupportedIndexError, f"got {type(index).__name__}; build one")

    @pytest.mark.parametrize("factory", ["Flat", "IVF16,PQ8+4", "HNSW8", "HNSW8_PQ8np", "IDMap,Flat"])
    def test_classes_that_are_asked_for_say_why(self, data, factory):
        index = faiss.index_factory(64, factory)
        index.train(data.documents)
        index.add_with_ids(data.documents[:100], np.arange(100)) if "IDMap" in factory else index.add(data.documents)
        inner = faiss.downcast_index(index.index) if "IDMap" in factory else index
        self.refused(index, UnsupportedIndexError, REFUSED[type(inner)])

    def test_bits(self):
        with pytest.raises(UnsupportedIndexError, match="can be tuned, got an IndexBinaryFlat: it compares bits"):
            open_index(faiss.IndexBinaryFlat(64))

    def test_on_a_gpu(self):
        class GpuIndexIVFPQ(faiss.IndexIVFPQ):
            """As the other wheel calls it."""

        with pytest.raises(UnsupportedIndexError, match=r"got a GpuIndexIVFPQ; .* faiss.index_gpu_to_cpu\(index\)"):
            open_index(GpuIndexIVFPQ.__new__(GpuIndexIVFPQ))

    def test_not_an_index(self):
        for thing in ("wiki.faiss", None, np.zeros(3)):
            self.refused(thing, InputError, "index: expected a faiss.Index, got .*read_index")

    def test_untrained_and_empty(self, built, data):
        for factory in ("IVF16,PQ8np", "OPQ8,IVF16,PQ8x4np"):
            self.refused(faiss.index_factory(64, factory), InputError, "expected a trained index")
        index = built()
        index.reset()
        self.refused(index, InputError, "expected a filled index, got an empty one")

    def test_other_metrics(self, data):
        index = faiss.IndexIVFPQ(faiss.IndexFlat(64, faiss.METRIC_L1), 64, 16, 8, 4, faiss.METRIC_L1)
        index.train(data.documents)
        index.add(data.documents[:100])
        self.refused(index, UnsupportedIndexError, "expected METRIC_INNER_PRODUCT or METRIC_L2, got metric_type 2")

    def test_polysemous(self, built):
        index = built("IVF16,PQ8np")
        index.polysemous_ht = 40
        self.refused(index, UnsupportedIndexError, "expected polysemous_ht 0, got 40")

    @pytest.mark.parametrize("factory", ["IVF16,PQ16x4fs_64", "PQ16x4fs_64"])
    def test_blocks_of_another_size(self, built, factory):
        self.refused(built(factory), UnsupportedIndexError, "blocks of 32 vectors .*, got 64")

    def test_polysemous_search_without_lists(self, built):
        index = built("PQ8np")
        index.search_type = faiss.IndexPQ.ST_polysemous
        self.refused(index, UnsupportedIndexError, "expected search_type ST_PQ")

    def test_centroids_that_cannot_move_where_nothing_else_learns(self, data):
        index = faiss.index_factory(64, "IMI2x2,Flat")
        index.train(data.documents)
        index.add(data.documents[:100])
        self.refused(index, UnsupportedIndexError, "centroids can move, got MultiIndexQuantizer: there is nothing else")

    @pytest.mark.parametrize("state", ["same", "learned alone", "moved"])
    def test_centroids_that_cannot_move(self, built, data, state):
        index = built("IMI2x2,PQ8np", "l2")
        before = serialized(index)
        adapter = open_index(index)
        old = adapter.extract()
        if state == "same":
            assert settle(DistillConfig(), adapter).learn is Learn.CODEBOOKS
        elif state == "moved":
            with pytest.raises(InputError, match="centroids: expected those of the MultiIndexQuantizer, got others"):
                adapter.quantizer_with(old.centroids + 1)
        else:
            with pytest.raises(
                InputError, match="learn: expected 'codebooks', got 'centroids'; the centroids of an Multi"
            ):
                settle(DistillConfig(learn="centroids"), adapter)
        assert serialized(index) == before

    def test_a_quantizer_with_which_faiss_aborts(self, data):
        index = built_by_hand = faiss.index_factory(64, "IVF16(IVF4,PQ8x4np,RFlat),PQ8np")
        index.train(data.documents)
        lists = faiss.downcast_index(faiss.downcast_index(index.quantizer).base_index)
        index.add(data.documents[:100])
        built_by_hand.quantizer = lists
        self.refused(index, UnsupportedIndexError, "got IndexIVFPQ without a direct map, with which faiss aborts")

    def test_other_transforms(self, data):
        index = faiss.index_factory(64, "ITQ32,IVF16,PQ8np")
        index.train(data.documents)
        index.add(data.documents[:100])
        self.refused(index, UnsupportedIndexError, "got ITQTransform")

    def test_vectors_lost_to_nan(self, built, data):
        index = built()
        bad = data.documents[:3].copy()
        bad[1] = np.nan
        index.add(bad)
        self.refused(index, InputError, "expected ntotal=2003 vectors in its lists, got 2002")

    def test_id_map_corrupted_by_remove_ids(self, built):
        index = built("IDMap,IVF16,PQ8np")
        index.remove_ids(np.arange(10))
        self.refused(index, InputError, "remove_ids on an IndexIDMap")

    def test_the_id_that_means_nothing(self, built):
        self.refused(built(ids=np.arange(2000) - 1), InputError, "expected no vector with the id -1")

    def test_nprobe_zero(self, built):
        index = built()
        index.nprobe = 0
        self.refused(index, InputError, "expected an nprobe of at least 1, got 0")

    def test_doubled_ids(self, built, data):
        index = built(ids=np.arange(2000) // 2)
        self.refused(index, InputError, "expected distinct ids, got 1000 that occur twice")

    def test_memory_mapped_codes_without_lists(self, built, tmp_path):
        path = str(tmp_path / "i.faiss")
        faiss.write_index(built("PQ8np"), path)
        with pytest.raises(UnsupportedIndexError, match="expected codes in memory, got memory-mapped ones"):
            open_index(faiss.read_index(path, faiss.IO_FLAG_MMAP_IFC))

    @pytest.mark.parametrize("factory", ["PQ8np", "PQ16x4fs"])
    def test_some_of_the_codes_without_lists(self, built, factory):
        index = built(factory)
        before = serialized(index)
        adapter = open_index(index)
        some = adapter.extract().take(np.arange(900))
        with pytest.raises(InputError, match="codes: expected those of all 2000 vectors, got 900"):
            adapter.write(some, None)
        with pytest.raises(NotImplementedError, match="can't be searched with some of its vectors alone"):
            adapter.restrict(some)
        assert serialized(index) == before

    def test_id_map_that_missed_an_add(self, built, data):
        index = built("IDMap,IVF16,PQ8np")
        faiss.downcast_index(index.index).add(data.documents[:3])
        self.refused(index, InputError, "expected as many ids in its IndexIDMap .* got 2000 and 2003")

    def test_normalization_of_another_norm(self, built):
        index = built("L2norm,IVF16,PQ8np")
        faiss.downcast_VectorTransform(index.chain.at(0)).norm = 1.0
        self.refused(index, UnsupportedIndexError, "expected NormalizationTransform with norm 2, got 1")

    @pytest.mark.parametrize("field", ["centroids", "codebooks", "assignment", "codes", "ids"])
    def test_states_that_do_not_fit(self, built, field):
        index = built()
        before = serialized(index)
        adapter = open_index(index)
        state, quantizer = moved(adapter)
        array = getattr(state, field)
        for bad in (array[:-1], array.astype(np.float64)):
            with pytest.raises(InputError, match=f"({field}|assignment): expected"):
                adapter.write(replace(state, **{field: bad}), quantizer)
        if field in ("centroids", "codebooks"):
            with pytest.raises(InputError, match=f"{field}: expected finite"):
                adapter.write(replace(state, **{field: np.full_like(array, np.nan)}), quantizer)
        if field in ("assignment", "codes"):
            with pytest.raises(InputError, match=rf"{field}: expected values in \[0, 16\)"):
                adapter.write(replace(state, **{field: np.full_like(array, 16)}), quantizer)
        assert serialized(index) == before


@pytest.mark.skipif(FAISS < (1, 15), reason="it is older itself")
def test_an_older_release_of_faiss():
    """What it can't do is refused with a reason."""
    code = """
import faiss
index = faiss.index_factory(64, "IVF16,RaBitQfs")
faiss.__version__ = '1.14.3'
from faiss_distill.index.registry import FAMILIES, open_index
assert type(index) not in FAMILIES and faiss.IndexIVFRaBitQ in FAMILIES
try:
    open_index(index)
except TypeError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "faiss 1.14.3 can't make its lists; faiss 1.15 can" in result.stdout


@settings(
    deadline=None,
    max_examples=60,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    outer=st.sampled_from(["", "IDMap,", "IDMap2,"]),
    transform=st.sampled_from(CONTAINERS),
    coarse=st.sampled_from(COARSE),
    fine=st.sampled_from(FINE),
    refined=st.sampled_from(REFINED),
    metric=st.sampled_from(list(METRICS)),
    seed=st.integers(0, 1000),
)
def test_any_factory_string(data, outer, transform, coarse, fine, refined, metric, seed):
    """What is extracted and written back searches the same, undone it is bitwise as it was, also from a file."""
    if not coarse and fine in ENCODED:
        fine = "PQ8x4np"
    factory = f"{outer}{transform}{coarse}{',' if coarse else ''}{fine}{refined}"
    index = faiss.index_factory(64, of_metric(factory, metric), METRICS[metric])
    n = 400
    index.train(data.documents[:n])
    rng = np.random.default_rng(seed)
    if outer:
        index.add_with_ids(data.documents[:n], rng.choice(10**12, n, replace=False))
    elif coarse and not refined:
        core(index).add_with_ids(open_transform(index, data.documents[:n]), rng.permutation(n))
        index.ntotal = n
    else:
        index.add(data.documents[:n])
    index = faiss.deserialize_index(faiss.serialize_index(index))
    adapter = open_index(index)
    settle_norms(adapter)
    before, found = serialized(index), index.search(data.queries[:20], 5)
    state = adapter.extract()
    quantizer = adapter.quantizer_with(state.centroids)[0]
    with adapter.write(state, quantizer):
        np.testing.assert_allclose(index.search(data.queries[:20], 5)[0], found[0], rtol=1e-5, atol=1e-6)
    assert serialized(index) == before
    other = state.take(np.arange(n))
    if adapter.nlist > 1:
        other = replace(state, assignment=rng.integers(0, adapter.nlist, n))
    with adapter.write(other, quantizer) as change:
        change.commit()
    again = open_index(faiss.deserialize_index(faiss.serialize_index(index))).extract()
    for name, value in vars(other).items():
        np.testing.assert_array_equal(getattr(again, name), value, err_msg=name)


def open_transform(index, x):
    """What the core index of ``index`` is given of ``x``."""
    for i in range(index.chain.size() if isinstance(index, faiss.IndexPreTransform) else 0):
        x = faiss.downcast_VectorTransform(index.chain.at(i)).apply(x)
    return x
