"""Where faiss itself ends the process or corrupts an index, we refuse first, or go another way."""

import subprocess
import sys

import pytest
from conftest import FAISS

SETUP = """
import faiss, numpy as np
from faiss_distill import UnsupportedIndexError
from faiss_distill.index.registry import open_index
from faiss_distill.datasets import load_debian_packages
faiss.omp_set_num_threads(2)
x = np.ascontiguousarray(load_debian_packages().documents[:2000, :64])
"""


def run(code, *arguments):
    return subprocess.run([sys.executable, "-c", SETUP + code, *arguments], capture_output=True, text=True, timeout=120)


CUSTOM_IDS = """
index = faiss.index_factory(64, "IVF16,PQ8+4")
index.train(x)
index.add_with_ids(x, np.arange(2000) + 10**6)
"""
LISTS_AS_QUANTIZER = """
lists = faiss.IndexIVFFlat(faiss.IndexFlatL2(64), 64, 4)
lists.train(x)
index = faiss.IndexIVFPQ(lists, 64, 16, 8, 4)
"""
MAPPED = """
import sys
index = faiss.index_factory(64, "IVF16,PQ8x4np")
index.train(x)
index.add(x)
faiss.write_index(index, sys.argv[1])
index = faiss.read_index(sys.argv[1], faiss.IO_FLAG_MMAP_IFC)
"""
REFUSED = """
try:
    open_index(index)
except UnsupportedIndexError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("build", "aborts", "says"),
    [
        pytest.param(
            CUSTOM_IDS,
            "index.search(x[:5], 10)",
            "one that can be tuned, got an IndexIVFPQR: its second codes refine the first ones",
            marks=pytest.mark.skipif(FAISS < (1, 14), reason="older releases read beyond the codes, and go on"),
        ),
        (LISTS_AS_QUANTIZER, "index.train(x)", "got IndexIVFFlat without a direct map, with which faiss aborts"),
        (MAPPED, "faiss.downcast_index(index.quantizer).reset()", "read the index without IO_FLAG_MMAP_IFC"),
    ],
    ids=["ids of IVFPQR", "IVF as quantizer", "mapped quantizer"],
)
def test_faiss_aborts_and_we_refuse(tmp_path, build, aborts, says):
    path = str(tmp_path / "i.faiss")
    crash = run(build + aborts, path)
    # What it reads beyond its memory may also be such that it notices.
    assert crash.returncode < 0 or "direct map not initialized" in crash.stderr, crash.stderr
    if build is LISTS_AS_QUANTIZER:  # filled in the only way there is
        build += "index.by_residual = False\nindex.train(x)\nindex.add(x)\n"
    refusal = run(build + REFUSED, path)
    assert refusal.returncode == 0, refusal.stderr
    assert says in refusal.stdout


FAST_SCAN = """
index = faiss.index_factory(64, "IVF16,PQ16x4fs")
index.train(x)
index.add(x)
index.nprobe = 16
found = lambda: (index.search(x[:500], 10)[1] == np.arange(500)[:, None]).any(1).mean()
"""


def test_faiss_corrupts_fast_scan_lists_and_we_do_not():
    """``add_core`` takes block lists for plain ones; a write-back of what was extracted finds what was found before."""
    result = run(
        FAST_SCAN
        + """
print(found())
adapter = open_index(index)
state = adapter.extract()
with adapter.write(state, adapter.quantizer_with(state.centroids)[0]) as change:
    change.commit()
print(found())
index.reset()
pointers = [faiss.swig_ptr(a) for a in (x, np.arange(2000), state.assignment)]
index.add_core(2000, *pointers)
print(found())
"""
    )
    assert result.returncode == 0, result.stderr
    before, ours, theirs = map(float, result.stdout.split())
    assert before == ours > 0.5 > theirs


def test_faiss_crashes_in_reconstructing_from_a_fast_scan_file_and_we_do_not():
    again = FAST_SCAN + "index = faiss.deserialize_index(faiss.serialize_index(index))\n"
    assert run(again + "index.make_direct_map()\nindex.reconstruct(5)").returncode < 0
    ours = run(
        again + "state = open_index(index).extract()\nprint(np.abs(state.reconstruct(np.arange(99)) - x[:99]).max())"
    )
    assert ours.returncode == 0, ours.stderr
    assert float(ours.stdout) < 1
