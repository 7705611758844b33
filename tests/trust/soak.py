"""Serve an index from two threads while it is tuned again and again: ``python soak.py SECONDS`` says what came of it.

A process of its own, since what this looks for would end it.
"""

import itertools
import json
import sys
import threading
import time

import faiss
import numpy as np

from faiss_distill import distill
from faiss_distill.datasets import load_debian_packages

D, N, READERS = 32, 1000, 2
SETTINGS = [(1, 10), (4, 10), (16, 50)]
"""``nprobe`` and ``k`` of the searches."""
OPTIONS = {
    "epochs": 1, "top_k": 20, "candidates": "in_batch + top20:5", "perplexity": 10.0, "nprobe": 4, "fill_to": 0,
    "local_queries": 2, "progress": False,
}  # fmt: skip


def results(index, queries):
    """What it finds at each of the settings, by faiss's parameters of a search, which set nothing."""
    return [
        index.search(queries, k, params=faiss.SearchParametersIVF(nprobe=nprobe))[1].tobytes() for nprobe, k in SETTINGS
    ]


class Service:
    """An index that is served, together with what it has found before anyone tuned it."""

    def __init__(self, index, queries):
        self.queries, self.stop = queries, threading.Event()
        self.searches, self.wrong = [0] * READERS, [0] * READERS
        self.serve(index)

    def serve(self, index):
        self.state = index, results(index, self.queries)  # one assignment, which is atomic

    def read(self, reader):
        for at in itertools.cycle(range(len(SETTINGS))):
            if self.stop.is_set():
                return
            nprobe, k = SETTINGS[at]
            index, expected = self.state
            found = index.search(self.queries, k, params=faiss.SearchParametersIVF(nprobe=nprobe))[1].tobytes()
            self.wrong[reader] += found != expected[at]
            self.searches[reader] += 1


def main(seconds):
    full = load_debian_packages()
    documents = np.ascontiguousarray(full.documents[:N, :D])
    queries = np.ascontiguousarray(full.queries[:464, :D])
    index = faiss.index_factory(D, "IVF16,PQ16x4np", faiss.METRIC_INNER_PRODUCT)
    index.train(documents)
    index.add(documents)
    service = Service(index, queries[400:])
    readers = [threading.Thread(target=service.read, args=(i,)) for i in range(READERS)]
    for reader in readers:
        reader.start()
    end, tuned, swapped, untouched = time.monotonic() + seconds, 0, 0, 0
    try:
        while time.monotonic() < end or not swapped:  # on a busy machine a tuning may take longer than that
            live, _ = service.state
            before = faiss.serialize_index(live).tobytes()
            # What is served is rarely bettered by the same queries once more, so each second time the first one is.
            source = index if tuned % 2 else live
            report = distill(source, documents, queries[:400], inplace=False, seed=tuned, **OPTIONS)
            tuned += 1
            untouched += faiss.serialize_index(live).tobytes() == before
            if report.kept:
                service.serve(report.index)
                swapped += 1
            del live, source, report  # or the old index would live on
    finally:
        service.stop.set()
        for reader in readers:
            reader.join()
    came = {"searches": sum(service.searches), "wrong": sum(service.wrong)}
    sys.stdout.write(json.dumps(came | {"tuned": tuned, "swapped": swapped, "untouched": untouched}))


if __name__ == "__main__":
    main(float(sys.argv[1]))
