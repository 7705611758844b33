"""Tuning with coarse quantizers other than a flat one."""

import faiss
import numpy as np
import pytest
from conftest import METRICS, QUICK, N, core, serialized

from faiss_distill import distill
from faiss_distill.index.parts.coarse_quantizers import with_centroids
from faiss_distill.index.registry import open_index


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("coarse", ["IVF128_NSG16", "IVF64(SQ8)", "IVF64(SQ4,RFlat)", "IVF64(HNSW16_SQ8)"])
def test_centroids_move_and_search_gains(built, data, coarse, metric):
    index = built(f"{coarse},PQ16x4", metric)
    before = open_index(index).extract().centroids
    report = distill(
        index, data.documents[:N], data.queries[:1000], validation_queries=data.queries[1000:],
        **QUICK | {"nprobe": 8, "fill_to": 16000},
    )  # fmt: skip
    assert report.kept, report.reason
    after = open_index(index).extract()
    assert not np.array_equal(after.centroids, before)
    assert np.abs(after.reconstruct(np.arange(N)) - data.documents[:N]).mean() < 0.2  # codes go with what is kept
    again = faiss.deserialize_index(faiss.serialize_index(index))
    np.testing.assert_array_equal(again.search(data.queries[:50], 5)[0], index.search(data.queries[:50], 5)[0])


@pytest.mark.parametrize(
    ("coarse", "metric"),
    [("IMI2x3", "l2"), ("IVF64(RQ2x4)", "l2"), ("IVF64(PCA16,Flat)", "ip"), ("IVF64(PCA16,Flat)", "l2")],
)
def test_centroids_stay_and_codebooks_gain(built, data, coarse, metric):
    index = built(f"{coarse},PQ16x4", metric)
    quantizer = faiss.serialize_index(core(index).quantizer).tobytes()
    assert open_index(index).traits.changes == "PQ codebooks, codes, lists of vectors"
    report = distill(
        index, data.documents[:N], data.queries[:1000], validation_queries=data.queries[1000:],
        **QUICK | {"nprobe": 8, "fill_to": 16000},
    )  # fmt: skip
    assert report.kept, report.reason
    assert report.config.learn.value == "codebooks"
    assert faiss.serialize_index(core(index).quantizer).tobytes() == quantizer
    assert report.after.own.codes_scanned < 1.01 * report.before.own.codes_scanned


def test_clustered_centroids_of_nsg_do_not_abort(data):
    """faiss's own search for neighbours ends the process on some of them."""
    quantizer = faiss.IndexNSGFlat(64, 16, faiss.METRIC_L2)
    rng = np.random.default_rng(0)
    centroids = rng.standard_normal((4, 64)).repeat(40, 0) + 1e-3 * rng.standard_normal((160, 64))
    quantizer.add(data.documents[:160])
    before = serialized(quantizer)
    copy = with_centroids(quantizer, centroids.astype(np.float32))
    assert (copy.search(centroids.astype(np.float32), 1)[1].ravel() == np.arange(160)).mean() > 0.5
    assert serialized(quantizer) == before
    assert serialized(with_centroids(quantizer, centroids.astype(np.float32))) == serialized(copy)
