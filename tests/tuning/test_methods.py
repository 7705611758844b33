"""What the options gain, on real embeddings in all their dimensions."""

import faiss
import numpy as np
import pytest

from faiss_distill import LinearAdapter, distill
from faiss_distill.datasets import load_debian_packages
from faiss_distill.index.registry import open_index

N = 8000

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sample():
    return load_debian_packages()


@pytest.fixture(scope="module")
def untuned(sample):
    index = faiss.index_factory(384, "IVF64,PQ16np", faiss.METRIC_INNER_PRODUCT)
    index.pq.cp.min_points_per_centroid = 1
    index.train(sample.documents[:N])
    index.add(sample.documents[:N])
    index.nprobe = 8
    return faiss.serialize_index(index)


@pytest.fixture
def tune(untuned, sample):
    """Train with these options and hold the result against the index as it was, on the validation queries."""

    def tune(**options):
        index = faiss.deserialize_index(untuned)
        queries = {"queries": sample.queries[sample.train], "validation_queries": sample.queries[sample.validation]}
        return index, distill(index, sample.documents[:N], **queries, **{"progress": False, "epochs": 2} | options)

    return tune


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "listnet"},
        {"loss": "kl"},
        {"loss": "ranknet"},
        {"candidates": "in_batch + hard100:10"},
        {"balance": True},
        {"learn": "codebooks"},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_training_alone_gains(tune, options):
    """With real queries alone, the lists as they are, and the codes that faiss itself would choose."""
    _, report = tune(encoding="nearest", assignment="fixed", epochs=3, fill_to=0, **options)
    assert report.kept, report.reason
    assert report.best_epoch > 0
    assert report.gain > 0.008


def test_frozen_codes_gain_and_no_stored_byte_of_them_changes(tune, untuned):
    index, report = tune(encoding="frozen")
    assert report.kept, report.reason
    assert report.gain > 0.02
    before = faiss.deserialize_index(untuned)
    for i in range(before.nlist):
        lists = [faiss.rev_swig_ptr(x.invlists.get_codes(i), x.invlists.list_size(i) * 16) for x in (before, index)]
        ids = [faiss.rev_swig_ptr(x.invlists.get_ids(i), x.invlists.list_size(i)) for x in (before, index)]
        np.testing.assert_array_equal(*lists)
        np.testing.assert_array_equal(*ids)
    states = [open_index(x).extract() for x in (before, index)]
    for name in ("centroids", "codebooks"):
        assert not np.array_equal(*(getattr(s, name) for s in states))


def test_a_linear_adapter_gains_on_top(tune):
    encoders = (None, LinearAdapter(384))
    gains = [tune(encoding="nearest", query_encoder=e, fill_to=0)[1].gain for e in encoders]  # of the same queries
    assert gains[1] > gains[0] > 0


@pytest.mark.parametrize("factory", ["IVF64,Flat", "IVF64,SQ8", "IVF64,RaBitQ"])
def test_lists_alone_gain(sample, factory):
    index = faiss.index_factory(384, factory, faiss.METRIC_L2)
    index.train(sample.documents[:N])
    index.add(sample.documents[:N])
    index.nprobe = 4
    report = distill(
        index, sample.documents[:N], sample.queries[sample.train],
        validation_queries=sample.queries[sample.validation], fill_to=0, progress=False,
    )  # fmt: skip
    assert report.kept, report.reason
    assert report.gain > 0.01
    assert report.after.own.codes_scanned <= 1.01 * report.before.own.codes_scanned
