"""Documents moved to where queries are."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from faiss_distill.data.moving import SHRINKAGES, moved


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def drawn(rng, n, d, scales, mean=0.0):
    return (mean + scales * rng.standard_normal((n, d))).astype(np.float32)


def test_mean_and_covariance_are_those_of_many_queries(rng):
    documents, queries = drawn(rng, 4000, 6, [3, 1, 1, 1, 1, 0.5]), drawn(rng, 4000, 6, [1, 1, 2, 1, 1, 0.5], 3.0)
    queries = queries @ np.linalg.qr(rng.standard_normal((6, 6)))[0].astype(np.float32)
    out = moved(documents, documents, queries, False)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out.mean(axis=0), queries.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(np.cov(out.T), np.cov(queries.T), atol=0.15)


def test_no_other_map_of_that_mean_and_covariance_moves_them_less(rng):
    """The distance is that of Dowson and Landau, between the Gaussians."""
    documents, queries = drawn(rng, 3000, 4, [2, 1, 1, 0.5]), drawn(rng, 3000, 4, [0.5, 1, 2, 1], 1.0)
    out = moved(documents, documents, queries, False)
    a, b = np.cov(documents.T, bias=True), np.cov(out.T, bias=True)
    root = sqrtm(a)
    distance = ((documents.mean(0) - out.mean(0)) ** 2).sum() + np.trace(a + b - 2 * sqrtm(root @ b @ root)).real
    assert ((documents - out) ** 2).sum(axis=1).mean() == pytest.approx(distance, rel=1e-2)


def test_queries_like_documents_move_nothing_but_their_chance(rng):
    documents = drawn(rng, 4000, 8, np.linspace(0.2, 2, 8))
    out = moved(documents, documents, drawn(rng, 40, 8, np.linspace(0.2, 2, 8)), False)
    assert np.linalg.norm(out - documents) < 0.35 * np.linalg.norm(documents)


def test_few_queries_in_many_dimensions_are_trusted_little(rng):
    scales = np.geomspace(3, 0.1, 60)
    documents = drawn(rng, 4000, 60, scales)
    out = moved(documents, documents, drawn(rng, 40, 60, scales), False)
    spread = np.linalg.norm(out - out.mean(0)) / np.linalg.norm(documents - documents.mean(0))
    assert spread == pytest.approx(1, abs=0.25)
    assert np.linalg.matrix_rank(np.cov(out.T)) == 60
    assert max(SHRINKAGES) < 1


def test_directions_get_a_typical_length_and_so_do_all_where_queries_have_one_length(rng):
    documents, queries = drawn(rng, 500, 5, 1.0), drawn(rng, 500, 5, 1.0, 4.0)
    same = queries * (7 / np.linalg.norm(queries, axis=1, keepdims=True))
    typical = np.sqrt(np.square(queries).sum(axis=1).mean())
    for real, directions, length in ((same, True, 7), (same, False, 7), (queries, True, typical)):
        out = moved(documents, documents, real, directions)
        np.testing.assert_allclose(np.linalg.norm(out, axis=1), length, rtol=1e-5)
    assert np.ptp(np.linalg.norm(moved(documents, documents, queries, False), axis=1)) > 1


@pytest.mark.parametrize("n", [1, 2, 19])
def test_very_few_queries_move_nothing(rng, n):
    documents = drawn(rng, 100, 4, 1.0)
    np.testing.assert_array_equal(moved(documents, documents, drawn(rng, n, 4, 1.0, 9.0), False), documents)
    assert moved(documents, documents, drawn(rng, 20, 4, 1.0, 9.0), False).mean() == pytest.approx(9, abs=1)


def test_vectors_that_are_all_the_same_stay(rng):
    same = np.ones((100, 4), dtype=np.float32)
    np.testing.assert_array_equal(moved(same, same, drawn(rng, 50, 4, 1.0), False), same)
    documents = drawn(rng, 100, 4, 1.0)
    np.testing.assert_array_equal(moved(documents, documents, same, False), documents)
