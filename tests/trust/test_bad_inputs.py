"""Whatever is wrong with what is passed, there is one clear error before anything is touched, and soon."""

import contextlib
import os
import re
import socket
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pytest
import scipy.sparse
import torch
from conftest import core, serialized, sized, untrained
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import faiss_distill.commands.measuring
import faiss_distill.commands.tuning  # noqa: F401  which the command line imports when it needs them, in seconds
from faiss_distill import DistillConfig, build, distill, evaluate, operating_points, suggest
from faiss_distill.building.factory import index_factory
from faiss_distill.cli import main
from faiss_distill.data.qrels import read_qrels
from faiss_distill.errors import DistillError

N, NQ = 320, 90
SECONDS, BYTES = 5.0, 64 * 2**20
"""What an error may take, and allocate on the way."""
OWN = object()
"""The good one of a :class:`World`."""


@dataclass
class World:
    """A good call of each kind, for one thing in it to be bad."""

    index: object
    x: np.ndarray
    q: np.ndarray
    folder: Path
    capture: pytest.CaptureFixture

    def file(self, name, content):
        path = self.folder / name
        path.write_bytes(content)
        return path

    def npy(self, header, data=b"", name="x.npy"):
        text = header.encode().ljust(118, b" ")[:9000] + b"\n"
        return self.file(name, b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data)

    def saved(self, array, name="s.npy"):
        np.save(self.folder / name, array, allow_pickle=True)
        return self.folder / name


def tuned(w, embeddings=OWN, queries=OWN, index=OWN, **options):
    embeddings, queries = w.x if embeddings is OWN else embeddings, w.q if queries is OWN else queries
    distill(w.index if index is OWN else index, embeddings, queries, progress=False, **options)


def measured(w, embeddings=OWN, queries=OWN, index=OWN, call=evaluate, **options):
    embeddings, queries = w.x if embeddings is OWN else embeddings, w.q if queries is OWN else queries
    call(w.index if index is OWN else index, embeddings, queries, progress=False, **options)


def explored(w, **options):
    measured(w, call=operating_points, **options)


def built(w, factory="IVF4,PQ16x4,Distill", embeddings=OWN, **options):
    build(factory, w.x if embeddings is OWN else embeddings, w.q, **options)


def shaped(descr="'<f4'", shape="(320, 64)", fortran="False"):
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"


def masked(x):
    return np.ma.masked_array(x, mask=x > 2)


class Refuses:
    def __array__(self, *args, **kwargs):
        raise RuntimeError("no")


def fvecs(w, rows):
    return w.file("x.fvecs", b"".join(np.int32(d).tobytes() + bytes(4 * w.x.shape[1]) for d in rows))


def pipe(w, name="pipe.npy"):
    os.mkfifo(w.folder / name)
    return w.folder / name


def loop(w, name="loop.npy"):
    (w.folder / name).symlink_to(w.folder / name)
    return w.folder / name


def folder(w, name="folder.npy"):
    (w.folder / name).mkdir()
    return w.folder / name


def listening(w):
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(w.folder / "s.npy"))
    return w.folder / "s.npy"


VECTORS = {
    "one row": (lambda w: w.x[0], r"expected a matrix \(n, d\), got shape \(64,\)"),
    "three axes": (lambda w: w.x[None], r"expected a matrix \(n, d\), got shape \(1, "),
    "a number": (lambda w: 3.0, r"expected a matrix \(n, d\), got shape \(\)"),
    "text": (lambda w: b"abc", "expected a matrix"),
    "a set": (lambda w: {1.0, 2.0}, "expected a matrix of floats, got set"),
    "a dict": (lambda w: {"x": w.x}, "expected a matrix of floats, got dict"),
    "a generator": (lambda w: (row for row in w.x), "expected a matrix of floats, got generator"),
    "a function": (lambda w: len, "expected a matrix of floats, got builtin"),
    "ragged": (lambda w: [[1.0], [1.0, 2.0]], "expected a matrix of floats, got list"),
    "numbers as text": (lambda w: [["1", "2"]], "expected a floating dtype, or integers of 8 bits, got <U1"),
    "what refuses to be an array": (lambda w: Refuses(), "expected a matrix of floats, got Refuses: no"),
    "int16": (lambda w: w.x.astype(np.int16), "expected a floating dtype, or integers of 8 bits, got int16"),
    "bool": (lambda w: w.x > 0, "expected a floating dtype, or integers of 8 bits, got bool"),
    "complex": (lambda w: w.x.astype(complex), "expected a floating dtype, or integers of 8 bits, got complex128"),
    "dates": (
        lambda w: w.x.astype(np.int64).astype("M8[s]"),
        r"expected a floating dtype, or integers of 8 bits, got datetime64",
    ),
    "structured": (lambda w: w.x.view([("a", "f4")]), "expected a floating dtype, or integers of 8 bits, got"),
    "objects": (lambda w: w.x[:3].astype(object), "expected a (floating dtype|matrix of floats).*, got"),
    "masked": (lambda w: masked(w.x), "expected a matrix of floats, got a masked one"),
    "sparse": (lambda w: scipy.sparse.csr_array(w.x), r"expected a dense matrix of floats, got csr_array; use its"),
    "sparse tensor": (lambda w: torch.from_numpy(w.x).to_sparse(), "expected a dense tensor, got a sparse_coo one"),
    "meta tensor": (lambda w: torch.empty(320, 64, device="meta"), "expected a tensor with values, got one on the"),
    "integer tensor": (
        lambda w: torch.ones(320, 64, dtype=torch.int32),
        "expected a floating dtype, or integers of 8 bits, got torch.int32",
    ),
    "complex tensor": (
        lambda w: torch.ones(320, 64, dtype=torch.cfloat),
        "expected a floating dtype, or integers of 8 bits, got",
    ),
    "nested tensor": (
        lambda w: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
        "expected a dense tensor, got a",
    ),
    "wrong dimension": (lambda w: w.x[:, :63], "expected dimension 64 as the index has, got 63"),
    "no dimension": (lambda w: w.x[:, :0], "expected dimension 64 as the index has, got 0"),
    "NaN": (lambda w: np.where(w.x == w.x[7, 3], np.nan, w.x), "expected finite values, .* got NaN"),
    "too large for float32": (lambda w: w.x.astype(float) * 1e300, "got NaN, infinity or too large a value in"),
    "too large for distances": (lambda w: w.x * np.float32(1e20), "got NaN, infinity or too large a value in"),
    "list of paths": (lambda w: ["a.npy", Path("b.npy")], "expected a file that exists, got 'a.npy'"),
    "list of texts": (
        lambda w: ["how to", "why"],
        "expected vectors, or paths of files that hold some, got texts, 'how to'",
    ),
    "two kinds of parts": (
        lambda w: [w.file("a.npy", b""), w.file("b.fbin", b"")],
        r"expected a complete \.npy file",
    ),
    "no such file": (lambda w: w.folder / "none.npy", "expected a file that exists"),
    "no such folder": (lambda w: w.folder / "none" / "x.npy", "expected a file that exists"),
    "file as folder": (lambda w: w.file("f", b"") / "x.npy", "expected a file that can be read, got"),
    "unknown suffix": (lambda w: w.folder / "x.csv", r"expected a file ending in \.npy, \.npz, \.fvecs, "),
    "named pipe": (pipe, "expected a file, got the named pipe"),
    "socket": (listening, "expected a file, got the socket"),
    "device": (lambda w: Path(w.folder / "null.npy"), "expected a file that exists"),
    "folder": (folder, "expected a file, got the folder"),
    "loop of links": (loop, "expected a file that can be read, got .*loop"),
    "name too long": (lambda w: w.folder / ("x" * 300 + ".npy"), "expected a file that can be read, got .*too long"),
    "zero in name": (lambda w: "a\0.npy", "expected a file that can be read, got"),
    "empty npy": (lambda w: w.file("x.npy", b""), r"expected a complete \.npy file"),
    "npz": (lambda w: w.file("x.npy", b"PK\3\4" + bytes(200)), r"expected a complete \.npy file"),
    "version 9": (lambda w: w.file("x.npy", b"\x93NUMPY\x09\x00" + bytes(99)), r"expected a complete \.npy file"),
    "shape 2**63": (lambda w: w.npy(shaped(shape="(9223372036854775808, 32)")), "expected a complete .*header says"),
    "shape 2**62": (lambda w: w.npy(shaped(shape="(4611686018427387904, 0)")), "expected a complete .*header says"),
    "negative shape": (lambda w: w.npy(shaped(shape="(-5, 32)")), "expected a complete .*header says"),
    "negative twice": (lambda w: w.npy(shaped(shape="(-5, -32)")), "expected a complete .*header says"),
    "no tuple": (lambda w: w.npy(shaped(shape="5")), r"expected a complete \.npy file"),
    "more than there is": (lambda w: w.npy(shaped()), "expected a complete .*header says float32"),
    "nested brackets": (lambda w: w.npy("[" * 500), r"expected a complete \.npy file"),
    "nested minuses": (lambda w: w.npy("-" * 8000 + "1"), r"expected a complete \.npy file"),
    "no literal": (lambda w: w.npy("__import__('os').abort()"), r"expected a complete \.npy file"),
    "unknown dtype": (lambda w: w.npy(shaped("'<q9'")), r"expected a complete \.npy file"),
    "dtype of nothing": (lambda w: w.npy(shaped("[]")), "expected a complete|floating dtype"),
    "no UTF-8": (lambda w: w.file("x.npy", b"\x93NUMPY\x02\x00\x40\0\0\0" + b"\xff" * 64), "expected a complete"),
    "Python objects": (lambda w: w.saved(w.x[:2].astype(object)), r"expected numbers, got a \.npy file of Python obj"),
    "fvecs cut off": (lambda w: w.file("x.fvecs", bytes(5)), r"expected a complete \.fvecs file"),
    "fvecs of other rows": (lambda w: fvecs(w, [64, 64, 9, 64]), "one dimension, .* 64 in row 0 and 9 in row 2"),
    "fvecs of other last": (lambda w: fvecs(w, [64, 64, -1]), "one dimension, .* 64 in row 0 and -1 in row 2"),
    "fbin that says more": (lambda w: w.file("x.fbin", b"\xff" * 16), r"expected a complete \.fbin file"),
}
IDS = {
    "too few": (lambda w: np.arange(5), r"expected 320 integers, one a row, got shape \(5,\)"),
    "a matrix": (lambda w: np.arange(320)[:, None], "expected 320 integers, one a row, got shape"),
    "one": (lambda w: 7, r"expected 320 integers, one a row, got shape \(\)"),
    "whole floats": (lambda w: np.arange(320.0), "expected integers, got float64"),
    "bools": (lambda w: np.ones(320, bool), "expected integers, got bool"),
    "bools of Python": (lambda w: [True] * 320, "expected integers, got some of type bool"),
    "text": (lambda w: [str(i) for i in range(320)], "expected integers, got some of type str"),
    "no such file": (lambda w: "ids.npy", "expected a file that exists, got 'ids.npy'"),
    "None among them": (lambda w: [None, *range(319)], "expected integers, got some of type NoneType"),
    "ragged": (lambda w: [[1], [2, 3]], "got rows of unequal length"),
    "65 bits": (lambda w: [2**64, *range(319)], "expected integers of 64 bits, got 18446744073709551616"),
    "below 64 bits": (lambda w: [-(2**63) - 1, *range(319)], "expected integers of 64 bits, got -9223372036854775809"),
    "-1": (
        lambda w: [-1, *range(319)],
        "expected none that is -1, which faiss returns where it found nothing, got -1 in row 0",
    ),
    "2**64 - 1": (lambda w: np.append(np.arange(319, dtype="u8"), np.uint64(2**64 - 1)), "expected ids below 184467"),
    "2**64 - 1 in a list": (lambda w: [2**64 - 1, *range(319)], "expected ids below 18446744073709551615"),
    "twice the same bits": (lambda w: [2**64 - 5, -5, *range(318)], r"expected distinct ids, got 1 repeated \(-5\)"),
    "others": (
        lambda w: np.arange(1, 321),
        "ids of all 320 stored vectors, got all but 1 of them \\(0\\)",
    ),
    "masked": (lambda w: np.ma.masked_array(np.arange(320), mask=[True] + [False] * 319), "got a masked one"),
    "sparse tensor": (lambda w: torch.arange(320).to_sparse(), "expected an array of integers, got Tensor"),
    "meta tensor": (lambda w: torch.arange(320, device="meta"), "expected an array of integers, got Tensor"),
    "a dict": (lambda w: {0: 1}, "expected integers, got some of type dict"),
    "dates": (lambda w: np.arange(320).astype("M8[s]"), "expected integers, got datetime64"),
}
LABELS = {
    "too few": (lambda w: np.arange(5), r"expected integers \(90,\) or \(90, r\)"),
    "floats": (lambda w: np.zeros(90), r"expected integers .* got float64"),
    "bools": (lambda w: np.zeros(90, bool), "expected integers .* got bool"),
    "text": (lambda w: np.array(["a"] * 90), "expected integers .* as read_qrels"),
    "not held": (lambda w: np.full(90, 777), r"expected ids that the index holds, got 1 others \(777\)"),
    "not held, unsigned": (lambda w: np.full(90, 2**63, "u8"), "expected ids that the index holds, got 1 others"),
    "65 bits": (lambda w: [[2**64]] * 90, "expected integers of 64 bits"),
    "2**64 - 1": (lambda w: np.full(90, 2**64 - 1, "u8"), "expected ids below 18446744073709551615"),
    "2**64 - 1, judged": (lambda w: {0: {2**64 - 1: 1}}, "expected ids below 18446744073709551615"),
    "none at all": (lambda w: np.full(90, -1), "expected at least one relevant id, got none"),
    "rows that are not there": (lambda w: {90: [1]}, r"expected query rows 0\.\.89, got 1 others"),
    "grades of text": (lambda w: {0: {1: "x"}}, "expected numbers as grades of ids"),
    "floats in lists": (lambda w: [[1.0]] * 90, "expected integers .* got ids of type float"),
    "sparse tensor": (lambda w: torch.ones(90, 320).to_sparse(), "expected an array of integers, got Tensor"),
    "meta tensor": (lambda w: torch.zeros(90, dtype=torch.int64, device="meta"), "expected an array of integers, got"),
    "masked": (lambda w: masked(np.arange(90)), "got a masked one"),
    "sparse of other rows": (lambda w: scipy.sparse.csr_array((3, 320)), "expected a sparse matrix of 90 rows"),
    "named pipe": (lambda w: pipe(w, "pipe.tsv"), "expected a file, got the named pipe"),
    "folder": (lambda w: w.folder, "expected a file, got the folder"),
    "objects": (lambda w: w.saved(np.full(90, 3, object)), r"expected numbers, got a \.npy file of Python objects"),
}
ENDLESS = float("inf")
OPTIONS = {
    **{name: [-1, True, 2.5, "3", [], np.float64(3), ENDLESS] for name in ("batch_size", "nprobe", "top_k")},
    "epochs": [-1, True, np.bool_(True), 2.5, "3", float("nan"), np.array([1, 2])],
    "patience": [0, None], "sweeps": [0, "x"], "local_queries": [-1, 1.0], "max_queries": [99, ENDLESS],
    "block_rows": [255, None], "fill_to": [-1, 0.5],
    "seed": [-1, 2**64, 10**30, None, 1.0, True],
    "effort": ["best", None, 3], "router": [1, "yes", None],
    "loss": ["bpr", None, 3, [], np.array([1, 2])], "learn": ["all", None], "encoding": ["best", b"nearest"],
    "assignment": ["moved", 0], "candidates": ["", "top", "top0", "random9:3", "top" + "9" * 5000, 5, None],
    "temperature": [0.0, -1.0, ENDLESS, float("nan"), 1e-300, 1e300, "1", True, np.float32("inf")],
    "centroid_rate": [1e300, 1e19, 0.0, ENDLESS, "x"], "codebook_rate": [1e300, -1.0], "query_encoder_rate": [None, 0],
    "self_weight": [ENDLESS, 1e19, -0.5, float("nan"), np.float64("inf"), "1", None, 1j], "local_weight": [ENDLESS, -1],
    "global_weight": [10**400, float("nan")], "max_scan_increase": [-0.1, ENDLESS],
    "learning_rate": [0, 1, "a", None], "confidence": [0.0, 1.0, 95], "validation_fraction": [0.0, 1, -1, None],
    "perplexity": [1.0, 100.0, float("nan"), "x", ENDLESS], "balance": [1, "yes", None], "progress": [0, "no"],
    "device": [None, 0, 1.5],
}  # fmt: skip


def with_words(w, size):
    index = faiss.clone_index(w.index)
    pq = core(index).pq
    faiss.copy_array_to_vector(faiss.vector_to_array(pq.centroids)[:size], pq.centroids)
    return index


def with_quantizer(w, n, d):
    index = faiss.clone_index(w.index)
    other = faiss.IndexFlatIP(d)
    other.add(np.eye(n, d, dtype=np.float32))
    object.__setattr__(index, "kept", other)
    core(index).quantizer, core(index).own_fields = other, False
    return index


def with_lists(w, nlist, code_size):
    index = faiss.clone_index(w.index)
    lists = faiss.ArrayInvertedLists(nlist, code_size)
    object.__setattr__(index, "kept", lists)
    ivf = core(index)
    ivf.own_invlists, ivf.invlists = False, lists
    return index


def flat_of(w, factory, change):
    index = untrained(factory)
    index.train(w.x)
    index.add(w.x)
    change(index)
    return index


def halved(vector):
    vector.resize(vector.size() // 2)


INDEXES = {
    "none": (lambda w: None, "expected a faiss.Index, got NoneType"),
    "no such file": (lambda w: "x.faiss", "expected a file that exists, got 'x.faiss'"),
    "an array": (lambda w: w.x, "expected a faiss.Index, got ndarray"),
    "of bits": (lambda w: faiss.IndexBinaryFlat(64), "one that can be tuned, got an IndexBinaryFlat: it compares"),
    "untrained": (lambda w: faiss.index_factory(64, "IVF4,PQ4x4"), "expected a trained index"),
    "empty": (lambda w: faiss.IndexPQ(64, 4, 4), "expected a trained index"),
    "short codebooks": (lambda w: with_words(w, 100), "expected 1024 numbers in its codebooks, got 100"),
    "no codebooks": (lambda w: with_words(w, 0), "expected 1024 numbers in its codebooks, got 0"),
    "short codebooks, flat": (lambda w: flat_of(w, "PQ4x4", lambda i: halved(i.pq.centroids)), "in its codebooks"),
    "short additive": (lambda w: flat_of(w, "RQ2x4", lambda i: halved(i.rq.codebooks)), "in its codebooks, got"),
    "short codes": (lambda w: flat_of(w, "PQ4x4", lambda i: halved(i.codes)), "expected 640 bytes of codes, got 320"),
    "short codes, FastScan": (lambda w: flat_of(w, "PQ4x4fs", lambda i: halved(i.codes)), "bytes of codes, got"),
    "short rotation": (lambda w: flat_of(w, "PCA32,IVF4,PQ4x4", halve_rotation), "numbers in the matrix of its PCA"),
    "too few centroids": (lambda w: with_quantizer(w, 3, 64), "expected 4 centroids in its coarse quantizer, got 3"),
    "too many centroids": (lambda w: with_quantizer(w, 5, 64), "expected 4 centroids in its coarse quantizer, got 5"),
    "shorter centroids": (lambda w: with_quantizer(w, 4, 32), "expected 64 dimensions in its coarse quantizer, got 32"),
    "short centroids": (lambda w: flat_of(w, "IVF4,PQ4x4", halve_centroids), "bytes of centroids"),
    "fewer lists": (lambda w: with_lists(w, 3, 8), "expected 4 inverted lists, got 3"),
    "shorter codes": (lambda w: with_lists(w, 4, 7), "expected 8 bytes a code in its lists, got 7"),
    "empty lists": (lambda w: with_lists(w, 4, 8), "expected ntotal=320 vectors in its lists, got 0"),
}


def halve_rotation(index):
    halved(faiss.downcast_VectorTransform(index.chain.at(0)).A)


def halve_centroids(index):
    halved(faiss.downcast_index(index.quantizer).codes)


def option(call, name, value, match):
    return (call, lambda w: {name: value(w) if callable(value) else value}, match)


def registry():
    """Name: what to call, its bad argument, and what the error says."""
    bad = {}
    for what, (value, match) in VECTORS.items():
        for argument in ("embeddings", "queries"):
            bad[f"distill {argument} {what}"] = option(tuned, argument, value, f"^{argument}: .*{match}")
        bad[f"evaluate embeddings {what}"] = option(measured, "embeddings", value, f"^embeddings: .*{match}")
    for what, (value, match) in IDS.items():
        for call in (tuned, measured):
            bad[f"{call.__name__} ids {what}"] = option(call, "ids", value, f"^ids: .*{match}")
    for what, (value, match) in LABELS.items():
        for call in (tuned, measured):
            bad[f"{call.__name__} relevant {what}"] = option(call, "relevant", value, f"^relevant: .*{match}")
    for name, values in OPTIONS.items():
        for value in values:
            match = rf"^{name}: expected "
            bad[f"config {name}={value!r:.40}"] = option(
                lambda w, **o: DistillConfig(**o), name, lambda w, v=value: v, match
            )
    for what, (value, match) in INDEXES.items():
        for call in (tuned, measured):
            if call is tuned or what not in ("of bits",):
                bad[f"{call.__name__} index {what}"] = option(tuned, "index", value, f"index: .*{match}")
    for device in ("hpu", "meta", "xla", "vulkan", "tpu9", "cuda:99", "", torch.device("meta")):
        bad[f"device {device!r}"] = option(
            tuned, "device", lambda w, d=device: d, "^device: expected one that torch can"
        )
    for what, value in {"dict": {}, "text": "x", "class": DistillConfig}.items():
        match = "^config: expected a (DistillConfig, or the path of a TOML file|TOML file of options), got"
        bad[f"config a {what}"] = option(tuned, "config", lambda w, v=value: v, match)
    bad |= OTHERS
    return bad


OTHERS = {
    f"evaluate top_k {value!r}": option(measured, "top_k", value, "^top_k: expected an integer of at least 10, got")
    for value in ("x", 9, 10.0, True, None, [10], float("nan"))
}
OTHERS |= {
    f"evaluate nprobe {value!r}": option(
        measured, "nprobe", lambda w, v=value: v, "^nprobe: expected integers from 1 to"
    )
    for value in ("x", 0, 1.0, True, [1, 2.5], 5, 2**70, [[1], [1, 2]], {"a": 1}, np.float32(2), np.array(2.0), len)
}
OTHERS |= {
    f"points {name} {value!r:.30}": option(explored, name, lambda w, v=value: v, f"^{name}: expected")
    for name, values in {
        "parameters": [[1], {"nprobe": "x"}, {"nprobe": 5}, {"nprobe": [float("nan")]}, {"nprobe": [1.5]}, {"x": [1]},
                       {"nprobe": [[1]]}, {"nprobe": [True]}, {"nprobe": [ENDLESS]}, {1: [1]}],
        "quality": ["best", None, [], np.array(["a", "b"]), "mrr_at_10"],
        "cost": ["time", None, [], np.array(["a", "b"])],
    }.items()
    for value in values
}  # fmt: skip
OTHERS |= {
    f"build {name} {value!r:.30}": option(built, name, lambda w, v=value: v, match)
    for name, value, match in [
        ("factory", None, "^factory: expected a string"), ("factory", "PQ,Distill", "^factory: expected one"),
        ("factory", "IVF4,PQ16x4,Distill(epochs=1e400)", "^factory: expected epochs"),
        ("metric", "cosine", "^metric: expected"),
        ("metric", 23, "^metric: expected"), ("metric", True, "^metric: expected"), ("nprobe", 0, "^nprobe: expected"),
        ("nprobe", "x", "^nprobe: expected"), ("nprobe", 1.5, "^nprobe: expected"), ("ids", [1.5] * N, "^ids: exp"),
        ("ids", [2**64] * N, "^ids: expected"), ("ids", np.arange(3), "^ids: expected"), ("config", {}, "^config: exp"),
        ("embeddings", np.zeros((0, 64), np.float32), "^embeddings: expected at least one"),
        ("embeddings", np.zeros((9, 0), np.float32), "^embeddings: expected at least one"),
        ("embeddings", np.zeros((2, 64), np.float32), "^embeddings: expected enough to train"),
    ]
}  # fmt: skip
OTHERS |= {
    f"suggest {values!r}": option(lambda w, values: suggest(*values), "values", lambda w, v=values: v, "expected")
    for values in [(0, 64, 8), (2**70, 64, 8), (True, 64, 8), (10.0, 64, 8), (100, 2**31, 8), (100, 64, float("nan")),
                   (100, 64, ENDLESS), (100, 64, "8"), (100, 64, 0.5), (100, 64, 8, [1]), (100, 64, 8, "cosine")]
}  # fmt: skip
OTHERS |= {
    f"index_factory {d!r}": option(lambda w, d: index_factory(d, "PQ4"), "d", lambda w, d=d: d, "^d: expected an int")
    for d in (0, -1, 2**31, 2**70, 64.0, "64", None, True)
}
OTHERS |= {
    f"qrels {what}": option(lambda w, path, **o: read_qrels(path, **o), "path", value, match)
    for what, value, match in [
        ("pipe", lambda w: pipe(w, "p.tsv"), "^qrels: expected a file, got the named pipe"),
        ("loop", lambda w: loop(w, "l.tsv"), "^qrels: expected a file that can be read"),
        ("bytes", lambda w: w.file("b.tsv", b"\xff\xfe\0"), "expected text in UTF-8"),
        ("21 digits", lambda w: w.file("d.tsv", b"0 0 100000000000000000000 1\n"), "expected document ids"),
    ]
}


def command(*arguments):
    """A command of the command line, whose one line of error is raised to be looked at like others."""

    def call(w, bad):
        faiss.write_index(w.index, str(w.folder / "in.faiss"))
        files = {"INDEX": w.folder / "in.faiss", "X": w.saved(w.x, "e.npy"), "Q": w.saved(w.q, "q.npy"), "BAD": bad,
                 "OUT": w.folder / "out.faiss"}  # fmt: skip
        before = set(w.folder.iterdir())
        status = main([str(files.get(a, a)) for a in arguments])
        text = w.capture.readouterr()
        assert (status, text.out) == (2, "")
        assert set(w.folder.iterdir()) == before
        assert text.err.count("\n") == 1
        raise DistillError(*text.err.removeprefix("faiss-distill: error: ").strip().split(": expected ", 1))

    return call


TUNE = ("tune", "INDEX", "X", "--queries", "Q", "-o", "OUT")
COMMANDS = {
    "index pipe": (("eval", "BAD", "X", "--queries", "Q"), pipe, "^index: expected a file, got the named pipe"),
    "index folder": (("inspect", "BAD"), folder, "^index: expected a file, got the folder"),
    "embeddings pipe": (("tune", "INDEX", "BAD", "-o", "OUT"), pipe, "^embeddings: .* named pipe"),
    "ids pipe": ((*TUNE, "--ids", "BAD"), pipe, "^--ids: expected a file, got the named pipe"),
    "ids loop": ((*TUNE, "--ids", "BAD"), loop, "^--ids: .* that can be read"),
    "ids objects": ((*TUNE, "--ids", "BAD"), lambda w: w.saved(np.full(320, 1, object)), "^--ids: .*Python objects"),
    "ids floats": ((*TUNE, "--ids", "BAD"), lambda w: w.saved(np.arange(320.0)), "^--ids: expected integers, got"),
    "labels": ((*TUNE, "--relevant", "BAD"), lambda w: w.saved(np.full(90, 2**64 - 1, "u8")), "^--relevant: .* below"),
    "seed": ((*TUNE, "--seed", "BAD"), lambda w: 2**64, "^--seed: expected an integer from 0 to"),
    "weight": ((*TUNE, "--self-weight", "BAD"), lambda w: "inf", "^--self-weight: expected a number"),
    "rate": ((*TUNE, "--centroid-rate", "BAD"), lambda w: "1e300", "^--centroid-rate: expected a positive number"),
    "device": ((*TUNE, "--device", "BAD"), lambda w: "hpu", "^--device: expected one that torch can use"),
    "nprobe": (("eval", "INDEX", "X", "--queries", "Q", "--nprobe", "BAD"), lambda w: 99, "^--nprobe: expected"),
}
COMMANDS = {f"command {what}": (command(*a), lambda w, v=v: {"bad": v(w)}, m) for what, (a, v, m) in COMMANDS.items()}


@pytest.fixture(scope="module")
def made(data):
    index = faiss.index_factory(64, "IVF4,PQ16x4np", faiss.METRIC_INNER_PRODUCT)
    index.train(data.documents[:N])
    index.add(data.documents[:N])
    index.nprobe = 2
    return index, data.documents[:N], data.queries[:NQ]


def fault_of(world, call, arguments, match):
    """What is wrong with how a bad input is answered, or None."""
    bad = arguments(world)
    state, files = serialized(world.index), contents(world.folder)
    tracemalloc.start()
    start = time.perf_counter()
    try:
        call(world, **bad)
        return "no error"
    except DistillError as error:
        seconds, text = time.perf_counter() - start, str(error)
        peak = tracemalloc.get_traced_memory()[1]
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    finally:
        tracemalloc.stop()
    if not re.search(match, text, re.S):
        return f"says {text!r}, not {match!r}"
    if seconds > SECONDS or peak > BYTES:
        return f"took {seconds:.1f} s and {peak >> 20} MiB"
    if serialized(world.index) != state:
        return "the index changed"
    if not call.__qualname__.startswith("command") and contents(world.folder) != files:
        return "files changed"
    return None


def contents(folder):
    return {p: p.lstat().st_mtime_ns for p in folder.rglob("*")}


def test_each_gives_one_clear_error(made, tmp_path_factory, capsys, figure):
    tried = registry() | COMMANDS
    faults = {}
    for name, (call, arguments, match) in tried.items():
        world = World(*made, tmp_path_factory.mktemp("bad"), capsys)
        fault = fault_of(world, call, arguments, match)
        if fault is not None:
            faults[name] = fault
    assert not faults, "\n".join(f"{name}: {fault}" for name, fault in faults.items())
    assert len(tried) >= 150
    figure("bad inputs", f"{len(tried)} bad inputs", f"one clear error {len(tried) - len(faults)}")


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.complex_numbers(), st.text(max_size=5),
    st.binary(max_size=5), npst.arrays(npst.scalar_dtypes(), ()), st.fractions(), st.decimals(), st.dates(),
)  # fmt: skip
ARRAYS = npst.arrays(
    st.one_of(npst.scalar_dtypes(), npst.array_dtypes(), st.just(np.dtype(object))),
    st.one_of(npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), st.sampled_from([(N,), (N, 64)])),
)
CONTAINERS = st.recursive(
    st.one_of(SCALARS, ARRAYS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner),
        st.dictionaries(st.one_of(st.integers(), st.text()), inner, max_size=3),
    ),
    max_leaves=5,
)
ARGUMENTS = ["embeddings", "queries", "ids", "relevant", "top_k", "nprobe", "config", "options"]


def test_anything_at_all_is_answered(made, figure):
    """Whatever is passed either works or is refused with one clear error."""
    world, tried = World(*made, Path(), None), []
    before = serialized(world.index)

    @settings(
        max_examples=sized(100, 3000), database=None, derandomize=True, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(value=CONTAINERS, name=st.sampled_from(ARGUMENTS), field=st.sampled_from(list(OPTIONS)))
    def answered(value, name, field):
        tried.append(name)
        with contextlib.suppress(DistillError):
            if name == "options":
                DistillConfig(**{field: value})
            elif name == "config":
                tuned(world, config=value, top_k=-1)  # which is refused, should the rest not be
            else:
                measured(world, **{name: value})

    answered()
    assert serialized(world.index) == before
    assert len(tried) >= sized(100, 3000)
    figure("bad inputs at random", f"{len(tried)} values, {len(ARGUMENTS)} places", "a result or one clear error, each")
