"""
Choosing bytes and nprobe
=========================

From a number of vectors and a byte budget to a factory string, a tuned index, and the ``nprobe`` for a recall.
"""

import tempfile
from pathlib import Path

import faiss
import matplotlib.pyplot as plt

from faiss_distill import build, evaluate, operating_points, suggest
from faiss_distill.datasets import load_debian_packages

data = load_debian_packages()
temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)

# %%
# A string for a budget
# ---------------------
#
# ``suggest`` follows faiss's own guidelines, and says where it departs from them. Times are estimates for this
# machine.

n, d = data.documents.shape
suggested = suggest(n, d, bytes_per_vector=16, metric=faiss.METRIC_INNER_PRODUCT)
print(suggested)

# %%
# Bytes
# -----
#
# How many bytes are enough? Build a few indexes and see. Without OPQ each takes seconds, which is good enough for a
# comparison. ``build`` trains, adds, and tunes if the string ends in ``Distill``.

found = {}
for size in (8, 16, 32):
    for token in ("", ",Distill"):
        index, report = build(
            f"IVF256,PQ{size}np{token}",
            data.documents,
            data.queries[data.train] if token else None,  # which an index is built without
            metric=faiss.METRIC_INNER_PRODUCT,
            nprobe=suggested.nprobe,
        )
        judged = evaluate(index, data.documents, data.queries[data.validation], nprobe=suggested.nprobe)
        found[size, token] = judged.own.overlap_at_10
        print(f"{size:2} bytes {token:9} overlap@10 {found[size, token]:.3f}")

# %%
# Validation queries are for choosing; the test queries are kept for the end.

fig, ax = plt.subplots(figsize=(7, 3), layout="constrained")
for token, name, color in (("", "untuned", "0.45"), (",Distill", "tuned", "#c0392b")):
    ax.plot([8, 16, 32], [found[size, token] for size in (8, 16, 32)], "o-", label=name, color=color)
ax.set(xscale="log", xlabel="bytes of a code", ylabel="overlap@10", xticks=[8, 16, 32], xticklabels=[8, 16, 32])
ax.minorticks_off()
ax.legend(frameon=False)
plt.show()

# %%
# nprobe
# ------
#
# Take the last of these indexes, the tuned one with 32 bytes. What does it find at each ``nprobe``, and at what cost?
# The table is the Pareto front.

points = operating_points(index, data.documents, data.queries[data.validation])
print(points)

# %%
# Say that you need an overlap@10 of at least .65. ``set_on`` finds the cheapest setting that reaches it and sets it
# on the index, and an index file keeps it. By default only powers of two are tried; ``parameters=`` takes any
# values.

points = operating_points(index, data.documents, data.queries[data.validation], parameters={"nprobe": range(1, 33)})
point = points.set_on(index, at_least=0.65)
print(f"{point.parameters}: overlap@10 {point.overlap_at_10:.3f}, {point.codes_scanned:.0f} codes scanned")
print("index.nprobe =", index.nprobe)
faiss.write_index(index, str(folder / "tuned.faiss"))

points.plot(folder / "points.png")
plt.figimage(plt.imread(folder / "points.png"), resize=True)
plt.show()

# %%
# On the test queries, once:

print(evaluate(index, data.documents, data.queries[data.test], nprobe=index.nprobe))

temporary.cleanup()

# %%
# From the command line
# ---------------------
#
# .. code-block:: console
#
#    $ faiss-distill points tuned.faiss documents.npy --queries validation.npy \
#        --at-least 0.65 -o set.faiss --plot points.png
