"""What was learned on a sample, kept in a file and put into shards of the same training."""

from dataclasses import fields, replace
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
import torch
from conftest import METRICS, QUICK, N, core, serialized, untrained
from safetensors.torch import save_file

from faiss_distill import InputError, LinearAdapter, TunedParameters, distill
from faiss_distill.cli import main
from faiss_distill.index.registry import open_index
from faiss_distill.metrics import recall
from faiss_distill.tuning.gate import Gate

SAMPLE = 3500
OPTIONS = QUICK | {"epochs": 3, "batch_size": 100, "top_k": 40}


def trained(data, factory="IVF16,PQ16x4", metric="ip"):
    """Indexes of one training, empty."""
    index = untrained(factory, metric)
    index.train(data.documents[:N])
    return lambda: faiss.clone_index(index)


def filled(index, vectors, first=0):
    index.add_with_ids(vectors, np.arange(first, first + len(vectors)))
    return index


@pytest.fixture
def always_kept(monkeypatch):
    judge = Gate.judge
    monkeypatch.setattr(Gate, "judge", lambda *given: judge(*given)._replace(kept=True))


@pytest.mark.usefixtures("always_kept")
@pytest.mark.parametrize(("factory", "metric"), [("IVF16,PQ16x4", "ip"), ("OPQ8,IVF16,PQ8x4np", "l2")])
def test_shards_are_tuned_from_a_sample(tmp_path, data, factory, metric):
    """And the shards, merged, find more than untuned ones, ids and all."""
    empty, queries, test = trained(data, factory, metric), data.queries[:1500], data.queries[1500:]
    sample = np.sort(np.random.default_rng(0).permutation(4000)[:SAMPLE])
    small = empty()
    small.add_with_ids(data.documents[sample], sample)
    report = distill(small, data.documents[sample], queries, ids=sample, **OPTIONS)
    assert report.kept
    report.parameters.save(tmp_path / "learned.safetensors")
    parameters = TunedParameters.load(tmp_path / "learned.safetensors")
    merged = {}
    for name in ("untuned", "tuned"):
        shards = [filled(empty(), data.documents[first : first + 2000], first) for first in (0, 2000)]
        for first, shard in zip((0, 2000), shards, strict=True) if name == "tuned" else ():
            ids = np.arange(first, first + 2000)
            applied = parameters.apply(shard, data.documents[first : first + 2000], ids=ids, progress=False)
            assert applied.kept
            assert applied.applied
            assert applied.index is shard
            assert applied.gain > 0.01
            assert f"lists and codes chosen for {report.n_train} queries" in str(applied)
            state = open_index(shard).extract()
            np.testing.assert_array_equal(state.centroids, parameters.centroids)
            np.testing.assert_array_equal(state.codebooks, parameters.codebooks)
            np.testing.assert_array_equal(state.ids, ids)
        faiss.merge_into(shards[0], shards[1], shift_ids=False)
        assert shards[0].ntotal == 4000
        merged[name] = shards[0]
    truth = faiss.knn(test, data.documents[:4000], 10, METRICS[metric])[1]
    found = {}
    for name, index in merged.items():
        core(index).nprobe = 4
        found[name] = recall(index.search(test, 10)[1], truth).mean()
    assert found["tuned"] > found["untuned"] + 0.02


@pytest.mark.usefixtures("always_kept")
@pytest.mark.parametrize("factory", ["IVF16,RQ6x4_Nqint8", "IVF16,RQ6x4_Ncqint8", "IVF16,RQ6x4fsr_Nrq2x4"])
def test_shards_round_norms_alike(tmp_path, data, factory):
    """Though those of the vectors of one are longer: faiss merges what they store, and not how to read it."""
    lengths = np.exp(0.3 * np.random.default_rng(0).standard_normal((4000, 1)))
    vectors = (data.documents[:4000] * lengths).astype(np.float32)
    empty, test = trained(SimpleNamespace(documents=vectors), factory, "l2"), data.queries[1500:1700]
    sample = np.arange(0, 4000, 2)
    small = empty()
    small.add_with_ids(vectors[sample], sample)
    learned = distill(small, vectors[sample], data.queries[:500], ids=sample, **QUICK).parameters
    learned.save(tmp_path / "learned")
    parameters = TunedParameters.load(tmp_path / "learned")
    np.testing.assert_array_equal(parameters.norms, learned.norms)
    by_length = np.argsort(lengths[:, 0])
    shards = []
    for rows in (np.sort(by_length[:2000]), np.sort(by_length[2000:])):
        shard = empty()
        shard.add_with_ids(vectors[rows], rows)
        applied = parameters.apply(shard, vectors[rows], ids=rows, keep=True, progress=False)
        np.testing.assert_array_equal(applied.parameters.norms, parameters.norms)
        core(shard).nprobe = 4
        shards.append(shard)
    apart = faiss.IndexShards(64, False, False)
    for shard in shards:
        apart.add_shard(shard)
    open_index(apart)  # which refuses parts of other codebooks
    found = apart.search(test, 10)[0]
    faiss.merge_into(shards[0], shards[1], shift_ids=False)
    np.testing.assert_allclose(shards[0].search(test, 10)[0], found, rtol=1e-5)


@pytest.mark.usefixtures("always_kept")
def test_those_of_other_norms_do_not_fit(data):
    vectors = data.documents[:N]
    indexes = [filled(trained(data, f"IVF16,RQ6x4_N{kind}", "l2")(), vectors) for kind in ("qint8", "cqint8")]
    parameters = distill(indexes[0], vectors, data.queries[:500], **QUICK).parameters
    before = serialized(indexes[1])
    with pytest.raises(InputError, match="parameters: expected those of an index with the rounded norms 2, got"):
        parameters.apply(indexes[1], vectors)
    assert serialized(indexes[1]) == before


def test_on_the_index_that_was_tuned_they_do_as_well(data):
    empty = trained(data)
    one, other = filled(empty(), data.documents[:N]), filled(empty(), data.documents[:N])
    report = distill(one, data.documents[:N], data.queries[:1500], **OPTIONS)
    applied = report.parameters.apply(other, data.documents[:N])
    assert applied.gain == pytest.approx(report.gain, abs=0.01)
    assert applied.n_validation == report.n_validation
    one, other = (open_index(index).extract() for index in (one, other))
    assert (one.codes == other.codes).mean() > 0.8
    assert (one.assignment == other.assignment).mean() > 0.9


def test_where_documents_stood_in_those_of_the_shard_do(data):
    empty = trained(data)
    one = filled(empty(), data.documents[:N])
    parameters = distill(one, data.documents[:N], **OPTIONS).parameters
    assert parameters.queries is None
    assert parameters.validation_queries is None
    applied = parameters.apply(
        filled(empty(), data.documents[N:4000], N), data.documents[N:4000], ids=np.arange(N, 4000)
    )
    assert applied.query_source == "documents"
    assert applied.gain > 0


def test_a_log_that_was_filled_up_is_kept_without_the_documents(data):
    empty = trained(data)
    options = OPTIONS | {"fill_to": 20_000, "epochs": 1}
    report = distill(filled(empty(), data.documents[:N]), data.documents[:N], data.queries[:300], **options)
    assert report.n_stand_ins > 0
    assert len(report.parameters.queries) == report.n_train - report.n_stand_ins


@pytest.mark.usefixtures("always_kept")
def test_frozen_codes_stay(data):
    empty = trained(data)
    report = distill(
        filled(empty(), data.documents[:N]), data.documents[:N], data.queries, encoding="frozen", **OPTIONS
    )
    shard = filled(empty(), data.documents[N:4000])
    before = open_index(shard).extract()
    applied = report.parameters.apply(shard, data.documents[N:4000])
    after = open_index(shard).extract()
    np.testing.assert_array_equal(after.codes, before.codes)
    assert applied.gain > 0
    np.testing.assert_array_equal(after.codebooks, report.parameters.codebooks)


@pytest.fixture(scope="module")
def learned(data):
    return distill(filled(trained(data)(), data.documents[:N]), data.documents[:N], data.queries[:1500], **OPTIONS)


def test_a_file_holds_all_of_it(tmp_path, learned):
    learned.parameters.save(tmp_path / "p")
    again = TunedParameters.load(str(tmp_path / "p"))
    for field in fields(TunedParameters):
        one, other = getattr(learned.parameters, field.name), getattr(again, field.name)
        assert np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other, field.name
    assert "parameters" not in learned.to_dict()


@pytest.mark.parametrize(
    ("factory", "metric", "text"),
    [
        ("IVF16,PQ16x4", "l2", "metric inner_product, got metric l2"),
        ("IVF32,PQ16x4", "ip", r"centroids \[16, 64\], got centroids \[32, 64\]"),
        ("IVF16,PQ8x4np", "ip", r"codebooks \[16, 1, 16, 4\], got codebooks \[8, 1, 16, 8\]"),
        ("OPQ16,IVF16,PQ16x4", "ip", "transforms .*, got others"),
        ("IVF16,SQ8", "ip", r"codebooks \[16, 1, 16, 4\], got codebooks None"),
    ],
)
def test_an_index_of_another_kind(data, learned, factory, metric, text):
    index = filled(trained(data, factory, metric)(), data.documents[:N])
    before = serialized(index)
    with pytest.raises(InputError, match=rf"^parameters: expected those of an index with the {text}"):
        learned.parameters.apply(index, data.documents[:N])
    assert serialized(index) == before


def test_kept_though_it_is_worse_where_that_is_asked(data, learned):
    shard = filled(trained(data)(), data.documents[N:2700], N)
    parameters, ids = learned.parameters, np.arange(N, 2700)
    bad = replace(parameters, codebooks=parameters.codebooks[::-1].copy(), config=replace(parameters.config, top_k=40))
    before = serialized(shard)
    refused = bad.apply(shard, data.documents[N:2700], ids=ids, encoding="nearest")
    assert not refused.kept
    assert serialized(shard) == before
    kept = bad.apply(shard, data.documents[N:2700], ids=ids, encoding="nearest", keep=True)
    assert kept.kept
    assert kept.gain == refused.gain
    assert kept.reason.endswith("; kept as you asked")
    np.testing.assert_array_equal(open_index(shard).extract().codebooks, bad.codebooks)


def test_files_that_hold_something_else(tmp_path, learned):
    path = tmp_path / "p.safetensors"
    learned.parameters.save(path)
    whole = path.read_bytes()
    for content in (b"", whole[:-100], whole[:50], b"\x00" * 100, whole.replace(b'"format\\": 1', b'"format\\": 7')):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"^parameters: expected"):
            TunedParameters.load(path)
    save_file({"centroids": torch.zeros(2, 2)}, path)
    with pytest.raises(InputError, match=r"^parameters: expected a file of TunedParameters\.save"):
        TunedParameters.load(path)
    with pytest.raises(InputError, match=r"^parameters: "):
        TunedParameters.load(tmp_path / "none")


def test_none_with_a_query_encoder_or_where_nothing_was_kept(data, learned):
    index = filled(trained(data)(), data.documents[:N])
    encoder = LinearAdapter(64)
    report = distill(index, data.documents[:N], data.queries[:1500], query_encoder=encoder, **OPTIONS)
    assert report.kept
    assert report.parameters is None
    worse = filled(trained(data)(), data.documents[:N])
    again = distill(worse, data.documents[:N], data.queries[:1500], **OPTIONS | {"confidence": 0.9999, "epochs": 0})
    assert again.kept is (again.parameters is not None)


def test_the_command_line(tmp_path, data, monkeypatch, capsys):
    empty = trained(data)
    for name, first in (("a", 0), ("b", N)):
        faiss.write_index(filled(empty(), data.documents[first : first + N]), str(tmp_path / f"{name}.faiss"))
        np.save(tmp_path / f"{name}.npy", data.documents[first : first + N])
    np.save(tmp_path / "q.npy", data.queries)

    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        status, said = main([*arguments, "--nprobe", "4"]), capsys.readouterr()
        return SimpleNamespace(returncode=status, stdout=said.out, stderr=said.err)

    tuning = ["--queries", "q.npy", "--fill-to", "0", "--epochs", "2", "--save-parameters", "p.safetensors"]
    tuned = run("tune", "a.faiss", "a.npy", *tuning, "-o", "a2.faiss")
    assert tuned.returncode == 0, tuned.stderr
    applied = run("apply", "p.safetensors", "b.faiss", "b.npy", "-o", "b2.faiss")
    assert applied.returncode == 0, applied.stderr
    assert "wrote b2.faiss" in applied.stdout
    assert "centroids and codebooks as they were passed" in applied.stdout
    one, other = (open_index(faiss.read_index(str(tmp_path / f"{name}2.faiss"))).extract() for name in "ab")
    kept = "Kept: " in applied.stdout  # of so few documents not much can be learned
    assert np.array_equal(one.codebooks, other.codebooks) is kept
    failed = run("apply", "q.npy", "b.faiss", "b.npy", "-o", "b3.faiss")
    assert failed.returncode == 2
    assert failed.stderr.startswith("faiss-distill: error: parameters: expected a file of TunedParameters.save")
    same = run("apply", "p.safetensors", "b.faiss", "b.npy", "-o", "p.safetensors")
    assert same.returncode == 2
    assert "output: expected another file" in same.stderr
