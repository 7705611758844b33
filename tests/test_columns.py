"""Arrays that are mapped where memory is too little: the same values, in files that nobody sees."""

import errno
import tracemalloc

import faiss
import numpy as np
import pytest

from faiss_distill import columns
from faiss_distill.columns import ascending, column, copied, joined, mapped_in, numbers, permuted, taken
from faiss_distill.data.alignment import rows_of
from faiss_distill.index.registry import open_index
from faiss_distill.tuning import memory


def mapped(array):
    return isinstance(array.base, np.memmap)


@pytest.fixture
def all_mapped(tmp_path, monkeypatch):
    """Even the smallest."""
    monkeypatch.setattr(columns, "SMALL", 1)
    with mapped_in(tmp_path):
        yield tmp_path


def test_outside_of_a_block_it_is_memory(tmp_path):
    with mapped_in(tmp_path), mapped_in(None):
        assert mapped(column((2**18,), np.int64))
        assert not mapped(column((10,), np.int64))  # too small to be worth a file
    assert not mapped(column((2**18,), np.int64))


def test_a_file_without_a_name_that_begins_with_zeros(all_mapped):
    new = column((1000, 3), np.uint8)
    assert mapped(new)
    assert not new.any()
    new[5] = 7
    assert new.sum() == 21
    assert not list(all_mapped.iterdir())


def test_what_they_hold(all_mapped, monkeypatch):
    monkeypatch.setattr(columns, "SMALL", 7)  # also the block
    np.testing.assert_array_equal(numbers(20), np.arange(20))
    one, other = (np.random.default_rng(3) for _ in range(2))
    np.testing.assert_array_equal(permuted(100, one), other.permutation(100))
    assert one.random() == other.random()  # as many numbers are drawn
    values = np.arange(12).reshape(3, 4)
    rows = np.array([2, 0, 2])
    assert mapped(taken(values, rows))
    np.testing.assert_array_equal(taken(values, rows), values[rows])
    assert mapped(joined([values, values]))
    np.testing.assert_array_equal(joined([values, values[:1]]), values[[0, 1, 2, 0]])
    again = copied(values)
    again[0, 0] = 9
    assert mapped(again)
    assert values[0, 0] == 0
    assert ascending(np.array([-3, 4, 5]))
    assert not ascending(np.array([3, 3]))


def test_wide_rows_are_taken_without_a_copy(tmp_path):
    wide = np.random.default_rng(0).integers(0, 256, (20_000, 512), dtype=np.uint8)
    rows = np.random.default_rng(1).permutation(len(wide))
    with mapped_in(tmp_path):
        tracemalloc.start()
        found = taken(wide, rows)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert mapped(found)
    assert peak < wide.nbytes / 10
    np.testing.assert_array_equal(found, wide[rows])


def test_a_full_disk_is_an_error_not_the_end(all_mapped, monkeypatch):
    """A page that there is no room for would end the process, so the room is asked for at once."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(columns.os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        column((100,), np.int64)
    assert not list(all_mapped.iterdir())


@pytest.mark.parametrize("ids", ["successive", "random"])
def test_reading_an_index_takes_no_memory_beside_them(tmp_path, ids):
    rng, n = np.random.default_rng(0), 200_000
    index = faiss.index_factory(8, "IVF64,PQ8np")
    x = rng.standard_normal((n, 8), dtype=np.float32)
    index.train(x[:5000])
    index.add_with_ids(x, np.arange(n) if ids == "successive" else rng.choice(2**60, n, replace=False))
    adapter = open_index(index)
    expected = adapter.extract()
    with mapped_in(tmp_path):
        tracemalloc.start()
        state = adapter.extract()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 4 * n < sum(getattr(state, name).nbytes for name in ("ids", "assignment", "codes"))
    for name in ("ids", "assignment", "codes"):
        assert mapped(getattr(state, name))
        np.testing.assert_array_equal(getattr(state, name), getattr(expected, name))


def shards(factory, x, replicas=False):
    whole = faiss.IndexReplicas(x.shape[1]) if replicas else faiss.IndexShards(x.shape[1], False, True)
    for _ in range(2):
        part = faiss.index_factory(x.shape[1], factory)
        part.train(x[:5000])
        part.add(x if replicas else x[: len(x) // 2])
        (whole.addIndex if replicas else whole.add_shard)(part)
    return whole


@pytest.mark.parametrize("kind", ["IVF64,PQ8np", "IVF64,PQ8x4fs", "PQ8np", "PQ8x4fs", "PQ8x12np", "shards", "replicas"])
def test_what_can_not_be_mapped_is_counted(tmp_path, kind):
    """In numpy's memory, when an index is read and given new codes; what faiss takes is not seen here."""
    x = np.random.default_rng(0).standard_normal((300_000, 16), dtype=np.float32)
    if kind in ("shards", "replicas"):
        index = shards("IVF64,PQ8x4", x, kind == "replicas")
    else:
        index = faiss.index_factory(16, kind)
        index.train(x[:5000])
        index.add(x)
    n, ids = len(x), np.random.default_rng(1).permutation(len(x))
    adapter = open_index(index)
    with mapped_in(tmp_path):
        tracemalloc.start()
        state = adapter.extract()
        outer = adapter.outer_ids(state.ids)
        matched = rows_of(outer, n, ids)
        with adapter.write(state, None):
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert mapped(matched)
    assert peak / n < memory.SORTED + adapter.copies
