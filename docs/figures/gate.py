"""The gate: the paired bootstrap of one tuning's gain, on many held-out queries and on few."""

import numpy as np
from scipy.stats import bootstrap
from style import AFTER, BEFORE, panels
from tunings import tuned

figure, axes = panels(height=2.8, sharex=True)
for ax, held_out in zip(axes, (None, 100), strict=True):
    report = tuned(held_out, encoding="nearest", assignment="fixed")[1]
    difference = report.after.overlap - report.before.overlap
    drawn = bootstrap(
        (difference,), np.mean, n_resamples=2000, method="percentile", confidence_level=report.config.confidence,
        rng=np.random.default_rng(report.config.seed),
    )  # fmt: skip
    low, high = report.interval  # the trainer's own
    color = AFTER if report.kept else BEFORE
    ax.axvspan(low, high, color=color, alpha=0.18, lw=0)
    ax.hist(drawn.bootstrap_distribution, 25, color=color)
    ax.axvline(0, color="black", lw=1.2)
    ax.set_title(
        f"{report.n_validation} queries: {'kept' if report.kept else 'not kept'}\n"
        f"{report.gain:+.3f} [{low:+.3f}, {high:+.3f}]",
        color=color,
    )
    ax.set(xlabel="mean gain in overlap@10 of a resample", yticks=[])
axes[0].set_ylabel("2,000 resamples")
