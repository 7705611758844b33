"""Lists and codes of the whole corpus: against loops, and against what faiss itself searches."""

from dataclasses import replace

import faiss
import numpy as np
import pytest
import torch
from conftest import METRICS, QUICK, N

from faiss_distill import DistillConfig, DistillTrainer
from faiss_distill.config import Assignment
from faiss_distill.index.registry import open_index
from faiss_distill.learning.codes import encoder_of
from faiss_distill.learning.codes.nearest import decode, nearest_codes
from faiss_distill.learning.codes.product import HALF
from faiss_distill.learning.documents import Documents
from faiss_distill.learning.lists import best_lists, between, probed_lists, probing
from faiss_distill.learning.placement import CodedPlacement
from faiss_distill.learning.students import CodebookStudent
from faiss_distill.learning.taught import StudentQueries
from faiss_distill.state import Metric


def score(metric, q, x):
    return float(q @ x) if metric is Metric.INNER_PRODUCT else -float((q - x).square().sum())


def renewed(documents, student, placement, budget, rows=None):
    return documents.renew(student, placement, documents.terms(student, placement, budget), rows)


@pytest.fixture
def parts(built, data):
    def parts(metric="ip", **options):
        config = DistillConfig(**QUICK | options)
        trainer = DistillTrainer(built(metric=metric), data.documents[:N], data.queries[:600], config=config)
        train = trainer.task.taught(trainer.training_queries, trainer.exact, config.depth)
        device = torch.device("cpu")
        documents = Documents(
            trainer.task.corpus, trainer.task.adapter.transforms, trainer.task.sample, train, 4, config, device
        )
        return documents, CodebookStudent(trainer.task.sample), train

    return parts


@pytest.mark.parametrize("metric", Metric)
class TestRouting:
    @pytest.fixture(autouse=True)
    def _vectors(self):
        generator = torch.Generator().manual_seed(0)
        self.queries, self.x, self.centroids = (
            torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (30, 12, 7)
        )
        self.local = torch.randint(0, 30, (12, 4), generator=generator)
        self.local[0], self.local[1, 2:] = -1, -1

    def test_the_shares_of_queries_that_probe_a_list(self, metric):
        probes, spread = np.zeros(7), []
        for q in self.queries:
            scores = np.array([score(metric, q, c) for c in self.centroids])
            probes[np.argsort(-scores)[:3]] += 1
            spread.append(np.sort(scores)[-6:].std())
        shares, got = probing(self.queries, self.centroids, 3, metric)
        np.testing.assert_allclose(shares, probes / 30, rtol=1e-5)
        assert got == pytest.approx(np.mean(spread))

    def test_lists_are_chosen_half_way_to_the_mean_of_the_local_queries(self, metric):
        length = np.sqrt(np.mean([float(q @ q) for q in self.queries]))
        for got, x, local in zip(
            between(self.x, self.queries, self.local, metric), self.x, self.local.tolist(), strict=True
        ):
            weights = [1 / (1 + rank / HALF) if q >= 0 else 0.0 for rank, q in enumerate(local)]
            own = x / x.norm() * length if metric is Metric.INNER_PRODUCT else x
            if not sum(weights):
                np.testing.assert_allclose(got, own)
                continue
            mean = sum(w * self.queries[q] for w, q in zip(weights, local, strict=True)) / sum(weights)
            np.testing.assert_allclose(got, (own + mean) / 2)

    def test_a_price_moves_documents_to_lists_that_are_probed_less(self, metric):
        price = probing(self.queries, self.centroids, 3, metric)[0]
        scanned = [
            float(price[best_lists(self.x, self.centroids, metric, factor * price)].sum()) for factor in (0, 1, 1e6)
        ]
        assert scanned[2] == pytest.approx(12 * float(price.min()))
        assert scanned[2] < scanned[1] <= scanned[0]
        expected = [np.argmax([score(metric, x, c) for c in self.centroids]) for x in self.x]
        assert best_lists(self.x, self.centroids, metric).tolist() == expected

    def test_scale_changes_no_choice(self, metric):
        def lists(factor):
            queries, x, centroids = (factor * v for v in (self.queries, self.x, self.centroids))
            shares, spread = probing(queries, centroids, 3, metric)
            price = shares * spread
            return best_lists(between(x, queries, self.local, metric), centroids, metric, price).tolist()

        assert lists(1.0) == lists(1e3) == lists(1e-3)


@pytest.mark.parametrize("metric", METRICS)
def test_query_aware_lists_hold_the_neighbours_where_queries_look(parts, metric):
    """At no more codes scanned, more of the exact Top-10 are in the lists that other queries probe."""
    shares = {}
    for assignment in Assignment:
        documents, student, _ = parts(metric, assignment=assignment, encoding="nearest")
        start = documents.start
        lists = renewed(documents, student, start, documents.scanned(student, start.lists)).lists
        shares[assignment.value] = (lists == start.lists).mean()
    assert shares["query_aware"] < 0.98
    assert shares["refreshed"] > 0.99  # nothing was trained
    assert shares["fixed"] == 1


@pytest.mark.parametrize("metric", METRICS)
def test_query_aware_lists_cost_no_more_codes_scanned(parts, built, metric):
    documents, student, train = parts(metric, encoding="nearest")
    start = documents.start
    before = documents.scanned(student, start.lists)
    # The definition: what a search of the training queries scans.
    cost = open_index(built(metric=metric)).cost(train.queries.vectors, {"nprobe": 4})
    assert before == pytest.approx(cost.codes / len(train.queries.vectors), rel=1e-3)
    lists = renewed(documents, student, start, before).lists
    assert documents.scanned(student, lists) <= before
    dearer = renewed(documents, student, start, 0.9 * before).lists
    assert documents.scanned(student, dearer) <= 0.9 * before
    assert (dearer != lists).any()
    np.testing.assert_array_equal(renewed(documents, student, start, 0.0).lists, start.lists)


@pytest.mark.parametrize("metric", METRICS)
def test_nor_do_other_queries_scan_more(parts, data, metric):
    """Those that choose the epoch: what scans more for them is of no use, however good it is."""
    documents, student, _ = parts(metric, encoding="nearest")
    start, budget = documents.start, documents.scanned(student, documents.start.lists)
    freely = renewed(documents, student, start, budget).lists
    # They look where documents moved to.
    grown = torch.from_numpy(np.bincount(freely, minlength=16) - np.bincount(start.lists, minlength=16))
    others = torch.from_numpy(data.queries[600:])
    opened = probed_lists(others, student.signposts, 4, student.coarse_metric)
    others = others[(opened * grown).sum(1).topk(len(others) // 2).indices]
    probed, _ = probing(others, student.signposts, 4, student.coarse_metric)

    def scanned(lists):
        return float(probed[torch.from_numpy(lists)].sum())

    most = scanned(start.lists)
    assert scanned(freely) > 1.01 * most
    terms = documents.terms(student, start, budget, (others, most))
    lists = documents.renew(student, start, terms).lists
    assert scanned(lists) <= most * (1 + 1e-6)
    assert documents.scanned(student, lists) <= budget
    assert (lists != start.lists).any()
    price = documents.terms(student, start, budget).price
    assert (terms.price > price).all()
    # No price suits those that may scan nothing, and the one that suits those that may scan little breaks up lists.
    little = scanned(documents.renew(student, start, replace(terms, price=32 * price)).lists)
    assert 0 < little < 0.8 * most
    for few in (0.0, little):
        torch.testing.assert_close(documents.terms(student, start, budget, (others, few)).price, price)


@pytest.mark.parametrize("metric", METRICS)
def test_codes_of_blocks_are_codes_of_the_whole(parts, metric, monkeypatch):
    monkeypatch.setattr("faiss_distill.learning.documents.SAMPLED_DOCUMENTS", 300)
    whole, student, _ = parts(metric)
    blocks, _, _ = parts(metric, block_rows=300)
    one, other = (
        renewed(part, student, part.start, part.scanned(student, part.start.lists)) for part in (whole, blocks)
    )
    assert (one.lists == other.lists).mean() > 0.995  # products of another shape round differently
    assert (one.codes == other.codes).mean() > 0.995


def test_nearest_codes_are_relative_to_the_lists_chosen_with_them(parts):
    documents, student, _ = parts()
    lists = renewed(documents, student, documents.start, documents.scanned(student, documents.start.lists)).lists
    codes = documents.nearest_codes(student, lists)
    assert (lists != documents.start.lists).any()
    x, centroids = torch.from_numpy(documents.corpus.take(np.arange(N))), student.centroids.detach()
    expected = nearest_codes(x - centroids[torch.from_numpy(lists)], student.codebooks.detach())
    assert (codes == expected.numpy()).mean() > 0.999


def test_an_epoch_trains_with_the_codes_that_were_chosen_for_it(parts):
    documents, student, _ = parts(assignment="fixed")
    rows, start = np.arange(50), documents.start
    vectors = documents.vectors(rows)
    lists = torch.from_numpy(start.lists[rows])
    assert torch.equal(start.codes_of(student, rows, lambda: vectors), student.encode(vectors, lists))
    first = renewed(documents, student, start, 0.0)
    assert torch.equal(
        first.codes_of(student, rows, lambda: vectors), torch.from_numpy(first.codes[:50].astype(np.int64))
    )
    assert (first.codes[:50] != student.encode(vectors, lists).numpy()).mean() > 0.1
    with torch.no_grad():
        student.codebooks += 0.02 * torch.randn(student.codebooks.shape, generator=torch.Generator().manual_seed(0))
    again = renewed(documents, student, first, 0.0).codes
    fresh = renewed(documents, student, start, 0.0).codes
    assert (again != first.codes).any()
    assert (again != fresh).any()  # the search began elsewhere
    x = torch.from_numpy(documents.corpus.take(np.arange(N)))
    residuals = student.residuals(x, torch.from_numpy(start.lists)).detach()
    errors = [
        (residuals - decode(torch.from_numpy(c.astype(np.int64)), student.codebooks.detach())).square().sum(1).mean()
        for c in (again, fresh)
    ]
    assert float(errors[0]) == pytest.approx(float(errors[1]), rel=0.05)


@pytest.mark.parametrize(
    ("options", "moves", "coded"),
    [
        ({}, True, True),
        ({"assignment": "fixed"}, False, True),
        ({"encoding": "nearest"}, True, False),
        ({"encoding": "nearest", "assignment": "fixed"}, False, False),
        ({"encoding": "frozen"}, False, True),
    ],
)
def test_what_is_renewed(parts, options, moves, coded):
    documents, student, _ = parts(**options)
    start = documents.start
    new = renewed(documents, student, start, documents.scanned(student, start.lists))
    assert np.array_equal(new.lists, start.lists) != moves
    assert isinstance(new, CodedPlacement) == coded
    if options.get("encoding") == "frozen":
        assert new.codes is start.codes


@pytest.mark.parametrize("limit", [4, 8, 100])
@pytest.mark.parametrize("metric", METRICS)
def test_the_offset_is_what_the_nearest_documents_of_a_query_are_wrong_by(parts, built, metric, limit, monkeypatch):
    """For L2 of the fewer, the more local queries documents have."""
    fewest = 20 if limit == 8 else 1
    monkeypatch.setattr("faiss_distill.learning.documents.FEWEST", fewest)
    monkeypatch.setattr("faiss_distill.learning.documents.SAMPLED_DOCUMENTS", 10**9)
    monkeypatch.setattr("faiss_distill.learning.documents.SAMPLED_QUERIES", 10**9)
    documents, student, train = parts(metric, local_queries=limit)
    x = documents.corpus.take(np.arange(N))
    known = np.bincount(train.top[:, : documents._config.top_k].ravel(), minlength=N).clip(max=limit)
    lacking = 1 - known.mean() / limit
    assert lacking > 0.5 if limit == 100 else 0 < lacking < 0.4
    share = 0.02 if metric == "ip" else max(min(0.002 + 0.016 * lacking, 0.01), fewest / N)
    rebuilt = open_index(built(metric=metric)).extract().reconstruct(np.arange(N))
    wrong, competitors = [], round(share * N)
    for q in train.queries.vectors:
        exact, approximate = ((q @ v.T) if metric == "ip" else -np.square(q - v).sum(1) for v in (x, rebuilt))
        nearest = np.argsort(-exact)[:competitors]
        wrong.append((approximate - exact)[nearest].mean())
    queries = documents._queries.all(student)
    with torch.no_grad():
        assert documents._offset(student, queries, documents.start) == pytest.approx(np.mean(wrong), rel=1e-3)


def test_without_local_queries_documents_stay_where_faiss_would_put_them(parts):
    documents, student, _ = parts(local_queries=0)
    start = documents.start
    aware = renewed(documents, student, start, documents.scanned(student, start.lists))
    assert (aware.lists == start.lists).mean() > 0.8  # all but the price
    assert aware.codes.shape == (N, 16)


@pytest.mark.parametrize("metric", METRICS)
def test_lists_are_those_of_the_coarse_quantizer_s_own_metric(data, metric):
    """faiss lets an inner product index have an L2 quantizer, and the other way round."""
    other = {"ip": faiss.IndexFlatL2, "l2": faiss.IndexFlatIP}[metric](64)
    index = faiss.IndexIVFPQ(other, 64, 16, 16, 4, METRICS[metric])
    index.cp.spherical = False
    x = data.documents[:N] * np.linspace(0.5, 1.5, N, dtype=np.float32)[:, None]
    index.train(x)
    index.add(x)
    config = DistillConfig(**QUICK, assignment="refreshed")
    trainer = DistillTrainer(index, x, data.queries[:600], config=config)
    train = trainer.task.taught(trainer.training_queries, trainer.exact, 40)
    documents = Documents(
        trainer.task.corpus,
        trainer.task.adapter.transforms,
        trainer.task.sample,
        train,
        4,
        trainer.config,
        torch.device("cpu"),
    )
    student = CodebookStudent(trainer.task.sample)
    lists = renewed(documents, student, documents.start, 0.0).lists
    assert (lists == documents.start.lists).mean() > 0.999
    probed = probed_lists(torch.from_numpy(data.queries[:50]), student.centroids.detach(), 4, student.coarse_metric)
    expected = np.sort(index.quantizer.search(data.queries[:50], 4)[1], axis=1)
    np.testing.assert_array_equal(torch.nonzero(probed)[:, 1].reshape(50, 4).numpy(), expected)
    assert trainer.train().gain > 0


@pytest.mark.parametrize("options", [{"encoding": "nearest", "assignment": "refreshed"}, {"encoding": "frozen"}])
def test_queries_are_encoded_only_where_something_depends_on_them(parts, options, monkeypatch):
    """A query encoder may be a transformer."""
    documents, student, _ = parts(**options)
    monkeypatch.setattr(StudentQueries, "all", lambda *_: pytest.fail("a pass over the queries"))
    renewed(documents, student, documents.start, 0.0)


@pytest.mark.parametrize("metric", METRICS)
class TestSome:
    """Documents that nothing looks at are left for the end."""

    def test_only_they_change(self, parts, metric):
        documents, student, _ = parts(metric)
        start, rows = documents.start, np.arange(0, N, 3)
        budget = documents.scanned(student, start.lists)
        whole, some = (renewed(documents, student, start, budget, which) for which in (None, rows))
        np.testing.assert_array_equal(some.lists[rows], whole.lists[rows])
        others = np.setdiff1d(np.arange(N), rows)
        np.testing.assert_array_equal(some.lists[others], start.lists[others])
        assert (some.codes == whole.codes[rows]).mean() > 0.995  # products of another shape round differently
        assert some.fresh.all()
        assert some.rows.tolist() == rows.tolist()
        with pytest.raises(AssertionError, match="not chosen"):
            some.codes_of(student, others[:1], lambda: None)

    def test_the_rest_comes_at_the_end(self, parts, metric, monkeypatch):
        documents, student, _ = parts(metric)
        start, rows = documents.start, np.arange(0, N, 3)
        budget = documents.scanned(student, start.lists)
        terms = documents.terms(student, start, budget)
        whole, some = (documents.renew(student, start, terms, which) for which in (None, rows))
        encoded = []
        real = Documents._codes
        monkeypatch.setattr(Documents, "_codes", lambda *a: encoded.append(len(a[4])) or real(*a))
        done = documents.complete(student, some, terms, budget)
        assert encoded == [N - len(rows)]
        np.testing.assert_array_equal(done.lists, whole.lists)
        assert (done.codes == whole.codes).mean() > 0.995
        assert done.rows is None
        monkeypatch.setattr(Documents, "_encoder", lambda *_: pytest.fail("nothing is left to encode"))
        np.testing.assert_array_equal(documents.complete(student, whole, terms, budget).codes, whole.codes)

    def test_lists_of_all_are_within_the_budget_even_if_the_sample_said_so_of_others(self, parts, metric):
        documents, student, _ = parts(metric)
        start = documents.start
        budget = 0.95 * documents.scanned(student, start.lists)
        terms = documents.terms(student, start, 2 * budget)
        placement = documents.renew(student, start, terms, np.arange(100))
        assert documents.scanned(student, documents.renew(student, start, terms).lists) > budget
        done = documents.complete(student, placement, terms, budget)
        assert documents.scanned(student, done.lists) <= budget
        np.testing.assert_array_equal(documents.complete(student, placement, terms, 0.0).lists, start.lists)

    def test_a_sample_tells_what_lists_cost(self, parts, metric, monkeypatch):
        monkeypatch.setattr("faiss_distill.learning.documents.SAMPLED_LISTS", N // 2)
        documents, student, _ = parts(metric)
        lists = documents.start.lists
        assert len(documents.sample) == N // 2
        exact, told = documents.scanned(student, lists), documents.scanned(student, lists[documents.sample])
        assert told == pytest.approx(exact, rel=0.1)
        assert told != exact
        lengths = documents.lengths(lists, 16)
        assert lengths.sum() == pytest.approx(N)
        np.testing.assert_allclose(lengths, np.bincount(lists, minlength=16), atol=0.25 * N / 16)


def test_training_looks_at_few_documents_where_queries_are_few(built, data, monkeypatch):
    monkeypatch.setattr("faiss_distill.learning.documents.SAMPLED_LISTS", 100)
    encoded, real = [], Documents._codes
    monkeypatch.setattr(Documents, "_codes", lambda *a: encoded.append(len(a[4])) or real(*a))
    options = QUICK | {"epochs": 2, "top_k": 10, "perplexity": 5.0, "candidates": "in_batch + top10:1"}
    report = DistillTrainer(built(), data.documents[:N], data.queries[:150], config=DistillConfig(**options)).train()
    assert len(report.history) == 3
    *between, last = encoded
    assert len(between) == 3
    assert all(n < 0.4 * N for n in between)
    assert last > N / 2
    mined = options | {"candidates": "in_batch + hard10:1"}  # the index is searched: it must hold all
    encoded.clear()
    DistillTrainer(built(), data.documents[:N], data.queries[:150], config=DistillConfig(**mined)).train()
    assert encoded[:3] == [N] * 3


def test_how_much_documents_differ_in_length(parts, data, monkeypatch):
    """Behind the transforms, of a sample, but for those of length 0."""
    documents, student, _ = parts()
    assert documents._uneven == pytest.approx(0, abs=1e-6)
    lengths = np.random.default_rng(0).lognormal(0, 0.25, N).astype(np.float32)
    monkeypatch.setattr(documents, "vectors", lambda rows: torch.from_numpy(data.documents[rows] * lengths[rows, None]))
    expected = lengths.std() / lengths.mean()
    lengths[:100] = 0
    for limit in (N, N // 4):
        monkeypatch.setattr("faiss_distill.learning.documents.SAMPLED_DOCUMENTS", limit)
        documents.__dict__.pop("_uneven", None)
        assert documents._uneven == pytest.approx(expected, rel=0.02 if limit == N else 0.1)
    told = []
    monkeypatch.setattr("faiss_distill.learning.documents.encoder_of", lambda *a: told.append(a[-1]) or encoder_of(*a))
    renewed(documents, student, documents.start, 0.0)
    assert told == [documents._uneven]
