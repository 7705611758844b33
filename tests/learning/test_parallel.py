import threading

import pytest
import torch

from faiss_distill.learning.parallel import in_threads

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_parts_in_order_each_on_one_thread(threads):
    x, seen = torch.randn(103, 4, requires_grad=True), set()

    def work(part):
        seen.add((torch.get_num_threads(), threading.get_ident()))
        return 2 * x[part]

    out = in_threads(work, 103, 10, CPU)
    assert torch.equal(out, 2 * x)
    assert not out.requires_grad
    assert {n for n, _ in seen} == {1}
    assert len(seen) <= threads
    assert torch.get_num_threads() == threads


def test_the_number_of_threads_is_put_back_after_a_failure(threads):
    def work(part):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        in_threads(work, 103, 10, CPU)
    assert torch.get_num_threads() == threads
