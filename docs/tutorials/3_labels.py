"""
With labels
===========

Pass the documents that are known to be relevant, to measure with them and to train on them.
"""

import faiss
import matplotlib.pyplot as plt

from faiss_distill import distill, evaluate
from faiss_distill.datasets import load_debian_packages

data = load_debian_packages()
index = faiss.index_factory(384, "IVF128,PQ16np", faiss.METRIC_INNER_PRODUCT)
index.train(data.documents)
index.add(data.documents)
index.nprobe = 8

# %%
# Each query in this data is the one-line synopsis of a package, and its one relevant document is the long
# description of the same package. ``relevant`` holds the id of that document for each query. It also takes several
# ids for each, with or without grades, or a qrels file.

print(data.relevant[data.train][:5])

# %%
# To measure
# ----------
#
# With ``relevant=`` the table has three more columns: MRR@10, and the recall of labels in the first 10 and 100.
# Nothing else changes: this run still learns from the exact neighbours alone.

taught = faiss.clone_index(index)
report = distill(
    taught,
    data.documents,
    data.queries[data.train],
    relevant=data.relevant[data.train],
    validation_queries=data.queries[data.validation],
    validation_relevant=data.relevant[data.validation],
    seed=0,
)
print(report)

# %%
# To train on
# -----------
#
# With ``gt`` among the candidates, a query is also trained on its labelled documents, beside its exact neighbours.
# The teacher still says how they rank; the labels only make sure that they are among the candidates.

labelled = faiss.clone_index(index)
report = distill(
    labelled,
    data.documents,
    data.queries[data.train],
    relevant=data.relevant[data.train],
    validation_queries=data.queries[data.validation],
    validation_relevant=data.relevant[data.validation],
    candidates="gt + in_batch + top100:10",
    seed=0,
)
print(report)

# %%
# What labels are worth
# ---------------------
#
# On test queries, against the labels:

indexes = {"untuned": index, "without gt": taught, "with gt": labelled}
results = {
    name: evaluate(each, data.documents, data.queries[data.test], relevant=data.relevant[data.test])
    for name, each in indexes.items()
}
for name, result in results.items():
    print(name, result, sep="\n", end="\n\n")

# %%
# Tuning raises MRR with and without ``gt``. Compare the two tuned tables: training on labels costs some overlap@10
# and raises MRR little or not at all, as on the whole set (:doc:`/learned`). Labels are useful to measure with, and
# are not needed to train.

fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for name, result in results.items():
    nprobes = [str(point.nprobe) for point in result.points]
    axes[0].plot(nprobes, [point.overlap_at_10 for point in result.points], "o-", label=name)
    axes[1].plot(nprobes, [point.mrr_at_10 for point in result.points], "o-", label=name)
axes[0].set(xlabel="nprobe", ylabel="overlap@10")
axes[1].set(xlabel="nprobe", ylabel="MRR@10 (labels)")
axes[0].legend(frameon=False)
plt.show()
