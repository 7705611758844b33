"""Copies of an index, and tuning that leaves the index itself alone."""

import gc
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from conftest import METRICS, QUICK, N, core, serialized
from factories import ALONE, CONTAINED, LISTED

import faiss_distill
from faiss_distill import DistillConfig, DistillTrainer, InputError, LinearAdapter, distill, evaluate
from faiss_distill.building.factory import options_of
from faiss_distill.index.copies import copy_of
from faiss_distill.index.families.ivf import IVFAdapter
from faiss_distill.index.registry import open_index
from faiss_distill.tuning.gate import Gate

STORED = ["on disk", "mapped", "shards", "replicas", "id map over shards", "shards of mapped"]
TUNED = [
    "IVF32,PQ16x4", "IVF32,PQ16x4fs", "IDMap2,RR32,IVF32_HNSW8,PQ16x4,RFlat", "PCA32,L2norm,IVF32,SQ8", "IVF32,RaBitQ",
    "PQ16x4", "RQ2x4",
]  # fmt: skip


@pytest.fixture
def stored(built, data, tmp_path):
    """Indexes that faiss itself does not copy."""

    def stored(how, factory="IVF16,PQ16x4"):
        if how in ("on disk", "mapped"):
            index, file = built(factory), str(tmp_path / "lists")
            core(index).nprobe = 4
            if how == "mapped":
                faiss.write_index(index, file)
                return faiss.read_index(file, faiss.IO_FLAG_MMAP)
            lists = faiss.OnDiskInvertedLists(core(index).nlist, core(index).code_size, file)
            lists.merge_from_1(core(index).invlists)
            core(index).replace_invlists(lists, True)
            lists.this.disown()
            return index
        parts = [built(factory) for _ in range(2)]
        whole = faiss.IndexReplicas(64) if how == "replicas" else faiss.IndexShards(64)
        for i, part in enumerate(parts):
            if how != "replicas":
                part.reset()
                part.add_with_ids(data.documents[i:N:2], np.arange(i, N, 2))
            core(part).nprobe = 4
            if how == "shards of mapped":
                faiss.write_index(part, str(tmp_path / f"part {i}"))
                part = faiss.read_index(str(tmp_path / f"part {i}"), faiss.IO_FLAG_MMAP)
            (whole.addIndex if how == "replicas" else whole.add_shard)(part)  # which keep it alive
        if how != "replicas":
            whole.successive_ids = False
        if how != "id map over shards":
            return whole
        outer = faiss.IndexIDMap2(faiss.IndexFlatL2(64))
        object.__setattr__(outer, "inside", whole)
        outer.index, outer.ntotal, outer.metric_type = whole, N, whole.metric_type
        faiss.copy_array_to_vector(np.arange(N)[::-1].copy(), outer.id_map)
        outer.construct_rev_map()
        return outer

    return stored


def settings(index):
    """All numbers that can be read from it and from what is inside."""
    index, found = faiss.downcast_index(index), {}
    for name in dir(type(index)):
        value = getattr(index, name)
        if isinstance(value, bool | int | float) and name != "thisown" and not name.startswith("own_"):
            found[name] = value
    inside = [getattr(index, n) for n in ("index", "base_index", "refine_index", "quantizer") if hasattr(index, n)]
    if isinstance(index, faiss.IndexShards | faiss.IndexReplicas):
        inside = [index.at(i) for i in range(index.count())]
    kind = faiss.IndexFlat if isinstance(index, faiss.IndexFlat) else type(index)  # its metric says the rest
    return kind, found, [settings(part) for part in inside]


def found_by(index, data):
    return [a.copy() for a in index.search(data.queries[:100], 10)]


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def assert_copied(index, data):
    """Of the same settings, finding the same, and still doing so once the original is gone."""
    copy, before = copy_of(index), found_by(index, data)
    assert settings(copy) == settings(index)
    assert_same(found_by(copy, data), before)
    return copy, before


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("factory", [*LISTED, *CONTAINED, *ALONE])
def test_a_copy_is_the_same_and_its_own(built, data, factory, metric):
    index = built(factory, metric)
    index.verbose = False
    if "IVF" in factory:
        core(index).nprobe, core(index).parallel_mode, core(index).max_codes = 5, 1, 0
    copy, before = assert_copied(index, data)
    assert serialized(copy) == serialized(index)
    del index
    gc.collect()
    assert_same(found_by(copy, data), before)


@pytest.mark.parametrize("how", STORED)
def test_a_copy_of_what_faiss_does_not_copy(stored, data, how):
    index = stored(how)
    with pytest.raises(RuntimeError):
        faiss.clone_index(index)
    if how in ("on disk", "mapped"):  # which faiss does not write
        core(index).parallel_mode = 1
    copy, before = assert_copied(index, data)
    del index
    gc.collect()
    assert_same(found_by(copy, data), before)


@pytest.mark.parametrize("kind", [faiss.DirectMap.Array, faiss.DirectMap.Hashtable])
@pytest.mark.parametrize("how", ["in memory", "on disk"])
def test_a_copy_has_a_direct_map(built, stored, data, kind, how):
    index = built() if how == "in memory" else stored(how)
    index.set_direct_map_type(kind)
    copy = copy_of(index)
    del index
    gc.collect()
    assert copy.direct_map.type == kind
    assert np.isfinite(copy.reconstruct(7)).all()


def test_a_copy_keeps_what_python_has_set():
    index = faiss_distill.index_factory(64, "IVF16,PQ16x4,Distill(epochs=3)")
    assert options_of(copy_of(index)) == options_of(index) == DistillConfig(epochs=3)


@pytest.mark.parametrize("change", ["replaced", "gone"])
def test_a_file_of_lists_that_is_no_longer_the_one(stored, change, tmp_path):
    index, file = stored("on disk"), tmp_path / "lists"
    content = file.read_bytes()
    file.unlink()
    if change == "replaced":
        file.write_bytes(bytes(len(content)))
    with pytest.raises(InputError, match=r"index: expected .*lists"):
        copy_of(index)


@pytest.fixture
def judged(monkeypatch):
    def judged(kept):
        monkeypatch.setattr(Gate, "judge", lambda *_: (kept, "", 0.0, (0.0, 0.0)))

    return judged


def tuned(index, data, **options):
    nprobe = QUICK["nprobe"] if open_index(index).nlist > 1 else None
    return distill(index, data.documents[:N], data.queries[:600], **QUICK | {"nprobe": nprobe} | options)


@pytest.mark.parametrize("factory", TUNED)
def test_the_index_is_left_alone_and_the_new_one_is_that_of_tuning_in_place(built, data, judged, factory):
    judged(True)
    index, same = built(factory), built(factory)
    bytes_before, before = serialized(index), found_by(index, data)
    report = tuned(index, data, inplace=False)
    assert tuned(same, data).index is same
    assert report.index is not index
    assert serialized(index) == bytes_before
    assert_same(found_by(index, data), before)
    assert serialized(report.index) == serialized(same) != bytes_before
    after = found_by(report.index, data)
    del index
    gc.collect()
    assert_same(found_by(report.index, data), after)


@pytest.mark.parametrize("encoding", ["query_aware", "frozen"])
@pytest.mark.parametrize("how", STORED)
def test_so_it_is_wherever_lists_are(stored, data, judged, how, encoding, tmp_path):
    judged(True)
    index = stored(how)
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    before = found_by(index, data)
    if how == "id map over shards":
        documents = data.documents[:N][::-1].copy()
        report = distill(index, documents, data.queries[:600], **QUICK, encoding=encoding, inplace=False)
    else:
        report = tuned(index, data, encoding=encoding, inplace=False)
    assert_same(found_by(index, data), before)
    assert {path: path.read_bytes() for path in files} == files
    new = [path.name for path in tmp_path.iterdir() if path not in files]
    assert new == (["lists.tuned"] if how == "on disk" and encoding != "frozen" else [])
    after = found_by(report.index, data)
    assert not np.array_equal(before[1], after[1])
    del index
    gc.collect()
    assert_same(found_by(report.index, data), after)


def test_what_is_not_kept_leaves_the_index_itself(built, data, judged):
    judged(False)
    index = built()
    before = serialized(index)
    assert tuned(index, data, inplace=False).index is index
    assert serialized(index) == before


def test_lists_go_to_the_file_that_is_wanted(built, data, judged, tmp_path):
    judged(True)
    index = built()
    report = tuned(index, data, inplace=False, invlists_file=tmp_path / "new")
    assert type(faiss.downcast_InvertedLists(core(index).invlists)) is faiss.ArrayInvertedLists
    assert Path(faiss.downcast_InvertedLists(core(report.index).invlists).filename) == tmp_path / "new"


def test_the_query_encoder_is_left_alone_too(built, data, judged):
    judged(True)
    encoder = LinearAdapter(64)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    trainer = DistillTrainer(
        built(), data.documents[:N], data.queries[:600], query_encoder=encoder, inplace=False,
        config=DistillConfig(**QUICK), gate=Gate(start_counts=False),
    )  # fmt: skip
    report = trainer.train()
    assert report.query_encoder is not encoder
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert any(not torch.equal(before[name], value) for name, value in report.query_encoder.state_dict().items())


def test_a_trainer_starts_from_the_index_each_time(built, data, judged):
    judged(True)
    index = built()
    trainer = DistillTrainer(
        index, data.documents[:N], data.queries[:600], inplace=False, config=DistillConfig(**QUICK)
    )
    one, other = trainer.train().index, trainer.train().index
    assert one is not other
    assert serialized(one) == serialized(other) != serialized(index)
    index.add_with_ids(data.documents[:1], np.array([N]))
    with pytest.raises(InputError, match="expected the index as it was when the trainer was made"):
        trainer.train()


def test_a_report_without_its_index_is_json(built, data):
    report = tuned(built(), data)
    assert report.to_dict()["index"] == report.description == "IndexIVFPQ"
    assert '"description"' not in report.to_json()


def test_measuring_among_a_sample_changes_nothing(built, data, monkeypatch):
    """Not even for a while: it is a copy that is restricted to the sample."""
    index, restricted = built(), []
    restrict = IVFAdapter.restrict
    monkeypatch.setattr(IVFAdapter, "restrict", lambda self, s: (restricted.append(self.index), restrict(self, s))[1])
    evaluate(index, data.documents[:800], data.queries[:100], ids=np.arange(800), sample=True, progress=False)
    assert len(restricted) == 1
    assert restricted[0] is not index


def test_measuring_replicas_sets_nothing(stored, data, monkeypatch):
    index = stored("replicas")
    part = core(index.at(0))
    at, real = int(part.this), type(part).__setattr__

    def checked(self, name, value):
        assert name == "this" or int(self.this) != at, f"{name} was set"
        real(self, name, value)

    monkeypatch.setattr(type(part), "__setattr__", checked)
    evaluate(index, data.documents[:N], data.queries[:100], progress=False)
    with pytest.raises(AssertionError, match="nprobe was set"):
        part.nprobe = 4
