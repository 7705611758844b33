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
# Embeddings are often kept in half precision; ``.npy`` files, memmaps and ``.fbin`` files of any float type
# will do. The index was built by someone with more memory, and written as any other.

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
# With ``IO_FLAG_MMAP`` faiss leaves the lists in the file. The embeddings are passed as a path: rows are read as they
# are needed, ``block_rows`` at a time (16,384 if not set), and never all at once. With ``invlists_file`` the new lists
# go to a file, too.

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
# What is in memory at once: the codes and lists of the index, a few times over, the queries with their exact
# neighbours, and a block of rows. The guide has the bounds ("Memory and time").
#
# Two files make an index
# -----------------------
#
# The tuned index refers to its lists by name, so the two files stay together. The old index is what it was.

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
