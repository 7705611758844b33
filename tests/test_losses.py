import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, softmax

from faiss_distill.losses import listnet

scores = arrays(np.float64, (3, 7), elements=st.floats(-50, 50))


def oracle(student, teacher, mask):
    per_query = []
    for s, t, m in zip(student, teacher, mask, strict=True):
        per_query.append(-(softmax(t[m]) * log_softmax(s[m])).sum())
    return np.mean(per_query)


@given(scores, scores, arrays(np.bool_, (3, 7)))
def test_listnet_is_the_cross_entropy_over_the_candidates_that_count(student, teacher, mask):
    mask[:, 2] = True
    got = listnet(torch.tensor(student), torch.tensor(teacher), torch.tensor(mask))
    assert float(got) == pytest.approx(oracle(student, teacher, mask), rel=1e-6, abs=1e-9)


@given(scores, scores, st.floats(-100, 100))
def test_listnet_ignores_a_shift(student, teacher, shift):
    s, t = torch.tensor(student), torch.tensor(teacher)
    assert float(listnet(s + shift, t - shift)) == pytest.approx(float(listnet(s, t)), rel=1e-6, abs=1e-6)


def test_listnet_pulls_towards_the_teacher_and_ignores_masked_candidates():
    student = torch.zeros(1, 4, requires_grad=True)
    teacher = torch.tensor([[3.0, 0.0, 0.0, 9.0]], requires_grad=True)
    listnet(student, teacher, torch.tensor([[True, True, True, False]])).backward()
    assert student.grad[0, 0] < 0 < student.grad[0, 1]
    assert student.grad[0, 3] == 0
    assert teacher.grad is None


def test_listnet_survives_extreme_scores():
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = listnet(student, torch.tensor([[-1e4, 1e4, 0.0]]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()
