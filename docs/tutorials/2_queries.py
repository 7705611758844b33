"""
With and without queries
========================

Tune one index three times, with no queries, with a few and with a log, and ask test queries which is best.
"""

import faiss
import matplotlib.pyplot as plt

from faiss_distill import distill, evaluate
from faiss_distill.datasets import load_debian_packages

data = load_debian_packages()
log = data.queries[data.train]
index = faiss.index_factory(384, "IVF64,PQ32x4fs", faiss.METRIC_INNER_PRODUCT)
index.train(data.documents)
index.add(data.documents)
index.nprobe = 8

# %%
# Tuning works in place, so each run gets a copy of the index.
#
# Without queries
# ---------------
#
# Documents are used as queries. Read the line that begins with "trained on": the gain is measured on documents too,
# each of which looks for the others. The gain on real queries may be another.

without = faiss.clone_index(index)
report = distill(without, data.documents, seed=0)
print(report)

# %%
# With a few hundred
# ------------------
#
# These are too few to learn from alone, so documents are added to them. But the result is now judged by real queries.
# They are few, so the interval is wide.

few = faiss.clone_index(index)
report = distill(few, data.documents, log[:300], seed=0)
print(report)

# %%
# With a log
# ----------
#
# Now real queries teach as well as judge. 2,520 of them are still a short log, so documents are added here too.

many = faiss.clone_index(index)
report = distill(many, data.documents, log, seed=0)
print(report)

# %%
# Which is best?
# --------------
#
# The three reports can't be compared with each other, because each was measured on queries of its own. So let 900
# test queries decide that no run has seen.

indexes = {"untuned": index, "no queries": without, "300 queries": few, f"{len(log)} queries": many}
results = {
    name: evaluate(each, data.documents, data.queries[data.test], nprobe=8).own for name, each in indexes.items()
}
for name, point in results.items():
    print(f"{name:13} overlap@10 {point.overlap_at_10:.3f}, exact nearest in first 10 {point.nearest_in_10:.3f}")

# %%
# All three raise overlap@10, and the more real queries there are, the more it rises. The steps are small here,
# because these documents look much like the queries. On the whole Debian set, with 40,000 queries, the log is far
# ahead ("Number of queries" in :doc:`/results`). Where queries are unlike documents, using documents as queries can
# do harm, and only real queries show it.

fig, ax = plt.subplots(figsize=(7, 3), layout="constrained")
bars = ax.barh(list(results), [point.overlap_at_10 for point in results.values()], color="#c0392b")
bars[0].set_color("0.45")
ax.bar_label(bars, fmt="%.3f", padding=3)
ax.margins(x=0.12)
ax.invert_yaxis()
ax.set(xlabel="overlap@10 on test queries, nprobe 8")
plt.show()
