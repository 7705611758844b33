"""Every loss against a slow oracle with loops over queries and pairs, and the properties that they share."""

from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, logsumexp, softmax

from faiss_distill.config import field_notes
from faiss_distill.losses import LOSSES
from faiss_distill.losses.contrastive import contrastive
from faiss_distill.losses.reconstruction import reconstruction

NQ, K = 3, 6
OPTIONS = (Path(__file__).parents[1] / "docs" / "options.rst").read_text(encoding="utf-8")
# on a grid, so that there are ties, and so that a shift neither makes nor breaks one
scores = arrays(np.int64, (NQ, K), elements=st.integers(-400, 400)).map(lambda x: x / 8)
masks = arrays(np.bool_, (NQ, K)).map(lambda m: m | (np.arange(K) == 2))
SIMILAR = {name: loss.function for name, loss in LOSSES.items() if loss.compares == "teacher"}
every_loss = pytest.mark.parametrize("name", SIMILAR)
examples = settings(max_examples=30, deadline=None)


def tensors(*given_arrays):
    return [torch.tensor(a) for a in given_arrays]


def mse_oracle(s, t):
    return np.mean([(a - b) ** 2 for a, b in zip(s, t, strict=True)])


def margin_mse_oracle(s, t):
    pairs = combinations(range(len(s)), 2)
    return mean_or_zero([((t[i] - t[j]) - (s[i] - s[j])) ** 2 for i, j in pairs])


def ranknet_oracle(s, t):
    pairs = permutations(range(len(s)), 2)
    return mean_or_zero([(t[i] - t[j]) * np.logaddexp(0, s[j] - s[i]) for i, j in pairs if t[i] > t[j]])


def kl_oracle(s, t):
    return sum(np.exp(a) * (a - b) for a, b in zip(log_softmax(s), log_softmax(t), strict=True))


def listnet_oracle(s, t):
    return -(softmax(t) * log_softmax(s)).sum()


def listmle_oracle(s, t):
    """Take the teacher's favourite of those that are left, until none is."""
    left, total = list(range(len(s))), 0.0
    while left:
        best = max(left, key=lambda i: (t[i], s[i]))
        total -= s[best] - logsumexp(s[left])
        left.remove(best)
    return total / len(s)


def lambdarank_oracle(s, t):
    """Exchange two candidates in the student's ranking and see what it does to the NDCG."""
    gains = softmax(t) / softmax(t).max()

    def dcg(ranking):
        return sum(gains[d] / np.log2(1 + rank) for rank, d in enumerate(ranking, start=1))

    ideal = dcg(np.argsort(-gains))
    ranking = sorted(range(len(s)), key=lambda d: (-s[d], t[d]))
    total = 0.0
    for i, j in permutations(range(len(s)), 2):
        if t[i] > t[j]:
            exchanged = [{i: j, j: i}.get(d, d) for d in ranking]
            total += abs(dcg(ranking) - dcg(exchanged)) / ideal * np.logaddexp(0, s[j] - s[i])
    return total


def mean_or_zero(values):
    return np.mean(values) if values else 0.0


ORACLES = {
    "mse": mse_oracle,
    "margin_mse": margin_mse_oracle,
    "ranknet": ranknet_oracle,
    "kl": kl_oracle,
    "listnet": listnet_oracle,
    "listmle": listmle_oracle,
    "lambdarank": lambdarank_oracle,
}


def test_every_loss_has_a_name_and_an_oracle():
    assert SIMILAR.keys() == ORACLES.keys()
    for name in LOSSES:  # and is documented
        assert f'``"{name}"``' in field_notes()["loss"], name
        assert f'* - ``"{name}"``' in OPTIONS, name
    assert all(loss.function.__name__ == name for name, loss in LOSSES.items())


@every_loss
@examples
@given(scores, scores, masks)
def test_equals_the_oracle_over_the_candidates_that_count(name, student, teacher, mask):
    got = SIMILAR[name](*tensors(student, teacher, mask))
    expected = [ORACLES[name](s[m], t[m]) for s, t, m in zip(student, teacher, mask, strict=True)]
    assert got.shape == ()
    assert float(got) == pytest.approx(np.mean(expected), rel=1e-9, abs=1e-9)


@every_loss
@examples
@given(scores, scores, masks, st.sampled_from([0.0, -1e4, 1.5e308]))
def test_a_masked_candidate_equals_an_absent_one(name, student, teacher, mask, garbage):
    loss = SIMILAR[name]
    garbage = garbage * (-1.0) ** np.arange(K)  # the difference of two may overflow
    student, teacher = np.where(mask, student, garbage), np.where(mask, teacher, -garbage)
    s, t, m = tensors(student, teacher, mask)
    s.requires_grad_()
    got = loss(s, t, m)
    got.backward()
    expected = []
    for q in range(NQ):
        alone = s.detach()[q : q + 1, m[q]].requires_grad_()
        expected.append(loss(alone, t[q : q + 1, m[q]]))
        expected[-1].backward()
        np.testing.assert_allclose(s.grad[q, m[q]], alone.grad[0] / NQ, rtol=1e-9, atol=1e-12)
    assert float(got.detach()) == pytest.approx(float(torch.stack(expected).mean().detach()), rel=1e-9, abs=1e-12)
    assert (s.grad[~m] == 0).all()


@every_loss
@examples
@given(scores, scores, masks, st.permutations(range(K)))
def test_the_order_of_the_candidates_does_not_matter(name, student, teacher, mask, order):
    loss = SIMILAR[name]
    got = loss(*tensors(student[:, order], teacher[:, order], mask[:, order]))
    assert float(got) == pytest.approx(float(loss(*tensors(student, teacher, mask))), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", sorted(SIMILAR.keys() - {"mse"}))
@examples
@given(scores, scores, masks, st.integers(-100, 100), st.integers(-100, 100))
def test_a_shift_of_all_scores_of_a_query_does_not_matter(name, student, teacher, mask, by, teacher_by):
    loss = SIMILAR[name]
    shift = np.array([[0], [by], [-by]]), np.array([[teacher_by], [0], [teacher_by]])
    got = loss(*tensors(student + shift[0], teacher + shift[1], mask))
    assert float(got) == pytest.approx(float(loss(*tensors(student, teacher, mask))), rel=1e-9, abs=1e-9)


@every_loss
def test_the_gradient_equals_finite_differences(name):
    rng = np.random.default_rng(0)
    student = torch.tensor(rng.permuted(np.linspace(-2, 2, NQ * K)).reshape(NQ, K), requires_grad=True)
    teacher = torch.tensor(rng.permuted(np.linspace(-3, 1, NQ * K)).reshape(NQ, K))
    mask = torch.tensor(rng.random((NQ, K)) < 0.7)
    assert torch.autograd.gradcheck(lambda s: SIMILAR[name](s, teacher, mask), (student,))


@every_loss
def test_descent_pulls_up_what_the_teacher_prefers_and_leaves_the_teacher_alone(name):
    student = torch.zeros(1, 5, requires_grad=True)
    teacher = torch.tensor([[-1.5, 2.0, -1.0, 0.5, 9.0]], requires_grad=True)
    SIMILAR[name](student, teacher, torch.tensor([[True, True, True, True, False]])).backward()
    worst, best, *_, masked = student.grad[0]
    assert best == student.grad.min()
    assert best < 0 < worst
    assert masked == 0
    assert teacher.grad is None


@every_loss
@examples
@given(scores)
def test_descent_brings_the_student_to_the_order_of_the_teacher(name, student):
    student = torch.tensor(student / 100, requires_grad=True)
    teacher = torch.linspace(0, 5, K, dtype=torch.float64).expand(NQ, K)
    optimizer = torch.optim.Adam([student], lr=0.2)
    for _ in range(60):
        optimizer.zero_grad()
        SIMILAR[name](student, teacher).backward()
        optimizer.step()
    assert (student.argmax(dim=1) == K - 1).all()


@pytest.mark.parametrize("name", ["mse", "margin_mse", "kl"])
@examples
@given(scores, scores, masks)
def test_is_zero_at_the_teacher_and_nowhere_negative(name, student, teacher, mask):
    s, t, m = tensors(student, teacher, mask)
    t.requires_grad_()
    loss = SIMILAR[name](t, t.detach(), m)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-12)
    assert t.grad.abs().max() < 1e-12
    assert SIMILAR[name](s, t, m) >= -1e-12


@examples
@given(scores, scores, masks)
def test_listnet_is_the_entropy_of_the_teacher_at_least(student, teacher, mask):
    s, t, m = tensors(student, teacher, mask)
    entropy = np.mean([-(softmax(x[y]) * log_softmax(x[y])).sum() for x, y in zip(teacher, mask, strict=True)])
    assert float(SIMILAR["listnet"](t, t, m)) == pytest.approx(entropy, rel=1e-9, abs=1e-12)
    assert float(SIMILAR["listnet"](s, t, m)) >= entropy - 1e-9


@every_loss
@examples
@given(*[arrays(np.float32, (NQ, K), elements=st.sampled_from([-1e4, -1, 0, 1e4]))] * 2, masks)
def test_survives_extreme_scores(name, student, teacher, mask):
    s, t, m = tensors(student, teacher, mask)
    s.requires_grad_()
    loss = SIMILAR[name](s, t, m)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(s.grad).all()
    expected = [ORACLES[name](*np.float64([x[z], y[z]])) for x, y, z in zip(student, teacher, mask, strict=True)]
    assert float(loss.detach()) == pytest.approx(np.mean(expected), rel=1e-5, abs=1e-3)


@pytest.mark.parametrize("name", sorted(SIMILAR.keys() - {"mse"}))
@pytest.mark.parametrize("mask", [None, torch.tensor([[True, False], [False, True]])])
def test_a_query_with_one_candidate_teaches_nothing(name, mask):
    student = torch.tensor([[3.0], [-1e4]] if mask is None else [[3.0, 1.0], [5.0, -1e4]], requires_grad=True)
    loss = SIMILAR[name](student, torch.ones_like(student), mask)
    loss.backward()
    assert loss == 0
    assert (student.grad == 0).all()


@pytest.mark.parametrize("name", sorted(SIMILAR.keys() - {"listnet"}))
def test_a_query_without_candidates_contributes_zero(name):
    student, teacher = torch.tensor([[3.0, 1.0], [0.0, 1.0]], requires_grad=True), torch.tensor([[1.0, 2.0]] * 2)
    loss = SIMILAR[name](student, teacher, torch.tensor([[False, False], [True, True]]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(SIMILAR[name](student[1:], teacher[1:]).detach()) / 2)
    assert torch.isfinite(student.grad).all()
    assert (student.grad[0] == 0).all()


@pytest.mark.parametrize("name", ["lambdarank", "ranknet"])
def test_candidates_that_the_teacher_ties_are_no_pair(name):
    student = torch.tensor([[3.0, 1.0, 2.0]], requires_grad=True)
    loss = SIMILAR[name](student, torch.full((1, 3), 7.0))
    loss.backward()
    assert loss == 0
    assert (student.grad == 0).all()


@examples
@given(scores, arrays(np.int64, (NQ, K), elements=st.integers(0, 2)))
def test_listmle_takes_the_likeliest_of_the_orders_that_fit_the_teacher(student, teacher):
    student, teacher = student[:, :4], teacher[:, :4]
    expected = []
    for s, t in zip(student, teacher, strict=True):
        orders = [list(p) for p in permutations(range(4)) if (np.diff(t[list(p)]) <= 0).all()]
        expected.append(min(sum(logsumexp(s[p[r:]]) - s[p[r]] for r in range(4)) / 4 for p in orders))
    got = SIMILAR["listmle"](*tensors(student, teacher.astype(float)))
    assert float(got) == pytest.approx(np.mean(expected), rel=1e-9, abs=1e-9)


@examples
@given(scores, arrays(np.bool_, (NQ, K)), masks)
def test_contrastive_is_the_mean_over_the_positives_of_queries_that_have_any(student, positives, mask):
    per_query = []
    for s, p, m in zip(student, positives, mask, strict=True):
        if (p & m).any():
            per_query.append(np.mean([logsumexp(s[m]) - s[d] for d in range(K) if p[d] and m[d]]))
    s = torch.tensor(np.where(mask, student, 1e300), requires_grad=True)
    loss = contrastive(s, *tensors(positives, mask))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(mean_or_zero(per_query), rel=1e-9, abs=1e-9)
    assert (s.grad[torch.tensor(~mask)] == 0).all()
    alone = contrastive(*tensors(student + 5, positives & mask, mask))
    assert float(alone) == pytest.approx(float(loss.detach()), rel=1e-9, abs=1e-9)


def test_contrastive_has_the_right_gradient():
    student = torch.linspace(-2, 2, NQ * K, dtype=torch.float64).reshape(NQ, K).requires_grad_()
    positives = torch.zeros(NQ, K, dtype=torch.bool)
    positives[0, 1] = positives[0, 4] = positives[2, 3] = True
    assert torch.autograd.gradcheck(lambda s: contrastive(s, positives), (student,))
    contrastive(student, positives).backward()
    assert (student.grad[1] == 0).all()
    assert student.grad[2, 3] < 0 < student.grad[2, 0]


def test_contrastive_without_any_positive_is_a_zero_that_can_be_differentiated():
    student = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = contrastive(student, torch.tensor([[False, False]]))
    loss.backward()
    assert loss == 0
    assert (student.grad == 0).all()


@pytest.mark.parametrize("positives", [[[False, True, False]], [[True, True, True]]])
def test_contrastive_survives_extreme_scores(positives):
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = contrastive(student, torch.tensor(positives))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


@examples
@given(scores, scores)
def test_reconstruction_is_the_mean_squared_distance(vectors, reconstructed):
    expected = np.mean([np.linalg.norm(v - r) ** 2 for v, r in zip(vectors, reconstructed, strict=True)])
    v, r = tensors(vectors, reconstructed)
    r.requires_grad_()
    loss = reconstruction(v, r)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    np.testing.assert_allclose(r.grad, 2 * (reconstructed - vectors) / NQ)
