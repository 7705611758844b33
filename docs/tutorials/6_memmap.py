"""
A corpus that does not fit in memory
====================================

Tune from a file of embeddings that is read in blocks, with the inverted lists in a file of their own.
"""

import tempfile
from pathlib import Path

import faiss
import numpy as np

from faiss_distill import distill, evaluate
from faiss_distill.datasets import load_debian_packages

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
data = load_debian_packages()

# %%
# The files
# ---------
#
# Embeddings are often stored in half precision: ``.npy`` files, memory maps and ``.fbin`` files of any float type
# can be used. The index was built on a machine with more memory, and written like any other.

np.save(folder / "corpus.npy", data.documents.astype(np.float16))
index = faiss.index_factory(384, "IVF64,PQ32x4", faiss.METRIC_INNER_PRODUCT)
index.train(data.documents)
index.add(data.documents)
faiss.write_index(index, str(folder / "corpus.faiss"))
for path in sorted(folder.iterdir()):
    print(f"{path.name:14} {path.stat().st_size:>10,} bytes")

# %%
# Map, don't read
# ---------------
#
# With ``IO_FLAG_MMAP`` faiss leaves the lists in the file. The embeddings are passed as a path: rows are read as
# they are needed, ``block_rows`` at a time (16,384 if not set), and never all at once. With ``invlists_file`` the
# new lists go to a file, too.

mapped = faiss.read_index(str(folder / "corpus.faiss"), faiss.IO_FLAG_MMAP)
mapped.nprobe = 8
report = distill(
    mapped,
    folder / "corpus.npy",
    data.queries[data.train],
    invlists_file=folder / "tuned.ivfdata",
    block_rows=4096,
    seed=0,
)
print(report)

# %%
# In memory at once are several copies of the index's codes and lists, the queries with their exact neighbours, and
# a block of rows. With ``max_memory`` and a work folder, the codes and lists are mapped from files as well. The
# guide says how much memory that is ("Memory and time" in :doc:`/guide`).
#
# Two files make an index
# -----------------------
#
# The tuned index refers to its lists by file name, so keep the two files together. The old index is unchanged.

faiss.write_index(mapped, str(folder / "tuned.faiss"))
for path in sorted(folder.iterdir()):
    print(f"{path.name:14} {path.stat().st_size:>10,} bytes")

# %%
# Read it again, and search:

tuned = faiss.read_index(str(folder / "tuned.faiss"))
print(type(faiss.downcast_InvertedLists(tuned.invlists)).__name__)
print(evaluate(tuned, folder / "corpus.npy", data.queries[data.test], nprobe=8))
temporary.cleanup()

# sphinx_gallery_thumbnail_path = "_static/memory.png"
