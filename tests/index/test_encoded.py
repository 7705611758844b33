"""Indexes with inverted lists but without codebooks: centroids and lists are learned, faiss makes the codes."""

import faiss
import numpy as np
import pytest
from conftest import METRICS, QUICK, N, core, serialized, tunable

from faiss_distill import InputError, distill
from faiss_distill.index.registry import open_index
from faiss_distill.tuning.gate import Gate

FACTORIES = tunable([
    "IVF16,Flat",
    "IVF16_HNSW16,SQ8",
    "IVF16,SQ6",
    "OPQ16,IVF16,SQ4",
    "IVF16,SQfp16,RFlat",
    "IVF16(SQfp16),SQbf16",
    "IDMap2,RR64,IVF16,RaBitQ",
    "IVF16,RaBitQ4",
    "IVF16_HNSW16,RaBitQfs",
    "IDMap2,IVF16,RaBitQfs4",
])  # fmt: skip


def plain(index):
    """Ids of each list, and the codes, by id."""
    inner, lists, codes = core(index), {}, {}
    if type(inner).__name__ == "IndexIVFRaBitQFastScan":  # in blocks
        state = open_index(index).extract()
        return dict(zip(state.ids.tolist(), state.assignment.tolist(), strict=True)), dict(enumerate(state.codes))
    for number in range(inner.nlist):
        size = inner.invlists.list_size(number)
        ids = faiss.rev_swig_ptr(inner.invlists.get_ids(number), size).tolist() if size else []
        rows = faiss.rev_swig_ptr(inner.invlists.get_codes(number), size * inner.code_size) if size else np.empty(0)
        lists |= dict.fromkeys(ids, number)
        codes |= dict(zip(ids, rows.reshape(size, -1).copy(), strict=True))
    return lists, codes


def moved(adapter, seed=0):
    """Other centroids and other lists, with the codes that faiss gives for them, and the quantizer."""
    rng, state = np.random.default_rng(seed), adapter.extract()
    jitter = 0.1 * state.centroids.std() * rng.standard_normal(state.centroids.shape)
    quantizer, centroids = adapter.quantizer_with((state.centroids + jitter).astype(np.float32))
    assignment = rng.integers(0, 16, state.n)
    vectors = adapter.decode(state, np.arange(state.n))
    encode = adapter.encoder(quantizer)
    codes = state.codes if encode is None else encode(vectors, assignment)
    return type(state)(**vars(state) | {"centroids": centroids, "assignment": assignment, "codes": codes}), quantizer


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("factory", FACTORIES)
class TestRoundTrip:
    def test_unchanged_parameters_leave_search_as_it_was(self, built, data, factory, metric):
        index = built(factory, metric)
        core(index).nprobe = 4
        distances, _ = index.search(data.queries[:100], 10)
        adapter = open_index(index)
        state = adapter.extract()
        with adapter.write(state, adapter.quantizer_with(state.centroids)[0]) as change:
            change.commit()
        np.testing.assert_array_equal(index.search(data.queries[:100], 10)[0], distances)
        for name, value in vars(state).items():
            np.testing.assert_array_equal(getattr(adapter.extract(), name), value, err_msg=name)

    def test_undone_is_bitwise_as_before(self, built, factory, metric):
        index = built(factory, metric)
        before = serialized(index)
        adapter = open_index(index)
        with adapter.write(*moved(adapter)):
            assert serialized(index) != before
        assert serialized(index) == before

    def test_codes_are_those_that_faiss_would_add(self, built, data, tmp_path, factory, metric):
        """An index with the moved centroids and lists, filled by faiss's own add_core, stores the same."""
        index = built(factory, metric)
        adapter = open_index(index)
        state, quantizer = moved(adapter)
        vectors = adapter.decode(adapter.extract(), np.arange(state.n))
        with adapter.write(state, quantizer) as change:
            change.commit()
        faiss.write_index(index, str(tmp_path / "i.faiss"))
        again = faiss.read_index(str(tmp_path / "i.faiss"))
        lists, codes = plain(again)
        assert [lists[i] for i in range(N)] == state.assignment.tolist()
        inner = core(again)
        if type(inner).__name__ == "IndexIVFRaBitQFastScan":  # which can't add to given lists: its plain form can
            metric_type, bits = inner.metric_type, inner.rabitq.nb_bits
            inner = faiss.IndexIVFRaBitQ(quantizer, 64, 16, metric_type, True, bits)
            inner.rabitq, inner.is_trained, inner.own_fields = core(again).rabitq, True, False
        inner.reset()
        ids = np.arange(N)
        inner.add_core(N, faiss.swig_ptr(vectors), faiss.swig_ptr(ids), faiss.swig_ptr(state.assignment))
        expected = plain(inner)[1]
        np.testing.assert_array_equal([codes[i] for i in range(N)], [expected[i] for i in range(N)])

    def test_only_what_may_change_changes(self, built, data, monkeypatch, factory, metric):
        monkeypatch.setattr(Gate, "judge", lambda *_: (True, "", 0.0, (0.0, 0.0)))
        index = built(factory, metric)
        size, (lists, codes), before = len(serialized(index)), plain(index), core(index).nprobe
        report = distill(index, data.documents[:N], data.queries, **QUICK)
        assert (report.config.learn.value, report.config.encoding.value) == ("centroids", "nearest")
        assert (index.ntotal, core(index).nprobe) == (N, before)
        assert "fs" in factory or len(serialized(index)) == size  # its last blocks may be more or less full
        assert report.after.own.codes_scanned <= report.before.own.codes_scanned * 1.05
        now = plain(index)
        assert lists != now[0]
        same = [np.array_equal(codes[i], now[1][i]) for i in range(N)]
        assert all(same) if factory == "IVF16,Flat" else np.mean(same) < 0.5


@pytest.mark.parametrize("step", ["_write_lists", "_write_centroids", "_refresh_tables", "_rebuild_direct_map"])
@pytest.mark.parametrize("factory", ["IVF16,Flat", "IVF16,SQ8", "IVF16,RaBitQ"])
def test_a_failure_at_any_step_leaves_the_index_bitwise_as_it_was(built, fail_once, factory, step):
    index = built(factory)
    before = serialized(index)
    adapter = open_index(index)
    change = adapter.write(*moved(adapter))
    calls = fail_once(change, step, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt, match="injected"), change:
        pytest.fail("entered")
    assert calls
    assert serialized(index) == before


@pytest.mark.parametrize("factory", ["IVF16,Flat", "IVF16,SQ8", "IVF16,RaBitQ"])
def test_what_they_do_not_have_is_refused(built, data, factory):
    index = built(factory)
    before, name = serialized(index), type(index).__name__
    for options, match in (
        ({"learn": "codebooks"}, f"learn: expected 'centroids', got 'codebooks'; an {name} has no codebooks"),
        ({"encoding": "frozen"}, f"encoding: expected another than 'frozen' for an {name}"),
    ):
        with pytest.raises(InputError, match=match):
            distill(index, data.documents[:N], data.queries, **QUICK | options)
    assert serialized(index) == before


@pytest.mark.parametrize("factory", ["IVF16,Flat", "IVF16,SQ8", "IVF16,RaBitQ"])
def test_other_embeddings_are_refused(built, data, factory):
    index = built(factory)
    for wrong in (data.documents[:N][::-1], 3 * data.documents[:N]):
        with pytest.raises(InputError, match="expected the vectors behind the index"):
            distill(index, wrong, data.queries, **QUICK)


def test_rabitq_of_unequal_dimensions(data):
    """What its codes decode to is far from the mean of what they stand for."""
    x = data.documents[:N] * np.exp(-np.arange(64) / 5, dtype=np.float32)
    index = faiss.index_factory(64, "PCA64,IVF16,RaBitQ", faiss.METRIC_L2)
    index.train(x)
    index.add(x)
    assert distill(index, x, data.queries, **QUICK).n == N
    with pytest.raises(InputError, match="rows are in reverse order"):
        distill(index, x[::-1], data.queries, **QUICK)


def test_rabitq_is_relative_to_its_centroids_whatever_it_says(built, data):
    index = built("IVF16,RaBitQ", "l2")
    index.by_residual = False
    adapter = open_index(index)
    state, quantizer = moved(adapter)
    with adapter.write(state, quantizer) as change:
        change.commit()
    again, x = np.empty_like(state.codes), data.documents[:N].copy()
    index.encode_vectors(N, faiss.swig_ptr(x), faiss.swig_ptr(state.assignment), faiss.swig_ptr(again))
    signs = np.unpackbits(again[:, :8] ^ state.codes[:, :8]).mean()
    assert signs < 0.25  # made of what the old codes decode to, so not all


@pytest.mark.parametrize("by_residual", [True, False])
def test_scalar_quantizers_follow_their_centroids_if_they_say_so(data, by_residual):
    index = faiss.index_factory(64, "IVF16,SQ8", faiss.METRIC_L2)
    index.by_residual = by_residual
    index.train(data.documents[:N])
    index.add(data.documents[:N])
    adapter = open_index(index)
    state, quantizer = moved(adapter)
    assert (adapter.encoder(quantizer) is None) != by_residual
    with adapter.write(state, quantizer) as change:
        change.commit()
    # In lists drawn at random some of what is left exceeds the trained ranges, and is cut.
    assert np.abs(adapter.decode(state, np.arange(N)) - data.documents[:N]).mean() < 0.005
