"""What distillation changes: where the index ranks what is exactly best for a query. All lists are probed."""

import numpy as np
from scipy.stats import rankdata
from style import AFTER, BEFORE, PALE, panels
from tunings import decoded, exact, tuned, untuned, vectors

test, top = vectors()[3], exact(20)
states = {
    "before": (untuned(), BEFORE, "o-"),
    "distilled": (tuned(encoding="nearest", assignment="fixed")[0], AFTER, "^--"),
    "tuned": (tuned()[0], AFTER, "o-"),
}
# The rank of each query's exact Top-20 among all documents, by the score of the index.
ranks = {
    name: np.take_along_axis(rankdata(-(test @ decoded(index).T), "min", axis=1), top, 1)
    for name, (index, _, _) in states.items()
}

# The query whose overlap@10, before and after, is nearest to the mean.
before, _, after = ranks.values()
overlap = np.stack([(rank[:, :10] <= 10).mean(axis=1) for rank in (before, after)], axis=1)
query = np.abs(overlap - overlap.mean(axis=0)).sum(axis=1).argmin()

figure, (left, right) = panels(gridspec_kw={"width_ratios": [1, 1.2]})
for document in range(10):
    for place, rank, color in ((0, before, BEFORE), (2, after, AFTER)):
        found = rank[query, document]
        color = color if found <= 10 else PALE
        left.plot([1, place], [document + 1, found], "o-", color=color, ms=4, lw=1.4, zorder=3 if found <= 10 else 2)
    left.plot(1, document + 1, "o", color="black", ms=4, zorder=4)
left.axhline(10.5, color="0.6", ls=":", lw=1)
left.set(yscale="log", ylabel="rank of its exact Top-10", title="one query")
left.invert_yaxis()
left.set_yticks([1, 3, 10, 30, 100], [1, 3, 10, 30, 100])
left.set_xticks([0, 1, 2], ["before", "exact", "after"])
left.minorticks_off()

for name, (_, color, style) in states.items():
    right.plot(np.arange(1, 21), 100 * (ranks[name] <= 10).mean(axis=0), style, color=color, ms=4, lw=1.4)
    right.lines[-1].set_label(f"{name}: {(ranks[name][:, :10] <= 10).mean():.3f}")
right.axvline(10.5, color="0.6", ls=":", lw=1)
right.set(xlabel="exact rank of a document", ylabel="among the first 10, % of queries", ylim=(0, 100))
right.set(title=f"all {len(test)} test queries", xticks=[1, 5, 10, 15, 20])
right.legend(title="overlap@10", alignment="left", frameon=True, framealpha=1, edgecolor="none")
