import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from faiss_distill.metrics import all_but, hits, recall, reciprocal_rank


def distinct_rows(nq, k):
    row = st.lists(st.integers(-40, 30).filter(lambda i: i != -1), min_size=k, max_size=k, unique=True)
    return st.lists(row, min_size=nq, max_size=nq).map(lambda x: np.array(x, dtype=np.int64))


def with_padding(rows, count):
    rows = rows.copy()
    if count:
        rows[:, -count:] = -1
    return rows


@given(distinct_rows(4, 8), distinct_rows(4, 5), st.integers(0, 3), st.integers(0, 4))
def test_against_plain_loops(found, wanted, pad_found, pad_wanted):
    found, wanted = with_padding(found, pad_found), with_padding(wanted, pad_wanted)
    for i in range(4):
        f, w = [x for x in found[i] if x != -1], {x for x in wanted[i] if x != -1}
        count = sum(x in w for x in f)
        assert hits(found, wanted)[i] == count
        assert np.isclose(recall(found, wanted)[i], count / len(w))
        ranks = [rank for rank, x in enumerate(found[i], 1) if x in w]
        assert np.isclose(reciprocal_rank(found, wanted)[i], 1 / ranks[0] if ranks else 0)


def test_padding_never_matches_padding():
    padding = np.full((1, 3), -1)
    assert hits(padding, padding).tolist() == [0]
    assert recall(padding, padding).tolist() == [0]
    assert reciprocal_rank(padding, padding).tolist() == [0]


@given(distinct_rows(3, 6), arrays(np.int64, 3, elements=st.integers(0, 30)))
def test_all_but_keeps_k_in_order(found, excluded):
    kept = found[all_but(found, excluded)].reshape(3, 5)
    for row, out, gone in zip(found, kept, excluded, strict=True):
        assert out.tolist() == [x for x in row if x != gone][:5]


def test_a_query_that_excludes_nothing_loses_the_last_even_if_little_was_found():
    found = np.array([[5, 3, 8, 1], [7, -1, -1, -1], [2, 4, -1, -1]])
    kept = found[all_but(found, np.array([3, -1, 4]))].reshape(3, 3)
    assert kept.tolist() == [[5, 8, 1], [7, -1, -1], [2, -1, -1]]
