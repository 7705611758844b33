"""A bound on memory: the same index from mapped columns, and what is too little."""

import numpy as np
import pytest
import torch
from conftest import QUICK, serialized

from faiss_distill import DistillConfig, DistillError, DistillTrainer, InputError, columns, distill
from faiss_distill.index.registry import open_index
from faiss_distill.learning.teacher import Teacher
from faiss_distill.tuning import memory
from faiss_distill.tuning.gate import Gate
from faiss_distill.tuning.memory import needed

OPTIONS = {**QUICK, "batch_size": 300}


@pytest.fixture
def rest(monkeypatch):
    """Bytes that are too few to have the columns of an index in memory, and enough to have them mapped."""
    monkeypatch.setattr(columns, "SMALL", 1)
    return lambda index: needed(open_index(index), DistillConfig().max_queries, DistillConfig(**OPTIONS))[1]


def tuned(index, data, workdir=None, resume=False, **options):
    """Whether better or not."""
    trainer = DistillTrainer(
        index, data.documents[:2000], data.queries[:600], config=DistillConfig(**options), workdir=workdir,
        resume=resume, gate=Gate(decides=False),
    )  # fmt: skip
    trainer.train()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("factory", "options"),
    [
        ("IVF16,PQ16x4", {}),
        ("IDMap2,IVF16,PQ16x4fs", {"candidates": "in_batch + top40:5 + hard40:5"}),
        ("IVF16,SQ8", {}),
        ("PQ16x4", {"nprobe": 1}),
        ("IVF16,PQ16x4", {"encoding": "frozen"}),
    ],
)
def test_columns_that_are_mapped_make_the_same_index(tmp_path, data, built, rest, factory, options):
    kept = {}
    for where in ("memory", "mapped"):
        index = built(factory)
        bound = {"max_memory": rest(index), "workdir": tmp_path / "work"} if where == "mapped" else {}
        tuned(index, data, **OPTIONS | options | bound)
        kept[where] = serialized(index)
    assert kept["memory"] == kept["mapped"] != serialized(built(factory))


def test_the_columns_are_mapped(tmp_path, data, built, rest):
    index = built()
    config = DistillConfig(**OPTIONS, max_memory=rest(index))
    trainer = DistillTrainer(index, data.documents[:2000], data.queries[:600], config=config, workdir=tmp_path / "work")
    state = trainer.task.state
    assert all(isinstance(array.base, np.memmap) for array in (state.ids, state.assignment, state.codes))


def test_a_run_goes_on_under_another_bound(tmp_path, data, built, rest):
    """What a stage has found does not depend on where it was held."""
    one, other = built(), built()
    for index, bound in ((one, None), (other, rest(other))):
        tuned(index, data, **OPTIONS, max_memory=bound, workdir=tmp_path, resume=True)
    assert serialized(one) == serialized(other)


class TestTooLittle:
    @pytest.fixture
    def refused(self, built, data):
        def refused(what, **options):
            index = built()
            before = serialized(index)
            with pytest.raises(InputError, match=what) as error:
                distill(index, data.documents[:2000], data.queries[:600], **OPTIONS | options)
            assert serialized(index) == before
            return str(error.value)

        return refused

    def test_without_a_folder(self, refused, rest, built):
        said = refused("max_memory", max_memory=rest(built()))
        assert "without a work folder, got" in said
        assert "workdir=" in said

    def test_even_so(self, refused, tmp_path):
        said = refused("max_memory", max_memory="300 MB", workdir=tmp_path / "work")
        index_and_queries = memory.FIXED / 1e9
        least = float(said.split("at least ")[1].split(" GB")[0])
        assert index_and_queries < least < index_and_queries + 0.1
        assert "300" in said or "0.30 GB" in said

    def test_as_much_as_it_says(self, refused, data, built, tmp_path):
        said = refused("max_memory", max_memory=1, workdir=tmp_path / "work")
        least = said.split("at least ")[1].split(" GB")[0]
        bound = f"{float(least) + 0.01} GB"
        distill(built(), data.documents[:2000], data.queries[:600], **OPTIONS, max_memory=bound, workdir=tmp_path / "w")

    @pytest.mark.parametrize("value", ["4 potatoes", "", 0, -1, 1.5, "4 GBit", "-1GB", True])
    def test_no_size(self, refused, value):
        refused("max_memory: expected", max_memory=value)


def test_sizes_in_words():
    sizes = {"1000": 1000, "4GB": 4 * 10**9, "4 g": 4 * 10**9, "0.5KiB": 512, "2TB": 2 * 10**12, "3 mib": 3 * 2**20}
    for words, size in sizes.items():
        assert DistillConfig(max_memory=words).max_memory == size
    assert DistillConfig().memory == float("inf")


@pytest.mark.parametrize(
    ("raised", "argument", "got"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "device", "CUDA out of m"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "max_memory", "[enforce"),
        (MemoryError(), "max_memory", "none left"),
    ],
)
def test_memory_that_runs_out_is_told_in_a_sentence(data, built, raised, argument, got):
    class Greedy(Teacher):
        def top_k(self, *_):
            raise raised

    index = built()
    before = serialized(index)
    trainer = DistillTrainer(
        index, data.documents[:2000], data.queries[:600], config=DistillConfig(**OPTIONS), exact=Greedy
    )
    with pytest.raises(DistillError, match=f"^{argument}: expected enough memory") as error:
        trainer.train()
    assert error.value.got.startswith(got)
    assert "\n" not in str(error.value)
    assert serialized(index) == before


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shape"), memory.enough_memory("cpu"):
        raise RuntimeError("shape mismatch")
