"""The whole run on real embeddings, small enough for seconds."""

import dataclasses

import faiss
import numpy as np
import pytest
import torch
from conftest import METRICS, QUICK, N, core, serialized, untrained
from scipy import stats

import faiss_distill.tuning.trainer
from faiss_distill import DistillConfig, DistillTrainer, InputError, LinearAdapter, distill, evaluate, index_factory
from faiss_distill.evaluation.measure import measure
from faiss_distill.index.parts.write_back import IVFWriteBack
from faiss_distill.index.registry import open_index
from faiss_distill.learning import optimise
from faiss_distill.learning.codes.product import QueryAwareEncoder
from faiss_distill.learning.documents import Documents
from faiss_distill.learning.objective import Selection
from faiss_distill.learning.optimise import fell
from faiss_distill.learning.students import CodebookStudent
from faiss_distill.tuning.gate import Gate
from faiss_distill.tuning.task import Task


@pytest.fixture
def run(built, data):
    def run(factory="IVF16,PQ16x4", metric="ip", queries="real", **options):
        index = built(factory, metric)
        chosen = data.queries if queries == "real" else queries
        return index, distill(index, data.documents[:N], chosen, **{**QUICK, **options})

    return run


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "factory",
    [
        "IVF16,PQ16x4",
        "IVF16_HNSW16,PQ16x4",
        "IVF16(SQfp16),PQ8x6np",
        "IDMap2,OPQ16,IVF16,PQ16x4",
        "L2norm,IVF16,PQ16x4",
        "IDMap2,OPQ16,IVF16,PQ16x4fs",
        "IVF16_HNSW16,PQ16x4fsr,RFlat",
    ],
)
class TestGain:
    def test_kept_and_real(self, built, data, factory, metric):
        index = built(factory, metric)
        test = data.queries[1500:]
        core(index).nprobe = 4
        before = evaluate(index, data.documents[:N], test, progress=False)
        identity, size = id(index), len(serialized(index))
        report = distill(
            index, data.documents[:N], data.queries[:1500], **QUICK | {"nprobe": None, "epochs": 3, "local_queries": 32}
        )
        after = evaluate(index, data.documents[:N], test, progress=False)
        assert report.kept
        assert report.after.own.overlap_at_10 - report.before.own.overlap_at_10 == pytest.approx(report.gain, abs=1e-6)
        assert after.own.overlap_at_10 > before.own.overlap_at_10 + 0.03  # on queries that no part of the run has seen
        assert after.own.codes_scanned <= before.own.codes_scanned * 1.02
        assert (id(index), core(index).nprobe, index.ntotal) == (identity, 4, N)
        filled_up = 16 * 32 * 8 if "fs" in factory else 0  # the last block of each list
        assert len(serialized(index)) == pytest.approx(size, abs=filled_up)


@pytest.mark.parametrize("metric", METRICS)
def test_a_tuned_index_lives_on(built, data, run, metric, tmp_path):
    index, report = run("OPQ16,IVF16,PQ16x4", metric)
    assert report.kept
    more = data.documents[N : N + 300]
    index.add(more)
    inner = core(index)
    inner.nprobe = 16
    _, found = index.search(more, 10)
    assert (found == np.arange(N, N + 300)[:, None]).any(axis=1).mean() > 0.9  # new vectors are found as themselves
    inner.remove_ids(np.arange(100, dtype=np.int64))
    index.ntotal = inner.ntotal
    _, after = index.search(more, 10)
    assert not np.isin(after, np.arange(100)).any()
    faiss.write_index(index, str(tmp_path / "i.faiss"))
    again = faiss.read_index(str(tmp_path / "i.faiss"))
    np.testing.assert_array_equal(again.search(more, 10)[1], after)
    inner.set_direct_map_type(2)
    state = open_index(index).extract()
    decoded = state.reconstruct(np.array([5]))[0]
    np.testing.assert_allclose(inner.reconstruct(int(state.ids[5])), decoded, atol=1e-5)


def test_only_what_may_change_changes(built, data, run):
    before, index = open_index(built()).extract(), built()
    config = DistillConfig(**QUICK)
    trainer = DistillTrainer(index, data.documents[:N], data.queries, config=config, gate=Gate(start_counts=False))
    assert trainer.train().kept
    after = open_index(index).extract()
    np.testing.assert_array_equal(before.ids, after.ids)
    for name in ("centroids", "codebooks", "codes", "assignment"):
        assert not np.array_equal(getattr(before, name), getattr(after, name))
    fixed = open_index(run(assignment="fixed")[0]).extract()
    np.testing.assert_array_equal(before.assignment, fixed.assignment)


def test_the_same_seed_gives_the_same_index(run):
    (one, a), (two, b), (three, _) = run(seed=3), run(seed=3), run(seed=4)
    assert serialized(one) == serialized(two)
    assert a.after.own.overlap_at_10 == b.after.own.overlap_at_10
    assert serialized(one) != serialized(three)


def test_nearest_encoding_is_what_faiss_itself_would_store(run, data, monkeypatch):
    monkeypatch.setattr(Gate, "judge", lambda *_: (True, "", 0.0, (0.0, 0.0)))
    index, _ = run(encoding="nearest", metric="l2")
    state = open_index(index).extract()
    rebuilt = np.empty((N, index.code_size), dtype=np.uint8)
    x = data.documents[:N]
    index.encode_vectors(N, faiss.swig_ptr(x), faiss.swig_ptr(state.assignment), faiss.swig_ptr(rebuilt))
    assert (faiss.unpack_bitstrings(rebuilt, 16, 4) == state.codes).mean() > 0.9999


def test_query_aware_codes_beat_nearest_ones(run):
    aware, nearest = (run(encoding=e)[1] for e in ("query_aware", "nearest"))
    assert aware.after.own.overlap_at_10 > nearest.after.own.overlap_at_10 + 0.01


def test_no_epochs_only_re_encode(built, run):
    before = open_index(built()).extract()
    index, report = run(epochs=0)
    assert "only lists and codes are new" in str(report)
    after = open_index(index).extract()
    assert report.kept
    np.testing.assert_array_equal(before.codebooks, after.codebooks)
    np.testing.assert_array_equal(before.centroids, after.centroids)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["10 bits", "no residuals"])
def test_other_codes_gain_too(data, metric, kind):
    index = untrained("IVF16,PQ4x10np" if kind == "10 bits" else "IVF16,PQ16x4", metric)
    index.by_residual = kind == "10 bits"
    index.train(data.documents[:N])
    index.add(data.documents[:N])
    # With two points a codeword, codebooks know the residuals of their lists by heart: moving them would lose that.
    lists = "fixed" if kind == "10 bits" else "query_aware"
    report = distill(index, data.documents[:N], data.queries, **QUICK | {"epochs": 3, "assignment": lists})
    assert report.kept, report.reason
    assert open_index(index).extract().by_residual == index.by_residual


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("factory", ["PQ8x8np", "OPQ16,PQ16x4,RFlat", "IDMap2,PQ16x4fs"])
def test_without_lists_codebooks_and_codes_gain(built, data, factory, metric):
    index = built(factory, metric)
    test, size = data.queries[1500:], len(serialized(index))
    before = evaluate(index, data.documents[:N], test, progress=False)
    report = distill(index, data.documents[:N], data.queries[:1500], **QUICK | {"nprobe": None, "epochs": 3})
    after = evaluate(index, data.documents[:N], test, progress=False)
    assert report.kept, report.reason
    assert (report.config.learn.value, report.config.lists.value) == ("codebooks", "fixed")
    assert after.own.overlap_at_10 > before.own.overlap_at_10 + 0.02  # on queries that no part of the run has seen
    assert [p.codes_scanned for p in before.points + after.points] == [N, N]
    assert (len(serialized(index)), index.ntotal) == (size, N)


def test_without_lists_there_are_no_centroids_to_learn_and_no_samples(built, data):
    index = built("PQ8np")
    before = serialized(index)
    with pytest.raises(InputError, match="learn: expected 'codebooks', got 'centroids'; an IndexPQ has no centroids"):
        distill(index, data.documents[:N], data.queries, learn="centroids", **QUICK)
    with pytest.raises(InputError, match="embeddings: expected all 2000 vectors, got 900; an index without lists"):
        distill(
            index, data.documents[:900], data.queries, ids=np.arange(900), **QUICK | {"nprobe": 1}, encoding="frozen"
        )
    with pytest.raises(InputError, match="nprobe: expected at most 1, as there is one list, got 4"):
        distill(index, data.documents[:N], data.queries, **QUICK)
    assert serialized(index) == before


def test_without_lists_codes_may_be_frozen(built, data):
    index = built("PQ8x8np")
    codes = faiss.vector_to_array(index.codes)
    report = distill(index, data.documents[:N], data.queries, **QUICK | {"nprobe": 1, "epochs": 3}, encoding="frozen")
    assert report.kept, report.reason
    np.testing.assert_array_equal(faiss.vector_to_array(index.codes), codes)


@pytest.mark.parametrize("factory", ["OPQ16,IVF16,PQ16x4,RFlat", "IDMap2,L2norm,IVF16,PQ16x4,RFlat", "PQ16x4fs,RFlat"])
def test_an_index_that_holds_its_vectors_needs_no_others(built, data, factory):
    options = QUICK | {"nprobe": 1}
    ids = 3 * np.arange(N) + 7 if "IDMap" in factory else None
    own, given = built(factory, ids=ids), built(factory, ids=ids)
    report = distill(own, queries=data.queries, **options)
    assert report.n_embeddings == N
    distill(given, data.documents[:N], data.queries, ids=ids, **options)
    assert serialized(own) == serialized(given)
    test = data.queries[:50]
    found = [
        evaluate(own, queries=test, progress=False).own,
        evaluate(own, data.documents[:N], test, ids=ids, progress=False).own,
    ]
    assert found[0].overlap_at_10 == found[1].overlap_at_10


@pytest.mark.parametrize("factory", ["IVF16,PQ16x4,Refine(SQ8)", "OPQ16,IVF16,PQ16x4,Refine(SQfp16)"])
def test_nearly_exact_vectors_serve_too(built, data, factory):
    index = built(factory)
    refinement = faiss.serialize_index(index.refine_index).tobytes()
    decoded = index.refine_index.reconstruct_n(0, N)
    assert not np.array_equal(decoded, data.documents[:N])
    options = QUICK | {"block_rows": 300}
    report = distill(index, queries=data.queries, **options)
    given = built(factory)
    distill(given, decoded, data.queries, **options)
    assert serialized(index) == serialized(given)
    assert report.before.own.overlap_at_10 > 0.4
    assert faiss.serialize_index(index.refine_index).tobytes() == refinement
    for short in ("PQ8x4np", "SQ4"):
        with pytest.raises(InputError, match="or an IndexRefine by a scalar quantizer of 8 bits or more"):
            distill(built(f"IVF16,PQ16x4,Refine({short})"), queries=data.queries, **QUICK)
    coarse = built("IVF16,PQ16x4,Refine(PQ8x4np)")
    assert distill(coarse, data.documents[:N], data.queries, **QUICK).n == N


@pytest.mark.parametrize("factory", ["IVF16,PQ16x4,RFlat", "IVF16,PQ16x4,Refine(SQ8)"])
def test_vectors_of_those_removed_inside_are_left_out(built, data, factory):
    index = built(factory)
    faiss.downcast_index(index.base_index).remove_ids(np.arange(100, 120))
    report = distill(index, queries=data.queries, **QUICK)
    assert (report.n, report.n_embeddings) == (N - 20, N - 20)


def test_one_that_does_not_needs_them(built, data):
    for factory in ("IVF16,PQ16x4", "PCA32,IVF16,PQ16x4"):
        with pytest.raises(InputError, match="embeddings: expected the vectors behind the index, got None"):
            distill(built(factory), queries=data.queries, **QUICK)
    with pytest.raises(InputError, match="ids: expected together with embeddings"):
        distill(built("IVF16,PQ16x4,RFlat"), queries=data.queries, ids=np.arange(N), **QUICK)


class TestDocumentsAsQueries:
    def test_they_stand_in_and_the_report_says_so(self, run, data):
        _, report = run(queries=None)
        assert report.kept
        assert report.query_source == "documents"
        assert "documents were used as queries" in str(report)
        assert report.n_validation == 150
        assert 0.8 * N < report.n_train <= N - 200  # without copies, and kin of those that judge

    def test_they_do_not_find_themselves(self, built, data):
        index = built()
        trainer = DistillTrainer(index, data.documents[:N], config=DistillConfig(**QUICK))
        taught = trainer.task.taught(trainer.training_queries, trainer.exact, 40)
        assert (taught.top != taught.queries.rows[:, None]).all()
        np.testing.assert_array_equal(taught.queries.vectors, data.documents[taught.queries.rows])


class TestFewQueries:
    """Documents join in as queries where there are few."""

    FILLED = QUICK | {"fill_to": 1000}

    def test_they_fill_up_and_the_report_says_so(self, built, data):
        trainer = DistillTrainer(
            built(), data.documents[:N], data.queries[:150], config=DistillConfig(**self.FILLED, block_rows=256)
        )
        train, held_out = trainer.training_queries, trainer.validation_queries
        assert held_out.rows is None  # only real queries judge
        real = train.rows < 0
        assert real.tolist() == sorted(real, reverse=True)
        assert real.sum() == 100
        assert 1000 - 20 < len(train.vectors) <= 1000  # some documents occur twice
        rows = train.rows[~real]
        near = faiss.knn(train.vectors[~real], data.documents[:N], 1, metric=faiss.METRIC_INNER_PRODUCT)[1][:, 0]
        assert (near == rows).mean() > 0.9  # moved a little
        taught = trainer.task.taught(train, trainer.exact, 40)
        assert (taught.top != train.rows[:, None]).all()
        exact = faiss.knn(train.vectors[:100], data.documents[:N], 40, metric=faiss.METRIC_INNER_PRODUCT)[1]
        assert (taught.top[:100] == exact).mean() > 0.999
        report = trainer.train()
        assert report.n_train == len(train.vectors)
        assert report.n_stand_ins == (~real).sum()
        assert f"trained on 100 queries and {report.n_stand_ins} documents used as queries; " in str(report)

    def test_mined_candidates_leave_out_the_document_itself(self, built, data):
        options = self.FILLED | {"candidates": "in_batch + hard40:5"}
        trainer = DistillTrainer(built(), data.documents[:N], data.queries[:150], config=DistillConfig(**options))
        taught = trainer.task.taught(trainer.training_queries, trainer.exact, 40)
        queries = trainer.task.query_set(taught, None, torch.device("cpu"))
        assert (queries.exclude[:100] == -1).all()
        np.testing.assert_array_equal(queries.exclude[100:], trainer.training_queries.rows[100:])
        assert trainer.train().kept in (True, False)

    def test_documents_that_judge_are_left_out(self, built, data):
        trainer = DistillTrainer(
            built(), data.documents[:N], data.queries[:100], validation_queries=data.documents[:1500],
            config=DistillConfig(**self.FILLED),
        )  # fmt: skip
        rows = trainer.training_queries.rows[trainer.training_queries.rows >= 0]
        assert len(rows) > 100
        assert (rows >= 1500).all()

    @pytest.mark.parametrize("options", [{"fill_to": 0}, {"candidates": "gt + in_batch"}, {"loss": "contrastive"}, {}])
    def test_not_where_they_have_no_place(self, built, data, options):
        n = 150 if options else 900  # the last: not few
        labels = {"relevant": np.arange(n) % N} if "gt" in options.get("candidates", "") else {}
        config = DistillConfig(**self.FILLED | options)
        trainer = DistillTrainer(built(), data.documents[:N], data.queries[:n], **labels, config=config)
        assert trainer.training_queries.rows is None
        assert trainer.train().n_stand_ins == 0


class TestRows:
    """Every way to say which embedding belongs to which id gives the same tuned index."""

    def same(self, built, data, a, b):
        assert serialized(a) == serialized(b)

    @pytest.fixture
    def plain(self, run):
        return run()[0]

    def test_shuffled_rows_with_ids(self, built, data, plain):
        order = np.random.default_rng(0).permutation(N)
        index = built()
        distill(index, data.documents[:N][order], data.queries, ids=order, **QUICK)
        assert serialized(index) == serialized(plain)

    @pytest.mark.parametrize("form", ["float64", "torch", "memmap", "path", "strided"])
    def test_forms_of_input(self, built, data, plain, form, tmp_path):
        x = data.documents[:N]
        np.save(tmp_path / "x.npy", x)
        forms = {
            "float64": lambda: x.astype(np.float64),
            "torch": lambda: torch.from_numpy(x),
            "memmap": lambda: np.load(tmp_path / "x.npy", mmap_mode="r"),
            "path": lambda: tmp_path / "x.npy",
            "strided": lambda: np.asfortranarray(x),
        }
        index = built()
        distill(index, forms[form](), data.queries.astype(np.float64), **QUICK)
        assert serialized(index) == serialized(plain)

    def test_custom_ids_with_gaps(self, built, data, plain):
        ids = np.sort(np.random.default_rng(0).choice(10**9, N, replace=False))
        index = built(ids=ids)
        report = distill(index, data.documents[:N], data.queries, ids=ids, **QUICK)
        assert report.kept
        a, b = open_index(index).extract(), open_index(plain).extract()
        np.testing.assert_array_equal(a.ids, ids)
        np.testing.assert_array_equal(a.codes, b.codes)

    def test_removed_ids(self, built, data):
        gone = np.arange(0, N, 9)
        kept = np.setdiff1d(np.arange(N), gone)
        by_row, by_id = built(), built()
        by_row.remove_ids(gone)
        by_id.remove_ids(gone)
        assert distill(by_row, data.documents[:N], data.queries, **QUICK).kept
        assert distill(by_id, data.documents[kept], data.queries, ids=kept, **QUICK).kept
        assert serialized(by_row) == serialized(by_id)

    def test_id_maps(self, built, data):
        ids = np.random.default_rng(1).permutation(N) + 10_000
        index = built("IDMap2,OPQ16,IVF16,PQ16x4", ids=ids)
        report = distill(index, data.documents[:N], data.queries, ids=ids, **QUICK)
        assert report.kept
        exact = faiss.knn(data.queries, data.documents[:N], 1, metric=faiss.METRIC_INNER_PRODUCT)[1]
        core(index).nprobe = 16
        assert (index.search(data.queries, 10)[1] == ids[exact]).any(axis=1).mean() > 0.7


class Recorder:
    """A matrix that remembers the most rows it was ever asked for at once."""

    takes_rows = True

    def __init__(self, array):
        self.array, self.most = array, 0
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __len__(self):
        return len(self.array)

    def __getitem__(self, rows):
        out = self.array[rows]
        self.most = max(self.most, len(out))
        return out


def test_the_corpus_is_streamed(built, data):
    corpus = Recorder(data.documents)
    options = QUICK | {
        "block_rows": 256,
        "batch_size": 16,
        "candidates": "in_batch + top10:4",
        "top_k": 10,
        "perplexity": 5.0,
    }
    index = built(n=len(data.documents))
    # The selection pool is at most the Top-10 of 50 queries, a batch at most 64 documents; 1000 are checked.
    assert distill(index, corpus, data.queries, **options).kept
    assert corpus.most == 1000


def test_a_fresh_nprobe_is_warned_of_once_nothing_is_wrong(built, data, caplog):
    with pytest.raises(InputError, match="queries: "):
        distill(built(), data.documents[:N], data.queries[:2], **QUICK | {"nprobe": None})
    assert "judged at nprobe 1" not in caplog.text
    trainer = DistillTrainer(
        built(), data.documents[:N], data.queries, config=DistillConfig(**QUICK | {"nprobe": None, "epochs": 0})
    )
    assert "judged at nprobe 1" not in caplog.text
    trainer.train()
    assert caplog.text.count("judged at nprobe 1, faiss's default: ") == 1


def test_labels_are_reported(built, data):
    queries = data.queries[:400]
    nearest = faiss.knn(queries, data.documents[:N], 3, metric=faiss.METRIC_INNER_PRODUCT)[1]
    index = built()
    report = distill(index, data.documents[:N], queries, relevant=nearest[:, 0], **QUICK)
    for side in (report.before, report.after):
        assert side.own.label_recall_at_10 == pytest.approx(side.own.nearest_in_10)
        assert 0 < side.own.mrr_at_10 <= side.own.label_recall_at_10
    every_second = nearest.copy()
    every_second[::2] = -1  # has no label: counts neither as a hit nor as a miss
    some = evaluate(built(), data.documents[:N], queries, relevant=every_second, progress=False)
    alone = evaluate(built(), data.documents[:N], queries[1::2], relevant=nearest[1::2], progress=False)
    for field in ("mrr_at_10", "label_recall_at_10", "label_recall_at_k"):
        assert getattr(some.own, field) == pytest.approx(getattr(alone.own, field))


def test_given_validation_queries_are_the_ones_that_judge(built, data, monkeypatch):
    seen = []
    real = faiss_distill.tuning.trainer.measure
    monkeypatch.setattr(
        faiss_distill.tuning.trainer, "measure", lambda a, q, *r: seen.append(q.vectors) or real(a, q, *r)
    )
    held_out = data.queries[500:700]
    report = distill(built(), data.documents[:N], data.queries[:500], validation_queries=held_out, **QUICK)
    assert report.n_train == 500
    for vectors in seen:
        np.testing.assert_array_equal(vectors, held_out[50:])


def test_a_long_query_log_is_sampled(run):
    _, report = run(max_queries=300)
    assert (report.n_train, report.n_validation) == (200, 75)


class TestNeverWorse:
    def garbage(self, monkeypatch):
        monkeypatch.setattr(
            QueryAwareEncoder,
            "__call__",
            lambda self, x, *_: torch.zeros(len(x), len(self.codebooks), dtype=torch.int64),
        )

    @pytest.mark.parametrize("factory", ["IVF16,PQ16x4", "IDMap2,OPQ16,IVF16_HNSW16,PQ16x4,RFlat", "IVF16,PQ16x4fsr"])
    def test_a_worse_index_is_put_back_bitwise(self, built, data, monkeypatch, factory):
        index = built(factory)
        core(index).set_direct_map_type(2)
        before = serialized(index)
        self.garbage(monkeypatch)
        report = distill(index, data.documents[:N], data.queries, **QUICK)
        assert not report.kept
        assert report.gain < 0
        assert "overlap@10 at nprobe 4 fell: -" in report.reason
        assert "NOT kept, the index is as it was" in str(report)
        assert "would have found" in str(report)
        assert report.after.own.overlap_at_10 < report.before.own.overlap_at_10
        assert serialized(index) == before

    def test_more_codes_scanned_is_not_a_gain(self, built, data, monkeypatch):
        real = faiss_distill.tuning.trainer.measure
        calls = []

        def dearer(*args):
            calls.append(1)
            out = real(*args)
            if len(calls) < 2:
                return out
            points = [dataclasses.replace(p, codes_scanned=1.2 * p.codes_scanned) for p in out.points]
            return dataclasses.replace(out, points=tuple(points))

        monkeypatch.setattr(faiss_distill.tuning.trainer, "measure", dearer)
        index = built()
        before = serialized(index)
        report = distill(index, data.documents[:N], data.queries, **QUICK)
        assert not report.kept
        assert report.interval[0] > 0
        assert "codes scanned rose too" in report.reason
        assert serialized(index) == before

    def test_the_interval_is_that_of_a_paired_bootstrap(self, run):
        _, report = run()
        difference = report.after.overlap - report.before.overlap
        rng = np.random.default_rng(9)
        means = rng.choice(difference, (4000, len(difference))).mean(axis=1)
        np.testing.assert_allclose(report.interval, np.quantile(means, [0.025, 0.975]), atol=0.01)

    @pytest.mark.parametrize(
        ("owner", "point"), [(Task, "taught"), (faiss_distill.tuning.trainer, "written"), (Gate, "judge")]
    )
    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_a_failure_anywhere_leaves_the_index_bitwise(self, built, data, monkeypatch, owner, point, error):
        real = getattr(owner, point)

        def failing(self, *args, **kwargs):
            real(self, *args, **kwargs)
            raise error("injected")

        monkeypatch.setattr(owner, point, failing)
        index = built("OPQ16,IVF16,PQ16x4", "l2")
        before = serialized(index)
        with pytest.raises(error, match="injected"):
            distill(index, data.documents[:N], data.queries, **QUICK)
        assert serialized(index) == before

    def test_a_failure_in_the_commit_leaves_the_index_bitwise(self, built, data, monkeypatch):
        def failing(self):
            raise RuntimeError("injected")

        index = built("OPQ16,IVF16,PQ16x4", "l2")
        before = serialized(index)
        monkeypatch.setattr(IVFWriteBack, "_rebuild_direct_map", failing)
        with pytest.raises(RuntimeError, match="injected"):
            distill(index, data.documents[:N], data.queries, **QUICK)
        assert serialized(index) == before


def test_the_best_epoch_is_kept(built, data, monkeypatch):
    scores = iter([0.1, 0.2, 0.5, 0.4, 0.3, 0.9])  # the index as it is, then epoch 0
    states = []

    def select(self, student, placement):
        states.append(student.codebooks.detach().clone())
        return np.full(50, next(scores)), 100.0

    monkeypatch.setattr(Selection, "__call__", select)
    index = built()
    report = distill(index, data.documents[:N], data.queries, **QUICK | {"epochs": 8, "patience": 2})
    assert [h["epoch"] for h in report.history] == [0, 1, 2, 3]  # stopped two epochs after the best
    assert report.best_epoch == 1
    assert "; epoch 1 of 3, chosen by 50 others; measured on 150 more" in str(report)
    np.testing.assert_array_equal(open_index(index).extract().codebooks, states[2])


@pytest.mark.parametrize(
    ("means", "best"),
    [
        ((0.50, 0.60, 0.59, 0.59), 3),  # one below the highest
        ((0.50, 0.60, 0.59, 0.55), 2),  # five below it
        ((0.50, 0.60, 0.588, 0.57), 2),  # less than two below the one before, but three below the highest
        ((0.50, 0.60, 0.55, 0.59), 3),  # after one that is worse
    ],
)
def test_a_later_epoch_is_taken_unless_it_is_worse_beyond_chance(built, data, monkeypatch, means, best):
    """The standard error of the difference between any two epochs is .01, while queries are far apart."""
    drawn = np.random.default_rng(0).normal(size=(50, 6))
    noise = np.linalg.qr(np.column_stack([np.ones(50), drawn]))[0].T[1:] * (49 * 50 / 2) ** 0.5 * 0.01
    told, each, queries = iter([means[0], *means]), iter(noise), 30 * noise[5]

    def select(self, student, placement):
        return next(told) + next(each) + queries, 100.0

    monkeypatch.setattr(Selection, "__call__", select)
    report = distill(built(), data.documents[:N], data.queries, **QUICK | {"epochs": 3, "patience": 3})
    assert [h["overlap_at_10"] for h in report.history] == pytest.approx(means)
    assert report.best_epoch == best


@pytest.mark.parametrize("n", [5, 8, 50, 500])
def test_an_epoch_is_worse_where_a_paired_t_test_says_so(n):
    rng = np.random.default_rng(n)
    before, noise = rng.random(n), rng.normal(size=n)
    noise -= noise.mean()
    told = set()
    for errors in np.linspace(0, 4, 41):
        after = before + noise - errors * noise.std() / n**0.5
        assert fell(before, after) == (stats.ttest_rel(after, before, alternative="less").pvalue < 0.025)
        told.add(fell(before, after))
    assert told == {True, False}
    assert not fell(before, before)
    assert not fell(before, before + 0.01)
    assert fell(np.full(n, 0.5), np.full(n, 0.25))


@pytest.mark.parametrize(
    ("found", "start_counts", "best"),
    [
        ([(0.6, 100.0), (0.4, 100.0), (0.45, 100.0), (0.5, 100.0)], False, 3),  # the start is no yardstick then
        ([(0.6, 100.0), (0.4, 100.0), (0.3, 100.0), (0.45, 100.0)], False, 3),
        ([(0.6, 100.0), (0.4, 100.0), (0.45, 100.0), (0.5, 100.0)], True, 0),
        ([(0.2, 100.0), (0.6, 150.0), (0.3, 100.0), (0.25, 100.0)], True, 2),  # nor is what scans too many codes
        ([(0.2, 99.0), (0.4, 100.9), (0.5, 101.1), (0.6, 150.0)], True, 1),  # over 1 % more than the index as it is
        ([(0.2, 100.0), (0.1, 100.0), (0.3, 100.0), (0.25, 100.0), (0.3, 100.0)], True, 4),  # two in a row are not
    ],
)
def test_which_epoch_is_kept(built, data, monkeypatch, found, start_counts, best):
    told = iter([(0.1, 100.0), *found])  # the index as it is, then epoch 0

    def select(self, student, placement):
        mean, scanned = next(told)
        return np.full(50, mean), scanned

    monkeypatch.setattr(Selection, "__call__", select)
    config = DistillConfig(**QUICK | {"epochs": len(found) - 1, "patience": 2 if best == 4 else 3})
    gate = Gate(start_counts=start_counts)
    report = DistillTrainer(built(), data.documents[:N], data.queries, config=config, gate=gate).train()
    assert [h["overlap_at_10"] for h in report.history] == pytest.approx([mean for mean, _ in found])
    assert [h["codes_scanned"] for h in report.history] == [scanned for _, scanned in found]
    assert report.best_epoch == best


@pytest.mark.parametrize("assignment", ["query_aware", "fixed"])
def test_queries_that_choose_the_epoch_have_a_say_in_the_price_of_lists(built, data, monkeypatch, assignment):
    told = []
    real = Documents.terms
    monkeypatch.setattr(Documents, "terms", lambda *a: told.append(a[-1]) or real(*a))
    report = distill(built(), data.documents[:N], data.queries, assignment=assignment, **QUICK)
    assert len(told) == len(report.history)
    if assignment == "fixed":
        assert told == [None] * len(told)
        return
    for queries, scanned in told:
        assert queries.shape == (report.n_selection, 64)
        cost = open_index(built()).cost(queries.numpy(), {"nprobe": 4})
        assert scanned == pytest.approx(cost.codes / len(queries))


@pytest.mark.parametrize("metric", METRICS)
def test_selection_is_what_a_search_of_its_documents_finds(built, data, metric):
    """The score that picks the epoch, against faiss searching an index of just those documents."""
    index = built("IVF16,PQ16x4", metric)
    trainer = DistillTrainer(index, data.documents[:N], data.queries, config=DistillConfig(**QUICK))
    taught = trainer.task.taught(trainer.validation_queries, trainer.exact, 40)
    state = open_index(index).extract()
    documents = Documents(
        trainer.task.corpus, trainer.task.adapter.transforms, state, taught, 4, trainer.config, torch.device("cpu")
    )
    got, scanned = Selection(documents, taught, nprobe=4)(CodebookStudent(state), documents.start)
    assert scanned == pytest.approx(
        measure(trainer.task.adapter, trainer.task.query_set(taught, None, torch.device("cpu")), 4).own.codes_scanned
    )
    pool = np.unique(taught.top)
    index.remove_ids(np.setdiff1d(np.arange(N), pool))
    index.nprobe = 4
    _, found = index.search(taught.queries.vectors, 10)
    expected = np.mean([len(np.intersect1d(f, t[:10])) for f, t in zip(found, taught.top, strict=True)]) / 10
    assert got.shape == (len(taught.top),)
    assert got.mean() == pytest.approx(expected, abs=0.003)


@pytest.mark.parametrize("effort", ["quick", "thorough"])
def test_an_effort_is_what_is_done(built, data, tmp_path, monkeypatch, effort):
    """However options are given beside it."""
    ran = []
    monkeypatch.setattr(DistillTrainer, "train", lambda trainer: ran.append(trainer.config))
    options = {"top_k": 40, "perplexity": 25.0}
    DistillConfig(**options).to_toml(tmp_path / "options.toml")
    distill(built(), data.documents[:N], data.queries, effort=effort, **options)
    for config in (DistillConfig(**options), DistillConfig(effort="default", **options), tmp_path / "options.toml"):
        distill(built(), data.documents[:N], data.queries, effort=effort, config=config)
    index = index_factory(64, "IVF16,PQ16x4,Distill(top_k=40, perplexity=25.0)")
    index.train(data.documents[:N])
    index.add(data.documents[:N])
    distill(index, data.documents[:N], data.queries, effort=effort)
    assert ran == [DistillConfig(effort=effort, **options)] * 5
    distill(index, data.documents[:N], data.queries, effort=effort, epochs=2)
    assert ran[-1] == DistillConfig(effort=effort, epochs=2, **options)


def test_the_index_nprobe_is_not_touched(built, data):
    index = built()
    index.nprobe = 3
    report = distill(index, data.documents[:N], data.queries, **QUICK | {"nprobe": None})
    assert index.nprobe == 3
    assert report.before.own_nprobe == 3
    assert [p.nprobe for p in report.after.points] == [1, 3, 4, 16]  # 64 is more than there are lists


class TestRepeatedQueries:
    def test_one_that_is_trained_on_never_judges(self, built, data):
        log = np.repeat(data.queries[:300], 4, axis=0)
        trainer = DistillTrainer(built(), data.documents[:N], log, config=DistillConfig(**QUICK))
        train, held_out = trainer.training_queries.vectors, trainer.validation_queries.vectors
        kept = len(train) + len(held_out)
        assert 290 < kept <= 300
        assert len(np.unique(np.concatenate([train, held_out]), axis=0)) == kept

    def test_nor_if_it_is_given_for_both(self, built, data):
        trainer = DistillTrainer(
            built(), data.documents[:N], data.queries[:500], validation_queries=data.queries[400:700],
            config=DistillConfig(**QUICK),
        )  # fmt: skip
        np.testing.assert_array_equal(trainer.validation_queries.vectors, data.queries[500:700])

    def test_copies_share_their_labels(self, built, data):
        log, labels = np.tile(data.queries[:300], (3, 1)), np.full((900, 2), -1)
        labels[300:600, 0], labels[600:, 0], labels[600:, 1] = np.arange(300), np.arange(300) + 1, np.arange(300)
        trainer = DistillTrainer(built(), data.documents[:N], log, relevant=labels, config=DistillConfig(**QUICK))
        for part in (trainer.training_queries, trainer.validation_queries):
            number = [int((data.queries[:300] == q).all(axis=1).argmax()) for q in part.vectors]
            assert [set(row) for row in part.relevant.tolist()] == [{i, i + 1} for i in number]

    def test_labels_stay_with_their_query(self, built, data):
        log, labels = np.repeat(data.queries[:300], 2, axis=0), np.repeat(np.arange(300), 2)
        trainer = DistillTrainer(built(), data.documents[:N], log, relevant=labels, config=DistillConfig(**QUICK))
        for part in (trainer.training_queries, trainer.validation_queries):
            np.testing.assert_array_equal(part.vectors, data.queries[part.relevant.ravel()])


class TestTrainerThatWaits:
    def test_an_index_that_changed_meanwhile_is_refused(self, built, data):
        index = built()
        trainer = DistillTrainer(index, data.documents[:N], data.queries, config=DistillConfig(**QUICK))
        index.remove_ids(np.array([3]))
        index.add_with_ids(data.documents[N : N + 1], np.array([7000000]))
        before = serialized(index)
        with pytest.raises(InputError, match="index: expected the index as it was when the trainer was made"):
            trainer.train()
        assert serialized(index) == before

    def test_training_twice_goes_on_from_the_tuned_state(self, built, data):
        index = built()
        trainer = DistillTrainer(index, data.documents[:N], data.queries, config=DistillConfig(**QUICK))
        first, second = trainer.train(), trainer.train()
        assert first.kept
        assert second.before.own.overlap_at_10 == pytest.approx(first.after.own.overlap_at_10)


class TestOnEpoch:
    def test_it_is_told_what_the_history_has(self, run):
        told = []
        index, report = run(on_epoch=lambda epoch: told.append(dict(epoch)) or epoch.clear(), epochs=2, seed=3)
        assert tuple(told) == report.history
        assert [epoch["epoch"] for epoch in told] == [0, 1, 2]
        assert set(told[0]) == {"epoch", "loss", "overlap_at_10", "codes_scanned"}
        assert serialized(index) == serialized(run(epochs=2, seed=3)[0])

    def test_it_is_told_at_once(self, run, monkeypatch):
        steps, at = [], []
        learn = optimise._Run._learn
        monkeypatch.setattr(optimise._Run, "_learn", lambda *given: steps.append(1) or learn(*given))
        run(on_epoch=lambda _: at.append(len(steps)), epochs=2)
        assert at == [0, len(steps) // 2, len(steps)]

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    @pytest.mark.parametrize("last", [0, 1])
    def test_an_error_of_it_ends_the_run_and_the_index_is_as_it_was(self, built, data, error, last):
        index, adapter, seen = built(), LinearAdapter(64), []
        before, matrix = serialized(index), adapter.matrix.copy()

        def stop(epoch):
            seen.append(epoch["epoch"])
            if epoch["epoch"] == last:
                raise error("enough")

        with pytest.raises(error, match=r"^enough$"):
            distill(index, data.documents[:N], data.queries, query_encoder=adapter, on_epoch=stop, **QUICK)
        assert seen == list(range(last + 1))
        assert serialized(index) == before
        np.testing.assert_array_equal(adapter.matrix, matrix)

    def test_what_can_not_be_called_is_refused(self, built, data):
        index = built()
        before = serialized(index)
        with pytest.raises(InputError, match=r"^on_epoch: expected something to call .* each epoch, got 'log'$"):
            distill(index, data.documents[:N], data.queries, on_epoch="log", **QUICK)
        assert serialized(index) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("metric", METRICS)
def test_cuda_gains_as_the_cpu_does(run, metric):
    cpu, cuda = (run("OPQ16,IVF16,PQ16x4", metric, device=d)[1] for d in ("cpu", "cuda"))
    assert cuda.kept
    assert cuda.gain == pytest.approx(cpu.gain, abs=0.03)
