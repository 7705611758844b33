"""Frozen codes: a sample of the embeddings is enough, and no stored code changes."""

from dataclasses import replace

import faiss
import numpy as np
import pytest
from conftest import METRICS, QUICK, N, core, serialized

from faiss_distill import DistillConfig, InputError, distill, evaluate
from faiss_distill.index.parts.write_back import IVFWriteBack
from faiss_distill.index.registry import open_index
from faiss_distill.metrics import recall
from faiss_distill.tuning.gate import Gate

FROZEN = QUICK | {"encoding": "frozen", "epochs": 2}


@pytest.fixture
def always_kept(monkeypatch):
    real = Gate.judge
    monkeypatch.setattr(Gate, "judge", lambda *a: (True, *real(*a)[1:]))
    monkeypatch.setattr("faiss_distill.tuning.trainer.Gate", lambda: Gate(start_counts=False))


def lists(index):
    """Codes and ids of every list, as they lie in memory."""
    ivf = core(index)
    found = []
    for i in range(ivf.nlist):
        size = ivf.invlists.list_size(i)
        found.append(faiss.rev_swig_ptr(ivf.invlists.get_codes(i), size * ivf.code_size).tobytes() if size else b"")
        found.append(faiss.rev_swig_ptr(ivf.invlists.get_ids(i), size).tobytes() if size else b"")
    return found


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "factory",
    ["IVF16,PQ16x4", "IDMap2,OPQ16,IVF16,PQ16x4", "IVF16_HNSW16,PQ16x4", "IVF16,PQ8np,RFlat", "IVF16,PQ16x4fsr"],
)
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_no_stored_code_changes(built, data, always_kept, factory, metric, share):
    ids = 7 * np.arange(N) + 100 if "IDMap" in factory else np.arange(N)
    index = built(factory, metric, ids=ids if "IDMap" in factory else None)
    if "RFlat" not in factory and "IDMap" not in factory:
        core(index).set_direct_map_type(2)
    before, start = lists(index), open_index(index).extract()
    rows = np.random.default_rng(0).permutation(N)[: int(share * N)]
    report = distill(index, data.documents[rows], data.queries, ids=ids[rows], **FROZEN)
    assert (report.n, report.n_embeddings) == (N, len(rows))
    assert lists(index) == before
    after = open_index(index).extract()
    assert not np.array_equal(start.centroids, after.centroids)
    assert not np.array_equal(start.codebooks, after.codebooks)
    again = faiss.deserialize_index(faiss.serialize_index(index))
    np.testing.assert_array_equal(again.search(data.queries[:50], 10)[1], index.search(data.queries[:50], 10)[1])


def test_before_and_after_are_of_the_sample(built, data, always_kept):
    """What the report says is what searching an index of the sample alone finds, before and after."""
    index = built()
    rows = np.sort(np.random.default_rng(0).permutation(N)[:900])
    alone = faiss.clone_index(index)
    alone.remove_ids(np.setdiff1d(np.arange(N), rows))
    held_out = data.queries[1500:1700]
    report = distill(index, data.documents[rows], data.queries[:1500], ids=rows, validation_queries=held_out, **FROZEN)
    judges = held_out[50:]
    truth = rows[faiss.knn(judges, data.documents[rows], 10, faiss.METRIC_INNER_PRODUCT)[1]]
    tuned = faiss.clone_index(index)
    tuned.remove_ids(np.setdiff1d(np.arange(N), rows))
    for side, searched in ((report.before, alone), (report.after, tuned)):
        searched.nprobe = 4
        found = recall(searched.search(judges, 10)[1], truth)
        assert side.own.overlap_at_10 == pytest.approx(found.mean(), abs=1e-6)
    assert f"{N} vectors, codes of 8 bytes, measured among the 900 embeddings passed" in str(report)


def test_the_cost_is_that_of_the_whole_index(built, data, always_kept):
    index = built()
    index.nprobe = 4
    scanned = lambda: evaluate(index, data.documents[:N], held_out[50:], progress=False).own.codes_scanned  # noqa: E731
    rows, held_out = np.arange(900), data.queries[1500:1700]
    before = scanned()
    report = distill(index, data.documents[rows], data.queries[:1500], ids=rows, validation_queries=held_out, **FROZEN)
    assert report.before.own.codes_scanned == pytest.approx(before)
    assert report.after.own.codes_scanned == pytest.approx(scanned())
    assert report.after.imbalance == pytest.approx(index.invlists.imbalance_factor())


def test_a_sample_can_be_evaluated(built, data):
    index, rows = built(), np.arange(300, 1200)
    index.nprobe = 4
    before = serialized(index)
    test = data.queries[1500:]
    got = evaluate(index, data.documents[rows], test, ids=rows, sample=True, progress=False)
    assert serialized(index) == before
    whole = evaluate(index, data.documents[:N], test, progress=False)
    assert got.own.codes_scanned == whole.own.codes_scanned
    index.remove_ids(np.setdiff1d(np.arange(N), rows))
    alone = evaluate(index, data.documents[rows], test, ids=rows, progress=False)
    assert got.own.overlap_at_10 == pytest.approx(alone.own.overlap_at_10, abs=1e-6)
    with pytest.raises(InputError, match="top_k: expected at most the 900 vectors passed, got 901"):
        evaluate(built(), data.documents[rows], test, ids=rows, sample=True, top_k=901)


def test_labels_outside_the_sample_do_not_count(built, data, always_kept):
    rows = np.arange(900)
    labels = np.arange(2000)[:, None] % 1000  # one in ten is not in the sample
    report = distill(built(), data.documents[rows], data.queries, ids=rows, relevant=labels, **FROZEN)
    trained = distill(
        built(), data.documents[rows], data.queries, ids=rows, relevant=labels,
        **FROZEN | {"candidates": "gt + in_batch", "loss": "contrastive"},
    )  # fmt: skip
    assert 1780 < report.n_train <= 1800  # without kin of those that judge
    assert 1560 < trained.n_train < 1680


def test_not_kept_leaves_the_index_bitwise(built, data, monkeypatch):
    monkeypatch.setattr(Gate, "judge", lambda *_: (False, "", 0.0, (0.0, 0.0)))
    index = built("OPQ16,IVF16,PQ16x4", "l2")
    core(index).set_direct_map_type(2)
    before = serialized(index)
    distill(index, data.documents[:900], data.queries, ids=np.arange(900), **FROZEN)
    assert serialized(index) == before


@pytest.mark.parametrize("step", ["_write_centroids", "_write_codebooks", "_refresh_tables"])
def test_a_failure_at_any_step_leaves_the_index_bitwise(built, data, always_kept, monkeypatch, step):
    index = built()
    before = serialized(index)
    real, calls = getattr(IVFWriteBack, step), []

    def failing(self):
        calls.append(self._holder)
        if calls[-1] is None:  # the last write, of the parameters alone
            monkeypatch.setattr(IVFWriteBack, step, real)
            raise RuntimeError("injected")
        real(self)

    monkeypatch.setattr(IVFWriteBack, step, failing)
    with pytest.raises(RuntimeError, match="injected"):
        distill(index, data.documents[:900], data.queries, ids=np.arange(900), **FROZEN)
    assert serialized(index) == before


def test_part_of_an_index_is_never_committed(built):
    index = built()
    before = serialized(index)
    adapter = open_index(index)
    with (
        pytest.raises(RuntimeError, match="new lists of 10 vectors, not 2000"),
        adapter.restrict(adapter.extract().take(np.arange(10))) as change,
    ):
        change.commit()
    assert serialized(index) == before


class TestRefusals:
    def refused(self, built, match, embeddings, queries, **arguments):
        index = built()
        before = serialized(index)
        with pytest.raises(InputError, match=match):
            distill(index, embeddings, queries, **arguments)
        assert serialized(index) == before

    def test_a_sample_without_ids(self, built, data):
        match = "ids: expected the id of each row, as only 900 of 2000 vectors are passed, got none"
        self.refused(built, match, data.documents[:900], data.queries, **FROZEN)

    def test_a_sample_for_other_codes(self, built, data):
        match = r"ids: expected the ids of all 2000 .*, got all but 1100 of them \(900, .*encoding='frozen'"
        self.refused(built, match, data.documents[:900], data.queries, ids=np.arange(900), **QUICK)

    def test_a_sample_of_something_else(self, built, data):
        match = "ids: expected ids that the index holds, got none that it does"
        self.refused(built, match, data.documents[:900], data.queries, ids=np.arange(900) + 10_000, **FROZEN)
        match = r"ids: expected only ids that the index holds, got 10 others \(2000, "
        self.refused(built, match, data.documents[:900], data.queries, ids=np.arange(1110, 2010), **FROZEN)

    def test_a_sample_smaller_than_the_teachers_lists(self, built, data):
        match = "top_k: expected less than the 40 vectors passed, got 40"
        self.refused(built, match, data.documents[:40], data.queries, ids=np.arange(40), **FROZEN)

    def test_lists_that_would_move(self):
        with pytest.raises(InputError, match="assignment: expected 'fixed' with encoding='frozen', got 'refreshed'"):
            DistillConfig(encoding="frozen", assignment="refreshed")


def test_labels_outside_the_sample_are_no_misses_of_an_evaluation(built, data):
    sample, labels = np.arange(0, N, 2), np.arange(400)
    index = built()
    arguments = {"ids": sample, "nprobe": 16, "sample": True, "progress": False}
    found = [
        evaluate(index, data.documents[sample], data.queries[:400], relevant=relevant, **arguments).own
        for relevant in (labels, np.where(labels % 2, -1, labels))
    ]
    assert found[0] == replace(found[1], latency_ms=found[0].latency_ms)
