"""
An index that you have already
==============================

Read an index file, tune it with a log of queries, read the report, and write the index back.
"""

import tempfile
from pathlib import Path

import faiss
import matplotlib.pyplot as plt
import numpy as np

from faiss_distill import describe, distill, evaluate
from faiss_distill.datasets import load_debian_packages

# %%
# What you have
# -------------
#
# Three files: an index, the vectors that were added to it, and a sample of the queries that people asked. The
# packaged sample takes their place here. The queries need no labels.

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
data = load_debian_packages()

index = faiss.index_factory(384, "IVF128,PQ16np", faiss.METRIC_INNER_PRODUCT)
index.train(data.documents)
index.add(data.documents)
faiss.write_index(index, str(folder / "packages.faiss"))
np.save(folder / "documents.npy", data.documents)
np.save(folder / "log.npy", data.queries[data.train])

# %%
# Look at it
# ----------
#
# ``describe`` says what a file holds, how many bytes each part takes, and whether the index can be tuned. Row
# ``i`` of ``documents.npy`` is the vector with id ``i``; if yours have other ids, pass them as ``ids=``.

index = faiss.read_index(str(folder / "packages.faiss"))
print(describe(index))

# %%
# The line ``nprobe`` matters. A fresh index probes one list. The tuned index is judged at the ``nprobe`` that
# is set, so set the one that you search with.

index.nprobe = 8

# %%
# Tune it
# -------
#
# In place: the object stays, its centroids, codebooks, codes and lists change.

report = distill(index, folder / "documents.npy", folder / "log.npy", seed=0)
print(report)

# %%
# Line by line:
#
# - *The index*: class, metric, number of vectors, bytes of a code.
# - *Kept*, and why. The number after "rose by" is the gain in overlap@10, the share of the exact top 10 among
#   the first 10 found. The brackets hold its confidence interval. If that reached down to zero, the line
#   would read *NOT kept*, and the index would be what it was before, bit for bit.
# - *Trained on*: a tenth of the log was held out. A part of that chose the epoch; the rest, which had no say in
#   anything, measured the result.
# - *The table*: before → after, on these last queries. Read the starred row first: it is the ``nprobe`` that
#   you search with. The other rows show what you would find with fewer or more lists. "Codes scanned" is the
#   work of a search, and it must not grow: more recall for more work could be had without tuning.
# - *List imbalance*: 1 if all lists are of one length. *Bytes of a code*: the same on both sides of the
#   arrow.
#
# The picture has the same numbers. What counts is the height of the curves at the same place on the
# horizontal axis, which is the same work.

report.plot(folder / "recall.png")
plt.figimage(plt.imread(folder / "recall.png"), resize=True)
plt.show()

# %%
# Write it back
# -------------

faiss.write_index(index, str(folder / "tuned.faiss"))
for name in ("packages.faiss", "tuned.faiss"):
    print(f"{name:14} {(folder / name).stat().st_size} bytes")

# %%
# Search as before
# ----------------
#
# From here on faiss is alone again. No part of the search changes: the same class, the same ids, the same calls.

tuned = faiss.read_index(str(folder / "tuned.faiss"))
print(type(tuned).__name__, "nprobe", tuned.nprobe)
scores, ids = tuned.search(data.queries[data.test], 10)
print(ids[0])

# %%
# Is it better for queries that took no part in any of this? ``evaluate`` measures an index against exact
# search. The index as it was:

untuned = faiss.read_index(str(folder / "packages.faiss"))
print(evaluate(untuned, data.documents, data.queries[data.test], nprobe=8))

# %%
# and tuned:

print(evaluate(tuned, data.documents, data.queries[data.test], nprobe=8))
temporary.cleanup()

# %%
# From the command line
# ---------------------
#
# The same, without Python. With ``--nprobe`` the result is judged there, and the file keeps its own.
#
# .. code-block:: console
#
#    $ faiss-distill inspect packages.faiss
#    $ faiss-distill tune packages.faiss documents.npy --queries log.npy --nprobe 8 \
#        -o tuned.faiss --plot recall.png
#    $ faiss-distill eval tuned.faiss documents.npy --queries test.npy --nprobe 8
