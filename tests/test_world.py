"""Sharing work: the parts make a whole, and one process is a world of one."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from faiss_distill import DistillConfig, InputError, distill
from faiss_distill.learning.optimise import _Run
from faiss_distill.tuning.given import digest
from faiss_distill.workdir import NOWHERE
from faiss_distill.world import ALONE, World, open_world


class Imagined(World):
    """One of several processes, of which there are no others."""

    def __init__(self, rank, size):
        self.__dict__.update(group=None, place=(rank, size))

    @property
    def rank(self):
        return self.place[0]

    @property
    def size(self):
        return self.place[1]


@given(st.integers(0, 1000), st.integers(1, 50))
def test_shares_are_a_partition_into_equals(n, size):
    shares = [Imagined(rank, size).share(n) for rank in range(size)]
    rows = np.concatenate([np.arange(n)[share] for share in shares])
    np.testing.assert_array_equal(rows, np.arange(n))
    lengths = [share.stop - share.start for share in shares]
    assert max(lengths) - min(lengths) <= 1


def test_alone_there_is_nothing_to_put_together():
    rows, tensor = np.arange(6).reshape(3, 2), torch.ones(3)
    assert ALONE.gathered(rows, 3) is rows
    ALONE.add([tensor])
    ALONE.agree([tensor])
    assert tensor.tolist() == [1, 1, 1]
    assert ALONE.agreed("this") == "this"
    np.testing.assert_array_equal(ALONE.stacked(rows), rows[None])
    ALONE.check_same({"index": 1})
    with pytest.raises(KeyError), ALONE.together():
        raise KeyError
    assert (ALONE.rank, ALONE.size, ALONE.main, ALONE.share(7)) == (0, 1, True, slice(0, 7))


@pytest.mark.parametrize("group", ["gloo", 2, object(), torch.distributed.GroupMember.NON_GROUP_MEMBER])
def test_what_is_no_group(built, data, group):
    with pytest.raises(InputError, match=r"group: expected a process group of torch\.distributed"):
        open_world(group)
    index = built()
    with pytest.raises(InputError, match="group"):
        distill(index, data.documents[:2000], group=group, config=DistillConfig(progress=False))


def test_a_batch_has_a_query_for_each_process():
    documents = SimpleNamespace(world=Imagined(0, 4))
    with pytest.raises(InputError, match=r"batch_size: expected at least one query for each of 4 processes, got 3"):
        _Run(None, None, documents, None, None, 30, DistillConfig(batch_size=3), True, NOWHERE, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.int64])
def test_digests_tell_tensors_of_every_dtype_apart(dtype):
    one, other = torch.zeros(5).to(dtype), torch.tensor([0, 0, 0, 0, 1]).to(dtype)
    assert digest(one) == digest(one.clone())
    assert digest(one) != digest(other)
    assert digest(one) != digest(one[:4])


def test_digests_of_what_is_no_number():
    texts = np.array(["a", "b"], dtype=object)
    assert digest(texts) == digest(texts.copy())
    assert digest(texts) != digest(np.array(["a", "c"], dtype=object))
    assert digest(None, 1) != digest(1, None)
