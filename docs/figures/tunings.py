"""A small index over the packaged sample, tuned in several ways: seconds each, done once for all figures of a build.

8,000 documents on their 64 principal axes, unit norm; inner product. Queries that train, that are held out for the
gate, and that take no part (the test queries) are those of the sample.
"""

import functools
from contextlib import contextmanager

import faiss
import numpy as np
import torch

from faiss_distill import DistillTrainer
from faiss_distill.config import DistillConfig
from faiss_distill.datasets import load_debian_packages
from faiss_distill.index.registry import open_index

N, D, NPROBE = 8000, 64, 4
FACTORY = "IVF64,PQ8np"


@contextmanager
def one_thread():
    """The same figure on every number of cores."""
    threads = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        faiss.omp_set_num_threads(threads[1])


@functools.cache
def vectors():
    """Documents, and the queries that train, judge and test."""
    sample = load_debian_packages()
    pca = faiss.PCAMatrix(sample.documents.shape[1], D)
    with one_thread():
        pca.train(sample.documents)
    axes = faiss.vector_to_array(pca.A).reshape(D, -1).T

    def project(x):
        y = x @ axes
        return np.ascontiguousarray(y / np.linalg.norm(y, axis=1, keepdims=True))

    queries = project(sample.queries)
    return project(sample.documents[:N]), queries[sample.train], queries[sample.validation], queries[sample.test]


@functools.cache
def exact(k):
    """The exact Top-k of the test queries: rows of documents, best first."""
    documents, _, _, test = vectors()
    return np.argsort(-(test @ documents.T), axis=1, kind="stable")[:, :k]


@functools.cache
def built():
    """The index as faiss builds it, as bytes."""
    documents = vectors()[0]
    index = faiss.index_factory(D, FACTORY, faiss.METRIC_INNER_PRODUCT)
    with one_thread():
        index.train(documents)
        index.add(documents)
    index.nprobe = NPROBE
    return faiss.serialize_index(index)


@functools.cache
def tuned(held_out=None, **options):
    """The index after a tuning with these options, judged by so many queries or by all, and its report."""
    documents, train, judge, _ = vectors()
    index = faiss.deserialize_index(built())
    config = DistillConfig(progress=False, **options)
    with one_thread():
        report = DistillTrainer(index, documents, train, validation_queries=judge[:held_out], config=config).train()
    return index, report


def untuned():
    """The index before."""
    return faiss.deserialize_index(built())


def state(index):
    """Its centroids, lists, codebooks and codes as arrays."""
    return open_index(index).extract()


def decoded(index):
    """What its codes stand for, in the order of the documents."""
    return state(index).reconstruct(np.arange(N))
