"""Tune small indexes of all kinds, and print a digest of each index and its report: a change of the code's structure
alone changes none of them.

    OMP_NUM_THREADS=1 python tests/digests.py > before.txt   # on one commit
    OMP_NUM_THREADS=1 python tests/digests.py | diff before.txt -   # on another, on the same machine
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import warnings
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import faiss
import numpy as np
import torch

from faiss_distill import LinearAdapter, distill, evaluate, operating_points
from faiss_distill.datasets import load_debian_packages
from faiss_distill.tuning.gate import Gate, Verdict

N, D = 1_500, 32
OPTIONS = {"epochs": 2, "top_k": 30, "candidates": "in_batch + top30:8", "perplexity": 15.0, "progress": False,
           "fill_to": 0, "local_queries": 8}  # fmt: skip
KEPT = Verdict(True, "", 0.0, (0.0, 0.0))
"""What is kept regardless, so that the write-back is part of what is compared."""
METRICS = {"ip": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}
FACTORIES = [
    "IVF16,PQ8x4np", "IVF16,PQ4np", "IVF16,PQ8x5np", "IVF16_HNSW8,PQ8x4fs", "IVF16,PQ8x4fsr", "PQ8x4np", "PQ8x4fs",
    "IVF16,RQ4x4", "IVF16,LSQ4x4", "IVF16,PRQ2x2x4", "RQ4x4_Nqint8", "LSQ4x4", "IVF16,Flat", "IVF16,SQ4",
    "IVF16(SQ8),SQ8", "IVF16,RaBitQ", "IVF16,RaBitQfs", "OPQ8,IVF16,PQ8x4np", "PCAR16,L2norm,IVF16,PQ8x4np",
    "IDMap2,PQ8x4np", "IVF16,PQ8x4np,RFlat", "IVF16,PQ8x4fs,Refine(SQ8)", "IVF16,RQ8x4fsr",
    "IVF16,RQ8x4fsr_Nrq2x4", "PRQ2x4x4fs", "PLSQ2x4x4fs_Nlsq2x4",
]  # fmt: skip
VARIANTS: dict[str, tuple[str, dict]] = {
    "documents alone": ("IVF16,PQ8x4np", {"queries": None}),
    "filled": ("IVF16,PQ8x4np", {"fill_to": 4_000}),
    "labels": ("IVF16,PQ8x4np", {"relevant": True, "candidates": "gt + in_batch + top30:8 + hard10:4 + random4"}),
    "encoder": ("IVF16,PQ8x4np", {"query_encoder": True}),
    "encoder of an additive index": ("IVF16,RQ4x4", {"query_encoder": True}),
    "frozen": ("IVF16,PQ8x4np", {"encoding": "frozen"}),
    "frozen sample": ("IVF16,PQ8x4np", {"encoding": "frozen", "sample": True}),
    "nearest": ("IVF16,PQ8x4np", {"encoding": "nearest", "assignment": "refreshed"}),
    "nearest additive": ("IVF16,PRQ2x2x4", {"encoding": "nearest", "assignment": "fixed"}),
    "fixed lists": ("IVF16,PQ8x4np", {"assignment": "fixed"}),
    "centroids alone": ("IVF16,PQ8x4np", {"learn": "centroids", "balance": True}),
    "codebooks alone": ("IVF16,PQ8x4np", {"learn": "codebooks"}),
    **{loss: ("IVF16,PQ8x4np", {"loss": loss}) for loss in ("kl", "listmle", "ranknet", "lambdarank", "margin_mse")},
    "reconstruction": ("IVF16,PQ8x4np", {"loss": "reconstruction", "candidates": "top1:1"}),
    "shards": ("IVF16,PQ8x4np", {"container": "shards"}),
    "replicas": ("IVF16,PQ8x4np", {"container": "replicas"}),
    "on disk": ("IVF16,PQ8x4np", {"on_disk": True}),
    "a copy": ("IVF16,PQ8x4np", {"inplace": False}),
    "ids": ("IVF16,PQ8x4np", {"ids": True}),
    "another number of probes": ("IVF16,PQ8x4np", {"nprobe": 2, "judge_half_nprobe": True}),
    "judged": ("IVF16,PQ8x4np", {"judged": True}),
}
"""Factory string, and options or what else is special."""
CHANGING = {"seconds", "seconds_tenfold", "latency_ms", "invlists_file"}
"""Names in a report whose values differ from run to run."""


def made(factory: str, metric: str, x: np.ndarray, container: str | None, ids: np.ndarray | None) -> faiss.Index:
    """A filled index."""
    if container is not None:
        whole = faiss.IndexReplicas(D) if container == "replicas" else faiss.IndexShards(D, False, True)
        for part in (x, x) if container == "replicas" else np.array_split(x, 2):
            index = faiss.index_factory(D, factory, METRICS[metric])
            index.train(x)
            index.add(part)
            faiss.extract_index_ivf(index).nprobe = 4
            (whole.addIndex if container == "replicas" else whole.add_shard)(index)
        return whole
    index = faiss.index_factory(D, factory, METRICS[metric])
    index.train(x)
    index.add(x) if ids is None else index.add_with_ids(x, ids)
    if "IVF" in factory:
        faiss.extract_index_ivf(index).nprobe = 4
    return index


def parts(index: faiss.Index) -> list[faiss.Index]:
    """What can be serialized."""
    if isinstance(index, faiss.IndexShards | faiss.IndexReplicas):
        return [faiss.downcast_index(index.at(i)) for i in range(index.count())]
    return [index]


def settled(value: object) -> object:
    """Without what differs from run to run."""
    if isinstance(value, dict):
        return {key: settled(inner) for key, inner in value.items() if key not in CHANGING}
    return [settled(inner) for inner in value] if isinstance(value, list | tuple) else value


def digest(*found: bytes | str) -> str:
    """Short."""
    hashed = hashlib.sha256()
    for each in found:
        hashed.update(each.encode() if isinstance(each, str) else each)
    return hashed.hexdigest()[:16]


def run(factory: str, metric: str, extra: dict) -> str:
    """Tune an index; its line."""
    data = load_debian_packages()
    x, queries = (a[:, :D].copy() for a in (data.documents[:N], data.queries[:500]))
    options = OPTIONS | extra
    ids = np.arange(N) * 5 if options.pop("ids", False) or factory.startswith("IDMap") else None
    index = made(factory, metric, x, options.pop("container", None), ids)
    if "IVF" not in factory:
        options |= {"assignment": None}
    more: dict = {"queries": queries}
    if options.pop("relevant", False):
        more["relevant"] = faiss.knn(queries, x, 2, metric=METRICS[metric])[1]
    if options.pop("query_encoder", False):
        more["query_encoder"] = LinearAdapter(D)
    if options.pop("sample", False):
        rows = np.arange(0, N, 2)
        x, ids = x[rows], rows
    with tempfile.TemporaryDirectory() as folder:
        lists = Path(folder) / "lists"
        if options.pop("on_disk", False):
            more["invlists_file"] = lists
        with patch.object(Gate, "judge", lambda *_: KEPT) if not options.pop("judged", False) else nullcontext():
            report = distill(index, x, ids=ids, **more | options)
        tuned = report.index
        stored = [faiss.serialize_index(part).tobytes().replace(folder.encode(), b"") for part in parts(tuned)]
        on_disk = [lists.read_bytes()] if lists.exists() else []
        weights = [p.detach().numpy().tobytes() for p in more.get("query_encoder", torch.nn.Identity()).parameters()]
        measured = evaluate(
            tuned, x, queries, ids=ids, relevant=more.get("relevant"), top_k=30, progress=False, sample=len(x) < N
        )
        points = []
        if len(x) == N and "invlists_file" not in more:
            found = operating_points(tuned, x, queries[:100], ids=ids, top_k=30, progress=False)
            points = [[point.parameters, point.overlap_at_10, point.distances] for point in found.points]
    said = json.dumps(settled([report.to_dict(), measured.to_dict(), points]), default=str, sort_keys=True)
    kept = "kept" if report.kept else "not kept"
    return f"{digest(*stored, *on_disk, *weights)} {digest(said)} {kept} {report.gain:+.4f}"


def main(wanted: list[str]) -> None:
    """Print a line for each configuration whose name holds one of ``wanted``; all of them if there are none."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    every = {factory: (factory, {}) for factory in FACTORIES} | VARIANTS
    for number, (name, (factory, extra)) in enumerate(every.items()):
        for metric in METRICS if name in FACTORIES[:1] else list(METRICS)[number % 2 :][:1]:
            if not wanted or any(part in name for part in wanted):
                print(f"{run(factory, metric, extra)}  {name}, {metric}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
