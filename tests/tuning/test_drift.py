"""Whether another tuning is worth it: what is lost with new queries, and with new documents."""

import json
from dataclasses import replace

import faiss
import numpy as np
import pytest
from conftest import QUICK, N, serialized

from faiss_distill import DistillConfig, InputError, TunedParameters
from faiss_distill.index.registry import open_index
from faiss_distill.metrics import recall
from faiss_distill.tuning.drift import WORTH
from faiss_distill.tuning.parameters import fits
from faiss_distill.tuning.task import Task


@pytest.fixture
def tuned(data, built):
    """An index, and its parameters as if they had been learned."""
    index = built()
    adapter = open_index(index)
    state = adapter.extract()
    log, held_out = data.queries[:600], data.queries[600:1200]
    config = DistillConfig(**QUICK)
    return index, TunedParameters(state.centroids, state.codebooks, log, held_out, config, fits(adapter, state))


def away(queries):
    """From where the documents are."""
    moved = queries + 2 * np.random.default_rng(0).standard_normal((1, queries.shape[1])) / 8
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), dtype=np.float32)


def test_queries_of_the_same_log_lose_nothing(data, tuned):
    index, parameters = tuned
    before = serialized(index)
    drift = parameters.drift(index, data.documents[:N], data.queries[1200:], progress=False)
    assert not drift.retune
    assert drift.queries.interval[0] < WORTH
    assert drift.documents is None
    assert str(drift).startswith("No need to retune: ")
    assert "within chance or below 0.02" in drift.reason
    assert serialized(index) == before
    assert json.loads(drift.to_json())["queries"]["lost"] == drift.queries.lost


def test_queries_from_elsewhere_do(data, tuned):
    index, parameters = tuned
    new = away(data.queries[1200:])
    drift = parameters.drift(index, data.documents[:N], new, progress=False)
    assert drift.retune
    assert drift.queries.n == 800
    assert drift.nprobe == 4
    assert str(drift).startswith("Retune: ")
    index.nprobe = 4
    for queries, found in ((parameters.validation_queries, drift.queries.usual), (new, drift.queries.found)):
        truth = faiss.knn(queries, data.documents[:N], 10, faiss.METRIC_INNER_PRODUCT)[1]
        assert recall(index.search(queries, 10)[1], truth).mean() == pytest.approx(found, abs=1e-3)
    assert drift.queries.lost == pytest.approx(drift.queries.usual - drift.queries.found)
    assert drift.queries.interval[0] < drift.queries.lost < drift.queries.interval[1]


def test_documents_with_bad_codes_are_found_less_often(data, tuned, monkeypatch):
    """Those of others, as if they had been replaced since; with good ones nothing is lost."""
    index, parameters = tuned
    new = np.arange(N - 600, N)
    good = parameters.drift(index, data.documents[:N], new_ids=new, progress=False)
    assert not good.retune
    assert good.queries is None
    index.remove_ids(new)
    index.add_with_ids(data.documents[N : N + 600], new)
    with pytest.raises(InputError, match="the vectors behind the index"):
        parameters.drift(index, data.documents[:N], new_ids=new, progress=False)
    monkeypatch.setattr(Task, "check", lambda *_, **__: None)
    bad = parameters.drift(index, data.documents[:N], new_ids=new, progress=False)
    assert bad.retune
    assert bad.documents.n == 600
    index.nprobe = 4
    queries = parameters.validation_queries
    truth = faiss.knn(queries, data.documents[:N], 10, faiss.METRIC_INNER_PRODUCT)[1]
    found = index.search(queries, 10)[1]
    hits = {True: [], False: []}
    for exact, got in zip(truth, found, strict=True):
        for i in exact:
            hits[bool(i >= N - 600)].append(i in got)
    assert bad.documents.found == pytest.approx(np.mean(hits[True]))
    assert bad.documents.usual == pytest.approx(np.mean(hits[False]))
    assert bad.documents.lost == pytest.approx(np.mean(hits[False]) - np.mean(hits[True] + hits[False]))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, r"^queries: expected new queries, or new_ids= of new documents, or both, got neither"),
        ({"queries": np.ones((10, 64), dtype=np.float32)}, r"^queries: expected at least 50, got 10"),
        ({"new_ids": np.arange(N)}, r"^new_ids: expected some of the ids in the index, but not all"),
        ({"new_ids": [N]}, r"^new_ids: expected some of the ids in the index"),
        ({"new_ids": []}, r"^new_ids: expected some of the ids in the index"),
        ({"new_ids": [1], "nprobe": 17}, r"^nprobe: expected an integer from 1 to 16"),
    ],
)
def test_bad_input(data, tuned, given, text):
    index, parameters = tuned
    with pytest.raises(InputError, match=text):
        parameters.drift(index, data.documents[:N], progress=False, **given)


def test_nothing_to_compare_with(data, tuned, built):
    index, parameters = tuned
    alone = replace(parameters, queries=None, validation_queries=None)
    with pytest.raises(InputError, match=r"^parameters: expected those of a tuning with queries"):
        alone.drift(index, data.documents[:N], data.queries[1200:])
    with pytest.raises(InputError, match=r"^parameters: expected those of an index with"):
        parameters.drift(built("IVF32,PQ16x4"), data.documents[:N], data.queries[1200:])
