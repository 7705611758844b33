"""
Vectors that are added later
============================

Tune an index, add more vectors to it, see what they lose, and tune again.
"""

import faiss
import matplotlib.pyplot as plt
import numpy as np

from faiss_distill import distill, evaluate
from faiss_distill.datasets import load_debian_packages

data = load_debian_packages()
documents = data.documents
old, new = np.arange(12_000), np.arange(12_000, 16_000)

# %%
# An index of the first 12,000 documents, and a tuned copy of it:

untuned = faiss.index_factory(384, "IVF128,PQ16np", faiss.METRIC_INNER_PRODUCT)
untuned.train(documents[old])
untuned.add_with_ids(documents[old], old)
untuned.nprobe = 8

tuned = faiss.clone_index(untuned)
report = distill(tuned, documents[old], data.queries[data.train], seed=0)
print(report.reason)

# %%
# Then 4,000 more arrive. faiss adds them to both indexes in its usual way: to the list of the nearest centroid,
# with the nearest codeword in each segment.

untuned.add_with_ids(documents[new], new)
tuned.add_with_ids(documents[new], new)

# %%
# After a while, tune again, with the embeddings of everything that is stored. Here a copy is tuned, to compare.

again = faiss.clone_index(tuned)
report = distill(again, documents, data.queries[data.train], seed=0)
print(report)

# %%
# Old and new vectors apart
# -------------------------
#
# How well are the old vectors found, and how well the new ones? ``sample=True`` measures only among the vectors whose
# embeddings and ids are passed.

parts = {"all": np.arange(16_000), "old": old, "new": new}
indexes = {"untuned": untuned, "tuned, then added": tuned, "tuned again": again}
overlap = {}
print(f"{'overlap@10':18}", *(f"{part:>6}" for part in parts))
for name, index in indexes.items():
    overlap[name] = [
        evaluate(index, documents[ids], data.queries[data.test], ids=ids, sample=True, nprobe=8).own.overlap_at_10
        for ids in parts.values()
    ]
    print(f"{name:18}", *(f"{value:6.3f}" for value in overlap[name]))

# %%
# The new vectors have faiss's nearest codes rather than query-aware ones. So they gain less than the old vectors
# do, and gain the rest when the index is tuned again. Tune again when many have been added, or add them with
# ``report.parameters.add``, which gives them query-aware codes at once ("Shards and growing corpora" in
# :doc:`/guide`).

fig, ax = plt.subplots(figsize=(7, 3), layout="constrained")
for shift, ((name, values), color) in enumerate(zip(overlap.items(), ("0.45", "#e6a59e", "#c0392b"), strict=True)):
    bars = ax.bar(np.arange(3) + 0.27 * (shift - 1), values, 0.25, label=name, color=color)
    ax.bar_label(bars, fmt="%.2f", fontsize=8)
ax.set_xticks(range(3), [f"{part} vectors" for part in parts])
ax.set(ylabel="overlap@10, nprobe 8")
ax.margins(y=0.25)
ax.legend(frameon=False, ncols=3, loc="upper center")
plt.show()
