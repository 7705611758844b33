"""A teacher that looks into some lists: against brute force over the documents in these."""

import numpy as np
import pytest

from faiss_distill.data.vectors import open_vectors
from faiss_distill.learning import list_teacher
from faiss_distill.learning.list_teacher import Lists, ListTeacher, teacher_for
from faiss_distill.learning.teacher import Teacher
from faiss_distill.state import IndexState, Metric

RNG = np.random.default_rng(0)
N, D, NLIST = 3000, 12, 80
CENTRES = RNG.standard_normal((NLIST, D)).astype(np.float32)
LISTS = RNG.integers(0, NLIST, N)
X = (CENTRES[LISTS] + 0.3 * RNG.standard_normal((N, D))).astype(np.float32)
Q = (CENTRES[RNG.integers(0, NLIST, 50)] + 0.3 * RNG.standard_normal((50, D))).astype(np.float32)

WIDE = RNG.standard_normal((500, D)).astype(np.float32)
"""Queries between the lists."""


def similarities(metric, q=Q, x=X):
    if metric is Metric.INNER_PRODUCT:
        return q.astype(np.float64) @ x.astype(np.float64).T
    return -np.square(q[:, None].astype(np.float64) - x[None]).sum(2)


def teacher(metric, probed, normalize=False, block_rows=256, lists=LISTS):
    exact = Teacher(metric, normalize, block_rows=block_rows)
    return ListTeacher(exact, Lists(CENTRES, lists, metric, lambda x: x), probed, 1.0, 0.5)


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("probed", [10, NLIST])
@pytest.mark.parametrize("k", [5, 60])
@pytest.mark.parametrize("block_rows", [20, 256])
def test_the_best_of_the_nearest_lists(metric, probed, k, block_rows):
    ids, scores = teacher(metric, probed, block_rows=block_rows).top_k(open_vectors(X, "x"), Q, k)
    opened = np.argsort(-similarities(metric, x=CENTRES), axis=1)[:, :probed]
    values = similarities(metric)
    values[~(LISTS[None, None] == opened[:, :, None]).any(axis=1)] = -np.inf
    assert all(len(set(row)) == k for row in ids.tolist())
    np.testing.assert_allclose(np.take_along_axis(values, ids, 1), -np.sort(-values, axis=1)[:, :k], atol=1e-5)  # ties
    np.testing.assert_allclose(scores, np.take_along_axis(values, ids, 1), atol=1e-4)


@pytest.mark.parametrize("metric", Metric)
def test_a_document_does_not_find_itself(metric):
    own = np.arange(0, N, 60)
    ids, _ = teacher(metric, NLIST).top_k(open_vectors(X, "x"), X[own], 20, own)
    values = similarities(metric, q=X[own])
    values[np.arange(len(own)), own] = -np.inf
    np.testing.assert_array_equal(ids, np.argsort(-values, axis=1)[:, :20])


def test_all_documents_count_where_lists_hold_too_few():
    few = np.where(np.arange(N) < 40, LISTS, 7)  # all others are in one list
    ids, _ = teacher(Metric.L2, 1, lists=few).top_k(open_vectors(X, "x"), Q, 30)
    np.testing.assert_array_equal(ids, np.argsort(-similarities(Metric.L2), axis=1)[:, :30])


def state(metric, nlist=NLIST):
    lists, centroids = LISTS % nlist, CENTRES[:nlist]
    codes = np.zeros((N, 1), np.uint8)
    return IndexState(metric, metric, True, centroids, None, lists, codes, np.arange(N))


@pytest.mark.parametrize("metric", Metric)
class TestChoice:
    def choose(self, metric, nlist=NLIST):
        corpus, rng = open_vectors(X, "x"), np.random.default_rng(0)
        return teacher_for(Teacher(metric), corpus, state(metric, nlist), lambda x: x, WIDE, 20, None, rng)

    def test_exhaustive_where_that_is_cheap(self, metric):
        assert isinstance(self.choose(metric), Teacher)

    def test_as_many_lists_as_hold_nearly_all(self, metric, monkeypatch):
        monkeypatch.setattr(list_teacher, "WORTH_IT", 0)
        monkeypatch.setattr(list_teacher, "SELECTION", 0)
        found = self.choose(metric)
        assert isinstance(found, ListTeacher)
        assert found.agreement >= list_teacher.HELD
        opened = np.argsort(-similarities(metric, q=WIDE, x=CENTRES), axis=1)[:, : found.probed]
        assert found.cost == pytest.approx(
            np.bincount(LISTS)[opened].sum(1).mean() / N
        )  # where keeping the best is free
        ids, _ = found.top_k(open_vectors(X, "x"), WIDE, 20)
        exact = np.argsort(-similarities(metric, q=WIDE), axis=1)[:, :20]
        agreement = np.mean([len(np.intersect1d(a, b)) / 20 for a, b in zip(ids, exact, strict=True)])
        assert agreement == pytest.approx(found.agreement, abs=1e-3)
        others = ListTeacher(found.exact, found.lists, found.probed - 1, 0.0, 0.5)
        fewer = others.top_k(open_vectors(X, "x"), WIDE, 20)[0]
        assert np.mean([len(np.intersect1d(a, b)) / 20 for a, b in zip(fewer, exact, strict=True)]) < list_teacher.HELD

    def test_exhaustive_where_most_lists_would_be_needed(self, metric, monkeypatch):
        monkeypatch.setattr(list_teacher, "WORTH_IT", 0)
        monkeypatch.setattr(list_teacher, "SAVING", 0.01)
        assert isinstance(self.choose(metric), Teacher)

    def test_an_index_without_lists_gets_some(self, metric, monkeypatch):
        monkeypatch.setattr(list_teacher, "WORTH_IT", 0)
        monkeypatch.setattr(list_teacher, "SAVING", 100.0)
        found = self.choose(metric, nlist=1)
        assert isinstance(found, ListTeacher)
        assert len(found.lists.centroids) == int(np.sqrt(N))
        ids, _ = found.top_k(open_vectors(X, "x"), Q, 20)
        exact = np.argsort(-similarities(metric), axis=1)[:, :20]
        assert np.mean([len(np.intersect1d(a, b)) / 20 for a, b in zip(ids, exact, strict=True)]) > 0.9
