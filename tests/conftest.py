"""Shared material: real embeddings, cut down to 64 dimensions, and small indexes over them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # one thread a worker, or the workers' threads wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import faiss
import numpy as np
import pytest

from faiss_distill.datasets import load_debian_packages

N = 2000
"""Documents in the indexes of most tests."""
QUICK = {
    "epochs": 1,
    "top_k": 40,
    "candidates": "in_batch + top40:10",
    "perplexity": 25.0,
    "progress": False,
    "nprobe": 4,
    "fill_to": 0,
    "local_queries": 8,
    "self_weight": 1.0,
}
"""Options of a tuning that takes a second."""
FULL = os.environ.get("TRUST") == "full"
"""Whether the tests in ``trust/`` run in full, as ``make trust`` has them."""
FAISS = tuple(map(int, faiss.__version__.split(".")[:2]))
"""The release of faiss, without its last number."""
SINCE = {"RaBitQfs": (1, 15), "RaBitQ4": (1, 14)}
"""Parts of factory strings that older releases of faiss don't know, or that can't be tuned with them."""
METRICS = {"ip": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}


@dataclass(frozen=True)
class Data:
    documents: np.ndarray
    queries: np.ndarray


@pytest.fixture(scope="session")
def data() -> Data:
    """4,500 real documents and 2,000 real queries, projected on 64 principal axes, unit norm."""
    full = load_debian_packages()
    pca = faiss.PCAMatrix(384, 64)
    pca.train(full.documents[:4500])

    def project(x):
        y = x @ faiss.vector_to_array(pca.A).reshape(64, 384).T
        return np.ascontiguousarray(y / np.linalg.norm(y, axis=1, keepdims=True))

    return Data(project(full.documents[:4500]), project(full.queries[:2000]))


@pytest.fixture(scope="session")
def built(data):
    """A factory of trained and filled indexes; each call gives a fresh one."""
    cache = {}

    def build(factory="IVF16,PQ16x4", metric="ip", n=2000, ids=None):
        key = factory, metric, n
        if key not in cache:
            index = untrained(factory, metric)
            index.train(data.documents[:n])
            cache[key] = faiss.serialize_index(index)
        index = faiss.deserialize_index(cache[key])
        if isinstance(index, faiss.IndexIDMap) or ids is not None:
            index.add_with_ids(data.documents[:n], np.arange(n) if ids is None else ids)
        else:
            index.add(data.documents[:n])
        return index

    return build


def untrained(factory, metric="ip", d=64):
    """An index of faiss, whose training is short."""
    index = faiss.index_factory(d, of_metric(factory, metric), METRICS[metric])
    hasten(index)
    return index


def of_metric(factory, metric):
    """A factory string with norms for L2 where faiss insists: in the FastScan forms of additive quantizers."""
    return re.sub(r"(RQ|LSQ)[\dx]+x4fsr?(_\d+)?\b", r"\g<0>_Nrq2x4", factory) if metric == "l2" else factory


def hasten(index) -> None:
    """Leave out what takes most of the time of a training and changes nothing that is tested.

    Of 50 rounds of OPQ a few are enough. Polysemous training, of 3 to 60 seconds an index, only numbers the codewords
    anew, for a search that no tuned index has.
    """
    while True:
        if isinstance(index, faiss.IndexPreTransform):
            for transform in map(faiss.downcast_VectorTransform, map(index.chain.at, range(index.chain.size()))):
                if isinstance(transform, faiss.OPQMatrix):
                    transform.niter, transform.niter_pq_0 = 4, 10
        if isinstance(index, faiss.IndexPQ | faiss.IndexIVFPQ):
            index.do_polysemous_training = False
        inner = getattr(index, "base_index" if isinstance(index, faiss.IndexRefine) else "index", None)
        if inner is None:
            return
        index = faiss.downcast_index(inner)


def tunable(factories):
    """Those of the factory strings that can be tuned with this release of faiss."""
    return [f for f in factories if all(since <= FAISS for part, since in SINCE.items() if part in f)]


def serialized(index) -> bytes:
    return faiss.serialize_index(index).tobytes()


def write_back(adapter, state):
    """Commit a state with all of its codes and lists."""
    with adapter.write(state, adapter.quantizer_with(state.centroids)[0]) as change:
        change.commit()


def settle_norms(adapter):
    """Round norms, if any are stored, to values of this package's: written back once more they stay as they are.

    Those that faiss found are replaced where they are worse, so the first write-back may move distances.
    """
    if adapter.codebooks is not None and adapter.codebooks.stores_norms:
        write_back(adapter, adapter.extract())


def core(index):
    """The IVF index inside, of its real class."""
    return faiss.downcast_index(faiss.extract_index_ivf(index))


@pytest.fixture
def fail_once(monkeypatch):
    """Make one step of a change raise an error the first time that it is taken: the undo may use the same step."""

    def fail_once(transaction, step, error, after=True):
        (change,) = transaction.changes
        real, calls = getattr(change, step), []

        def failing():
            if not calls:
                calls.append(step)
                if after:
                    real()
                raise error("injected")
            real()

        monkeypatch.setattr(change, step, failing)
        return calls

    return fail_once


@pytest.fixture
def one_thread():
    """Results bit for bit the same, however work is split."""
    import torch  # which not every test needs

    threads = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    yield
    torch.set_num_threads(threads[0])
    faiss.omp_set_num_threads(threads[1])


def sized(short, full):
    """How many, how long, or which: ``full`` in ``make trust``, ``short`` in the suite."""
    return full if FULL else short


@pytest.fixture
def figure(record_property):
    """Put a line into the table of ``make trust``: the promise, what was tried, and what came of it."""

    def figure(promise: str, tried: str, outcome: object) -> None:
        record_property("trust", (promise, tried, str(outcome)))

    return figure


def pytest_terminal_summary(terminalreporter):
    """Print the lines of :func:`figure`; from ``make trust`` also into ``results/trust.txt``."""
    reports = [r for state in ("passed", "failed") for r in terminalreporter.stats.get(state, [])]
    rows = sorted({tuple(value) for r in reports for name, value in r.user_properties if name == "trust"})
    if not rows:
        return
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    lines = [f"{promise.ljust(widths[0])}  {tried.ljust(widths[1])}  {outcome}" for promise, tried, outcome in rows]
    terminalreporter.section(f"what is promised, tried {'in full' if FULL else 'in short'}")
    terminalreporter.write("\n".join(lines) + "\n")
    if FULL:
        Path("results").mkdir(exist_ok=True)
        Path("results/trust.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
