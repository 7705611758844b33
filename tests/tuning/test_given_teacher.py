"""Neighbours that were found elsewhere: as arrays, in a file, or by an index that stores more."""

import json

import faiss
import h5py
import numpy as np
import pytest
import torch
from conftest import METRICS, QUICK, N, serialized
from writers import WRITERS

from faiss_distill import DistillConfig, DistillTrainer, distill
from faiss_distill.cli import main
from faiss_distill.errors import InputError
from faiss_distill.learning.given_teacher import GivenTeacher
from faiss_distill.learning.teacher import Teacher
from faiss_distill.state import Metric
from faiss_distill.tuning.teachers import teacher_of

K = QUICK["top_k"]


def exact(data, metric="ip", n=N, k=K):
    """What faiss finds for all queries among the first ``n`` documents: ids and scores."""
    scores, ids = faiss.knn(data.queries, data.documents[:n], k, METRICS[metric])
    return ids, scores


@pytest.fixture(scope="module")
def taught(data):
    return exact(data)


def tuned(built, data, metric="ip", factory="IVF16,PQ16x4", queries=None, **options):
    index = built(factory, metric)
    queries = data.queries if queries is None else queries
    return distill(index, data.documents[:N], queries, **(QUICK | options))


@pytest.mark.parametrize("metric", METRICS)
def test_exact_neighbours_teach_as_exact_search_does(built, data, metric):
    alone = tuned(built, data, metric)
    given = tuned(built, data, metric, teacher=exact(data, metric))
    assert (alone.teacher, given.teacher) == ("exhaustive", "given")
    assert given.teacher_agreement == 1.0
    assert given.after.own.overlap_at_10 == pytest.approx(alone.after.own.overlap_at_10, abs=0.005)
    assert "taught by what was passed: 100.0% of the exact neighbours" in str(given)


@pytest.mark.parametrize("metric", METRICS)
def test_ids_alone_will_do(built, data, metric, tmp_path):
    """Their scores are computed, and they may be in any order."""
    ids, scores = exact(data, metric)
    shuffled = np.random.default_rng(0).permuted(ids, axis=1)
    np.save(tmp_path / "ids.npy", shuffled)
    WRITERS[".ivecs"](tmp_path / "ids.ivecs", ids.astype(np.int32))
    WRITERS[".ibin"](tmp_path / "ids.ibin", ids.astype(np.int32))
    with h5py.File(tmp_path / "ids.hdf5", "w") as file:
        file["neighbors"], file["distances"] = ids, scores
    sources = [tmp_path / f"ids{suffix}" for suffix in (".npy", ".ivecs", ".ibin", ".hdf5:neighbors")]
    found = []
    for source in [(ids, scores), shuffled, torch.from_numpy(ids), *sources]:
        config = DistillConfig(**QUICK)
        trainer = DistillTrainer(built(metric=metric), data.documents[:N], data.queries, teacher=source, config=config)
        rng = np.random.default_rng(0)
        found.append(teacher_of(trainer.task, trainer.training_queries, None, trainer.exact, K, rng))
    for teacher in found:
        assert teacher.agreement == 1.0
        assert (teacher.known.rows == found[0].known.rows).mean() > 0.99  # equal documents may change places
        np.testing.assert_allclose(teacher.known.scores, found[0].known.scores, rtol=1e-4, atol=1e-5)


def test_they_go_with_their_queries(data, built, taught):
    """Through copies among the queries, the held-out ones and the documents that fill them up."""
    queries = np.concatenate([data.queries[:40], data.queries])  # the first 40 twice
    ids, scores = (np.concatenate([a[:40], a]) for a in taught)
    config = DistillConfig(**(QUICK | {"fill_to": N, "max_queries": 500}))
    trainer = DistillTrainer(built(), data.documents[:N], queries, teacher=(ids, scores), config=config)
    training = trainer.training_queries
    real = training.rows < 0
    assert 0 < real.sum() < len(real)
    found = faiss.knn(training.vectors[real], data.documents[:N], K, METRICS["ip"])[1]
    assert (np.sort(training.neighbours.rows[real]) == np.sort(found)).mean() > 0.999
    assert (training.neighbours.rows[~real] == -1).all()


def test_what_is_not_known_is_searched_for(data, built, taught):
    ids, scores = taught[0].copy(), taught[1]
    ids[::3, 30:] = -1
    config = DistillConfig(**QUICK)
    trainer = DistillTrainer(built(), data.documents[:N], data.queries, teacher=(ids, scores), config=config)
    training, asked = trainer.training_queries, []

    def others(which):
        asked.extend(which)
        return trainer.exact

    teacher = GivenTeacher(training.neighbours, others, 1.0)
    rows, _ = teacher.top_k(trainer.task.corpus, training.vectors, K)
    assert asked == np.flatnonzero((training.neighbours.rows < 0).any(axis=1)).tolist()
    assert (np.sort(rows) == np.sort(trainer.exact.top_k(trainer.task.corpus, training.vectors, K)[0])).mean() > 0.999


def test_ids_are_those_of_the_index(built, data, taught):
    ids = np.random.default_rng(0).permutation(10**6)[:N]
    index = built("IDMap,IVF16,PQ16x4", ids=ids)
    report = distill(index, data.documents[:N], data.queries, ids=ids, teacher=(ids[taught[0]], taught[1]), **QUICK)
    assert report.teacher_agreement == 1.0


@pytest.mark.parametrize("factory", ["Flat", "HNSW16", "IVF16,SQ8"])
@pytest.mark.parametrize("queries", [True, False])
def test_an_index_that_stores_more(built, data, factory, queries):
    fuller = built(factory)
    if factory.startswith("IVF"):
        fuller.nprobe = 8
    before = serialized(fuller)
    report = distill(built(), data.documents[:N], data.queries if queries else None, teacher=fuller, **QUICK)
    low, high = {"Flat": (1, 1), "HNSW16": (0.6, 0.999), "IVF16,SQ8": (0.9, 0.999)}[factory]
    assert report.teacher == "given"
    assert low <= report.teacher_agreement <= high
    assert serialized(fuller) == before


def test_an_index_that_holds_too_little(built, data):
    few = faiss.IndexFlatIP(64)
    few.add(data.documents[: K // 2])
    with pytest.raises(InputError, match=f"^teacher: expected {K} neighbours for some of the queries"):
        distill(built(), data.documents[:N], data.queries, teacher=few, **QUICK)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("normalize", [False, True])
def test_own_scores_are_those_of_pairs(metric, normalize, data):
    teacher = Teacher(Metric.INNER_PRODUCT if metric == "ip" else Metric.L2, normalize)
    q, x = torch.from_numpy(3 * data.queries[:5]), torch.from_numpy(2 * data.documents[:30])
    own = teacher.own_scores(q, x.view(5, 6, -1))
    for i in range(5):
        one = teacher.scores(q[i : i + 1], x.view(5, 6, -1)[i])[0]
        torch.testing.assert_close(own[i], one, rtol=1e-4, atol=1e-4)


def test_files(built, data, taught, tmp_path, capsys):
    """Of arrays and of an index, over the command line."""
    np.savez(tmp_path / "known.npz", ids=taught[0], scores=taught[1])
    faiss.write_index(built("Flat"), str(tmp_path / "flat.faiss"))
    faiss.write_index(built(), str(tmp_path / "in.faiss"))
    np.save(tmp_path / "x.npy", data.documents[:N])
    np.save(tmp_path / "q.npy", data.queries)
    options = ["--epochs", "1", "--top-k", str(K), "--candidates", QUICK["candidates"], "--perplexity", "25"]
    for file in ("known.npz", "flat.faiss"):
        args = ["tune", *(str(tmp_path / name) for name in ("in.faiss", "x.npy")), "--queries", str(tmp_path / "q.npy")]
        args += ["--teacher", str(tmp_path / file), "-o", str(tmp_path / "out.faiss"), *options, "--json", "--force"]
        assert main([*args, "--fill-to", "0", "--nprobe", "4", "--no-progress"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["teacher"], report["teacher_agreement"]) == ("given", 1.0)
    args[args.index("-o") + 1] = str(tmp_path / "flat.faiss")
    assert main(args) == 2
    assert "--output: expected another file than the inputs" in capsys.readouterr().err


def shuffled(pair):
    order = np.random.default_rng(0).permutation(len(pair[0]))
    return pair[0][order], pair[1][order]


def swapped(array, i, j):
    out = array.copy()
    out[:, [i, j]] = out[:, [j, i]]
    return out


BAD = {
    "a number": (lambda t: 3, r"a faiss index, \(ids, scores\), ids alone, or the path .* got int"),
    "scores alone": (lambda t: t[1], "expected integers"),
    "ids of too few": (lambda t: t[0][:, :10], "at least 40 neighbours a query, got 10"),
    "others' ids alone": (lambda t: np.roll(t[0], 7, axis=0), "at least 50% of the exact 40 nearest"),
    "three": (lambda t: (*t, 1), r"expected \(ids, scores\), .* got tuple"),
    "as faiss returns them": (lambda t: (t[1], t[0]), r"\(scores, ids\); faiss's search returns them the other way"),
    "integers for scores": (lambda t: (t[0], t[0]), "floats for scores, got int64"),
    "other rows": (lambda t: (t[0][:-1], t[1][:-1]), r"shape \(2000, K\), a row for each query"),
    "other shapes": (lambda t: (t[0], t[1][:, :-1]), "shapes"),
    "too few": (lambda t: (t[0][:, :10], t[1][:, :10]), "at least 40 neighbours a query, got 10; pass more, or lower"),
    "text": (lambda t: (t[0].astype(str), t[1]), "expected integers"),
    "others' ids": (lambda t: (t[0] + 1, t[1]), r"ids of the embeddings, got 1 others \(2000\)"),
    "twice": (lambda t: (np.where(np.arange(K) == 1, t[0][:, :1], t[0]), t[1]), "each id once in a row"),
    "NaN": (lambda t: (t[0], t[1] * np.nan), "finite scores"),
    "not best first": (lambda t: (swapped(t[0], 0, 9), swapped(t[1], 0, 9)), "scores best first"),
    "distances": (lambda t: (t[0], 2 - 2 * t[1]), r"scores best first \(inner products, falling\)"),
    "other scores": (lambda t: (t[0], 2 * t[1]), "scores as exact search gives them .*off by"),
    "of other queries": (shuffled, "at least 50% of the exact 40 nearest"),
    "nothing known": (lambda t: (np.full_like(t[0], -1), t[1]), "40 neighbours for some of the queries"),
    "of other dimensions": (lambda t: faiss.IndexFlatIP(3), "an index of dimension 64, as the queries have, got 3"),
    "empty": (lambda t: faiss.IndexFlatIP(64), "trained and filled, got one that is empty"),
    "of bits": (lambda t: faiss.IndexBinaryFlat(64), "got IndexBinaryFlat"),
    "no such file": (lambda t: "none.npz", "a file that exists"),
    "no such index": (lambda t: "none.faiss", "a file that exists"),
}


@pytest.mark.parametrize("bad", BAD)
def test_wrong_ones(bad, built, data, taught):
    make, match = BAD[bad]
    index = built()
    before = serialized(index)
    with pytest.raises(InputError, match=f"^teacher: .*{match}"):
        distill(index, data.documents[:N], data.queries, teacher=make(taught), **QUICK)
    assert serialized(index) == before


def test_arrays_need_queries(built, data, taught):
    with pytest.raises(InputError, match=r"^teacher: expected together with the queries it belongs to"):
        distill(built(), data.documents[:N], teacher=taught, **QUICK)


FILES = {
    "empty": lambda path, t: path.write_bytes(b""),
    "no zip": lambda path, t: path.write_bytes(b"PK\3\4" + bytes(100)),
    "cut off": lambda path, t: (np.savez(path, ids=t[0], scores=t[1]), path.write_bytes(path.read_bytes()[:9000])),
    "other names": lambda path, t: np.savez(path, I=t[0], D=t[1]),
    "objects": lambda path, t: np.savez(path, ids=t[0].astype(object), scores=t[1]),
    "an array": lambda path, t: (np.save(path.with_suffix(".npy"), t[0]), path.with_suffix(".npy").rename(path)),
}


@pytest.mark.parametrize("kind", FILES)
def test_wrong_files(kind, built, data, taught, tmp_path):
    path = tmp_path / "t.npz"
    FILES[kind](path, taught)
    with pytest.raises(InputError, match=r"^teacher: expected a (complete )?\.npz"):
        distill(built(), data.documents[:N], data.queries, teacher=path, **QUICK)
