import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy

from faiss_distill.data.vectors import open_vectors
from faiss_distill.learning.teacher import Teacher, calibrate_temperature
from faiss_distill.state import Metric

RNG = np.random.default_rng(0)
X = (RNG.standard_normal((700, 12)) * RNG.uniform(0.5, 2, (700, 1))).astype(np.float32)
Q = RNG.standard_normal((30, 12)).astype(np.float32)


def oracle(metric, normalize):
    x, q = X.astype(np.float64), Q.astype(np.float64)
    if normalize:
        x, q = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, q))
    return q @ x.T if metric is Metric.INNER_PRODUCT else -((q[:, None] - x[None]) ** 2).sum(2)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("search", ["_search_faiss", "_search_torch"])
class TestTopK:
    def test_matches_brute_force(self, monkeypatch, metric, normalize, search):
        monkeypatch.setattr(Teacher, "_search_faiss", getattr(Teacher, search))
        ids, scores = Teacher(metric, normalize, block_rows=256).top_k(open_vectors(X, "x"), Q, 20)
        expected = oracle(metric, normalize)
        np.testing.assert_array_equal(ids, np.argsort(-expected, axis=1)[:, :20])
        np.testing.assert_allclose(scores, np.take_along_axis(expected, ids, 1), atol=1e-4)

    def test_excludes_what_it_is_told_to(self, monkeypatch, metric, normalize, search):
        monkeypatch.setattr(Teacher, "_search_faiss", getattr(Teacher, search))
        full = np.argsort(-oracle(metric, normalize), axis=1)
        exclude = full[np.arange(30), np.arange(30) % 25].astype(np.int64)  # found by some, too far down for others
        ids, _ = Teacher(metric, normalize, block_rows=256).top_k(open_vectors(X, "x"), Q, 20, exclude)
        expected = [[i for i in row if i != gone][:20] for row, gone in zip(full, exclude, strict=True)]
        np.testing.assert_array_equal(ids, expected)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("metric", Metric)
def test_scores_match_brute_force(metric, normalize):
    got = Teacher(metric, normalize).scores(torch.from_numpy(Q), torch.from_numpy(X))
    np.testing.assert_allclose(got, oracle(metric, normalize), atol=1e-4)


@given(st.integers(0, 1000), st.floats(0.001, 1000), st.floats(2, 40))
@settings(deadline=None, max_examples=30)
def test_temperature_gives_the_perplexity(seed, scale, perplexity):
    scores = (np.random.default_rng(seed).standard_normal((50, 64)) * scale).astype(np.float32)
    p = softmax(scores / calibrate_temperature(scores, perplexity), axis=1)
    assert np.exp(entropy(p, axis=1).mean()) == pytest.approx(perplexity, rel=1e-3)


def test_temperature_scales_with_the_scores():
    scores = RNG.standard_normal((50, 64)).astype(np.float32)
    assert calibrate_temperature(8 * scores + 3, 20) == pytest.approx(8 * calibrate_temperature(scores, 20), rel=1e-3)


def test_temperature_of_equal_scores():
    assert calibrate_temperature(np.ones((5, 20), dtype=np.float32), 10) == 1
