"""Tuning over and over in one process takes no more memory than tuning a few times."""

import gc
import os
from pathlib import Path

import faiss
import numpy as np
import pytest
from conftest import sized

from faiss_distill import distill

N, D = 1000, 32
OPTIONS = {
    "epochs": 1, "top_k": 20, "candidates": "in_batch + top20:5", "perplexity": 10.0, "nprobe": 2, "fill_to": 0,
    "local_queries": 2, "progress": False,
}  # fmt: skip
WARM_UP = 10
"""Tunings in which libraries load and allocators fill."""
ALLOWED = 16 * 2**20
"""Bytes that allocators may take meanwhile; the index, of 200,000 bytes, lost at each of 500 tunings would take 100."""


def resident():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the size of the process from /proc")
def test_tuning_again_and_again(data, figure):
    documents, queries = (np.ascontiguousarray(x[:n, :D]) for x, n in ((data.documents, N), (data.queries, 300)))
    first = faiss.index_factory(D, "IDMap2,IVF8,PQ8x4np,RFlat", faiss.METRIC_INNER_PRODUCT)
    first.train(documents)
    first.add_with_ids(documents, np.arange(N))
    tunings, kept, sizes = sized(15, 500), 0, []
    stored = faiss.serialize_index(first)
    for i in range(WARM_UP + tunings):
        index = faiss.deserialize_index(stored)
        kept += distill(index, documents, queries, inplace=bool(i % 2), seed=i, **OPTIONS).kept
        if i >= WARM_UP - 1:
            sizes.append(resident())
    assert kept > 0
    growth = sizes[-1] - sizes[0]
    assert growth < ALLOWED
    figure(
        "tuned without growth",
        f"{tunings} tunings, every other in a copy, {kept} kept",
        f"{growth / 2**20:+.1f} MiB of {sizes[0] / 2**20:.0f}",
    )
