import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faiss_distill.candidates import LocalQueries, in_batch_candidates


def tops(seed, nq=12, k=5, n=20):
    rng = np.random.default_rng(seed)
    top = np.stack([rng.choice(n, k, replace=False) for _ in range(nq)]).astype(np.int64)
    return top, -np.sort(-rng.standard_normal((nq, k)).astype(np.float32), axis=1)


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(0, 19), st.integers(0, 20))
@settings(deadline=None)
def test_local_queries_are_the_best_of_the_inverted_lists(seed, limit, start, length):
    top, scores = tops(seed)
    stop = min(start + length, 20)
    got = LocalQueries(top, scores, limit).of(start, stop)
    for document, row in zip(range(start, stop), got, strict=True):
        entries = [(-scores[q, r], q) for q in range(12) for r in range(5) if top[q, r] == document]
        expected = [q for _, q in sorted(entries)][:limit]
        assert row.tolist() == expected + [-1] * (limit - len(expected))


def test_no_local_queries():
    assert LocalQueries(*tops(0), 0).of(0, 20).shape == (20, 0)


def test_candidates_are_a_sample_of_each_querys_top():
    top = torch.arange(40).reshape(4, 10)
    drawn = in_batch_candidates(top, 3, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, drawn.unique())
    assert [int(((drawn >= 10 * i) & (drawn < 10 * (i + 1))).sum()) for i in range(4)] == [3, 3, 3, 3]
    again = in_batch_candidates(top, 3, torch.Generator().manual_seed(0))
    other = in_batch_candidates(top, 3, torch.Generator().manual_seed(1))
    assert torch.equal(drawn, again)
    assert not torch.equal(drawn, other)


def test_shared_candidates_are_scored_once():
    top = torch.tensor([[1, 2], [2, 1]])
    assert in_batch_candidates(top, 2, torch.Generator()).tolist() == [1, 2]
