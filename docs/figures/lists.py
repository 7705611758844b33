"""Query-aware lists against those of the centroid that scores best, under the same learned centroids."""

import numpy as np
import torch
from matplotlib.ticker import NullLocator
from style import AFTER, BEFORE, panels
from tunings import exact, state, tuned, untuned, vectors

from faiss_distill.learning.lists import best_lists, probed_lists

documents, _, _, test = (torch.from_numpy(x) for x in vectors())
top, before, after = exact(10), state(untuned()), state(tuned()[0])
best = best_lists(documents, torch.from_numpy(after.centroids), after.metric).numpy()
differs = after.assignment != best
nprobes = [1, 2, 4, 8, 16]


def probed(centroids, lists, nprobe):
    """Which of the test queries' exact Top-10 are in the lists that they probe, and the codes a query scans."""
    opened = probed_lists(test, torch.from_numpy(centroids), nprobe, after.metric).numpy()
    return np.take_along_axis(opened, lists[top], 1), opened @ np.bincount(lists, minlength=len(centroids))


figure, (left, right) = panels()
for name, lists, color in (("best score", best, BEFORE), ("query-aware", after.assignment, AFTER)):
    found = [100 * probed(after.centroids, lists, p)[0][differs[top]].mean() for p in nprobes]
    left.plot(nprobes, found, "o-", color=color, ms=5, label=name)
left.set(xscale="log", ylim=(0, 100), xlabel="lists probed", ylabel="its queries that look there, %")
left.set_xticks(nprobes, nprobes)
left.set_title(f"list of the {differs.mean():.0%} that moved")
left.legend(loc="lower right")

for name, s, color in (("before", before, BEFORE), ("after", after, AFTER)):
    inside, scanned = zip(*[probed(s.centroids, s.assignment, p) for p in nprobes], strict=True)
    missed, codes = [100 - 100 * i.mean() for i in inside], [c.mean() for c in scanned]
    right.plot(codes, missed, "o-", color=color, ms=5, label=name)
right.set(xscale="log", yscale="log", xlabel="codes scanned a query", ylabel="not in a probed list, %")
right.set_xticks([125, 250, 500, 1000, 2000], [125, 250, 500, 1000, 2000])
right.set_yticks([5, 10, 20, 50], [5, 10, 20, 50])
for axis in (left.xaxis, right.xaxis, right.yaxis):
    axis.set_minor_locator(NullLocator())
right.set_title("exact Top-10 of all test queries")
right.legend()
