"""How the figures of these pages look."""

import matplotlib.pyplot as plt

BEFORE, AFTER, PALE = "0.45", "#c0392b", "0.85"


def panels(columns=2, height=3.0, **options):
    """Axes side by side, 7 inches wide, on an opaque white background."""
    plt.rcParams.update({"font.size": 11, "axes.titlesize": 11, "legend.fontsize": 10, "legend.frameon": False})
    figure, axes = plt.subplots(1, columns, figsize=(7, height), layout="constrained", facecolor="white", **options)
    for ax in [axes] if columns == 1 else axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes
