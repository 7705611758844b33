import faiss
import numpy as np
import pytest

from faiss_distill import InputError
from faiss_distill.datasets import load_debian_packages


def test_the_sample_is_a_retrieval_task():
    data = load_debian_packages()
    assert data.documents.shape == (16000, 384)
    assert data.queries.shape == (4400, 384)
    for x in (data.documents, data.queries):
        assert x.dtype == np.float32
        assert x.flags.c_contiguous
        np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, atol=1e-5)
    sizes = [len(data.queries[s]) for s in (data.train, data.validation, data.test)]
    assert sizes == [2800, 700, 900]
    _, found = faiss.knn(data.queries, data.documents, 10, metric=faiss.METRIC_INNER_PRODUCT)
    assert (found == data.relevant[:, None]).any(axis=1).mean() > 0.8


def write_full(folder, n_queries):
    rng = np.random.default_rng(0)
    for name, n in (("documents", 30), ("queries", n_queries)):
        np.save(folder / f"{name}.npy", rng.standard_normal((n, 4)).astype(np.float16))
    np.save(folder / "relevant.npy", rng.integers(0, 30, n_queries).astype(np.int32))


def test_full_set_from_a_folder(tmp_path):
    write_full(tmp_path, 45_200)
    data = load_debian_packages(tmp_path)
    assert data.documents.dtype == data.queries.dtype == np.float32
    assert [len(data.queries[s]) for s in (data.train, data.validation, data.test)] == [40_150, 5_000, 50]


def test_folder_without_the_full_set(tmp_path):
    with pytest.raises(InputError, match="directory: expected documents"):
        load_debian_packages(tmp_path)
    write_full(tmp_path, 100)
    with pytest.raises(InputError, match="directory: expected more than 45150 queries with a label each, got 100"):
        load_debian_packages(tmp_path)
