"""What every family of the registry promises, with no list of its own: a new row is tested as it comes in."""

from dataclasses import replace

import faiss
import numpy as np
import pytest
from conftest import QUICK, N, serialized, settle_norms, write_back
from factories import small

from faiss_distill import DistillConfig, DistillTrainer, InputError, describe, distill
from faiss_distill.index.registry import FAMILIES, open_index
from faiss_distill.tuning.gate import Gate, Verdict

OF_OTHERS = "IVF16,PQ16x4"
"""What a family is made of that has no factory string of its own."""


class KeepsAll(Gate):
    def judge(self, *_):
        return Verdict(True, "", 0.0, (0.0, 0.0))


@pytest.fixture(params=FAMILIES, ids=lambda kind: kind.__name__)
def family(request):
    return request.param


@pytest.fixture
def index(family, built):
    """A small one, of a metric that depends on its name alone."""
    metric = ("ip", "l2")[len(family.__name__) % 2]
    example = FAMILIES[family].example
    if example is not None:
        return built(small(example), metric)
    part = built(OF_OTHERS, metric)
    if family is faiss.IndexShards:
        whole = faiss.IndexShards(64, False, False)  # no successive ids
        whole.add_shard(part)
    else:
        whole = family(64)
        whole.addIndex(part)
    part.this.disown()
    whole.own_indices = True
    return whole


@pytest.fixture
def trainer(index, data):
    """A function that prepares a tuning of it that is kept whatever comes of it."""

    def trainer(**arguments):
        nprobe = 4 if open_index(index).nlist > 1 else None
        config = DistillConfig(**QUICK | {"nprobe": nprobe})
        return DistillTrainer(
            index, data.documents[:N], data.queries[:600], config=config, gate=KeepsAll(start_counts=False), **arguments
        )

    return trainer


def bits(index):
    """All of it, bit by bit: faiss writes no IndexShards to a file, but each of its parts."""
    return [serialized(core) for core in open_index(index).cores]


def found(index, data):
    return index.search(data.queries[600:700], 10)


def assert_finds_the_same(index, data, expected):
    distances, ids = found(index, data)
    np.testing.assert_allclose(distances, expected[0], rtol=1e-4, atol=1e-4)
    assert (ids == expected[1]).mean() > 0.99  # equal scores may swap


def test_it_is_opened_and_described(index, family):
    adapter = open_index(index)
    assert (type(adapter.core), type(adapter)) == (family, FAMILIES[family].adapter)
    assert adapter.traits.changes
    assert family.__name__ in str(describe(index))


def test_written_back_as_it_is_it_finds_the_same(index, data):
    adapter = open_index(index)
    settle_norms(adapter)
    state, expected = adapter.extract(), found(index, data)
    write_back(adapter, state)
    assert_finds_the_same(index, data, expected)
    again = open_index(index).extract()
    for name in ("assignment", "codes", "ids"):
        np.testing.assert_array_equal(getattr(again, name), getattr(state, name), err_msg=name)


def test_undone_it_is_bitwise_what_it_was(index):
    before, adapter = bits(index), open_index(index)
    state = adapter.extract()
    moves = adapter.traits.fixed is None
    quantizer, centroids = adapter.quantizer_with(state.centroids * np.float32(1.1) if moves else state.centroids)
    codebooks = None if state.codebooks is None else state.codebooks * np.float32(1.1)
    with adapter.write(replace(state, centroids=centroids, codebooks=codebooks), quantizer):
        assert bits(index) != before
    assert bits(index) == before


def test_tuning_changes_what_its_traits_say_and_nothing_else(index, trainer):
    adapter = open_index(index)
    traits, size, state = adapter.traits, adapter.code_size, adapter.extract()
    assert trainer().train().kept
    adapter = open_index(index)
    after = adapter.extract()
    same = {
        name: getattr(state, name) is None or np.array_equal(getattr(state, name), getattr(after, name))
        for name in ("centroids", "codebooks", "assignment", "codes")
    }
    assert same["centroids"] or traits.fixed is None
    assert same["codebooks"] == (traits.codebooks is None)
    assert same["assignment"] != traits.lists
    assert same["codes"] == (traits.codes is None)
    np.testing.assert_array_equal(after.ids, state.ids)
    assert (index.ntotal, adapter.code_size) == (N, size)


def test_tuned_it_is_an_index_like_any_other(index, family, data, trainer, tmp_path):
    """It goes through a file, if faiss has one for it, takes more vectors and finds them."""
    trainer().train()
    again = index
    if FAMILIES[family].example is not None:
        faiss.write_index(index, str(tmp_path / "index.faiss"))
        again = faiss.read_index(str(tmp_path / "index.faiss"))
    for core in (*open_index(again).cores, *open_index(index).cores):
        if hasattr(core, "nprobe"):
            core.nprobe = 16
    assert_finds_the_same(again, data, found(index, data))
    again.add(data.documents[N : N + 50])
    assert again.ntotal == N + 50
    ids = again.search(data.documents[N : N + 50], 100)[1]
    assert (ids == np.arange(N, N + 50)[:, None]).any(axis=1).mean() > 0.9
    open_index(again)


def test_tuned_it_ranks_by_what_its_state_stands_for(index, data, trainer):
    """A search of all lists agrees with the codes decoded as it did, and finds no fewer of the exact neighbours."""

    def agreement():
        adapter, queries = open_index(index), data.queries[600:700]
        for core in adapter.cores:
            if hasattr(core, "nprobe"):
                core.nprobe = core.nlist
        decoded = adapter.decode(adapter.extract(), np.arange(N))
        expected = [
            faiss.knn(adapter.transforms(queries), decoded, 10, index.metric_type)[1],
            faiss.knn(queries, data.documents[:N], 10, index.metric_type)[1],
        ]
        ids = index.search(queries, 10)[1]
        return [np.mean([len(np.intersect1d(*pair)) for pair in zip(ids, e, strict=True)]) / 10 for e in expected]

    before = agreement()
    trainer().train()
    after = agreement()
    assert after[0] > before[0] - 0.03
    assert after[1] > before[1] - 0.04  # kept, whatever it is worth


def test_a_copy_is_tuned_and_the_index_stays(index, trainer):
    before = bits(index)
    report = trainer(inplace=False).train()
    assert bits(index) == before
    assert report.index is not index
    assert type(report.index) is type(index)
    assert bits(report.index) != before


def test_a_sample_is_searched_alone_where_that_can_be(index, data):
    adapter = open_index(index)
    if not adapter.traits.takes_a_sample:
        pytest.skip("it can't")
    before = bits(index)
    rows = np.arange(0, N, 3)
    with adapter.restrict(adapter.extract().take(rows)):
        assert np.isin(found(index, data)[1], [-1, *rows]).all()
    assert bits(index) == before


def test_what_it_has_not_is_refused(index, data, tmp_path):
    traits, before = open_index(index).traits, bits(index)
    wrong = [
        *([] if traits.fixed is None else [{"learn": "centroids"}]),
        *([] if traits.codebooks is not None else [{"learn": "codebooks"}, {"encoding": "frozen"}]),
        *([] if traits.lists_in_a_file else [{"invlists_file": tmp_path / "lists"}]),
    ]
    for options in wrong:
        with pytest.raises(InputError, match=next(iter(options))):
            distill(index, data.documents[:N], data.queries[:600], **QUICK | {"nprobe": None} | options)
    assert bits(index) == before
