import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faiss_distill.learning.candidates import Candidates, LocalQueries, members
from faiss_distill.mixture import Mixture


def tops(seed, nq=12, k=5, n=20):
    rng = np.random.default_rng(seed)
    top = np.stack([rng.choice(n, k, replace=False) for _ in range(nq)]).astype(np.int64)
    return top, -np.sort(-rng.standard_normal((nq, k)).astype(np.float32), axis=1)


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(0, 19), st.integers(0, 20))
@settings(deadline=None)
def test_local_queries_are_the_best_of_the_inverted_lists(seed, limit, start, length):
    top, scores = tops(seed)
    stop = min(start + length, 20)
    local = LocalQueries(top, scores, limit)
    got = local.of(np.arange(start, stop))
    assert local.width == min(limit, np.bincount(top.ravel()).max())
    for document, row in zip(range(start, stop), got, strict=True):
        entries = [(-scores[q, r], q) for q in range(12) for r in range(5) if top[q, r] == document]
        expected = [q for _, q in sorted(entries)][:limit]
        assert row.tolist() == expected + [-1] * (local.width - len(expected))


def test_no_local_queries():
    assert LocalQueries(*tops(0), 0).of(np.arange(20)).shape == (20, 0)


TOP = torch.arange(40).reshape(4, 10).numpy()
LABELS = np.array([[3, 17, -1], [-1, -1, -1], [39, -1, -1], [0, 1, 2]])
ALL = torch.arange(4)


def draw(text, batch=ALL, seed=0, hard=None):
    candidates = Candidates(Mixture.parse(text), TOP, LABELS, n=40)
    return candidates.shared(candidates.draw(batch, hard, torch.Generator().manual_seed(seed)))


def own(text, **options):
    """Each query's candidates, as sets."""
    drawn, scored = draw(text, **options)
    return [set(drawn[row].tolist()) for row in scored]


def test_a_sample_of_each_querys_top():
    drawn, scored = draw("in_batch + top10:3")
    assert scored is None
    assert torch.equal(drawn, drawn.unique())
    assert [int(((drawn >= 10 * i) & (drawn < 10 * (i + 1))).sum()) for i in range(4)] == [3, 3, 3, 3]
    assert torch.equal(drawn, draw("in_batch + top10:3")[0])
    assert not torch.equal(drawn, draw("in_batch + top10:3", seed=1)[0])


def test_the_same_documents_with_and_without_sharing():
    shared, everyones = draw("in_batch + top10:3 + gt"), draw("top10:3 + gt")
    assert torch.equal(shared[0], everyones[0])
    assert everyones[1].any(dim=0).all()
    assert all(len(c) in (3, 4, 5, 6) for c in own("top10:3 + gt"))


def test_all_of_the_top_goes_only_as_deep_as_asked():
    assert own("top4") == [{0, 1, 2, 3}, {10, 11, 12, 13}, {20, 21, 22, 23}, {30, 31, 32, 33}]


def test_labels_are_all_of_them_or_some_and_never_the_padding():
    assert own("gt + top1") == [{0, 3, 17}, {10}, {20, 39}, {30, 0, 1, 2}]
    one = own("gt:1 + top1")
    assert [len(c) for c in one] == [2, 1, 2, 2]
    assert one[0] < {0, 3, 17}
    seen = set().union(*(own("gt:1", batch=torch.tensor([0]), seed=s)[0] for s in range(20)))
    assert seen == {3, 17}


def test_random_documents_come_from_everywhere():
    drawn, _ = draw("in_batch + random500")
    assert drawn.tolist() == list(range(40))


def test_hard_candidates_are_what_was_set_and_may_be_fewer():
    hard = torch.tensor([[5, 6, 7], [-1, -1, -1], [8, -1, -1], [9, 10, -1]])
    assert own("hard2", hard=hard) == [{5, 6}, set(), {8}, {9, 10}]
    assert [len(c) for c in own("hard3:1", hard=hard)] == [1, 0, 1, 1]


def test_a_batch_draws_for_its_own_queries():
    assert own("top2", batch=torch.tensor([2, 0])) == [{20, 21}, {0, 1}]


def test_shared_candidates_are_scored_once():
    candidates = Candidates(Mixture.parse("in_batch + top2"), np.array([[1, 2], [2, 1]]), None, 5)
    own = candidates.draw(torch.arange(2), None, torch.Generator())
    assert candidates.shared(own)[0].tolist() == [1, 2]


@given(st.integers(0, 10_000))
@settings(deadline=None)
def test_members_against_a_loop(seed):
    rng = np.random.default_rng(seed)
    candidates = np.unique(rng.integers(0, 20, 8))
    lists = rng.integers(-1, 20, (5, 4))
    expected = [[c in row for c in candidates] for row in lists]
    assert members(torch.from_numpy(candidates), torch.from_numpy(lists)).tolist() == expected


def test_of_no_candidates_no_list_has_any():
    assert members(torch.zeros(0, dtype=torch.int64), torch.full((3, 2), -1)).shape == (3, 0)
