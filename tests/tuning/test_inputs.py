"""Bad input gets one clear error before anything is touched."""

import gc
import tracemalloc
from dataclasses import replace

import faiss
import numpy as np
import pytest
import torch
from conftest import QUICK, serialized, untrained
from writers import WRITERS

from faiss_distill import DistillTrainer, InputError, describe, distill, evaluate, operating_points
from faiss_distill.data.likeness import Likeness
from faiss_distill.data.queries import Queries
from faiss_distill.index.sources import open_embeddings

N = 500


@pytest.fixture
def refused(built, data):
    """Check that a call is refused with a message, by distill and (where it applies) evaluate, index untouched."""

    def refused(match, *, index=None, embeddings=None, queries="real", both=True, **options):
        index = built("IVF16,PQ16x4", n=N) if index is None else index
        embeddings = data.documents[:N] if embeddings is None else embeddings
        queries = data.queries if isinstance(queries, str) else queries
        before = serialized(index)
        with pytest.raises(InputError, match=match):
            DistillTrainer(index, embeddings, queries, **options)
        if both and queries is not None:
            with pytest.raises(InputError, match=match):
                evaluate(index, embeddings, queries, progress=False, **options)
        assert serialized(index) == before

    return refused


class TestEmbeddings:
    def test_dimension(self, refused, data):
        refused("embeddings: expected dimension 64 as the index has, got 63", embeddings=data.documents[:N, :63])

    def test_too_few(self, refused, data):
        refused(
            r"embeddings: expected 500 rows, .*, got 499; probably another file, or a trunc",
            embeddings=data.documents[: N - 1],
        )

    def test_too_many(self, refused, data):
        refused(
            r"embeddings: expected 500 rows, .* got 501; .* pass embeddings\[:500\]", embeddings=data.documents[: N + 1]
        )

    def test_negative_ids_without_ids(self, refused, built):
        refused(r"for ids -1000\.\.-501, got 500 rows; pass ids=", index=built(n=N, ids=np.arange(N) - 1000))

    def test_not_finite(self, refused, data):
        bad = data.documents[:N].copy()
        bad[[7, 300], 5] = np.nan
        refused(r"embeddings: .* NaN, infinity or too large a value in 2 of 500 rows \(7, 300\)", embeddings=bad)

    def test_not_finite_names_the_rows_of_what_was_passed(self, refused, data):
        order = np.random.default_rng(0).permutation(N)
        bad = data.documents[:N][order].copy()
        bad[7] = np.inf
        refused(r"embeddings: .* in 1 of 500 rows \(7\)", embeddings=bad, ids=order)

    def test_others_than_those_behind_the_index(self, refused, data):
        refused(
            r"embeddings: expected the vectors behind the index, got ones that match the codes of .* in \d\d% of 500",
            embeddings=data.documents[1000 : 1000 + N],
        )

    def test_very_short_codes_are_no_mismatch(self, data):

        index = untrained("IVF2,PQ1x2", "l2")
        index.train(data.documents)
        index.add(data.documents)
        assert DistillTrainer(index, data.documents, data.queries)

    def test_all_the_same_vector_is_no_mismatch(self, built, data):
        import faiss

        same = np.repeat(data.documents[:1], N, axis=0)
        index = faiss.IndexIVFPQ(faiss.IndexFlatL2(64), 64, 4, 16, 4)
        index.train(data.documents)
        index.add(same)
        assert DistillTrainer(index, same, data.queries)

    def test_integers(self, refused, data):
        refused(
            "embeddings: expected a floating dtype, or .* got int16", embeddings=(data.documents[:N] * 99).astype("i2")
        )
        refused("embeddings: .* not normalised", embeddings=(data.documents[:N] * 99).astype(np.int8))


class TestIds:
    def test_shape_and_dtype(self, refused):
        refused(r"ids: expected 500 integers, one a row, got shape \(499,\)", ids=np.arange(N - 1))
        refused(r"ids: expected integers, got float64", ids=np.arange(N).astype(float))

    def test_ragged(self, refused):
        refused("ids: expected an array of integers, got rows of unequal length", ids=[[1], [2, 3]])

    def test_doubled(self, refused):
        refused(r"ids: expected distinct ids, got 2 repeated \(5, 5\)", ids=[5, 5, 5, *range(6, N + 3)])

    def test_missing(self, refused):
        ids = np.arange(N)
        ids[:2] = [9000, 9001]
        refused(r"ids: expected the ids of all 500 stored vectors, got all but 2 of them \(0, 1\)", ids=ids)

    @pytest.mark.parametrize("ids", [None, []])
    def test_of_nothing(self, refused, data, ids):
        match = "embeddings: expected 500 rows, one for each stored vector, got none"
        refused(match, embeddings=data.documents[:0], ids=ids)

    def test_of_vectors_that_are_not_there(self, refused, data):
        refused(
            r"ids: expected only ids that the index holds, got 1 others \(500\)",
            embeddings=data.documents[: N + 1],
            ids=np.arange(N + 1),
        )

    @pytest.mark.parametrize("ids", [None, np.arange(N)])
    def test_swapped_with_queries(self, built, data, ids):
        match = r"100.*; queries have 500 rows: are embeddings and queries swapped\?$"
        index = built(n=N)
        for call in (DistillTrainer, evaluate, operating_points):
            with pytest.raises(InputError, match=match):
                call(index, data.queries[:100], data.documents[:N], ids=ids)
        with pytest.raises(InputError, match="probably another file, or a truncated one"):
            evaluate(index, data.queries[:100], data.documents[:100])


class TestIndexesAsSources:
    """Embeddings in an index, and an index in a file."""

    @pytest.mark.parametrize(
        "make",
        [
            lambda x: faiss.IndexFlatIP(x.shape[1]),
            lambda x: faiss.IndexFlat(x.shape[1], faiss.METRIC_L1),
            lambda x: faiss.index_factory(x.shape[1], "SQfp16"),
            lambda x: faiss.index_factory(x.shape[1], "SQ8"),
            lambda x: faiss.index_factory(x.shape[1], "IDMap,Flat"),
            lambda x: faiss.index_factory(x.shape[1], "IDMap2,SQfp16"),
        ],
    )
    @pytest.mark.parametrize("file", [False, True])
    def test_give_the_same(self, built, data, tmp_path, make, file):
        x = data.documents[:N]
        held, order = make(x), np.random.default_rng(0).permutation(N)
        held.train(x)
        if type(held).__name__.startswith("IndexIDMap"):
            held.add_with_ids(x[order], order)
        else:
            held.add(x)
        if file:
            faiss.write_index(held, str(tmp_path / "held.faiss"))
            held = str(tmp_path / "held.faiss")
        index = built(n=N)
        expected = evaluate(index, x, data.queries[:50], progress=False).own.overlap_at_10
        gc.collect()
        assert evaluate(index, held, data.queries[:50], progress=False).own.overlap_at_10 == pytest.approx(
            expected, abs=0.02
        )

    def test_live_as_long_as_they_are_used(self, data):
        x = data.documents[:N]
        held = faiss.IndexIDMap(faiss.IndexFlatL2(x.shape[1]))
        held.add_with_ids(x, np.arange(N))
        vectors, ids = open_embeddings(held, None)
        del held
        gc.collect()
        filled = [np.full_like(x, 7.0) for _ in range(20)]
        np.testing.assert_array_equal(vectors.take(np.arange(N)), x)
        assert (len(filled), ids.tolist()) == (20, list(range(N)))

    def test_that_hold_none(self, refused, built, data, tmp_path):
        match = "embeddings: expected vectors, or an index that holds them: flat, or .*, got an IndexIVFPQ"
        refused(match, embeddings=built(n=N))
        refused("got an empty IndexFlat", embeddings=faiss.IndexFlatL2(64))
        held = faiss.IndexIDMap(faiss.IndexFlatL2(64))
        held.add_with_ids(data.documents[:N], np.arange(N))
        refused("ids: expected none, as the index of the embeddings has its own, got some", embeddings=held, ids=[1])
        (tmp_path / "x.faiss").write_bytes(b"nothing")
        refused("embeddings: expected a complete faiss index, got ", embeddings=str(tmp_path / "x.faiss"))

    def test_an_index_in_a_file(self, built, data, tmp_path):
        index, path = built(n=N), tmp_path / "i.faiss"
        faiss.write_index(index, str(path))
        before = path.read_bytes()
        assert describe(path).factory == describe(index).factory
        found = evaluate(path, data.documents[:N], data.queries[:50], progress=False)
        assert found.own.overlap_at_10 == evaluate(index, data.documents[:N], data.queries[:50]).own.overlap_at_10
        report = distill(str(path), data.documents[:N], data.queries, **QUICK)
        assert report.index.ntotal == N
        kept = replace(report, kept=True)
        assert f"{path} is as it was: write report.index, which holds the result" in str(kept)
        distill(index, data.documents[:N], data.queries, **QUICK)
        assert serialized(report.index) == serialized(index)
        assert path.read_bytes() == before
        with pytest.raises(InputError, match="index: expected a file that exists"):
            distill(tmp_path / "no.faiss", data.documents[:N])

    @pytest.mark.parametrize("suffix", [".npy", ".ivecs", ".ibin", ".npz"])
    def test_ids_in_a_file(self, built, data, tmp_path, suffix):
        order = np.random.default_rng(0).permutation(N).astype(np.int32)
        path, rows = tmp_path / f"ids{suffix}", order if suffix in (".npy", ".npz") else order[:, None]
        WRITERS[suffix](path, rows)
        index, x = built(n=N), data.documents[:N]
        expected = evaluate(index, x, data.queries[:50], progress=False).own
        found = evaluate(index, x[order], data.queries[:50], ids=path, progress=False).own
        assert found.overlap_at_10 == expected.overlap_at_10


class TestQueries:
    def test_dimension(self, refused, data):
        refused("queries: expected dimension 64 as the index has, got 63", queries=data.queries[:, :63])

    def test_none_at_all(self, refused, data):
        refused("queries: expected at least one query, got none", queries=data.queries[:0])

    def test_too_few_to_validate(self, refused, data):
        match = "queries: expected at least 60 distinct ones to train on some and judge by others, got 59"
        refused(match, queries=data.queries[:59], both=False)

    def test_too_few_given_to_validate(self, refused, data):
        match = "validation_queries: expected at least 20 distinct ones that are not in queries, got 19"
        refused(match, queries=data.queries[19:], validation_queries=data.queries[:119], both=False)

    def test_too_few_documents_to_stand_in(self, built, data):
        index = built(n=N)
        index.remove_ids(np.arange(50, N))
        with pytest.raises(InputError, match="top_k: expected less than the 50 vectors stored, got 100"):
            DistillTrainer(index, data.documents[:50])
        with pytest.raises(InputError, match=r"embeddings: expected at least 60 .* got 50"):
            distill(index, data.documents[:50], top_k=20, perplexity=10.0, candidates="in_batch + top20")

    def test_not_finite(self, refused, data):
        bad = torch.from_numpy(data.queries.copy())
        bad[3] = torch.inf
        refused(r"queries: .* in 1 of 2000 rows \(3\)", queries=bad)


class TestLabels:
    def test_shape(self, refused):
        refused(r"relevant: expected integers \(2000,\) or \(2000, r\)", relevant=np.zeros(1999, dtype=int))
        refused(r"relevant: expected integers", relevant=np.zeros(2000))

    def test_ragged(self, refused):
        refused(r"relevant: expected integers \(2000,\) or \(2000, r\), .*, got a list of 2", relevant=[[1], [2, 3]])

    def test_only_minus_one_is_padding(self, refused):
        labels = np.full((2000, 2), -1)
        labels[0, 0] = -7
        refused(r"relevant: expected ids that the index holds, got 1 others \(-7\)", relevant=labels)

    def test_unknown(self, refused):
        labels = np.zeros(2000, dtype=int)
        labels[4] = 777
        refused(r"relevant: expected ids that the index holds, got 1 others \(777\)", relevant=labels)

    @pytest.mark.parametrize("name", ["relevant", "validation_relevant"])
    def test_without_what_they_belong_to(self, built, data, name):
        with pytest.raises(InputError, match=f"{name}: expected together with the queries it belongs to"):
            DistillTrainer(built(n=N), data.documents[:N], **{name: data.queries})


class TestOptions:
    def test_k_larger_than_the_corpus(self, built, data):
        with pytest.raises(InputError, match="top_k: expected less than the 500 vectors stored, got 500"):
            distill(built(n=N), data.documents[:N], data.queries, top_k=500)
        with pytest.raises(InputError, match="top_k: expected at most the 500 vectors stored, got 501"):
            evaluate(built(n=N), data.documents[:N], data.queries, top_k=501)
        with pytest.raises(InputError, match="top_k: expected an integer of at least 10, got 9"):
            evaluate(built(n=N), data.documents[:N], data.queries, top_k=9)

    def test_unknown_option(self, built, data):
        with pytest.raises(TypeError, match=r"unexpected keyword argument 'epoch'.*; did you mean epochs\?"):
            distill(built(n=N), data.documents[:N], data.queries, epoch=3)
        with pytest.raises(TypeError, match=r"unexpected keyword argument 'zzz'.*; see DistillConfig for the options"):
            distill(built(n=N), data.documents[:N], data.queries, zzz=3)
        with pytest.raises(TypeError, match=r"unexpected keyword argument 'querys'.*; did you mean queries\?"):
            distill(built(n=N), data.documents[:N], querys=data.queries)
        with pytest.raises(TypeError, match=r"'metric'; the metric is that of the index; for cosine, normalise"):
            distill(built(n=N), data.documents[:N], data.queries, metric="cosine")

    def test_nprobe_of_evaluate(self, built, data):
        with pytest.raises(InputError, match=r"nprobe: expected integers from 1 to nlist=16, got \[0\]"):
            evaluate(built(n=N), data.documents[:N], data.queries, nprobe=[0])
        measured = evaluate(built(n=N), data.documents[:N], data.queries, nprobe=np.int64(3), progress=False)
        assert [p.nprobe for p in measured.points] == [1, 3]

    def test_device(self, built, data):
        for device in ("tpu9", "cuda:99", "hpu", "meta", "xla", ""):
            with pytest.raises(InputError, match=f"device: expected one that torch can use, got '{device}'"):
                distill(built(n=N), data.documents[:N], data.queries, device=device)
        with pytest.raises(InputError, match=r"got 'gpu': no device of torch; 'cpu' and 'cuda' are the usual ones$"):
            distill(built(n=N), data.documents[:N], data.queries, device="gpu")


def test_a_loss_that_is_not_finite_is_an_error(built, data):
    index = built(n=N)
    before = serialized(index)
    with pytest.raises(InputError, match=r"learning_rate: .* stays finite, got (nan|inf) in epoch \d; lower"):
        distill(index, data.documents[:N], data.queries, **QUICK | {"codebook_rate": 1e18, "temperature": 1e-18})
    assert serialized(index) == before


def test_more_local_queries_than_there_are_cost_nothing(built, data):
    peaks = []
    for local_queries in (2_000, 100_000):
        index = built(n=N)
        tracemalloc.start()
        report = distill(index, data.documents[:N], data.queries[:300], **QUICK | {"local_queries": local_queries})
        peaks.append((tracemalloc.get_traced_memory()[1], report.after.overlap.tolist()))
        tracemalloc.stop()
    assert peaks[1][1] == peaks[0][1]
    assert peaks[1][0] < 1.1 * peaks[0][0] < 2**26


def test_inputs_are_told_apart_by_all_they_hold():
    """``repr`` shortens what is long."""
    long = torch.arange(3000.0)
    other = long.clone()
    other[1500] = -1
    for wrap in (lambda x: x, lambda x: {"ids": x}, lambda x: x.numpy()):
        inputs = np.empty(3, dtype=object)
        inputs[:] = [wrap(long), wrap(other), wrap(long.clone())]
        queries = Queries(np.eye(3, dtype=np.float32), inputs=inputs)
        assert len(queries.distinct(Likeness(True, 0.01)).vectors) == 2


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_integers_of_8_bits_tune_as_the_same_floats(data, dtype):
    shift = 0 if dtype is np.int8 else 128
    x, q = (
        (v * 127 + shift).round().clip(shift - 127, shift + 127).astype(dtype)
        for v in (data.documents[:N], data.queries)
    )
    wide = x.astype(np.float32)
    index = untrained("IVF16,PQ16x4", "l2")
    index.train(wide)
    index.add(wide)
    other = faiss.clone_index(index)
    options = QUICK | {"batch_size": 250}
    narrow, floats = distill(index, x, q, **options), distill(other, wide, q.astype(np.float32), **options)
    assert narrow.gain == floats.gain
    assert serialized(index) == serialized(other)


def test_without_queries_there_is_nothing_to_evaluate(built, data):
    """And no documents to do it with, as a tuning has."""
    with pytest.raises(InputError, match=r"^queries: expected at least one query, got none$"):
        evaluate(built(n=N), data.documents[:N], data.queries[:0])
    with pytest.raises(InputError, match=r"^queries: .* got none; leave it out to use documents instead$"):
        distill(built(n=N), data.documents[:N], data.queries[:0], **QUICK)
