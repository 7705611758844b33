import faiss
import numpy as np
import pytest
import torch

from faiss_distill.index.registry import open_index
from faiss_distill.learning.codes.nearest import decode, nearest_codes
from faiss_distill.learning.students import CodebookStudent


@pytest.fixture(params=[("ip", True), ("ip", False), ("l2", True), ("l2", False)], ids=str)
def index(request, built):
    metric, by_residual = request.param
    index = built("IVF16,PQ16x4" if by_residual else "IVF16,PQ8np", metric)
    if not by_residual:
        codes = built("IVF16,PQ8np", metric)
        codes.reset()
        codes.by_residual = False
        codes.train(TRAIN[:2000])
        codes.add(TRAIN[:2000])
        index = codes
    index.nprobe = index.nlist
    return index


@pytest.fixture(autouse=True)
def _train_vectors(data):
    global TRAIN
    TRAIN = data.documents


def test_full_score_is_what_faiss_returns(index, data):
    state = open_index(index).extract()
    student = CodebookStudent(state)
    full = student.full_scores(
        torch.from_numpy(data.queries[:50]), torch.from_numpy(state.assignment), torch.tensor(state.codes).long()
    )
    sign = 1 if index.metric_type == faiss.METRIC_INNER_PRODUCT else -1
    distances, ids = index.search(data.queries[:50], 20)
    np.testing.assert_allclose(sign * distances, full.detach().numpy()[np.arange(50)[:, None], ids], atol=1e-4)


def test_coarse_score_is_the_quantizers(index, data):
    state = open_index(index).extract()
    student = CodebookStudent(state)
    lists = torch.arange(index.nlist)
    coarse = student.coarse_scores(torch.from_numpy(data.queries[:50]), lists)
    sign = 1 if index.metric_type == faiss.METRIC_INNER_PRODUCT else -1
    distances, numbers = index.quantizer.search(data.queries[:50], index.nlist)
    np.testing.assert_allclose(sign * distances, coarse.detach().numpy()[np.arange(50)[:, None], numbers], atol=1e-4)


def test_encode_is_what_faiss_stored(index, data):
    state = open_index(index).extract()
    student = CodebookStudent(state)
    codes = student.encode(torch.from_numpy(data.documents[:2000]), torch.from_numpy(state.assignment))
    assert (codes.numpy() == state.codes).mean() > 0.9999  # ties within rounding may fall either way


def test_nearest_codes_and_decode_against_plain_loops():
    generator = torch.Generator().manual_seed(0)
    books, x = torch.randn(3, 1, 5, 2, generator=generator), torch.randn(9, 6, generator=generator)
    codes = nearest_codes(x, books)
    for i in range(9):
        for m in range(3):
            part = x[i, 2 * m : 2 * m + 2]
            assert codes[i, m] == int(torch.stack([(part - w).square().sum() for w in books[m, 0]]).argmin())
            assert torch.equal(decode(codes, books)[i, 2 * m : 2 * m + 2], books[m, 0, codes[i, m]])


def test_gradients_reach_the_chosen_codewords_only(built):
    state = open_index(built()).extract()
    student = CodebookStudent(state)
    codes = torch.tensor(state.codes[:1]).long()
    full = student.full_scores(torch.ones(1, 64), torch.from_numpy(state.assignment[:1]), codes)
    full.sum().backward()
    touched = student.codebooks.grad.abs().sum(3)[:, 0] > 0
    assert touched.sum() == state.codes.shape[1]
    assert touched.gather(1, codes.T).all()
    assert (student.centroids.grad.abs().sum(1) > 0).nonzero().flatten().tolist() == [state.assignment[0]]
