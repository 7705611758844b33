"""Additive codes: sums of codewords, found by beam search and coordinate descent."""

import itertools
from dataclasses import replace

import faiss
import numpy as np
import pytest
import torch
from conftest import METRICS, QUICK, N, serialized, write_back

from faiss_distill import DistillConfig, InputError, UnsupportedIndexError, distill, evaluate
from faiss_distill.index.registry import open_index
from faiss_distill.learning.codes import additive, encoder_of
from faiss_distill.learning.codes.additive import AdditiveEncoder
from faiss_distill.learning.codes.nearest import beam_codes, decode, nearest_codes
from faiss_distill.state import Metric
from faiss_distill.state import decode as decode_arrays
from faiss_distill.tuning.gate import Gate

SPLITS, STEPS, KSUB, DSUB = 2, 3, 4, 4
D = SPLITS * DSUB


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(5)
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    books = normal(SPLITS, STEPS, KSUB, DSUB) * torch.tensor([0.5, 0.3, 0.2])[:, None, None]
    x, queries = (torch.nn.functional.normalize(normal(n, D) + 0.2) for n in (10, 40))
    local = torch.randint(0, 40, (10, 3), generator=generator)
    return x, queries, books, local


def squared(x, codes, books):
    return (x - decode(codes, books)).square().sum(1)


def test_a_code_is_a_sum_of_codewords_in_each_split(problem):
    _, _, books, _ = problem
    codes = torch.randint(0, KSUB, (7, SPLITS * STEPS), generator=torch.Generator().manual_seed(0))
    expected = [
        [sum(books[s, m, codes[i, s * STEPS + m], j] for m in range(STEPS)) for s in range(SPLITS) for j in range(DSUB)]
        for i in range(7)
    ]
    np.testing.assert_allclose(decode(codes, books), np.array(expected), rtol=1e-12)
    np.testing.assert_allclose(decode_arrays(codes.numpy(), books.numpy()), np.array(expected), rtol=1e-12)


def test_a_beam_of_everything_finds_the_best_codes(problem):
    x, _, books, _ = problem
    every = torch.tensor(list(itertools.product(range(KSUB), repeat=STEPS)))
    best = []
    for s in range(SPLITS):
        sums = sum(books[s, m, every[:, m]] for m in range(STEPS))
        best.append(every[torch.cdist(x[:, s * DSUB : (s + 1) * DSUB], sums).argmin(1)])
    best = squared(x, torch.cat(best, dim=1), books)
    np.testing.assert_allclose(squared(x, beam_codes(x, books, KSUB**STEPS), books), best, rtol=1e-9)
    assert (squared(x, beam_codes(x, books, 1), books) >= best - 1e-12).all()
    assert squared(x, beam_codes(x, books, 1), books).mean() > best.mean()


def test_no_single_codeword_comes_nearer(problem):
    x, _, books, _ = problem
    codes = nearest_codes(x, books)
    least = squared(x, codes, books)
    assert (least <= squared(x, beam_codes(x, books), books) + 1e-12).all()
    for m, k in itertools.product(range(SPLITS * STEPS), range(KSUB)):
        other = codes.clone()
        other[:, m] = k
        assert (squared(x, other, books) >= least - 1e-9).all()


@pytest.mark.parametrize("faiss_codes", ["RQ4x6", "LSQ4x6"])
def test_faiss_finds_no_nearer_codes(data, faiss_codes):
    index = faiss.index_factory(64, faiss_codes, faiss.METRIC_L2)
    index.train(data.documents[:N])
    index.add(data.documents[:N])
    state = open_index(index).extract()
    x, books = torch.from_numpy(data.documents[:N]), torch.from_numpy(state.codebooks)
    ours = squared(x, nearest_codes(x, books), books).mean()
    theirs = squared(x, torch.from_numpy(state.codes.astype(np.int64)), books).mean()
    assert ours < 1.02 * theirs


@pytest.mark.parametrize("metric", Metric)
class TestEncoder:
    def cost(self, encoder, x, codes, local):
        """The definition, one document and one direction at a time."""
        u, weights = encoder.directions(x, local)
        out = []
        for i, e in enumerate(x - decode(codes, encoder.codebooks)):
            total = e @ encoder.hessian @ e
            for r in range(u.shape[1]):
                target = 0 if r == u.shape[1] - 1 else -encoder.offset / encoder.scale
                total += weights[i, r] * (u[i, r] @ e + encoder.kappa * (e @ e) - target) ** 2
            out.append(float(total))
        return np.array(out)

    @pytest.mark.parametrize("table", [0, 2**28])
    def test_no_single_codeword_betters_the_cost(self, problem, monkeypatch, metric, table):
        monkeypatch.setattr(additive, "TABLE", table)
        x, queries, books, local = problem
        encoder = AdditiveEncoder(queries, books, metric, DistillConfig(local_queries=3, sweeps=50), offset=0.1)
        assert (encoder._squares is None) == (table == 0)
        codes = encoder(x, x, local)
        least = self.cost(encoder, x, codes, local)
        assert (least <= self.cost(encoder, x, beam_codes(x, books), local) + 1e-9).all()
        for m, k in itertools.product(range(SPLITS * STEPS), range(KSUB)):
            other = codes.clone()
            other[:, m] = k
            assert (self.cost(encoder, x, other, local) >= least - 1e-9).all()

    def test_codes_to_start_from_never_get_worse(self, problem, metric):
        x, queries, books, local = problem
        config = DistillConfig(local_queries=3)
        encoder = AdditiveEncoder(queries, books, metric, config, offset=-0.1)
        best = encoder(x, x, local)
        for seed in range(5):
            start = torch.randint(0, KSUB, best.shape, generator=torch.Generator().manual_seed(seed))
            found = encoder(x, x, local, start)
            assert (self.cost(encoder, x, found, local) <= self.cost(encoder, x, start, local) + 1e-9).all()
            assert (self.cost(encoder, x, found, local) <= self.cost(encoder, x, beam_codes(x, books), local)).all()

    def test_blocks_do_not_matter(self, problem, monkeypatch, metric):
        x, queries, books, local = problem
        encoder = AdditiveEncoder(queries, books, metric, DistillConfig(local_queries=3))
        whole = encoder(x, x, local)
        monkeypatch.setattr(AdditiveEncoder, "block_size", lambda *_: 3)
        assert torch.equal(whole, encoder(x, x, local))

    def test_one_codebook_a_split_is_a_product_quantizer(self, problem, metric):
        """Two implementations of the same minimum."""
        x, queries, books, local = problem
        config = DistillConfig(local_queries=3)
        additive = AdditiveEncoder(queries, books[:, :1], metric, config, 0.1)(x, x, local)
        product = encoder_of(queries, books[:, :1], metric, config, 0.1)(x, x, local)
        assert torch.equal(additive, product)
        assert not torch.equal(product, beam_codes(x, books[:, :1]))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "factory", ["IVF16,PRQ2x4x4", "PRQ2x4x4_Nqint8", "IVF16,RQ5x5_Nqint8", "LSQ5x5", "IVF16,RQ8x4fsr", "PRQ2x4x4fs"]
)
def test_tuning_gains(built, data, factory, metric):
    index = built(factory, metric)
    size = len(serialized(index))
    options = (
        QUICK | {"epochs": 3, "local_queries": 24, "fill_to": 16000} | ({} if "IVF" in factory else {"nprobe": None})
    )
    train, judges = data.queries[:1000], data.queries[1000:]
    report = distill(index, data.documents[:N], train, validation_queries=judges, **options)
    assert report.kept, report.reason
    unfilled = 16 * 32 * open_index(index).code_size if "IVF16,RQ8x4fs" in factory else 0  # of blocks
    assert abs(len(serialized(index)) - size) <= unfilled
    assert index.ntotal == N
    found = index.search(data.queries[:50], 10)
    again = faiss.deserialize_index(faiss.serialize_index(index))
    np.testing.assert_array_equal(again.search(data.queries[:50], 10)[0], found[0])


@pytest.mark.parametrize("factory", ["IVF16,RQ4x4_Nqint8", "IVF16,PRQ2x2x4"])
def test_frozen_codes_keep_their_codewords(built, data, monkeypatch, factory):
    """Norms follow the codebooks, codewords stay."""

    monkeypatch.setattr(Gate, "judge", lambda *_: (True, "", 0.0, (0.0, 0.0)))
    index = built(factory, "l2")
    before = open_index(index).extract()
    rows = np.arange(0, N, 2)
    distill(index, data.documents[rows], data.queries, ids=rows, encoding="frozen", **QUICK)
    adapter = open_index(index)
    after = adapter.extract()
    np.testing.assert_array_equal(after.codes, before.codes)
    np.testing.assert_array_equal(after.assignment, before.assignment)
    assert not np.array_equal(after.codebooks, before.codebooks)
    index.nprobe = 16
    distances, ids = index.search(data.queries[:20], 5)
    decoded = after.reconstruct(ids.ravel()).reshape(20, 5, -1)
    exact = ((data.queries[:20, None] - decoded) ** 2).sum(2)
    np.testing.assert_allclose(distances, exact, atol=0.02 * np.ptp(exact))


@pytest.mark.parametrize("metric", METRICS)
def test_codes_need_no_local_queries(built, data, metric):
    report = distill(built("IVF16,RQ4x4", metric), data.documents[:N], data.queries, **QUICK | {"local_queries": 0})
    assert report.kept in (True, False)
    assert report.after.own.overlap_at_10 > 0


def test_the_same_seed_gives_the_same_index(built, data):
    tuned = []
    for _ in range(2):
        index = built("IVF16,PRQ4x2x4")
        distill(index, data.documents[:N], data.queries, **QUICK)
        tuned.append(serialized(index))
    assert tuned[0] == tuned[1]


def test_what_faiss_encodes_afterwards_uses_the_new_codebooks(built, data):
    """Both levels of a product form, and the tables that a residual quantizer encodes by."""
    for factory in ("IVF16,PRQ2x2x4", "IVF16,RQ4x4"):
        index = built(factory, "l2")
        adapter = open_index(index)
        state = adapter.extract()
        codebooks = state.codebooks + 0.05 * np.random.default_rng(0).standard_normal(state.codebooks.shape)
        new = type(state)(**vars(state) | {"codebooks": codebooks.astype(np.float32)})
        with adapter.write(new, adapter.quantizer_with(state.centroids)[0]) as change:
            change.commit()
        index.reset()
        index.add(data.documents[:N])
        again = open_index(index).extract()
        error = np.square(again.reconstruct(np.arange(N)) - data.documents[:N]).sum(1).mean()
        x, books = torch.from_numpy(data.documents[:N]), torch.from_numpy(new.codebooks)
        residuals = x - torch.from_numpy(new.centroids[again.assignment])
        assert error < 1.05 * float(squared(residuals, nearest_codes(residuals, books), books).mean())


def test_what_cannot_be_handled_is_refused(data):
    for factory, metric, match in (
        ("RQ1x6_3x4", "l2", r"expected additive codebooks of one size, got \[6, 4, 4, 4\] bits"),
        ("IVF16,RQ4x4_Nnone", "l2", "expected an L2 search that knows norms, got search_type ST_LUT_nonorm"),
        ("RQ4x4_Nqint8", "l2", "expected an additive quantizer that stores no norms or numbers for them"),
    ):
        index = faiss.index_factory(64, factory, METRICS[metric])
        index.train(data.documents[:N])
        index.add(data.documents[:N])
        if factory == "RQ4x4_Nqint8":
            index.rq.search_type = faiss.ResidualQuantizer.ST_norm_from_LUT
        before = serialized(index)
        with pytest.raises(UnsupportedIndexError, match=match):
            distill(index, data.documents[:N], data.queries, **QUICK)
        assert serialized(index) == before


@pytest.mark.parametrize("norms", ["Ncqint8", "Ncqint4", "Nqint8", "Nrq2x4"])
def test_fewer_vectors_than_values_of_norms(built, data, norms):
    """Which k-means alone would refuse; and a sample is searched with the norms as they are."""
    index = built(f"IVF16,RQ4x4_{norms}", "l2", n=2000)
    whole = evaluate(index, data.documents[:N], data.queries[:200], nprobe=4, progress=False)
    rows = np.arange(200)
    sample = evaluate(
        index, data.documents[rows], data.queries[:200], ids=rows, sample=True, nprobe=4, top_k=50, progress=False
    )
    assert sample.own.codes_scanned == whole.own.codes_scanned
    adapter = open_index(index)
    few = faiss.deserialize_index(faiss.serialize_index(index))
    few.reset()
    few.add(data.documents[:12])
    adapter = open_index(few)
    state = adapter.extract()
    with adapter.write(state, adapter.quantizer_with(state.centroids)[0]) as change:
        change.commit()
    np.testing.assert_array_equal(open_index(few).extract().codes, state.codes)


@pytest.mark.parametrize(
    ("norms", "sample"), [("Ncqint8", 4096), ("Ncqint4", 4096), ("Nlsq2x4", 4096), ("Nrq2x4", 4096), ("Nrq2x4", 200)]
)
def test_norms_are_rounded_no_worse_than_by_faiss(built, monkeypatch, norms, sample):
    """As faiss's training on these very norms does, and once they are, another write-back changes nothing."""
    monkeypatch.setattr("faiss_distill.index.parts.norms.SAMPLE", sample)
    index = built(f"RQ4x4_{norms}", "l2")
    adapter = open_index(index)
    state = adapter.extract()
    changed = replace(state, codebooks=state.codebooks * np.float32(1.5))
    exact = np.square(changed.reconstruct(np.arange(N))).sum(1)

    def error(quantizer):
        values = faiss.vector_to_array(quantizer.qnorm.codes).view(np.float32)
        return np.square(exact[:, None] - values).min(1).mean()

    theirs = adapter.codebooks.copy()
    theirs.qnorm.reset()
    theirs.train_norm(N, faiss.swig_ptr(exact))
    write_back(adapter, changed)
    assert error(index.rq) <= error(theirs) * 1.001
    values = faiss.vector_to_array(index.rq.qnorm.codes).view(np.float32)
    if "2x4" in norms:  # FastScan adds up the same from its own tables
        first, second = faiss.vector_to_array(index.rq.norm_tabs).reshape(2, 16)
        np.testing.assert_array_equal(values, (first + second[:, None]).ravel())
    best = index.rq.qnorm.search(exact[:, None], 1)[1][:, 0]
    packed = faiss.vector_to_array(index.codes).reshape(N, -1)
    stored = packed[:, 2] & 15 if norms == "Ncqint4" else packed[:, 2]
    assert (stored == best).mean() > 0.99  # the last bit of a norm may differ
    before = serialized(index)
    write_back(adapter, adapter.extract())
    assert serialized(index) == before


def test_norms_that_are_rounded_better_already_stay_so(built):
    index = built("RQ4x4_Nrq2x4", "l2")
    adapter = open_index(index)
    state = adapter.extract()
    exact = np.square(state.reconstruct(np.arange(N))).sum(1)
    free = faiss.Clustering1D(256)  # no sums of two
    free.train_exact(exact[:, None])
    index.rq.qnorm.reset()
    index.rq.qnorm.add(faiss.vector_to_array(free.centroids)[:, None])
    held = adapter.codebooks.holding(state)
    np.testing.assert_array_equal(faiss.vector_to_array(held.qnorm.codes), faiss.vector_to_array(index.rq.qnorm.codes))


def test_centroids_alone_of_an_index_without_lists_are_refused(built, data):
    with pytest.raises(InputError, match="an IndexResidualQuantizer has no centroids"):
        distill(built("RQ4x4"), data.documents[:N], data.queries, learn="centroids", **QUICK)


@pytest.mark.parametrize("factory", ["IVF16,RQ8x4fsr", "IVF16,PRQ2x4x4fsr_Nlsq2x4", "IVF16,RQ7x4fs"])
def test_norms_in_blocks_follow_centroids(built, data, factory):
    """They are those of whole vectors, so new centroids alone change them, in blocks and for vectors to come."""
    index = built(factory, "l2")
    adapter = open_index(index)
    before = adapter.extract()
    quantizer, centroids = adapter.quantizer_with(before.centroids * np.float32(1.3))
    moved = replace(before, centroids=centroids)
    with adapter.write(moved, quantizer, lists=False) as change:
        change.commit()
    index.nprobe = 16
    for n in (N, N + 100):
        state, queries = open_index(index).extract(), data.queries[:50]
        np.testing.assert_array_equal(state.codes[:N], before.codes)
        decoded = state.reconstruct(np.arange(n))
        exact = np.square(decoded).sum(1) - 2 * queries @ decoded.T  # faiss's distance, without the query's norm
        distances, ids = index.search(queries, 10)
        atol = 0.02 * np.ptp(exact)
        np.testing.assert_allclose(distances, np.sort(exact, axis=1)[:, :10], atol=atol)
        np.testing.assert_allclose(distances, np.take_along_axis(exact, ids, 1), atol=atol)
        index.add(data.documents[N : N + 100])


def test_measuring_at_other_lists_leaves_an_index_that_takes_no_parameters(built, data):
    index = built("IVF16,RQ8x4fsr")
    with pytest.raises(RuntimeError, match="search params not supported"):
        index.search(data.queries[:5], 5, params=faiss.SearchParametersIVF(nprobe=2))
    before = serialized(index)
    found = evaluate(index, data.documents[:N], data.queries[:200], nprobe=[1, 4, 16], progress=False)
    assert serialized(index) == before
    for nprobe, point in zip((1, 4, 16), found.points, strict=True):
        index.nprobe = nprobe
        truth = faiss.knn(data.queries[:200], data.documents[:N], 10, index.metric_type)[1]
        ids = index.search(data.queries[:200], 10)[1]
        overlap = np.mean([len(np.intersect1d(*pair)) for pair in zip(ids, truth, strict=True)]) / 10
        assert point.overlap_at_10 == pytest.approx(overlap, abs=2e-3)
