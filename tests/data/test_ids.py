"""Ids are compared as faiss stores them: int64, of which unsigned ones are taken bit for bit."""

import faiss
import numpy as np
import pytest
import torch
from conftest import QUICK
from hypothesis import given, settings
from hypothesis import strategies as st

from faiss_distill import InputError, build, distill, evaluate
from faiss_distill.cli import main
from faiss_distill.data.ids import as_ids, from_integers
from faiss_distill.data.relevance import open_relevant

N = 1000
BORDERS = [0, 2**31, 2**53, 2**63, 2**64 - 40]
NEAR = st.sampled_from(BORDERS).flatmap(lambda at: st.integers(max(at - 40, 0), at + 38))
UNSIGNED = st.lists(NEAR, min_size=1, max_size=30, unique=True)


def stored(unsigned):
    """What faiss makes of them, by its own wrapper."""
    index = faiss.IndexIDMap(faiss.IndexFlatL2(2))
    index.add_with_ids(np.zeros((len(unsigned), 2), np.float32), np.array(unsigned, dtype=np.uint64))
    return faiss.vector_to_array(index.id_map)


@settings(max_examples=100, deadline=None)
@given(unsigned=UNSIGNED)
def test_every_form_is_what_faiss_stores(unsigned):
    expected = stored(unsigned)
    array = np.array(unsigned, dtype=np.uint64)
    forms = [
        array, array.astype(">u8"), array.view(np.int64), torch.from_numpy(array.view(np.int64)), unsigned,
        list(array), expected.tolist(), tuple(unsigned), np.array(unsigned, dtype=object),
    ]  # fmt: skip
    for form in forms:
        np.testing.assert_array_equal(as_ids(form, "ids"), expected)
    np.testing.assert_array_equal(from_integers(unsigned, "ids"), expected)


@settings(max_examples=100, deadline=None)
@given(unsigned=UNSIGNED)
def test_labels_are_told_from_their_neighbours(unsigned):
    labels, n = stored(unsigned), len(unsigned)
    for form in (np.array(unsigned, np.uint64), unsigned, [[i] for i in unsigned], dict(enumerate(unsigned)),
                 {q: {i: 1} for q, i in enumerate(unsigned)}):  # fmt: skip
        np.testing.assert_array_equal(open_relevant(form, n, labels, "relevant")[:, 0], labels)
    for missing in range(n):
        others = np.delete(labels, missing)
        with pytest.raises(InputError, match=rf"that the index holds, got 1 others \({labels[missing]}\)"):
            open_relevant(np.array(unsigned, np.uint64), n, others, "relevant")


@pytest.fixture
def hashed(built, data):
    """An index whose ids are 64-bit hashes, half of them beyond int64, and neighbours beyond 2**53 among them."""
    ids = np.random.default_rng(0).integers(2**63, 2**64 - 2, N, dtype=np.uint64)
    ids[::2] -= np.uint64(2**63)
    ids[:200] = np.arange(2**63 - 100, 2**63 + 100, dtype=np.uint64)
    return built(n=N, ids=ids.view(np.int64)), data.documents[:N], data.queries[:300], ids


def test_a_sample_is_measured(hashed):
    index, documents, queries, ids = hashed
    labels = ids[faiss.knn(queries, documents[:500], 1, metric=faiss.METRIC_INNER_PRODUCT)[1]]
    found = evaluate(index, documents[:500], queries, ids=ids[:500], relevant=labels, sample=True, progress=False)
    again = evaluate(
        index, documents[:500], queries, ids=ids[:500].view(np.int64), relevant=labels.view(np.int64), sample=True,
        progress=False,
    )  # fmt: skip
    np.testing.assert_array_equal(found.overlap, again.overlap)
    assert found.own.mrr_at_10 == again.own.mrr_at_10 > 0.3


def test_a_sample_is_tuned_with_labels(hashed):
    index, documents, queries, ids = hashed
    labels = {q: {int(ids[q]): 1} for q in range(len(queries))}
    options = QUICK | {"candidates": "gt + in_batch + top40:10", "epochs": 0}
    report = distill(
        index, documents[:500], queries, ids=ids[:500].tolist(), relevant=labels, encoding="frozen", **options
    )
    assert report.n_embeddings == 500


def test_the_command_line_reads_them(hashed, tmp_path, capsys):
    index, documents, queries, ids = hashed
    faiss.write_index(index, str(tmp_path / "in.faiss"))
    for name, array in {"x": documents, "q": queries, "ids": ids, "y": ids[:300]}.items():
        np.save(tmp_path / f"{name}.npy", array)
    x, q, at, y = (str(tmp_path / f"{name}.npy") for name in ("x", "q", "ids", "y"))
    assert main(["eval", str(tmp_path / "in.faiss"), x, "--queries", q, "--ids", at, "--relevant", y]) == 0
    assert "MRR@10" in capsys.readouterr().out


def test_built_with_them(data):
    ids = list(range(2**63 - 200, 2**63 + 200))
    index = build("IVF4,PQ16x4", data.documents[:400], ids=ids).index
    found = evaluate(index, data.documents[:400], data.queries[:90], ids=ids, progress=False)
    assert found.points[-1].overlap_at_10 > 0.3


@pytest.mark.parametrize("ids", [[True, 5], np.array([1.0]), ["1"], [1.0], np.array([None])])
def test_others_are_refused(ids):
    with pytest.raises(InputError, match=r"^ids: expected integers, got"):
        as_ids(ids, "ids")


def test_ids_beside_the_vectors_of_a_folder(tmp_path):
    """In the order of the parts' numbers, as the vectors are; or in that of a list."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = np.array_split(np.random.default_rng(0).permutation(300), 12)
    for i, part in enumerate(rows):
        table = {"doc_id": part, "vector": list(np.ones((len(part), 4), np.float32))}
        pq.write_table(pa.table(table), tmp_path / f"part-{i}.parquet")
    for path in (f"{tmp_path}/:doc_id", f"{tmp_path}/*.parquet:doc_id"):
        np.testing.assert_array_equal(as_ids(path, "ids"), np.concatenate(rows))
    listed = [f"{tmp_path}/part-{i}.parquet:doc_id" for i in (3, 10)]
    np.testing.assert_array_equal(as_ids(listed, "ids"), np.concatenate([rows[3], rows[10]]))
    with pytest.raises(InputError, match=r"ids: expected integers, got float32 of shape \(300, 4\); name the column"):
        as_ids(str(tmp_path), "ids")
    with pytest.raises(InputError, match=r"ids: expected single numbers, as .*, got shape"):
        as_ids([listed[0], f"{tmp_path}/part-4.parquet:vector"], "ids")
    with pytest.raises(InputError, match="ids: expected a file or a folder that exists, got 'corpis/:doc_id'"):
        as_ids("corpis/:doc_id", "ids")
