"""Query-aware codes against the nearest ones, of the same codebooks and in the same lists."""

import numpy as np
from style import AFTER, BEFORE, panels
from tunings import decoded, exact, tuned, untuned, vectors

documents, _, _, test = vectors()
top = exact(10)
figure, (left, right) = panels()
for name, index, color in (
    ("nearest", untuned(), BEFORE),
    ("query-aware", tuned(epochs=0, assignment="fixed")[0], AFTER),
):
    e = documents - decoded(index)
    score = np.einsum("qd,qkd->qk", test, e[top])
    differing = (score - score.mean(axis=1, keepdims=True)).ravel()  # an error that they share changes no ranking
    squared = (e**2).sum(axis=1)
    style = {"histtype": "step", "color": color, "lw": 1.8}
    left.hist(differing, np.linspace(-0.2, 0.2, 41), label=f"{name}, std {differing.std():.3f}", **style)
    right.hist(squared, np.linspace(0, 0.45, 46), label=f"{name}, mean {squared.mean():.3f}", **style)
left.set(xlabel="score error $q\\cdot e$, less its query's mean", ylabel="query and document pairs")
right.set(xlabel="squared error $\\|e\\|^2$", ylabel="documents")
for ax in (left, right):
    ax.margins(y=0.35)
    ax.legend(loc="upper center", ncols=1)
    ax.set_yticks([])
