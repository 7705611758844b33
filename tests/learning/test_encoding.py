import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faiss_distill import DistillConfig
from faiss_distill.learning.codes.nearest import decode, nearest_codes
from faiss_distill.learning.codes.product import HALF, QueryAwareEncoder, score_error_codes
from faiss_distill.state import Metric

N, M, KSUB, DSUB, R = 6, 3, 4, 2, 3
WIDE = 8
"""Dimensions of a segment that take another way to the same codes."""
D = M * DSUB


def problem(seed, dsub=DSUB):
    rng, d = np.random.default_rng(seed), M * dsub
    root = rng.standard_normal((d, d))
    arrays = (
        rng.standard_normal((N, d)),  # residuals
        rng.standard_normal((M, 1, KSUB, dsub)),  # codebooks
        root @ root.T / d + 0.1 * np.eye(d),  # hessian
        rng.standard_normal((N, R, d)),  # directions
        rng.uniform(0, 2, (N, R)) * (rng.uniform(size=(N, R)) > 0.3),  # weights
        rng.standard_normal((N, R)),  # targets
    )
    return [torch.tensor(a) for a in arrays]


def encode(residuals, books, hessian, directions, weights, targets, kappa, sweeps, start=None):
    return score_error_codes(residuals, books, hessian, directions, weights, kappa, sweeps, start, targets)


def cost(e, hessian, directions, weights, targets, kappa):
    """The definition, one document at a time."""
    total = e @ hessian @ e
    for u, w, t in zip(directions, weights, targets, strict=True):
        total += w * (u @ e + kappa * (e @ e) - t) ** 2
    return float(total)


def costs(codes, residuals, books, hessian, directions, weights, targets, kappa):
    e = residuals - decode(codes, books)
    return np.array([cost(e[i], hessian, directions[i], weights[i], targets[i], kappa) for i in range(N)])


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.7]))
@settings(deadline=None, max_examples=60)
def test_no_single_code_can_be_bettered_after_convergence(seed, kappa):
    residuals, books, *rest = problem(seed)
    codes = encode(residuals, books, *rest, kappa, sweeps=100)
    final = costs(codes, residuals, books, *rest, kappa)
    for m in range(M):
        for k in range(KSUB):
            other = codes.clone()
            other[:, m] = k
            assert (costs(other, residuals, books, *rest, kappa) >= final - 1e-9).all()


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.7]))
@settings(deadline=None, max_examples=60)
def test_more_sweeps_never_cost_more(seed, kappa):
    residuals, books, *rest = problem(seed)
    path = [nearest_codes(residuals, books)]
    path += [encode(residuals, books, *rest, kappa, sweeps) for sweeps in (1, 2, 3)]
    measured = [costs(codes, residuals, books, *rest, kappa) for codes in path]
    for before, after in itertools.pairwise(measured):
        assert (after <= before + 1e-9).all()


@pytest.mark.parametrize("dsub", [DSUB, WIDE])
def test_the_first_sweep_is_exact_coordinate_descent(dsub):
    residuals, books, *rest = problem(1, dsub)
    for kappa in (0.0, 0.7):
        codes = nearest_codes(residuals, books)
        for m in range(M):
            options = []
            for k in range(KSUB):
                codes[:, m] = k
                options.append(costs(codes, residuals, books, *rest, kappa))
            codes[:, m] = torch.tensor(np.argmin(options, axis=0))
        assert torch.equal(encode(residuals, books, *rest, kappa, sweeps=1), codes)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.7]))
@settings(deadline=None, max_examples=40)
def test_codes_to_start_from_never_get_worse(seed, kappa):
    residuals, books, *rest = problem(seed)
    start = torch.randint(0, KSUB, (N, M), generator=torch.Generator().manual_seed(seed))
    given = start.clone()
    codes = encode(residuals, books, *rest, kappa, 2, start)
    assert torch.equal(start, given)
    assert (costs(codes, residuals, books, *rest, kappa) <= costs(start, residuals, books, *rest, kappa) + 1e-9).all()
    converged = encode(residuals, books, *rest, kappa, 100, start)
    assert torch.equal(encode(residuals, books, *rest, kappa, 3, converged), converged)


def test_plain_hessian_and_no_directions_give_the_nearest_codewords():
    residuals, books, _, directions, weights, targets = problem(2)
    codes = encode(residuals, books, torch.eye(D).double(), directions, 0 * weights, targets, 0.5, 3)
    assert torch.equal(codes, nearest_codes(residuals, books))


def test_targets_are_0_unless_given():
    residuals, books, *rest, targets = problem(3)
    plain = score_error_codes(residuals, books, *rest, 0.7, 3)
    assert torch.equal(plain, encode(residuals, books, *rest, 0 * targets, 0.7, 3))
    assert not torch.equal(plain, encode(residuals, books, *rest, targets, 0.7, 3))


@pytest.mark.parametrize("metric", Metric)
class TestQueryAwareEncoder:
    """On unit-norm queries and documents of 8 dimensions."""

    @pytest.fixture(autouse=True)
    def _vectors(self):
        generator = torch.Generator().manual_seed(3)
        self.queries = torch.nn.functional.normalize(torch.randn(40, 8, generator=generator, dtype=torch.float64) + 0.5)
        self.x = torch.nn.functional.normalize(torch.randn(10, 8, generator=generator, dtype=torch.float64))
        self.books = 0.4 * torch.randn(4, 1, 6, 2, generator=generator, dtype=torch.float64)
        self.local = torch.randint(0, 40, (10, 3), generator=generator)
        self.local[0, 1:] = -1

    def score(self, metric, q, x):
        return q @ x if metric is Metric.INNER_PRODUCT else -(q - x).square().sum()

    def test_directions_measure_the_score_error_of_local_queries(self, metric):
        encoder = QueryAwareEncoder(self.queries, self.books, metric, DistillConfig(local_queries=3))
        u, weights = encoder.directions(self.x, self.local)
        kappa = 0.0 if metric is Metric.INNER_PRODUCT else 1 / encoder.scale
        e = 0.3 * torch.randn(10, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        for i in range(10):
            for r in range(3):
                if self.local[i, r] < 0:
                    assert weights[i, r] == 0
                    continue
                assert float(weights[i, r]) == pytest.approx(encoder.config.local_weight / (1 + r / HALF))
                q = self.queries[self.local[i, r]]
                change = self.score(metric, q, self.x[i] - e[i]) - self.score(metric, q, self.x[i])
                modelled = -(u[i, r] @ e[i] + kappa * e[i] @ e[i]) * encoder.scale
                assert float(modelled) == pytest.approx(float(change), abs=1e-9)

    @pytest.mark.parametrize(("uneven", "stands_in"), [(0.0, 0.0), (0.1, 0.2), (0.25, 0.5), (1.0, 0.5)])
    def test_the_document_stands_in_for_the_queries_that_it_lacks(self, metric, uneven, stands_in):
        """Where lengths differ: short documents lack the most."""
        config = DistillConfig(local_queries=3, self_weight=2.0)
        encoder = QueryAwareEncoder(self.queries, self.books, metric, config, uneven=uneven)
        own = encoder.directions(self.x, self.local)[1][:, -1]
        assert own[1:].tolist() == pytest.approx([2.0] * 9)
        assert float(own[0]) == pytest.approx(2 * (1 + stands_in * (1 / (1 + 1 / HALF) + 1 / (1 + 2 / HALF))))

    @pytest.mark.parametrize("same", [True, False])
    def test_the_document_as_a_query_is_as_long_as_queries_are(self, metric, same):
        """For L2 only where all of them are: elsewhere it is the query that it equals, of which no error is linear."""
        x = 3 * self.x
        queries = 2 * self.queries if same else self.queries * torch.linspace(1, 3, 40)[:, None]
        encoder = QueryAwareEncoder(queries, self.books, metric, DistillConfig(local_queries=3))
        u, _ = encoder.directions(x, self.local)
        q = x * (float(queries.square().sum(1).mean().sqrt()) / 3)
        if metric is Metric.L2:
            q = q - x if same else 0 * x
        torch.testing.assert_close(u[:, -1], q * encoder.factor)

    def test_the_global_term_is_the_variance_of_the_score_error_over_all_queries(self, metric):
        encoder = QueryAwareEncoder(self.queries, self.books, metric, DistillConfig(global_weight=0.5))
        e = 0.3 * torch.randn(8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        errors = [self.score(metric, q, self.x[2] - e) - self.score(metric, q, self.x[2]) for q in self.queries]
        expected = 0.5 * 8 * float(torch.stack(errors).var(correction=0)) / encoder.scale**2
        assert float(e @ encoder.hessian @ e - e @ e) == pytest.approx(expected, rel=1e-9)

    def test_scaling_everything_changes_no_code(self, metric):
        config = DistillConfig(local_queries=3)
        plain = QueryAwareEncoder(self.queries, self.books, metric, config)(self.x, self.x, self.local)
        for factor in (1e-3, 1e3):
            encoder = QueryAwareEncoder(factor * self.queries, factor * self.books, metric, config)
            scaled = encoder(factor * self.x, factor * self.x, self.local)
            assert torch.equal(plain, scaled)

    def test_blocks_do_not_matter(self, metric, monkeypatch):
        encoder = QueryAwareEncoder(self.queries, self.books, metric, DistillConfig(local_queries=3))
        whole = encoder(self.x, self.x, self.local)
        monkeypatch.setattr(QueryAwareEncoder, "block_size", lambda *_: 3)
        assert torch.equal(whole, encoder(self.x, self.x, self.local))

    def test_it_lowers_the_score_error_of_local_queries(self, metric):
        encoder = QueryAwareEncoder(self.queries, self.books, metric, DistillConfig(local_queries=3))
        aware, nearest = encoder(self.x, self.x, self.local), nearest_codes(self.x, self.books)

        def error(codes):
            decoded = decode(codes, self.books)
            pairs = [(i, q) for i in range(10) for q in self.local[i].tolist() if q >= 0]
            changes = [
                self.score(metric, self.queries[q], decoded[i]) - self.score(metric, self.queries[q], self.x[i])
                for i, q in pairs
            ]
            return float(torch.stack(changes).square().mean())

        assert error(aware) < 0.7 * error(nearest)

    @pytest.mark.parametrize("offset", [-0.2, 0.2])
    def test_scores_of_local_queries_are_wrong_by_the_offset(self, metric, offset):
        config, local = DistillConfig(local_queries=1, local_weight=100.0), self.local[:, :1]
        codes = QueryAwareEncoder(self.queries, self.books, metric, config, offset)(self.x, self.x, local)
        decoded, queries = decode(codes, self.books), self.queries[local[:, 0]]
        wrong = [
            self.score(metric, q, near) - self.score(metric, q, x)
            for q, near, x in zip(queries, decoded, self.x, strict=True)
        ]
        assert float(torch.stack(wrong).median()) == pytest.approx(offset, abs=0.05)


def test_queries_that_are_all_zero_give_nearest_codes():
    x, books = torch.randn(5, 8), torch.randn(4, 1, 6, 2)
    encoder = QueryAwareEncoder(
        torch.zeros(20, 8), books, Metric.INNER_PRODUCT, DistillConfig(local_queries=1, self_weight=0.0)
    )
    codes = encoder(x, x, torch.zeros(5, 1, dtype=torch.int64))
    assert torch.equal(codes, nearest_codes(x, books))


@pytest.mark.parametrize("metric", Metric)
class TestFused:
    """The compiled search finds the codes that the plain one finds."""

    def both(self, metric, n_segments, ksub, dsub, n=70, near=5, start=False, **options):
        fused = pytest.importorskip("faiss_distill.learning.codes.fused")
        generator = torch.Generator().manual_seed(n_segments * ksub * dsub)
        d = n_segments * dsub
        queries, x = (torch.randn(k, d, generator=generator) for k in (60, n))
        books = torch.randn(n_segments, 1, ksub, dsub, generator=generator)
        local = torch.randint(0, 60, (n, near), generator=generator)
        local[:3], local[3:9, 2:] = -1, -1
        begin = torch.randint(0, ksub, (n, n_segments), generator=generator) if start else None
        config = DistillConfig(local_queries=near, **options)
        encoder = QueryAwareEncoder(queries, books, metric, config, offset=0.3)
        assert isinstance(encoder._fused, fused.FusedSearch)
        assert encoder.compiled
        got = encoder(x, x, local, begin)
        plain = QueryAwareEncoder(queries, books, metric, config, offset=0.3)
        plain._fused = None
        assert not plain.compiled
        expected = plain(x, x, local, begin)
        u, weights = plain.directions(x, local)
        targets = torch.full_like(weights, -0.3 / plain.scale)
        targets[:, -1] = 0
        values = []
        for codes in (got, expected):
            e = x - decode(codes, books)
            wrong = (u * e[:, None]).sum(2) + plain.kappa * e.square().sum(1, keepdim=True) - targets
            values.append(((e @ plain.hessian) * e).sum(1) + (weights * wrong.square()).sum(1))
        return got, expected, values

    @pytest.mark.parametrize(
        ("n_segments", "ksub", "dsub"), [(4, 16, 2), (1, 256, 8), (6, 64, 3), (5, 256, 1), (2, 16, 11), (8, 16, 12)]
    )
    @pytest.mark.parametrize("start", [False, True])
    def test_same_codes(self, metric, n_segments, ksub, dsub, start):
        got, expected, (ours, plain) = self.both(metric, n_segments, ksub, dsub, start=start)
        assert (got == expected).float().mean() > 0.99  # ties, and sums in another order
        torch.testing.assert_close(ours.mean(), plain.mean(), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("options", [{"sweeps": 1}, {"sweeps": 30}, {"local_weight": 0.0}, {"global_weight": 0.0}])
    def test_options(self, metric, options):
        got, expected, _ = self.both(metric, 4, 16, 4, **options)
        assert (got == expected).float().mean() > 0.99

    @pytest.mark.parametrize("n", [1, 31, 32, 33, 600])
    def test_tiles(self, metric, n):
        got, expected, _ = self.both(metric, 4, 16, 4, n=n)
        assert len(got) == n
        assert (got == expected).float().mean() > 0.99

    def test_not_where_it_has_no_place(self, metric):
        queries = torch.randn(40, 12)
        for books, dtype in ((torch.randn(2, 2, 4, 6), torch.float32), (torch.randn(2, 1, 4, 6), torch.float64)):
            encoder = QueryAwareEncoder(queries.to(dtype), books.to(dtype), metric, DistillConfig())
            assert encoder._fused is None
        wide = QueryAwareEncoder(queries, torch.randn(1, 1, 4, 12), metric, DistillConfig(local_queries=4))
        assert wide._fused is None  # a product for each direction costs less


def test_without_numba_codes_come_from_torch():
    script = """
import sys
sys.modules["numba"] = None
import torch
from faiss_distill import DistillConfig
from faiss_distill.learning.codes.product import QueryAwareEncoder
from faiss_distill.state import Metric
torch.manual_seed(0)
encoder = QueryAwareEncoder(torch.randn(40, 8), torch.randn(4, 1, 16, 2), Metric.L2, DistillConfig(local_queries=3))
assert not encoder.compiled
x = torch.randn(20, 8)
print(encoder(x, x, torch.randint(0, 40, (20, 3))).shape)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "torch.Size([20, 4])\n", done.stderr


def test_a_numba_that_cannot_be_used_is_said_and_done_without(tmp_path, monkeypatch):
    (tmp_path / "numba.py").write_text("raise ImportError('Numba needs another NumPy')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    script = "from faiss_distill.learning.codes import compiled; print(compiled.fused())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "None\n", done.stderr
    assert "numba is installed but can't be used" in done.stderr
    assert "Numba needs another NumPy" in done.stderr


def test_compiled_code_need_not_be_kept():
    script = """
import numba.core.caching
numba.core.caching.CacheImpl._locator_classes = []  # as in a container whose folders are read-only
import numpy as np
from faiss_distill.learning.codes.fused import _argmin
print(_argmin(np.array([2, 1, 3], dtype=np.float32)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr
