"""Two dimensions: an error along the queries changes scores, an error across them does not."""

import faiss
import numpy as np
from style import AFTER, BEFORE, PALE, panels

K = 12

rng = np.random.default_rng(0)
documents = (rng.standard_normal((4000, 2)) * 0.5).astype(np.float32)
angles = rng.normal(0, np.radians(15), 500)
queries = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
moment = queries.T @ queries / len(queries)  # the mean squared score error of an error e is e' moment e


class Centroids:
    """Of faiss's k-means over the documents, as they are or in coordinates where the score error is the distance."""

    def __init__(self, root):
        self.root = np.asarray(root, dtype=np.float32)
        self._kmeans = faiss.Kmeans(2, K, niter=50, seed=1)
        self._kmeans.train(documents @ self.root)
        self.points = self._kmeans.centroids @ np.linalg.inv(self.root)

    def nearest(self, x, k=1):
        return self._kmeans.index.search(np.ascontiguousarray(x @ self.root, dtype=np.float32), k)[1]

    def errors(self):
        e = documents - self.points[self.nearest(documents)[:, 0]]
        return (e**2).sum(1).mean(), ((e @ queries.T) ** 2).mean()


plain, scaled = Centroids(np.eye(2)), Centroids(np.linalg.cholesky(moment))
figure, (left, *others) = panels(3, height=2.95)

# Of the documents half-way between two centroids, one whose errors are across the query and along it.
q = np.array([1.0, 0.0])
two = plain.points[plain.nearest(documents, 2)]
e = documents[:, None] - two
far = np.linalg.norm(e, axis=2)
level = np.abs(far[:, 0] / far[:, 1] - 1) < 0.02
cosine = np.abs(e @ q) / far
row = np.flatnonzero(level)[np.ptp(cosine[level], axis=1).argmax()]
x, reach = documents[row], 1.5 * far[row, 0]
left.scatter(*documents.T, s=5, color=PALE, linewidths=0)
left.axvline(x[0], color="0.55", ls="--", lw=1)
for c, error in zip(two[row], e[row], strict=True):
    is_across = abs(error @ q) < abs(error[1])
    color = AFTER if is_across else BEFORE
    left.plot(*zip(x, c, strict=True), color=color, lw=2)
    left.plot(*c, "s", color=color, ms=7)
    text = f"$\\|e\\|^2$ {error @ error:.2f}\n$|q\\cdot e|$ {abs(error @ q):.2f}"
    side, up = np.sign(c - x)
    place, align = ((8, 0), ("left", "center")) if is_across else ((0, -8), ("center", "top"))
    left.annotate(text, c, place, textcoords="offset points", color=color, fontsize=9, ha=align[0], va=align[1])
left.plot(*x, "o", color="black", ms=6)
left.annotate("$x$", x, (6, 5), textcoords="offset points")
left.annotate("", (0.4, 0.06), (0.04, 0.06), xycoords="axes fraction", arrowprops={"arrowstyle": "->"})
left.text(0.04, 0.09, "query $q$", transform=left.transAxes, fontsize=10)
left.set(
    xlim=(x[0] - reach, x[0] + reach), ylim=(x[1] - reach, x[1] + reach), title="two codewords,\nequally far from $x$"
)

reach = 1.75
grid = np.stack(np.meshgrid(*[np.linspace(-reach, reach, 200)] * 2), axis=2)
for ax, c, color, name in zip(
    others, (plain, scaled), (BEFORE, AFTER), ("k-means", "k-means of the scores"), strict=True
):
    cells = c.nearest(grid.reshape(-1, 2))[:, 0].reshape(200, 200)
    ax.scatter(*documents.T, s=3, color=PALE, linewidths=0)
    for cell in range(K):
        ax.contour(grid[..., 0], grid[..., 1], cells == cell, [0.5], colors="0.6", linewidths=0.7)
    ax.plot(*c.points.T, "s", color=color, ms=5)
    squared, score = c.errors()
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach))
    ax.set_title(f"{name}:\n$E\\,\\|e\\|^2$ {squared:.3f}, $E(q\\cdot e)^2$ {score:.3f}", color=color)
for ax in (left, *others):
    ax.spines[["top", "right"]].set_visible(True)
    ax.set(xticks=[], yticks=[], aspect="equal")
